"""Killed in every way at every place, and run again: the result is that of a run that nothing happened to."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import victim
import yaml  # type: ignore[import-untyped]
from outcomes import assert_same

from ftkit.classifier.text_classifier import TextClassifier
from ftkit.cli import main
from ftkit.commands.ablation import ablation_status
from ftkit.training.checkpoint import read_checkpoint

SIGNALS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT, "KILL": signal.SIGKILL}
CODES = {"TERM": 143, "INT": 130, "KILL": -9}
FAST = {("TERM", "mid-epoch"), ("INT", "during validation"), ("KILL", "during save"), ("TERM", "during test"),
        ("KILL", "between save and checksum")}  # fmt: skip


WEIGHTS = {"filename": "last", "save_weights_only": True}
FULL = {"filename": "full", "every_n_train_steps": 2}
TEN_STEPS = {"filename": "full", "every_n_train_steps": 5}  # of twelve
TWO_EPOCHS = {"filename": "early", "save_weights_only": True, "every_n_epochs": 2}  # of three


def saving(options: dict[str, Any]) -> dict[str, Any]:
    """The config of a callback that saves."""
    kind = "lightning.pytorch.callbacks.ModelCheckpoint"
    return {"class_path": kind, "init_args": {**options, "enable_version_counter": False}}


def cases(places: list[str]) -> list[Any]:
    return [
        pytest.param(name, place, id=f"{name} {place}", marks=[] if (name, place) in FAST else [pytest.mark.slow])
        for place in places
        for name in SIGNALS
    ]


@pytest.fixture(scope="module")
def config(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs of four steps with dropout, windows of two batches, and checkpoints that can be gone on from."""
    chosen = yaml.safe_load(tiny_config.read_text())
    chosen["model"]["init_args"] |= {"dropout": 0.2, "trainable": 2}
    chosen["trainer"] |= {"max_epochs": 3, "accumulate_grad_batches": 2}
    chosen["data"]["init_args"]["batch_size"] = 4
    path = tmp_path_factory.mktemp("config") / "dropout.yaml"
    path.write_text(yaml.safe_dump(chosen))
    return path


def arguments(command: str, config: Path, folder: Path, *more: str) -> list[str]:
    return [command, "--config", str(config), "--trainer.default_root_dir", str(folder), *more]


@pytest.fixture(scope="module")
def clean(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an unbroken run leaves."""
    folder = tmp_path_factory.mktemp("clean") / "run"
    for command in ("fit", "test"):
        assert victim.run(arguments(command, config, folder)) == 0
    return folder


def assert_every_checkpoint_loads(folder: Path) -> None:
    for file in folder.rglob("*.ckpt"):
        read_checkpoint(file)


@pytest.mark.parametrize(
    ("name", "place"),
    cases(["before step 1", "mid-epoch", "during save", "between save and checksum", "during validation"]),
)
def test_a_training(name: str, place: str, config: Path, clean: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    code = victim.run(arguments("fit", config, folder), place, SIGNALS[name], log)
    assert code == CODES[name], log.read_text()
    assert "Traceback" not in log.read_text()
    assert_every_checkpoint_loads(folder)
    if name != "KILL" and place != "before step 1":
        assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
        assert main(arguments("test", config, folder)) == (2 if place == "mid-epoch" else 0)  # last.ckpt or nothing
    assert main(arguments("fit", config, folder, "--resume", "true")) == 0
    assert main(arguments("test", config, folder)) == 0
    assert_same(folder, clean)


@pytest.fixture(scope="module")
def frozen(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without dropout, so that outputs of frozen layers are computed, those of train before the first step."""
    chosen = yaml.safe_load(config.read_text())
    chosen["model"]["init_args"] |= {"dropout": 0.0, "trainable": 1}
    chosen["trainer"] |= {"num_sanity_val_steps": 0}
    path = tmp_path_factory.mktemp("frozen") / "config.yaml"
    path.write_text(yaml.safe_dump(chosen))
    return path


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_training_while_outputs_of_frozen_layers_are_computed(name: str, frozen: Path, tmp_path: Path) -> None:
    """It ends there and then: nothing is trained yet, and what is computed is not finished first."""
    folder, log, cache = tmp_path / "run", tmp_path / "log", tmp_path / "cache"
    fit = arguments("fit", frozen, folder)
    assert victim.run(fit, "inside features", SIGNALS[name], log, FTKIT_CACHE=str(cache)) == CODES[name]
    assert "Traceback" not in log.read_text()
    assert {file.suffix for file in cache.rglob("*") if file.is_file()} <= {".lock"}
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["reason"], result["step"]) == ("interrupted", f"SIG{name}", 0)
    assert not list(folder.rglob("*.ckpt"))
    assert victim.run([*fit, "--resume", "true"], log=log, FTKIT_CACHE=str(cache)) == 0
    assert list(cache.rglob("*.safetensors"))
    assert json.loads((folder / "result.json").read_text())["steps"] == 3 * 4


@pytest.mark.parametrize(("name", "place"), cases(["during test"]))
def test_an_evaluation(name: str, place: str, config: Path, clean: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(clean, folder)
    for file in folder.glob("predictions-*.tsv"):
        file.unlink()
    assert victim.run(arguments("test", config, folder), place, SIGNALS[name], log) == CODES[name]
    assert "Traceback" not in log.read_text()
    assert not list(folder.glob("predictions-*.tsv"))
    assert main(arguments("test", config, folder)) == 0
    assert_same(folder, clean)


@pytest.fixture(scope="module")
def within(config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same with checkpoints, validations and rows inside the epochs, and what an unbroken run of it leaves."""
    chosen = yaml.safe_load(config.read_text())
    saved: dict[str, Any] = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    saved["init_args"] = {"every_n_train_steps": 1, "filename": "last", "enable_version_counter": False}
    chosen["trainer"] |= {"callbacks": [saved], "val_check_interval": 4, "log_every_n_steps": 1}
    path = tmp_path_factory.mktemp("within") / "config.yaml"
    path.write_text(yaml.safe_dump(chosen))
    folder = path.parent / "run"
    for command in ("fit", "test"):
        assert victim.run(arguments(command, path, folder)) == 0
    return path, folder


@pytest.mark.parametrize(
    ("place", "step"),
    [("after a checkpoint", 3), ("mid-epoch", 2), pytest.param("during save", 1, marks=pytest.mark.slow)],
)
def test_a_training_with_checkpoints_inside_the_epoch(
    place: str, step: int, within: tuple[Path, Path], tmp_path: Path
) -> None:
    (config, clean), folder = within, tmp_path / "run"
    assert victim.run(arguments("fit", config, folder), place, signal.SIGKILL) == -signal.SIGKILL
    stopped = read_checkpoint(folder)
    assert (stopped["epoch"], stopped["global_step"]) == (0, step)  # of four
    assert main(arguments("fit", config, folder, "--resume", "true")) == 0
    assert main(arguments("test", config, folder)) == 0
    assert_same(folder, clean)
    assert (folder / "metrics.csv").read_text().count("\n") == 1 + 3 * (4 + 2)  # of each epoch steps and validations


def test_a_killed_training_is_not_taken_for_the_finished_one_that_it_replaces(config: Path, tmp_path: Path) -> None:
    chosen, folder = yaml.safe_load(config.read_text()), tmp_path / "run"
    chosen["trainer"]["callbacks"] = [saving(WEIGHTS)]
    (weights := tmp_path / "weights.yaml").write_text(yaml.safe_dump(chosen))
    assert main(arguments("fit", weights, folder)) == 0
    again = arguments("fit", weights, folder, "--seed_everything", "5")
    assert victim.run(again, "mid-epoch", signal.SIGKILL) == -signal.SIGKILL
    assert main([*again, "--resume"]) == 0
    assert json.loads((folder / "result.json").read_text())["seed"] == 5


@pytest.mark.parametrize(("name", "place"), cases(["between rows", "mid-epoch"]))
def test_a_sweep(name: str, place: str, config: Path, tmp_path: Path) -> None:
    ablation, out = tmp_path / "tiny", tmp_path / "out"
    (ablation / "rows").mkdir(parents=True)
    shutil.copy(config, ablation / "base.yaml")
    for number, pooling in enumerate(("mean", "last", "first"), start=1):
        text = f"# {pooling}?\nmodel:\n  init_args:\n    pooling: {pooling}\n"
        (ablation / "rows" / f"0{number}_{pooling}.yaml").write_text(text)
    command = ["ablation", "run", str(ablation), "--out"]
    code = victim.run([*command, str(out)], place, SIGNALS[name])
    assert code == CODES[name]
    done = {file: file.stat().st_mtime_ns for file in out.glob("0*/seed-*/result.json")}
    assert len(done) == (1 if place == "between rows" else 0)
    assert main([*command, str(out)]) == 0
    assert all(file.stat().st_mtime_ns == when for file, when in done.items())
    assert main([*command, str(tmp_path / "whole")]) == 0
    for number, pooling in enumerate(("mean", "last", "first"), start=1):
        cell = f"0{number}_{pooling}/seed-123"
        assert_same(out / cell, tmp_path / "whole" / cell)


@pytest.mark.parametrize(
    ("name", "place", "saved", "batches"),
    [
        ("TERM", "second epoch", [WEIGHTS], 24 - 12),
        pytest.param("INT", "second epoch", [WEIGHTS], 24 - 12, marks=pytest.mark.slow),
        ("TERM", "last validation", [WEIGHTS], 0),
        ("INT", "during test", [WEIGHTS], 0),
        pytest.param("KILL", "during test", [WEIGHTS], 0, marks=pytest.mark.slow),
        ("INT", "during test", [TEN_STEPS], 24 - 20),
        ("INT", "during test", [TWO_EPOCHS], 24),
        ("KILL", "second epoch", [WEIGHTS, FULL], 24 - 8),
        ("KILL", "second epoch", [WEIGHTS], 24),
    ],
)
def test_a_sweep_goes_on_inside_the_run(
    name: str,
    place: str,
    saved: list[dict[str, Any]],
    batches: int,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that is killed outright needs a full checkpoint; a test is repeated alone if its weights were saved."""
    ablation, out, log = tmp_path / "tiny", tmp_path / "out", tmp_path / "log"
    (ablation / "rows").mkdir(parents=True)
    chosen = yaml.safe_load(config.read_text())
    chosen["trainer"] |= {"callbacks": [saving(one) for one in saved], "num_sanity_val_steps": 0}
    (ablation / "base.yaml").write_text(yaml.safe_dump(chosen))
    (ablation / "rows" / "01_one.yaml").write_text("# One?\nmodel:\n  init_args:\n    pooling: mean\n")
    command = ["ablation", "run", str(ablation), "--out"]
    assert victim.run([*command, str(out)], place, SIGNALS[name], log) == CODES[name], log.read_text()
    assert not (out / "01_one/seed-123").exists()
    assert "unfinished: it was interrupted" in ablation_status(out)
    taken, train = [], TextClassifier.training_step
    monkeypatch.setattr(TextClassifier, "training_step", lambda *args: taken.append(args) or train(*args))
    assert main([*command, str(out)]) == 0
    assert len(taken) == batches
    assert main([*command, str(tmp_path / "whole")]) == 0
    assert_same(out / "01_one/seed-123", tmp_path / "whole/01_one/seed-123")
    assert not list(out.glob("*/.seed-*"))


@pytest.mark.parametrize("name", ["TERM", "INT"])
@pytest.mark.parametrize("place", ["inside features", "inside a save"])
def test_a_sweep_is_told_to_end_while_a_library_is_at_work(name: str, place: str, config: Path, tmp_path: Path) -> None:
    """Features are left at once; after a save the run is saved. torch makes an error of it, but no row fails."""
    ablation, out, log, cache = (tmp_path / part for part in ("tiny", "out", "log", "cache"))
    (ablation / "rows").mkdir(parents=True)
    (ablation / "base.yaml").write_text(config.read_text().replace("dropout: 0.2", "dropout: 0.0"))
    (ablation / "rows" / "01_one.yaml").write_text("# One?\nmodel:\n  init_args:\n    trainable: 1\n")
    command = ["ablation", "run", str(ablation), "--out", str(out)]
    code = victim.run(command, place, SIGNALS[name], log, FTKIT_CACHE=str(cache))
    assert code == CODES[name], log.read_text()
    assert "Traceback" not in log.read_text()
    assert "0 of 1 runs are done; run the same command to go on" in log.read_text()
    assert [json.loads(line)["status"] for line in (out / "ledger.jsonl").read_text().splitlines()] == ["started"]
    left = {file.name for folder in (out, cache) for file in folder.rglob("*")}
    saved = [file for file in left if "partial" in file or file.endswith(".ckpt")]
    assert bool(saved) == (place == "inside a save")
    assert bool([file for file in left if file.endswith(".safetensors")]) == (place == "inside a save")
    assert victim.run(command, log=log, FTKIT_CACHE=str(cache)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_time(seed: int, config: Path, clean: Path, tmp_path: Path) -> None:
    """SIGKILL from outside, wherever the run happens to be."""
    folder = tmp_path / "run"
    process = victim.CONTEXT.Process(
        target=victim._live, args=(arguments("fit", config, folder), "", 0, os.devnull), daemon=True
    )
    process.start()
    process.join(0.4 + 0.2 * seed)
    process.kill()
    process.join()
    assert_every_checkpoint_loads(folder)
    assert main(arguments("fit", config, folder, "--resume", "true")) == 0
    assert main(arguments("test", config, folder)) == 0
    assert_same(folder, clean)
