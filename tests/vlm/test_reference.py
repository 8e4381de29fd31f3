"""What is kept of the reference is what the reference says, and only of that model, these tokens and these images."""

import gc
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from random_vlm import FAMILIES, frozen, pairs
from torch import Tensor, nn

from ftkit.models.vision_families import to_model
from ftkit.training.feature_store import FeatureStore
from ftkit.vlm.reference import CachedReference, as_reference
from ftkit.vlm.vision import FrozenVision, for_pairs, with_features


def log_probs(net: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """(2B,), by the whole logits."""
    given = to_model(net, for_pairs(net, with_features(net, inputs)))
    labels = given.pop("labels")[:, 1:]
    found = net(**given, use_cache=False).logits[:, :-1].log_softmax(-1)
    return (found.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != -100)).sum(1)


def policy(family: str, rank: int = 4, moved: float = 0.1, **options: Any) -> Any:
    """A model with adapters that have moved, with dropout on their input."""
    net = get_peft_model(
        frozen(family, **options),
        LoraConfig(r=rank, lora_dropout=0.5, target_modules=r".*(text|language)_model.*(q_proj|down_proj)"),
    )
    torch.manual_seed(rank)
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=moved)
    return net.train()


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_is_the_model_before_its_adapters(family: str) -> None:
    net, inputs = policy(family), pairs(family)
    with as_reference(net) as reference:
        got = log_probs(reference, inputs)
    with torch.no_grad():
        wanted = log_probs(frozen(family).eval(), inputs)
    assert torch.equal(got, wanted)
    assert not got.requires_grad
    moved = log_probs(net, inputs)
    assert moved.requires_grad
    assert (moved - wanted).abs().min() > 1e-4
    assert not torch.equal(log_probs(net, inputs), moved)  # dropout is on again
    assert all(module.training for module in net.modules())


def test_a_frozen_copy_is_its_own_reference() -> None:
    net, inputs = frozen("idefics3", attention_dropout=0.5).requires_grad_(False), pairs("idefics3")
    with as_reference(net) as reference:
        assert torch.equal(log_probs(reference, inputs), log_probs(reference, inputs))
    assert net.training


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_is_live(family: str, store: FeatureStore) -> None:
    net, inputs = policy(family), pairs(family)
    with as_reference(net) as reference:
        live = log_probs(reference, inputs)
    kept = CachedReference(net, store=store)
    keys = kept.keys(inputs)
    assert kept.get(keys) is None
    kept.add(keys, live)
    other_seed_and_rank = CachedReference(policy(family, rank=2), store=store)
    assert torch.equal(other_seed_and_rank.get(other_seed_and_rank.keys(inputs)), live)
    whole_copy = frozen(family).requires_grad_(False)  # the reference of a policy that learns in full
    assert torch.equal(CachedReference(whole_copy, store=store).get(keys), live)


def test_padding_and_company_do_not_matter(store: FeatureStore) -> None:
    kept, inputs = CachedReference(policy("smolvlm"), store=store), pairs("smolvlm")
    keys = kept.keys(inputs)
    assert len(set(keys)) == 4
    text = ("input_ids", "attention_mask", "labels")
    fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    wider = {name: nn.functional.pad(inputs[name], (0, 5), value=fill[name]) for name in text}
    assert kept.keys({**inputs, **wider}) == keys
    second = {name: value[[1, 3]] if name in text else value[[1]] for name, value in inputs.items()}
    assert kept.keys(second) == [keys[1], keys[3]]


@pytest.mark.parametrize("with_features", [False, True])
def test_each_example_has_its_own_images(store: FeatureStore, with_features: bool) -> None:
    net, inputs = policy("idefics3"), pairs("idefics3")
    kept = CachedReference(net, store=store)

    def keys(pixels: Tensor) -> list[str]:
        given = {**inputs, "pixel_values": pixels}
        return kept.keys(FrozenVision(net, store=store).attach({"inputs": given})["inputs"] if with_features else given)

    before, pixels = keys(inputs["pixel_values"]), inputs["pixel_values"].clone()
    pixels[0, 1, 0, 3, 3] += 1  # the second tile of the first pair
    assert [one == two for one, two in zip(before, keys(pixels), strict=True)] == [False, True, False, True]
    pixels = inputs["pixel_values"].clone()
    pixels[1, 0, 0, 3, 3] += 1  # the only tile of the second pair
    assert [one == two for one, two in zip(before, keys(pixels), strict=True)] == [True, False, True, False]


def test_every_token_counts_and_which_are_learnt(store: FeatureStore) -> None:
    kept, inputs = CachedReference(policy("paligemma"), store=store), pairs("paligemma")
    keys = kept.keys(inputs)
    for name, value in (("input_ids", 9), ("labels", -100), ("token_type_ids", 0)):
        changed = inputs[name].clone()
        changed[2, int(inputs["attention_mask"][2].sum()) - 1] = value
        assert [one == two for one, two in zip(keys, kept.keys({**inputs, name: changed}), strict=True)] == [
            True,
            True,
            False,
            True,
        ]


def test_another_model_is_another_entry(store: FeatureStore) -> None:
    net, inputs = policy("smolvlm"), pairs("smolvlm")
    kept = CachedReference(net, store=store)
    keys = kept.keys(inputs)
    kept.add(keys, torch.arange(4.0))
    nudged = policy("smolvlm")
    nudged.get_base_model().lm_head.weight.data[0, 0] += 1e-3
    for other in (nudged, policy("smolvlm", seed=1), policy("smolvlm").bfloat16(), policy("idefics3")):
        assert CachedReference(other, store=store).get(keys) is None
    under_autocast = CachedReference(net, lambda: torch.autocast("cpu", torch.bfloat16), store)
    assert under_autocast.get(keys) is None
    on_another_device = CachedReference(net, store=store, device=torch.device("cuda"))  # where its weights will be
    assert on_another_device.get(keys) is None
    assert CachedReference(net, store=store).get(keys) is not None


@pytest.mark.parametrize("with_features", [False, True])
def test_a_changed_tower_is_other_examples(store: FeatureStore, with_features: bool) -> None:
    """The entry is that of the text model: the examples know the tower, by its features or by its weights."""

    def keys(net: nn.Module) -> list[str]:
        inputs = pairs("smolvlm")
        return CachedReference(net, store=store).keys(
            FrozenVision(net, store=store).attach({"inputs": inputs})["inputs"] if with_features else inputs
        )

    nudged = policy("smolvlm")
    nudged.get_base_model().model.vision_model.post_layernorm.bias.data += 0.1
    assert keys(policy("smolvlm")) == keys(policy("smolvlm", rank=2))
    assert not set(keys(policy("smolvlm"))) & set(keys(nudged))


def test_what_is_kept_does_not_hold_the_model(store: FeatureStore) -> None:
    net, inputs = frozen("smolvlm").requires_grad_(False), pairs("smolvlm")
    kept = CachedReference(net, store=store)
    weights = [ref(weight) for weight in net.parameters()]
    keys = kept.keys(inputs)
    kept.add(keys, torch.arange(4.0))
    del net
    gc.collect()
    assert [weight() for weight in weights] == [None] * len(weights)
    assert kept.keys(inputs) == keys
    assert kept.get(keys) is not None


@pytest.mark.parametrize("part", ["text_model", "vision_model"])
def test_a_reference_that_learns_is_neither_read_nor_kept(store: FeatureStore, part: str) -> None:
    net, inputs = policy("smolvlm"), pairs("smolvlm")
    kept = CachedReference(net, store=store)
    keys = kept.keys(inputs)
    kept.add(keys[:2], torch.arange(2.0))
    bias = next(value for name, value in net.named_parameters() if part in name and "norm" in name)
    bias.requires_grad_(True)
    assert kept.get(keys[:2]) is None
    bias.requires_grad_(False)
    kept.add(keys[2:], torch.arange(2.0))
    again = CachedReference(net, store=store)
    assert again.get(keys[:2]) is not None
    assert again.get(keys[2:]) is None


def test_a_batch_is_read_only_as_a_whole(store: FeatureStore) -> None:
    kept, inputs = CachedReference(policy("smolvlm"), store=store), pairs("smolvlm")
    keys = kept.keys(inputs)
    kept.add(keys[:3], torch.arange(3.0))
    assert kept.get(keys) is None
    kept.add(keys, torch.arange(4.0))
    assert kept.get(keys).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_pairs_without_images(store: FeatureStore) -> None:
    kept = CachedReference(policy("smolvlm"), store=store)
    inputs = {name: value for name, value in pairs("smolvlm").items() if not name.startswith("pixel")}
    inputs["input_ids"] = inputs["input_ids"].clamp(min=6)
    assert len(set(kept.keys(inputs))) == 4
