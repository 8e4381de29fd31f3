"""The classifier on two processes learns, validates and predicts what it does on one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ftkit import GPT2Classifier, SpamDataModule
from scale_out import assert_same_run, run, run_in_two


def maker(gpt2_folder: Path, messages_file: Path, data: dict[str, Any], **options: Any) -> Any:
    def make(batch_size: int) -> tuple[GPT2Classifier, SpamDataModule]:
        options.setdefault("optimizer", lambda parameters: torch.optim.SGD(parameters, lr=0.05))
        module = GPT2Classifier(size=None, base_model=str(gpt2_folder), seed=3, **options)
        splits = ("train", "val", "test")
        given = {"split": "balanced", "evaluate_splits": splits, "padding": "none", "seed": 5, **data}
        return module, SpamDataModule(str(messages_file), batch_size=batch_size, **given)

    return make


@pytest.mark.parametrize(
    ("data", "options"),
    [
        # 33 messages: 4 steps of 8, the rest left out
        ({"order": "published"}, {"trainable": "last_block"}),
        # 33 = 3 * 10 + 3: a last step of 2 messages here and 1 there, which weigh differently
        ({"drop_last": False}, {"trainable": "all", "class_weights": [1.0, 3.0]}),
        ({"drop_last": False}, {"trainable": "lora", "lora_alpha": 1.0}),
    ],
    ids=["published", "all", "lora"],
)
def test_two_processes_are_one_with_twice_the_batch(
    data: dict[str, Any], options: dict[str, Any], gpt2_folder: Path, messages_file: Path, cache: Path, tmp_path: Path
) -> None:
    make = maker(gpt2_folder, messages_file, data, pooling="last_real", **options)
    size = 5 if "drop_last" in data else 4
    run(tmp_path, make, 2 * size)
    run_in_two(tmp_path / "two", make, size)
    assert_same_run(tmp_path, tmp_path / "two", 1e-6)
    splits = [json.loads((folder / "result.json").read_text())["splits"] for folder in (tmp_path, tmp_path / "two")]
    assert splits[0] == splits[1]
    assert [splits[1][name]["n"] for name in ("train", "val", "test")] == [33, 4, 11]


@pytest.mark.parametrize("trainable", ["last_block", "all", "lora"])
def test_weights_in_parts_are_whole_weights(
    trainable: str, gpt2_folder: Path, messages_file: Path, cache: Path, tmp_path: Path
) -> None:
    make = maker(gpt2_folder, messages_file, {}, pooling="last_real", trainable=trainable, lora_alpha=1.0)
    run(tmp_path, make, 8)
    run_in_two(tmp_path / "two", make, 4, "fsdp2")
    assert_same_run(tmp_path, tmp_path / "two", 1e-5)
    whole, *parts = (torch.load(folder) for folder in (tmp_path / "held0.pt", *(tmp_path / "two").glob("held*.pt")))
    assert len(parts) == 2
    assert max(parts) < 0.51 * whole
