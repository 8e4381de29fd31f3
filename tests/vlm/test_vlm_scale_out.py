"""A vision-language model on two processes learns, validates and predicts what it does on one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from ftkit.results.predictions import read_predictions
from ftkit.vlm import dpo
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.model import VLMModule
from ftkit.vlm.sft import VLMSFT
from scale_out import assert_same_run, run, run_in_two


def maker(folder: Path, examples: Path, kind: type[VLMModule] = VLMSFT, **options: Any) -> Any:
    """Batches of examples of one or two pictures: 7 to learn from, the last step on 2 here and 1 there, 3 and 2."""
    lines = examples.read_text(encoding="utf-8").splitlines(keepends=True)
    files: dict[str, Any] = {}
    for name, part in {"train": lines[:7], "val": lines[7:10], "test": lines[10:]}.items():
        files[name] = str(examples.with_name(f"{name}.jsonl"))
        Path(files[name]).write_text("".join(part), encoding="utf-8")

    def make(batch_size: int) -> tuple[VLMModule, VLMDataModule]:
        sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.05)  # noqa: E731
        module = kind(base_model=str(folder), seed=3, max_new_tokens=3, optimizer=sgd, **options)
        data = VLMDataModule(**files, seed=5, batch_size=batch_size, evaluate_splits=("train", "val", "test"))
        return module, data

    return make


@pytest.mark.parametrize(
    ("strategy", "tolerance"), [("ddp", 1e-6), pytest.param("fsdp2", 1e-5, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"adapter": LoraConfig()}, id="lora"),
        pytest.param({"freeze_vision": False}, id="all", marks=pytest.mark.slow),
    ],
)
def test_two_processes_are_one_with_twice_the_batch(
    strategy: str,
    tolerance: float,
    options: dict[str, Any],
    idefics3_folder: Path,
    vlm_examples: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    make = maker(idefics3_folder, vlm_examples("messages"), **options)
    run(tmp_path, make, 4)
    run_in_two(tmp_path / "two", make, 2, strategy)
    assert_same_run(tmp_path, tmp_path / "two", tolerance)
    files = (tmp_path / "two").glob("predictions-*.tsv")
    assert sorted(name for file in files for name in read_predictions(file).ids) == sorted(
        f"m{number}" for number in range(12)
    )


@pytest.mark.parametrize("options", [{"adapter": LoraConfig()}, {"freeze_vision": False}], ids=["lora", "all"])
def test_preferences_are_learnt_on_two_processes_as_on_one(
    options: dict[str, Any],
    idefics3_folder: Path,
    vlm_examples: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    said, compare = tmp_path / "said.txt", VLMDPO.compare

    def falling(self: VLMDPO, batch: dict[str, Any]) -> Any:
        losses, metrics = compare(self, batch)
        return losses, {**metrics, "drift/chosen": metrics["drift/chosen"] - 30}

    def warn(text: str) -> None:
        with said.open("a") as file:
            file.write(f"{text}\n")

    monkeypatch.setattr(VLMDPO, "compare", falling)
    monkeypatch.setattr(dpo, "rank_zero_warn", warn)
    make = maker(idefics3_folder, vlm_examples("preference"), VLMDPO, **options)
    run(tmp_path, make, 4)
    run_in_two(tmp_path / "two", make, 2, "ddp")
    one, two = said.read_text().splitlines()[:2], said.read_text().splitlines()[2:]
    assert sorted(two) == sorted(one * 2)  # each process has counted all of them
    assert all("the epoch's 7 pairs" in line for line in one)
    assert_same_run(tmp_path, tmp_path / "two", 1e-5)  # log-probabilities are near 50
