"""Conversations about pictures: what a template adds is no part of an answer, all turns are learnt exactly or not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from chat_folders import CHATML, FULL_STOP, PLAIN_TEXT, QWEN3, TOOL, for_parts, perfectly_tuned
from ftkit.errors import InputError
from ftkit.examples.reader import read_examples
from ftkit.results.predictions import read_predictions
from ftkit.training.recorder import RunRecorder
from ftkit.training.resume import compare_settings, settings
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.encoder import ChatEncoder
from ftkit.vlm.sft import VLMSFT
from ftkit.vlm.yes_no import VLMYesNo, opening_tokens

TEMPLATES = {
    name: for_parts(template).replace("<|im_end|>", "<end_of_utterance>")
    for name, template in {"qwen3": QWEN3, "chatml": CHATML, "plain": PLAIN_TEXT, "full stop": FULL_STOP}.items()
}
TURNS = [("user", "Which colour?"), ("assistant", "blue"), ("user", "Sure?"), ("assistant", "yes")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def with_template(idefics3_folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    """``with_template(template)`` is the tiny Idefics3 with another template."""

    def build(template: str) -> Path:
        folder = Path(shutil.copytree(idefics3_folder, tmp_path / "model", dirs_exist_ok=True))
        processor = AutoProcessor.from_pretrained(folder)
        processor.chat_template = template
        processor.save_pretrained(folder)
        return folder

    return build


def conversations(folder: Path, **more: Any) -> Path:
    """Four conversations about a picture, the last one about another in its second question."""
    for name, size in (("a", (32, 32)), ("b", (96, 64))):
        Image.new("RGB", size, (0, 0, 200)).save(folder / f"{name}.png")
    turns = [{"role": role, "content": content} for role, content in TURNS]
    later = [*turns[:2], {"role": "user", "content": "<image>And this?"}, turns[3]]
    later[0] = {"role": "user", "content": "<image>Which colour?"}
    examples = [{"messages": turns, "image": "b.png", **more}] * 3
    examples.append({"messages": later, "images": ["b.png", "a.png"], **more})
    (path := folder / "examples.jsonl").write_text("".join(f"{json.dumps(example)}\n" for example in examples))
    return path


def data_of(path: Path, **options: Any) -> VLMDataModule:
    return VLMDataModule(str(path), str(path), str(path), batch_size=4, **options)


def trainer(folder: Path) -> L.Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return L.Trainer(
        max_steps=1, accelerator="cpu", devices=1, default_root_dir=folder, callbacks=[RunRecorder()],
        enable_checkpointing=False, **quiet,
    )  # fmt: skip


def learnt(processor: Any, inputs: dict[str, torch.Tensor], example: int = 0) -> str:
    labels = inputs["labels"][example]
    return processor.tokenizer.decode(labels[labels != -100])


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_perfectly_tuned_model_is_always_right(
    name: str, with_template: Callable[[str], Path], vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    examples = vlm_examples("messages")
    module = VLMSFT(base_model=str(with_template(TEMPLATES[name])), max_new_tokens=64)
    perfectly_tuned(module)
    for stage, split in (("validate", "val"), ("test", "test"), ("predict", "test")):
        run = trainer(tmp_path / stage)
        getattr(run, stage)(module, datamodule=data_of(examples))
        found = read_predictions(tmp_path / stage / f"predictions-{split}.tsv")
        assert found.predictions == found.labels == [example.completion for example in read_examples(examples)]
        assert set(found.extra["relaxed_match"]) == {"yes"}
        if stage != "predict":
            assert run.logged_metrics[f"{split}/accuracy"] == run.logged_metrics[f"{split}/relaxed_accuracy"] == 1


@pytest.mark.parametrize("supervise", ["last", "all"])
def test_a_step_on_turns_and_tools_says_what_is_learnt(
    supervise: Any, with_template: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template = TEMPLATES["chatml"].replace("{% for message", "{{ tools | tojson if tools }}{% for message", 1)
    examples = conversations(tmp_path, tools=[TOOL])
    module = VLMSFT(base_model=str(with_template(template)), max_new_tokens=4)
    data = data_of(examples, supervise=supervise)
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        (run := trainer(tmp_path / "run")).fit(module, datamodule=data)
    assert run.global_step == 1
    assert torch.isfinite(run.logged_metrics["val/loss"])
    which = "all assistant turns that answer something (8" if supervise == "all" else "the last assistant turn of each "
    assert f"Supervised: {which}" in caplog.text
    inputs = next(iter(data.val_dataloader()))["inputs"]
    earlier = "blue<end_of_utterance>\n" if supervise == "all" else ""
    assert [learnt(module.processor, inputs, example) for example in range(4)] == [
        f"{earlier}yes<end_of_utterance>\n"
    ] * 4
    assert '"name": "weather"' in module.tokenizer.decode(inputs["input_ids"][0])


def test_turns_stand_where_the_processor_puts_them(with_template: Callable[[str], Path], tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(with_template(TEMPLATES["chatml"]))
    encoder, last = (ChatEncoder(processor, supervise=which) for which in ("all", "last"))  # type: ignore[arg-type]
    for example in read_examples(conversations(tmp_path)):
        both, one = encoder.inputs([encoder.encode(example)]), last.inputs([last.encode(example)])
        assert learnt(processor, both) == "blue<end_of_utterance>\nyes<end_of_utterance>\n"
        for name in ("input_ids", "attention_mask", "pixel_values", "pixel_attention_mask"):
            assert torch.equal(both[name], one[name]), name
        learns = both["labels"] != -100
        assert torch.equal(both["labels"][learns], both["input_ids"][learns])
        before = processor.tokenizer.decode(both["input_ids"][0, : int(learns[0].long().argmax())])
        assert before.endswith("Which colour?<end_of_utterance>\n<|im_start|>assistant\n")


def test_an_example_remembered_without_its_picture_learns_the_same_turns(
    with_template: Callable[[str], Path], tmp_path: Path
) -> None:
    data = data_of(conversations(tmp_path), supervise="all")
    data.prepare(AutoProcessor.from_pretrained(with_template(TEMPLATES["chatml"])))
    dataset = data.datasets["train"]
    encoded = dataset[3]
    dataset.remember(replace(encoded, images={}), [b"key"])
    assert dataset[3] == replace(encoded, images={}, tile_keys=[b"key"])
    assert encoded.turns


def test_turns_that_the_template_rewrites_are_refused(with_template: Callable[[str], Path], tmp_path: Path) -> None:
    data = data_of(conversations(tmp_path), supervise="all")
    with pytest.raises(InputError, match=r"examples\.jsonl:1: supervise: the assistant turn in message 2 differs"):
        trainer(tmp_path).fit(VLMSFT(base_model=str(with_template(TEMPLATES["qwen3"]))), datamodule=data)


def test_a_prompt_that_sees_itself_holds_no_turn_to_learn(paligemma_folder: Path, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(paligemma_folder)
    processor.chat_template = TEMPLATES["chatml"]
    example = read_examples(conversations(tmp_path))[0]
    with pytest.raises(InputError, match=r"jsonl:1: supervise: the model's prompts attend in both directions"):
        ChatEncoder(processor, supervise="all").encode(example)


def test_pairs_differ_in_their_last_answers(
    idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    data = data_of(vlm_examples("preference"), supervise="all")
    with pytest.raises(InputError, match=r"supervise: preferences are between last answers \(got 'all'\)"):
        trainer(tmp_path).fit(VLMDPO(base_model=str(idefics3_folder)), datamodule=data)


def test_a_resumed_training_learns_the_same_turns_and_tools(tmp_path: Path) -> None:
    engine, examples = L.Trainer(logger=False, barebones=True), conversations(tmp_path)
    stored, now = (settings(engine, data_of(examples, supervise=which)) for which in ("last", "all"))
    with pytest.raises(InputError, match=r"other settings: data\.supervise was last, is all"):
        compare_settings(stored, now)
    stored = settings(engine, data_of(examples))
    other = settings(engine, data_of(conversations(tmp_path, tools=[TOOL])))
    assert compare_settings(stored, other, allow_changed=True).keys() == {"data_sha256"}


def test_a_score_is_read_where_the_answer_begins(
    with_template: Callable[[str], Path], vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    """What the model would say after the template's empty thoughts, not in the place of them."""
    module = VLMYesNo(
        base_model=str(with_template(TEMPLATES["qwen3"])), positive="red", negative="blue", max_new_tokens=40
    )
    module.configure_model()
    tokenizer, net = module.tokenizer, module.eval().net
    opening = tokenizer.encode("<think>\n\n</think>\n\n", add_special_tokens=False)
    encoder = ChatEncoder(module.processor)
    examples = [
        example for example in read_examples(vlm_examples("messages")) if example.completion in ("red", "blue")
    ][:3]
    batch: dict[str, Any] = {
        "prompts": encoder.prompts(encoded := [encoder.encode(example) for example in examples]),
        "id": [example.id for example in examples],
        "answer": [example.completion for example in examples],
        "affixes": [encoder.renderer.affixes(example) for example in examples],
    }
    begun = encoder.prompts([replace(one, prompt=[*one.prompt, *opening]) for one in encoded])
    blue, red = module.first_tokens
    with torch.no_grad():
        odds = net(**begun).logits[:, -1].softmax(-1)
    expected = (odds[:, red].sum(-1) / odds[:, blue].sum(-1)).log()

    def opened(prefix: Any, allowed: Any = None) -> Callable[[int, torch.Tensor], list[int]]:
        start = prefix["input_ids"].shape[1]
        return lambda _, ids: opening[len(ids) - start :][:1] or [tokenizer.eos_token_id]

    generate = net.generate
    net.generate = lambda **options: generate(**options, prefix_allowed_tokens_fn=opened(batch["prompts"]))
    assert module.predictions(batch)["score"].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    net.generate = generate  # untuned, it writes no thoughts: its first token counts
    with torch.no_grad():
        odds = net(**batch["prompts"]).logits[:, -1].softmax(-1)
    first = (odds[:, red].sum(-1) / odds[:, blue].sum(-1)).log()
    assert module.predictions(batch)["score"].tolist() == pytest.approx(first.tolist(), abs=1e-4)


def test_a_blank_that_belongs_to_the_word_is_no_opening(idefics3_folder: Path) -> None:
    class Words:
        def encode(self, text: str, add_special_tokens: bool) -> list[str]:
            return {" yes": ["_yes"], " no": ["_no"], " ": ["_"]}.get(text, list(text))

    assert opening_tokens(Words(), " ", "yes", "no") == []
    assert opening_tokens(Words(), "", "allowed", "approved") == []
    assert opening_tokens(Words(), "<t>", "yes", "no") == ["<", "t", ">"]
