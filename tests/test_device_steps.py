"""Every task's training step on a device that is not there: nothing is left on the CPU, and what waits is listed."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from fake_device import CUDA, faults_of, forwards_and_back
from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.classifier.spam import SpamDataModule
from ftkit.language.arithmetic import ArithmeticDataModule
from ftkit.language.sft import CausalLMSFT
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.sft import VLMSFT
from ftkit.vlm.yes_no import VLMYesNo
from vlm_folders import build_paligemma

# The logits of supervised tokens alone are made, and their number has to be known.
SUPERVISED = ["supervised_tokens: nonzero waits"]
# In the network transformers counts the image tokens. Of images that are not cached it counts the tiles, too.
COUNTED = ["hidden_states: _local_scalar_dense waits", *SUPERVISED]
LIVE = ["hidden_states: index waits", "hidden_states: tolist waits", *COUNTED]
# Whether both answers of a pair fit into one example, and how long it is.
SHARED = ["can_share: _local_scalar_dense waits", "shared_examples: _local_scalar_dense waits", *COUNTED]
# Tiles that are all zero are padding.
TILES = ["absent: _local_scalar_dense waits", "image_features: index waits", "image_features: tolist waits"]


def seen(faults: list[str]) -> set[str]:
    """The faults without numbers of lines."""
    return {re.sub(r"^\S+ in (.*?)( for the device)?$", r"\1", fault) for fault in faults}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def classified(folder: Path, messages: Path, kind: type = GPT2Classifier, step: Any = None, **options: Any) -> set[str]:
    given = {name: options.pop(name) for name in ("device",) if name in options}
    module = kind(size=None, base_model=str(folder), seed=1, **options)
    return seen(faults_of(module, SpamDataModule(source=str(messages), batch_size=4), step, **given))


@pytest.mark.parametrize(
    "options",
    [
        {},  # from cached outputs of the frozen blocks
        {"cache_frozen": False},
        {"trainable": "last_layer", "pooling": "last_real"},  # from cached pooled vectors
        {"trainable": "all", "pooling": "mean_real", "dropout": 0.1},
        {"trainable": "all", "pooling": "last_real", "causal_mask": False, "mask_padding": True},
        {"trainable": "lora", "class_weights": [1.0, 2.0], "label_smoothing": 0.1},
        {"adapter": LoraConfig(), "class_weights": "balanced"},
    ],
)
def test_a_step_of_a_classifier_stays_on_the_device(
    options: dict[str, Any], gpt2_folder: Path, messages_file: Path
) -> None:
    assert not classified(gpt2_folder, messages_file, **options)


def test_frozen_blocks_go_forwards_in_bfloat16_on_a_gpu(
    gpt2_folder: Path, messages_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    options = {"frozen_dtype": "bfloat16", "cache_frozen": False, "device": CUDA}
    assert not classified(gpt2_folder, messages_file, step=lambda m, batch: m.training_step(batch, 0), **options)


def test_a_validation_step_waits_in_the_checks_of_its_metrics_alone(gpt2_folder: Path, messages_file: Path) -> None:
    def validated(module: Any, batch: Any) -> None:
        module.on_validation_batch_end(module.validation_step(batch, 0), batch, 0)

    found = classified(gpt2_folder, messages_file, step=validated)
    checks = ["_codes: _local_scalar_dense waits", "_check_probabilities: _local_scalar_dense waits"]
    metric = ["update: _local_scalar_dense waits", "update: a copy to the device", "in_double: _to_copy in float64"]
    assert found == {*checks, *metric}


@pytest.mark.parametrize("options", [{"adapter": LoraConfig(lora_dropout=0.1)}, {"gradient_checkpointing": True}, {}])
def test_a_step_of_a_language_model_waits_for_the_number_of_supervised_tokens(options: dict[str, Any]) -> None:
    data = ArithmeticDataModule(train_size=8, val_size=2, test_size=2, batch_size=4)
    assert seen(faults_of(CausalLMSFT(seed=1, **options), data)) == set(SUPERVISED)


def pictures(path: Path) -> VLMDataModule:
    return VLMDataModule(str(path), str(path), str(path), batch_size=2, seed=1)


def all_live(module: Any, batch: Any) -> None:
    forwards_and_back(module, {name: value for name, value in batch.items() if name != "reference_keys"})


def reference_known(module: Any, batch: Any) -> None:
    forwards_and_back(module, {**batch, "reference": torch.zeros_like(batch["inputs"]["labels"][:, 0]).float()})


UNCACHED = {"freeze_vision": False, "cache_vision": False, "gradient_checkpointing": True}


@pytest.mark.parametrize(
    ("kind", "options", "step", "expected"),
    [
        (VLMSFT, {}, None, COUNTED),
        (VLMSFT, UNCACHED, None, LIVE),
        (VLMYesNo, {"positive": "red", "negative": "green"}, None, COUNTED),
        (VLMDPO, {}, reference_known, SHARED),
        (VLMDPO, {"cache_vision": False, "cache_reference": False}, None, [*SHARED, *TILES]),
        (VLMDPO, {"adapter": None}, all_live, [*SHARED, "_reference: a copy to the device"]),  # once a training
    ],
)
def test_a_step_on_images_waits_where_sizes_have_to_be_known(
    kind: Any, options: dict[str, Any], step: Any, expected: list[str],
    idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    path = vlm_examples("preference" if kind is VLMDPO else "messages")
    if kind is VLMYesNo:  # two words alone
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path = path.with_name("two-words.jsonl")
        kept = [row for row in rows if row["messages"][1]["content"] != "blue"]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in kept))
    module = kind(**{"base_model": str(idefics3_folder), "adapter": LoraConfig(), "seed": 1, **options})
    assert seen(faults_of(module, pictures(path), step)) == set(expected)


@pytest.mark.parametrize("options", [{}, UNCACHED])
def test_a_step_of_paligemma_waits_where_sizes_have_to_be_known(
    options: dict[str, Any], vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    model = str(build_paligemma(tmp_path / "paligemma"))
    module = VLMSFT(base_model=model, adapter=LoraConfig(), seed=1, **options)
    assert seen(faults_of(module, pictures(vlm_examples("prefix")))) == set(COUNTED)


class OnTheCPU(GPT2Classifier):
    def forward(self, batch: dict[str, Any]) -> Tensor:
        return super().forward(batch) * torch.ones(2)


class ReadsTheLoss(GPT2Classifier):
    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("train/number", loss.item())
        return loss


class Doubled(GPT2Classifier):
    def forward(self, batch: dict[str, Any]) -> Tensor:
        logits = super().forward(batch)
        return logits * torch.full((2,), np.float64(2.0), dtype=torch.float64, device=logits.device)


def test_planted_faults_are_named_by_their_lines(gpt2_folder: Path, messages_file: Path) -> None:
    def without_features(module: Any, batch: Any) -> None:
        forwards_and_back(module, {**batch, "features": torch.zeros(batch["features"].shape)})

    with pytest.raises(AssertionError, match=r"test_device_steps.py:\d+ in forward: .*two devices, lazy:0 and cpu"):
        classified(gpt2_folder, messages_file, OnTheCPU)
    with pytest.raises(AssertionError, match=r"two devices|same device"):
        classified(gpt2_folder, messages_file, step=without_features)
    assert classified(gpt2_folder, messages_file, ReadsTheLoss) == {"training_step: _local_scalar_dense waits"}
    assert "forward: mul in float64" in classified(gpt2_folder, messages_file, Doubled)
