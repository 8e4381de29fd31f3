"""Lightning's own callbacks: they work in every task, or are refused before anything is written."""

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from PIL import Image
from run_files import Ftkit, files_in

from ftkit.cli import main
from ftkit.errors import ExitCode

TASKS = ("classifier", "language", "vlm", "preferences", "yes or no")
SMALL = {
    "max_epochs": 4, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1, "enable_progress_bar": False,
    "enable_model_summary": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("callback", "options", "said"),
    [
        ("StochasticWeightAveraging", {"swa_lrs": 1e-2}, "would average nothing and only change the rate; fix: leave"),
        (
            "WeightAveraging",
            {},
            "checkpoints, which hold only what is trained, could not be resumed; fix: leave it out",
        ),
        ("EMAWeightAveraging", {}, "could not be resumed; fix: leave it out"),
        ("ModelPruning", {"pruning_fn": "l1_unstructured", "amount": 0.5}, "before the network is built; fix: leave"),
        (
            "BackboneFinetuning",
            {},
            "before the network is built; fix: leave it out; model.trainable says what is trained",
        ),
        ("BatchSizeFinder", {}, "and with it the result; fix: use ftkit.training.fit_batch.FitBatch"),
    ],
)
def test_what_cannot_do_its_work_is_refused(
    callback: str, options: dict[str, Any], said: str, ftkit: Ftkit, tmp_path: Path
) -> None:
    layer = tmp_path / "layer.yaml"
    named = {"class_path": f"lightning.pytorch.callbacks.{callback}", "init_args": options}
    layer.write_text(yaml.safe_dump({"trainer": {"callbacks": [named]}}))
    code, told = ftkit("fit", "--config", str(layer))
    assert code == ExitCode.INPUT, told
    assert told.startswith(f"error: trainer.callbacks: {callback} ")
    assert said in told
    assert not (tmp_path / "run").exists()


def test_a_module_of_ones_own_may_be_averaged(plain: Ftkit, tmp_path: Path) -> None:
    averaging = "lightning.pytorch.callbacks.StochasticWeightAveraging"
    code, said = plain("fit", "--trainer.callbacks", averaging, "--trainer.callbacks.swa_lrs", "0.01")
    assert code == 0, said
    assert "checkpoints" in {Path(name).parts[0] for name in files_in(tmp_path / "run")}


@pytest.fixture
def of_task(
    tiny_config: Path,
    gpt2_folder: Path,
    idefics3_folder: Path,
    vlm_examples: Callable[[str], Path],
    tmp_path: Path,
) -> Any:
    """The config of a task that looks for a learning rate, and halves it by a schedule."""
    rows = tmp_path / "rows.jsonl"
    texts = [{"id": f"r{n}", "prompt": f"{n} +", "completion": " x" * (1 + n % 5)} for n in range(12)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    approvals = tmp_path / "approvals.jsonl"
    Image.new("RGB", (16, 16), "red").save(tmp_path / "red.png")
    asked = [
        {"id": f"a{n}", "prompt": "Red?", "completion": ("no", "yes")[n % 2], "image": "red.png"} for n in range(12)
    ]
    approvals.write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")

    def generative(module: str, model: Path, data: str, rows: Path) -> dict[str, Any]:
        splits = dict.fromkeys(("train", "val", "test"), str(rows))
        return {
            "model": {"class_path": module, "init_args": {"base_model": str(model), "max_new_tokens": 2}},
            "data": {"class_path": data, "init_args": {**splits, "batch_size": 2}},
        }

    def make(task: str) -> Path:
        vlm = "ftkit.vlm.data.VLMDataModule"
        tree: dict[str, Any] = {
            "classifier": lambda: yaml.safe_load(tiny_config.read_text()),
            "language": lambda: generative(
                "ftkit.CausalLMSFT", gpt2_folder, "ftkit.language.data.TextDataModule", rows
            ),
            "vlm": lambda: generative("ftkit.vlm.sft.VLMSFT", idefics3_folder, vlm, vlm_examples("messages")),
            "preferences": lambda: generative("ftkit.vlm.dpo.VLMDPO", idefics3_folder, vlm, vlm_examples("preference")),
            "yes or no": lambda: generative("ftkit.vlm.yes_no.VLMYesNo", idefics3_folder, vlm, approvals),
        }[task]()
        schedule = {
            "class_path": "torch.optim.lr_scheduler.ConstantLR",
            "init_args": {"factor": 0.5, "total_iters": 99},
        }
        tree["model"]["init_args"] |= {
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.5}},
            "scheduler": schedule,
        }
        finder = {"class_path": "lightning.pytorch.callbacks.LearningRateFinder"}
        finder["init_args"] = {"num_training_steps": 16, "max_lr": 1e-3}  # type: ignore[assignment]
        monitor = {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}
        saved = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
        saved["init_args"] = {"filename": "last", "enable_version_counter": False}  # type: ignore[assignment]
        tree |= {"trainer": {**SMALL, "callbacks": [finder, monitor, saved]}, "seed_everything": 5}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return make


def rates(folder: Path) -> list[float]:
    """The learning rates of the steps."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["lr-AdamW"]) for row in csv.DictReader(file) if row["lr-AdamW"]]


@pytest.mark.parametrize("task", [*TASKS[:2], *(pytest.param(task, marks=pytest.mark.slow) for task in TASKS[2:])])
def test_a_learning_rate_that_is_found_is_that_of_every_step(task: str, of_task: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main(["fit", "--config", str(of_task(task)), "--trainer.default_root_dir", str(folder)]) == 0
    result = json.loads((folder / "result.json").read_text())
    assert 1e-8 <= result["learning_rate"] <= 1e-3
    assert {rate / result["learning_rate"] for rate in rates(folder)} == {0.5}
    assert not list(folder.glob(".lr_find*"))


def test_it_is_not_looked_for_again_when_a_training_is_resumed(of_task: Any, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = ["fit", "--config", str(of_task("classifier")), "--trainer.default_root_dir"]
    assert main([*command, str(whole)]) == 0
    stop = "--trainer.callbacks+", "stops.StopAfter", "--trainer.callbacks.step", "3"
    assert main([*command, str(broken), *stop]) == 128 + signal.SIGTERM
    assert main([*command, str(broken), "--resume", "true"]) == 0
    assert (broken / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    found = [json.loads((folder / "result.json").read_text())["learning_rate"] for folder in (whole, broken)]
    assert found[0] == found[1]
