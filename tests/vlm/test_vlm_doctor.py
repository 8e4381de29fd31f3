"""`ftkit doctor` on a vision-language model: images, supervised ends, adapters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from ftkit.doctor import examine


@pytest.mark.parametrize(
    ("model", "folder", "shape"),
    [
        ("VLMSFT", "idefics3_folder", "messages"),
        ("VLMSFT", "paligemma_folder", "prefix"),
        ("VLMDPO", "idefics3_folder", "preference"),
    ],
)
def test_sound_runs_pass(
    model: str, folder: str, shape: str, request: Any, vlm_rows: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = str(vlm_rows(shape))
    arguments = {"model": str(request.getfixturevalue(folder)), "optimizer": {"class_path": "torch.optim.AdamW"}}
    tree = {
        "model": {"class_path": f"ftkit.{model}", "init_args": arguments},
        "data": {
            "class_path": "ftkit.VLMDataModule",
            "init_args": {"train": rows, "val": rows, "test": rows, "batch_size": 4},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    found = {finding.name: finding for finding in examine([path])}
    assert {name: finding.seen for name, finding in found.items() if finding.passed is False} == {}
    assert all(found[name].passed for name in ("supervised", "images", "end token", "gradients", "frozen"))
    assert "LoRA" in found["gradients"].seen
