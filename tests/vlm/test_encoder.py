"""Examples become the tensors that the model's own processor makes, alone and in batches; only answers are learnt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForImageTextToText, AutoProcessor

from ftkit.errors import InputError
from ftkit.examples.length import LengthRule
from ftkit.examples.reader import Example, read_examples
from ftkit.models.image_layouts import pad_tiles
from ftkit.vlm.encoder import ChatEncoder
from vlm_folders import build_gemma3

SHAPE_OF = {
    "idefics3_folder": "messages",
    "smolvlm_folder": "messages",
    "paligemma_folder": "prefix",
    "paligemma2_folder": "prefix",
}


@pytest.fixture(params=SHAPE_OF)
def family(request: pytest.FixtureRequest, vlm_examples: Callable[[str], Path]) -> Any:
    """A model, its processor, and examples that it takes."""
    folder = request.getfixturevalue(request.param)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    return model, AutoProcessor.from_pretrained(folder), read_examples(vlm_examples(SHAPE_OF[request.param]))


@pytest.fixture
def idefics3(idefics3_folder: Path) -> Any:
    return AutoProcessor.from_pretrained(idefics3_folder)


@torch.no_grad()
def logits(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    return model(**{name: value for name, value in inputs.items() if name != "labels"}).logits


def test_exactly_the_answers_and_their_ends_are_learnt(family: Any) -> None:
    _, processor, examples = family
    encoder = ChatEncoder(processor)
    batch = encoder.inputs([encoder.encode(example) for example in examples])
    end = {"Idefics3Processor": "<end_of_utterance>\n", "SmolVLMProcessor": "<end_of_utterance>\n"}.get(
        type(processor).__name__, "<eos>"
    )
    space = " " if end.endswith("\n") else ""
    for example, ids, labels in zip(examples, batch["input_ids"], batch["labels"], strict=True):
        learnt = labels != -100
        assert processor.tokenizer.decode(ids[learnt]) == f"{space}{example.completion}{end}"
        assert torch.equal(ids[learnt], labels[learnt])
    image_token = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert (batch["input_ids"] == image_token).any(1).all()
    assert (batch["labels"][batch["input_ids"] == image_token] == -100).all()
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()


def test_a_batch_gives_what_each_example_gives_alone(family: Any) -> None:
    model, processor, examples = family
    encoder = ChatEncoder(processor)
    encoded = [encoder.encode(example) for example in examples]
    if "pixel_attention_mask" in encoded[0].images:
        assert len({example.images["pixel_values"].shape[1] for example in encoded}) > 2  # different numbers of tiles
    inputs, prompts = encoder.inputs(encoded), encoder.prompts(encoded)
    together = logits(model, inputs)
    from_left = logits(model, prompts)
    generated = model.generate(**prompts, max_new_tokens=5, do_sample=False)[:, prompts["input_ids"].shape[1] :]
    for index, example in enumerate(encoded):
        alone = encoder.inputs([example])
        length = alone["input_ids"].shape[1]
        torch.testing.assert_close(together[index, :length], logits(model, alone)[0], atol=1e-5, rtol=1e-5)
        prompt = encoder.prompts([example])
        torch.testing.assert_close(
            from_left[index, -len(example.prompt) :], logits(model, prompt)[0], atol=1e-5, rtol=1e-5
        )
        once = model.generate(**prompt, max_new_tokens=5, do_sample=False)[0, len(example.prompt) :]
        assert generated[index, : len(once)].tolist() == once.tolist()


def test_prompts_and_pixels_are_those_of_the_processor(idefics3: Any, vlm_examples: Callable[[str], Path]) -> None:
    examples = read_examples(vlm_examples("messages"))[2:5]
    conversations = [
        [
            {
                "role": "user",
                "content": [*({"type": "image", "image": Image.open(path)} for path in example.images), *texts],
            }
        ]
        for example in examples
        for texts in [[part for part in example.prompt[0]["content"] if part["type"] == "text"]]
    ]
    expected = idefics3.apply_chat_template(
        conversations, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True, padding=True
    )
    encoder = ChatEncoder(idefics3)
    found = encoder.prompts([encoder.encode(example) for example in examples])
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_template_writes_its_own_special_tokens(idefics3: Any, vlm_examples: Callable[[str], Path]) -> None:
    tokenizer, start = idefics3.tokenizer, "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, tokenizer.convert_tokens_to_ids(start))]
    )
    assert tokenizer.decode(tokenizer("a")["input_ids"]) == f"{start}a"  # as many tokenizers do
    encoded = ChatEncoder(idefics3).encode(read_examples(vlm_examples("messages"))[0])
    assert tokenizer.decode(encoded.prompt).count(start) == 1
    assert tokenizer.decode(encoded.answers[0]).count(start) == 0


def test_an_end_that_the_tokenizer_adds_is_no_part_of_a_prompt(
    idefics3: Any, vlm_examples: Callable[[str], Path]
) -> None:
    tokenizer, (start, end) = idefics3.tokenizer, ("<|im_start|>", "<end_of_utterance>")
    example = replace(read_examples(vlm_examples("messages"))[0], prompt="<image>Which colour?")
    bare = ChatEncoder(idefics3, chat=False).encode(example)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in (start, end)],
    )
    encoded = ChatEncoder(idefics3, chat=False).encode(example)
    assert encoded.prompt == [tokenizer.convert_tokens_to_ids(start), *bare.prompt]
    assert encoded.answers == bare.answers
    begun = ChatEncoder(idefics3, chat=False).encode(replace(example, prompt=f"{start}<image>Which colour?"))
    assert begun.prompt == encoded.prompt


def test_paligemma_gets_what_its_processor_makes_of_prefix_and_suffix(
    paligemma_folder: Path, vlm_examples: Callable[[str], Path]
) -> None:
    processor = AutoProcessor.from_pretrained(paligemma_folder)
    examples = read_examples(vlm_examples("prefix"))
    expected = processor(
        text=[example.prompt for example in examples],
        images=[[Image.open(example.images[0])] for example in examples],
        suffix=[example.completion for example in examples],
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    encoder = ChatEncoder(processor)
    found = encoder.inputs([encoder.encode(example) for example in examples])
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_paligemma_sees_the_prompt_as_a_whole_and_the_answer_from_left_to_right(
    paligemma_folder: Path, vlm_examples: Callable[[str], Path]
) -> None:
    model = AutoModelForImageTextToText.from_pretrained(paligemma_folder)  # also in training mode
    encoder = ChatEncoder(AutoProcessor.from_pretrained(paligemma_folder))
    encoded = [encoder.encode(example) for example in reversed(read_examples(vlm_examples("prefix"))[:3])]
    inputs = encoder.inputs(encoded)
    start, length = len(encoded[0].prompt), len(encoded[0].prompt) + len(encoded[0].answers[0])
    assert length < inputs["input_ids"].shape[1]  # so this example has padding

    def moved(position: int, training: bool) -> torch.Tensor:
        model.train(training)
        changed = inputs["input_ids"].clone()
        changed[0, position] = (changed[0, position] + 1) % 256
        difference = logits(model, inputs) - logits(model, {**inputs, "input_ids": changed})
        return difference[0].abs().amax(-1)

    for training in (True, False):
        assert moved(start - 2, training)[0] > 1e-4  # a late word of the prompt reaches its first position
        assert (moved(start + 1, training)[: start + 1] == 0).all()  # the answer's end moves nothing before it
        assert moved(start + 1, training)[start + 1] > 1e-4
        assert (moved(length, training)[:length] == 0).all()  # padding moves no token


def test_dropping_token_types_or_pixels_shows(paligemma_folder: Path, vlm_examples: Callable[[str], Path]) -> None:
    model = AutoModelForImageTextToText.from_pretrained(paligemma_folder).eval()
    encoder = ChatEncoder(AutoProcessor.from_pretrained(paligemma_folder))
    inputs = encoder.inputs([encoder.encode(example) for example in read_examples(vlm_examples("prefix"))[:3]])
    whole = logits(model, inputs)
    assert (whole - logits(model, {**inputs, "token_type_ids": 1 - inputs["token_type_ids"]})).abs().max() > 1e-3
    assert (whole - logits(model, {**inputs, "pixel_values": 0 * inputs["pixel_values"]})).abs().max() > 1e-3


def test_preferences_are_all_chosen_then_all_rejected_with_the_images_once(
    idefics3: Any, vlm_examples: Callable[[str], Path]
) -> None:
    examples = read_examples(vlm_examples("preference"))[:3]
    encoder = ChatEncoder(idefics3, preference=True)
    batch = encoder.inputs([encoder.encode(example) for example in examples])
    learnt = [idefics3.tokenizer.decode(example[example != -100]).split("<")[0].strip() for example in batch["labels"]]
    assert learnt == [example.completion for example in examples] + [example.rejected for example in examples]
    assert batch["input_ids"].shape[0] == 6
    assert batch["pixel_values"].shape[0] == 3
    with pytest.raises(InputError, match=r"messages.jsonl:1: rejected: lacks a rejected answer"):
        encoder.encode(read_examples(vlm_examples("messages"))[0])


def test_examples_with_and_without_images_share_a_batch(
    idefics3_folder: Path, vlm_examples: Callable[[str], Path]
) -> None:
    encoder = ChatEncoder(AutoProcessor.from_pretrained(idefics3_folder))
    examples = [
        encoder.encode(example)
        for example in (Example("a", "What?", "red"), read_examples(vlm_examples("messages"))[0])
    ]
    model = AutoModelForImageTextToText.from_pretrained(idefics3_folder).eval()
    together = logits(model, encoder.inputs(examples))
    for index, example in enumerate(examples):
        alone = encoder.inputs([example])
        assert ("pixel_values" in alone) == bool(index)
        torch.testing.assert_close(
            together[index, : alone["input_ids"].shape[1]], logits(model, alone)[0], atol=1e-5, rtol=1e-5
        )


def test_what_is_too_long_is_cut_or_marked_and_images_stay_whole(
    idefics3: Any, vlm_examples: Callable[[str], Path]
) -> None:
    example = read_examples(vlm_examples("messages"))[0]
    whole = ChatEncoder(idefics3).encode(example)
    length = len(whole.prompt)
    cut = ChatEncoder(idefics3, LengthRule(length + 3)).encode(example)
    assert (cut.prompt, cut.answers, cut.cut) == (whole.prompt, [whole.answers[0][:3]], True)
    for rule in (LengthRule(length), LengthRule(length + 3, "skip")):
        left_out = ChatEncoder(idefics3, rule).encode(example)
        assert (left_out.answers, left_out.cut) == (None, False)
        with pytest.raises(InputError, match="was not left out"):
            ChatEncoder(idefics3, rule).inputs([whole, left_out])


def test_a_tensor_without_a_rule_is_an_error(idefics3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make = type(idefics3).__call__

    def with_more(self: Any, **options: Any) -> Any:
        return {**make(self, **options), "image_grid": torch.zeros(1, 2)}

    monkeypatch.setattr(type(idefics3), "__call__", with_more)
    with pytest.raises(InputError, match="image_grid: it is not known how Idefics3Processor pads"):
        ChatEncoder(idefics3).encode(Example("a", "What?", "red"))


def test_a_rule_holds_for_the_processors_that_it_names(idefics3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make = type(idefics3).__call__

    def with_types(self: Any, **options: Any) -> Any:
        made = make(self, **options)
        return {**made, "token_type_ids": (made["input_ids"] == self.image_token_id).long()}

    monkeypatch.setattr(type(idefics3), "__call__", with_types)
    with pytest.raises(InputError, match="token_type_ids: it is not known how Idefics3Processor pads"):
        ChatEncoder(idefics3).encode(Example("a", "What?", "red"))


@torch.no_grad()
def test_no_token_of_an_answer_sees_what_is_behind_it(tmp_path: Path, vlm_examples: Callable[[str], Path]) -> None:
    folder = build_gemma3(tmp_path / "gemma3")
    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    encoder = ChatEncoder(processor)
    inputs = encoder.inputs([encoder.encode(example) for example in read_examples(vlm_examples("messages"))[:1]])
    last = int(inputs["attention_mask"].sum()) - 1
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    other["input_ids"][0, last] -= 1
    moved = (logits(model, other) - logits(model, inputs)).abs().amax(-1)[0]
    assert moved[last] > 1e-4
    assert (moved[:last] == 0).all()


def test_examples_that_a_model_cannot_take_are_named(
    idefics3: Any, paligemma_folder: Path, tmp_path: Path, vlm_examples: Callable[[str], Path]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    place = {"file": "examples.jsonl", "line": 7}
    with pytest.raises(InputError, match=r"examples.jsonl:7: images: an image cannot be used: .*broken.png"):
        ChatEncoder(idefics3).encode(Example("a", "<image>What?", "red", images=(broken,), **place))
    with pytest.raises(InputError, match="the text itself contains the model's image token"):
        ChatEncoder(idefics3).encode(
            Example("a", [{"role": "user", "content": [{"type": "text", "text": "<image>"}]}], "x")
        )
    with pytest.raises(InputError, match=r"examples.jsonl:7: PaliGemmaProcessor: .*images"):
        ChatEncoder(AutoProcessor.from_pretrained(paligemma_folder)).encode(Example("a", "What?", "red", **place))


def test_tiles_are_filled_up_with_zeros() -> None:
    padded = pad_tiles([torch.ones(1, 1, 2, 3), torch.ones(1, 2, 1, 1)])
    assert padded.shape == (2, 2, 2, 3)
    assert padded.sum((1, 2, 3)).tolist() == [6, 2]
    assert padded[1, :, 0, 0].tolist() == [1, 1]


def test_picture_sizes_are_options_of_the_image_processor(idefics3: Any, vlm_examples: Callable[[str], Path]) -> None:
    example = read_examples(vlm_examples("messages"))[1]  # 64 x 20
    whole = ChatEncoder(idefics3).encode(example)
    single = ChatEncoder(idefics3, image_options={"do_image_splitting": False}).encode(example)
    small = ChatEncoder(idefics3, image_options={"size": {"longest_edge": 32}}).encode(example)
    assert [one.images["pixel_values"].shape[1] for one in (whole, single, small)] == [3, 1, 1]
    assert len(whole.prompt) > len(single.prompt) == len(small.prompt)
    with pytest.raises(InputError, match=r"image_options: Idefics3\w+ has no such option \(got .longest_edge.\)"):
        ChatEncoder(idefics3, image_options={"longest_edge": 32})
