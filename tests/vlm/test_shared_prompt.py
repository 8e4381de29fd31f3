"""A pair as one example gives what its two examples give, and is used only where it does."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from random_vlm import IMAGE, SHARING, frozen, pairs
from torch import Tensor, nn

from ftkit.models.vision_families import to_model
from ftkit.vlm import pair_log_probs
from ftkit.vlm.pair_log_probs import answer_log_probs
from ftkit.vlm.shared_prompt import can_share, shared_examples
from ftkit.vlm.vision import for_pairs, with_features

WIDE = {"sliding_window": 64}  # longer than the examples


def model(family: str, **options: Any) -> Any:
    """A model whose layers matter more than those of a fresh one, without dropout."""
    net = frozen(family, **options)
    generator = torch.Generator().manual_seed(2)
    for parameter in net.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.2, generator=generator)
    return net


def in_two_examples(net: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """Log-probabilities (2B,) of the answers, by the whole logits of two examples a pair."""
    given = to_model(net, for_pairs(net, with_features(net, inputs)))
    labels = given.pop("labels")[:, 1:]
    found = net(**given, use_cache=False).logits[:, :-1].log_softmax(-1)
    return (found.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != -100)).sum(1)


def gradients(net: nn.Module, log_probs: Tensor) -> Tensor:
    """Of a sum that weighs every answer differently."""
    net.zero_grad()
    (log_probs * torch.linspace(-1, 2, len(log_probs))).sum().backward()
    return torch.cat([parameter.grad.flatten() for parameter in net.parameters() if parameter.grad is not None])


def widths(net: nn.Module) -> list[tuple[int, ...]]:
    """Shapes (examples, width) that the text model sees from now on."""
    seen: list[tuple[int, ...]] = []
    text = net.model.text_model if hasattr(net.model, "text_model") else net.model.language_model
    text.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", SHARING)
def test_log_probs_and_gradients_are_those_of_two_examples(family: str, attention: str) -> None:
    """Pairs differ in the lengths of their prompts and answers, so every example but the longest is padded."""
    net = model(family, text=WIDE if family == "paligemma2" else {})
    if family != "paligemma2":  # Gemma 2 has eager attention only
        net.set_attn_implementation(attention)
    seen = widths(net)
    for seed in range(3):
        inputs = pairs(family, seed)
        wanted, examples = in_two_examples(net, inputs), seen[-1]
        got, tokens = answer_log_probs(net, inputs)
        assert seen[-1][0] == 2 < examples[0]
        assert tokens.tolist() == (inputs["labels"] != -100).sum(1).tolist()
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(gradients(net, got), gradients(net, wanted), atol=1e-5, rtol=1e-5)


def test_adapters_learn_the_same() -> None:
    settings = LoraConfig(r=2, target_modules=r".*text_model.*(q_proj|v_proj|down_proj)", init_lora_weights=False)
    net, inputs = get_peft_model(model("smolvlm"), settings), pairs("smolvlm")
    got, wanted = answer_log_probs(net, inputs)[0], in_two_examples(net, inputs)
    torch.testing.assert_close(gradients(net, got), gradients(net, wanted), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["idefics3", "paligemma"])
def test_no_answer_sees_the_other(family: str) -> None:
    net, inputs = model(family).eval(), pairs(family)
    before = answer_log_probs(net, inputs)[0]
    for example in range(4):
        changed = inputs["input_ids"].clone()
        first = int((inputs["labels"][example] != -100).int().argmax())
        changed[example, first] = 6 + (changed[example, first] - 5) % 50  # labels stay: what is read changes
        moved = (answer_log_probs(net, {**inputs, "input_ids": changed})[0] - before).abs()
        assert moved[example] > 1e-3
        assert moved[torch.arange(4) != example].max() < 1e-5


def test_answers_that_begin_alike_share_that_too() -> None:
    net, inputs = model("idefics3"), pairs("idefics3")
    for example in (0, 1):
        start = int((inputs["labels"][example] != -100).int().argmax())
        for name in ("input_ids", "labels"):
            inputs[name][example + 2, start] = inputs[name][example, start]
    seen = widths(net)
    wanted = in_two_examples(net, inputs)
    torch.testing.assert_close(answer_log_probs(net, inputs)[0], wanted, atol=1e-5, rtol=0)
    lengths = inputs["attention_mask"].sum(1)
    prompts = lengths - (inputs["labels"] != -100).sum(1)
    assert seen[-1] == (2, int((lengths[:2] + lengths[2:] - prompts[:2] - 1).max()))


def test_one_answer_may_be_the_beginning_of_the_other() -> None:
    net, inputs = model("idefics3"), pairs("idefics3")
    for name in ("input_ids", "attention_mask", "labels"):
        inputs[name][2] = inputs[name][0]
    end = int(inputs["attention_mask"][2].sum())
    for name, value in (("input_ids", 9), ("attention_mask", 1), ("labels", 9)):
        inputs[name][2, end] = value
    torch.testing.assert_close(answer_log_probs(net, inputs)[0], in_two_examples(net, inputs), atol=1e-5, rtol=0)


def test_pairs_of_different_lengths_are_laid_out() -> None:
    """Padding is 0; the second pair shares one token, and its chosen answer has none of its own."""
    ids = torch.tensor([[5, 6, 7, 8], [5, 0, 0, 0], [5, 6, 9, 0], [5, 7, 0, 0]])
    examples = shared_examples(ids, (ids != 0).long())
    assert examples.input_ids.tolist() == [[5, 6, 7, 8, 9], [5, 7, 0, 0, 0]]
    assert examples.position_ids.tolist() == [[0, 1, 2, 3, 2], [0, 1, 0, 0, 0]]
    real = ids != 0
    assert [place[one].tolist() for place, one in zip(examples.place, real, strict=True)] == [
        [0, 1, 2, 3], [0], [0, 1, 4], [0, 1],
    ]  # fmt: skip
    assert examples.visible[0].long().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert examples.visible[1, :2].long().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]
    assert examples.visible.any(2).all()  # an example of nothing but hidden tokens would be no number


def test_padding_is_never_the_image_token() -> None:
    ids = torch.tensor([[5, 6, 7], [5, 6, 0], [5, 6, 8], [5, 7, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 0]])
    assert shared_examples(ids, mask, image_token=0).input_ids.tolist() == [[5, 6, 7, 8], [5, 6, 7, 1]]


def test_a_prompt_that_is_read_both_ways_sees_its_own_end() -> None:
    ids, types = torch.tensor([[5, 6, 7], [5, 6, 8]]), torch.tensor([[0, 0, 1], [0, 0, 1]])
    visible = shared_examples(ids, torch.ones_like(ids), types).visible[0].long().tolist()
    assert visible == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


def other_prompt(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The last token of the first pair's prompt is another one before the rejected answer."""
    last = int((inputs["labels"][2] != -100).int().argmax()) - 1
    ids = inputs["input_ids"].clone()
    ids[2, last] = 6 + (ids[2, last] - 5) % 50
    return {**inputs, "input_ids": ids}


def test_prompts_that_differ_are_shared_as_far_as_they_are_the_same() -> None:
    net, inputs = model("idefics3"), other_prompt(pairs("idefics3"))
    assert can_share(net, inputs)
    torch.testing.assert_close(answer_log_probs(net, inputs)[0], in_two_examples(net, inputs), atol=1e-5, rtol=0)


def first_token_differs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Images would stand twice in an example that has their features once."""
    ids = inputs["input_ids"].clone()
    ids[2, 0] = 7
    return {**inputs, "input_ids": ids}


def long_answers(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Three tokens of a prompt without an image before twelve of each answer."""
    ids = torch.randint(6, 60, (4, 15), generator=torch.Generator().manual_seed(0))
    ids[2:, :3] = ids[:2, :3]
    labels = torch.where(torch.arange(15) < 3, -100, ids)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@pytest.mark.parametrize(
    ("family", "text", "changed"),
    [
        ("idefics3", {}, first_token_differs),
        ("idefics3", {}, long_answers),
        ("paligemma", {}, other_prompt),
        ("paligemma2", {}, dict),
    ],
    ids=["images apart", "long answers", "prompts read both ways", "sliding window"],
)
def test_two_examples_where_one_would_be_wrong_or_slower(family: str, text: Any, changed: Any) -> None:
    net, inputs = model(family, text=text), changed(pairs(family))
    assert not can_share(net, inputs)
    seen = widths(net)
    wanted = in_two_examples(net, inputs)
    torch.testing.assert_close(answer_log_probs(net, inputs)[0], wanted, atol=1e-5, rtol=0)
    assert seen[0] == seen[1]


def test_only_families_and_attention_that_are_known_to_take_such_masks() -> None:
    inputs = pairs("idefics3")
    net = model("idefics3")
    assert can_share(net, inputs)
    net.config.text_config._attn_implementation = "flash_attention_2"
    assert not can_share(net, inputs)
    for changed in ({"model_type": "gemma3"}, {"text": "mistral"}):
        net = model("idefics3")
        net.config.model_type = changed.get("model_type", "idefics3")
        net.config.text_config.model_type = changed.get("text", "llama")
        assert not can_share(net, inputs)


def test_pairs_without_images_share_their_prompts_too() -> None:
    net = model("smolvlm")
    inputs = {name: value for name, value in pairs("smolvlm").items() if not name.startswith("pixel")}
    inputs["input_ids"] = inputs["input_ids"].where(inputs["input_ids"] != IMAGE, 7)
    assert can_share(net, inputs)
    torch.testing.assert_close(answer_log_probs(net, inputs)[0], in_two_examples(net, inputs), atol=1e-5, rtol=0)


def test_a_vision_tower_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net, inputs = model("smolvlm").requires_grad_(True), pairs("smolvlm")
    got = gradients(net, answer_log_probs(net, inputs)[0])
    assert net.model.vision_model.embeddings.patch_embedding.weight.grad.abs().max() > 1e-4
    monkeypatch.setattr(pair_log_probs, "can_share", lambda net, inputs: False)
    wanted = gradients(net, answer_log_probs(net, inputs)[0])
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
