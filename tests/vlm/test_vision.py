"""A model with kept image features gives what it gives with pixels, and the tower runs once an image."""

import copy
from pathlib import Path
from typing import Any

import pytest
import random_vlm
import torch
from peft import LoraConfig, get_peft_model
from random_vlm import IMAGE, batch, frozen, image_tensors
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from ftkit.models.vision_families import FAMILIES, FEATURES, family_of, image_features, to_model
from ftkit.training.feature_store import FeatureStore
from ftkit.vlm.vision import FrozenVision, for_pairs, is_frozen, tile_keys, with_features
from quantized_layers import KINDS, quantized


def logits(net: nn.Module, inputs: dict[str, Any]) -> Tensor:
    return net(**to_model(net, inputs), use_cache=False).logits[inputs["attention_mask"].bool()]


def attached(vision: FrozenVision, inputs: dict[str, Any]) -> dict[str, Any]:
    return vision.attach({"inputs": inputs})["inputs"]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path)


@pytest.mark.parametrize("family", random_vlm.FAMILIES)
def test_features_give_the_logits_that_pixels_give(family: str, store: FeatureStore) -> None:
    net, inputs = frozen(family), batch(family)
    wanted = logits(net, inputs)
    computed = attached(FrozenVision(net, store=store), inputs)
    again = FrozenVision(net, store=store)
    read = attached(again, inputs)
    assert again.computed == 0
    assert "pixel_values" not in read
    assert "pixel_attention_mask" not in read
    for features in (computed, read):
        torch.testing.assert_close(logits(net, features), wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(logits(net, with_features(net, inputs)), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", random_vlm.FAMILIES)
def test_the_image_matters(family: str, store: FeatureStore) -> None:
    net, inputs = frozen(family), batch(family)
    vision = FrozenVision(net, store=store)
    other = {**inputs, "pixel_values": inputs["pixel_values"].flip(-1)}
    moved = (logits(net, attached(vision, inputs)) - logits(net, attached(vision, other))).abs().max()
    assert moved > 1e-4
    dropped = attached(vision, inputs)
    dropped[FEATURES] = torch.zeros_like(dropped[FEATURES])
    assert (logits(net, dropped) - logits(net, inputs)).abs().max() > 1e-4


@pytest.mark.parametrize("family", random_vlm.FAMILIES)
def test_the_same_images_serve_chosen_and_rejected_examples(family: str, store: FeatureStore) -> None:
    net, inputs = frozen(family), batch(family)
    pair = {name: torch.cat([value, value]) for name, value in inputs.items()}
    pair["input_ids"][2:, -6:] = torch.where(pair["input_ids"][2:, -6:] > 5, 7, pair["input_ids"][2:, -6:])
    wanted = logits(net, pair)
    once = pair | {name: inputs[name] for name in image_tensors(family) if name in inputs}
    for given in (once, attached(FrozenVision(net, store=store), once)):
        torch.testing.assert_close(logits(net, for_pairs(net, with_features(net, given))), wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(logits(net, for_pairs(net, once)), wanted, atol=1e-6, rtol=0)
    text = {name: value for name, value in pair.items() if name not in image_tensors(family)}
    assert for_pairs(net, with_features(net, text)) == text


@pytest.mark.parametrize("family", random_vlm.FAMILIES)
def test_generation_takes_features(family: str, store: FeatureStore) -> None:
    net = frozen(family).eval()
    both = batch(family)
    keep = int(both["attention_mask"][1].sum())  # one example: no padding to its left
    images = family_of(net.config).images.examples(both, (both["input_ids"] == IMAGE).sum(1).tolist(), [1])
    inputs = {name: value[1:, :keep] for name, value in both.items() if name not in image_tensors(family)} | images
    options: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    wanted = net.generate(**inputs, **options, output_scores=True, return_dict_in_generate=True)
    features = to_model(net, attached(FrozenVision(net, store=store), inputs))
    got = net.generate(**features, **options, output_scores=True, return_dict_in_generate=True)
    assert torch.equal(got.sequences, wanted.sequences)
    for mine, theirs in zip(got.scores, wanted.scores, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_features_wait_for_a_gpu_in_pinned_memory(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    net, inputs = frozen("smolvlm"), batch("smolvlm")
    vision = FrozenVision(net, store=store)
    wanted, pinned = attached(vision, inputs)[FEATURES], []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: pinned.append(self) or self.clone())
    attached(vision, inputs)
    assert pinned == []
    monkeypatch.setattr(vision, "_device", torch.device("cuda"))
    features = attached(vision, inputs)[FEATURES]
    assert len(pinned) == 1
    assert pinned[0] is not features
    assert torch.equal(features, wanted)


def test_the_tower_runs_once_a_tile_in_whatever_company(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    net, inputs = frozen("smolvlm"), batch("smolvlm")
    sizes: list[int] = []
    net.model.vision_model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    vision = FrozenVision(net, store=store)
    first = attached(vision, inputs)
    second = attached(vision, {name: value.flip(0) for name, value in inputs.items()})  # examples swapped
    assert sizes == [3]
    assert torch.equal(second[FEATURES], first[FEATURES].unflatten(0, (3, 4))[[2, 0, 1]].flatten(0, 1))
    twice = {name: torch.cat([value, value]) for name, value in batch("smolvlm", seed=1).items()}
    assert len(attached(vision, twice)[FEATURES]) == 6 * 4
    assert sizes == [3, 3]  # an image that comes twice in a batch runs once
    monkeypatch.setattr("ftkit.vlm.vision._TILES_AT_ONCE", 2)
    attached(vision, batch("smolvlm", seed=2))
    assert sizes[2:] == [2, 1]
    assert vision.computed == 9


def test_other_weights_other_settings_other_features(store: FeatureStore) -> None:
    net, inputs = frozen("idefics3"), batch("idefics3")
    attached(FrozenVision(net, store=store), inputs)
    nudged = copy.deepcopy(net)
    nudged.model.connector.modality_projection.proj.weight.data[3, 3] += 1e-3
    for other in (nudged, frozen("idefics3", hidden_act="relu"), copy.deepcopy(net).bfloat16()):
        vision = FrozenVision(other, store=store)
        got = attached(vision, inputs)
        assert vision.computed == 3
        torch.testing.assert_close(got[FEATURES], image_features(other, inputs), atol=1e-6, rtol=0)
    half = FrozenVision(net, lambda: torch.autocast("cpu", torch.bfloat16), store)
    attached(half, inputs)
    assert half.computed == 3
    text = copy.deepcopy(net)
    text.model.text_model.requires_grad_(False).layers[0].mlp.up_proj.weight.data.zero_()
    assert attached(FrozenVision(text, store=store), inputs)[FEATURES].shape == (3 * 4, 32)
    tuned = FrozenVision(text, store=store)
    attached(tuned, inputs)
    assert tuned.computed == 0  # the text model does not matter


def test_tiles_of_another_size_become_other_numbers_of_vectors(store: FeatureStore) -> None:
    net, inputs = frozen("smolvlm"), batch("smolvlm")
    small = {**inputs, **{name: inputs[name][..., :16, :16] for name in ("pixel_values", "pixel_attention_mask")}}
    vision = FrozenVision(net, store=store)
    for given, vectors in ((inputs, 4), (small, 1), (inputs, 4)):
        features = attached(vision, given)[FEATURES]
        assert len(features) == 3 * vectors
        torch.testing.assert_close(features, image_features(net, given), atol=1e-6, rtol=0)
    other = FrozenVision(net, store=store)
    attached(other, small)
    assert (vision.computed, other.computed) == (6, 0)


def test_dropout_of_a_frozen_tower_is_off(store: FeatureStore) -> None:
    net, inputs = frozen("idefics3", attention_dropout=0.5), batch("idefics3")
    kept = attached(FrozenVision(net, store=store), inputs)[FEATURES]
    assert net.model.vision_model.training  # left as it was
    torch.testing.assert_close(kept, image_features(net.eval(), inputs), atol=1e-6, rtol=0)


def test_what_learns_is_never_kept(store: FeatureStore) -> None:
    net, inputs = frozen("idefics3"), batch("idefics3")
    vision = FrozenVision(net, store=store)
    assert is_frozen(net)
    net.model.connector.requires_grad_(True)
    assert not is_frozen(net)
    assert attached(vision, inputs) is inputs
    image_features(net, inputs).sum().backward()
    assert net.model.connector.modality_projection.proj.weight.grad.abs().sum() > 0
    net.model.connector.requires_grad_(False)
    assert attached(vision, inputs) is inputs  # what it learnt stays
    now = FrozenVision(net, store=store)
    assert FEATURES in attached(now, inputs)
    with torch.no_grad():
        net.model.connector.modality_projection.proj.weight.add_(0.1)
    assert attached(now, inputs) is inputs


def test_under_peft(store: FeatureStore) -> None:
    net, inputs = frozen("smolvlm"), batch("smolvlm")
    wanted = logits(net, inputs)
    tuned = get_peft_model(net, LoraConfig(target_modules=r".*text_model.*(q_proj|v_proj)"))
    assert is_frozen(tuned)
    torch.testing.assert_close(
        logits(tuned, attached(FrozenVision(tuned, store=store), inputs)), wanted, atol=1e-6, rtol=0
    )
    assert not is_frozen(get_peft_model(frozen("smolvlm"), LoraConfig(target_modules=["q_proj"])))  # the tower's too


def test_batches_without_images(store: FeatureStore) -> None:
    net, text = frozen("smolvlm"), {"input_ids": torch.tensor([[1, 7, 8]]), "attention_mask": torch.ones(1, 3)}
    vision = FrozenVision(net, store=store)
    assert attached(vision, text) == text
    assert to_model(net, text) is text
    blank = {**text, "pixel_values": torch.zeros(1, 1, 3, 32, 32), "pixel_attention_mask": torch.zeros(1, 1, 32, 32)}
    assert attached(vision, blank).keys() == text.keys()
    assert image_features(net, blank) is None


def test_a_tile_is_known_by_its_pixels_and_by_what_they_cover() -> None:
    inputs, images = batch("smolvlm"), FAMILIES["smolvlm"].images
    keys = tile_keys(images.tiles(inputs))
    assert len(set(keys)) == 3
    masked = inputs["pixel_attention_mask"].clone()
    masked[0, 1, 15:] = 0
    other = tile_keys(images.tiles({**inputs, "pixel_attention_mask": masked}))
    assert [one == two for one, two in zip(other, keys, strict=True)] == [True, False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_quantized_weights_are_known_by_their_scales_too(kind: str, store: FeatureStore) -> None:
    def vision(scale: float) -> FrozenVision:
        net = frozen("idefics3").eval()
        projection = net.model.connector.modality_projection
        projection.proj = quantized(scale * projection.proj.weight.detach(), kind)
        return FrozenVision(net, store=store)

    inputs = batch("idefics3")
    first = vision(1.0)
    kept = attached(first, inputs)[FEATURES]
    again = FrozenVision(first.net, store=store)  # 8-bit layers keep their scales elsewhere once they have run
    assert torch.equal(attached(again, inputs)[FEATURES], kept)
    assert again.computed == 0
    doubled = vision(2.0)
    assert not torch.equal(attached(doubled, inputs)[FEATURES], kept)
    assert doubled.computed == 3


def test_how_a_model_is_quantized_is_a_part_of_the_key(store: FeatureStore) -> None:
    net, inputs = frozen("idefics3"), batch("idefics3")
    attached(FrozenVision(net, store=store), inputs)
    net.config.quantization_config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=3.0)
    other = FrozenVision(net, store=store)
    attached(other, inputs)
    assert other.computed == 3
