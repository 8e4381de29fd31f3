"""Schedules by name: the rate of each step, worked out by hand, in every way of counting the steps."""

import csv
import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from torch import nn

from ftkit.cli import main
from ftkit.errors import ExitCode, InputError
from ftkit.training.fit_batch import FitBatch
from ftkit.training.optimizer import configured_optimizers

RATE = 1e-2


def rates(name: Any, warmup: float, steps: float, count: int) -> list[float]:
    """The rates of the first steps, as parts of the optimizer's."""
    parameter = nn.Parameter(torch.zeros(1))
    made = configured_optimizers(
        [parameter], lambda all: torch.optim.SGD(all, lr=RATE), name, warmup=warmup, steps=lambda: steps
    )
    assert made["lr_scheduler"]["interval"] == "step"
    found = []
    for _ in range(count):
        found.append(made["optimizer"].param_groups[0]["lr"] / RATE)
        parameter.grad = torch.ones(1)
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    return found


COSINE = [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]


@pytest.mark.parametrize(
    ("name", "warmup", "steps", "expected"),
    [
        ("linear", 0, 4, [1, 3 / 4, 2 / 4, 1 / 4]),
        ("linear", 2, 6, [0, 1 / 2, 1, 3 / 4, 2 / 4, 1 / 4]),
        ("linear", 1, 5, [0, 1, 3 / 4, 2 / 4, 1 / 4]),  # one step, not the whole
        ("linear", 0.3, 5, [0, 1 / 2, 1, 2 / 3, 1 / 3]),  # 1.5 steps are rounded up
        ("cosine", 0, 4, COSINE),
        ("cosine", 0.5, 8, [0, 1 / 4, 2 / 4, 3 / 4, *COSINE]),
        ("constant", 0, 4, [1, 1, 1, 1]),
        ("constant", 0.5, 4, [0, 1 / 2, 1, 1]),
        ("constant", 2, math.inf, [0, 1 / 2, 1, 1]),
        ("constant", 0, math.inf, [1, 1]),
    ],
)
def test_the_rate_of_each_step(name: str, warmup: float, steps: float, expected: list[float]) -> None:
    assert rates(name, warmup, steps, len(expected)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "warmup", "message"),
    [
        ("linear", 0, "model.scheduler: needs to know how many steps there are .got 'linear'.; fix: set trainer.max_e"),
        ("cosine", 5, "model.scheduler: needs to know"),
        ("constant", 0.1, "model.scheduler: needs to know"),
        ("linear", -0.1, r"model.warmup: must be a fraction of the steps below 1, or a number of steps \(got -0.1\)"),
        ("linear", 1.5, "model.warmup: must be a fraction"),
        ("linear", math.nan, "model.warmup: must be a fraction"),
        (None, 0.1, "model.warmup: needs a schedule that is named.*fix: use model.scheduler: cosine or linear or cons"),
        (lambda made: torch.optim.lr_scheduler.StepLR(made, 2), 3, "model.warmup: needs a schedule that is named"),
    ],
)
def test_what_does_not_go_together_is_refused(name: Any, warmup: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rates(name, warmup, math.inf, 1)


def fit(config: Path, folder: Path, trainer: dict[str, Any] | None = None, *options: str, **model: Any) -> int:
    """Two epochs of 4 steps, unless told otherwise."""
    monitor = {"class_path": "LearningRateMonitor"}
    saved = {"class_path": "ModelCheckpoint", "init_args": {"filename": "last", "enable_version_counter": False}}
    trainer = {"callbacks": [monitor, saved], **(trainer or {})}
    layer = folder.parent / f"{folder.name}.yaml"
    layer.write_text(yaml.safe_dump({"model": {"init_args": model}, "trainer": trainer}))
    command = ["fit", "--config", str(config), "--config", str(layer), "--trainer.default_root_dir", str(folder)]
    return main([*command, *options])


def logged_rates(folder: Path) -> list[float]:
    """The rate of each optimizer step, as parts of the optimizer's; all micro-batches of a step have it."""
    found: dict[str, set[float]] = {}
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["lr-AdamW"]:
                found.setdefault(row["step"], set()).add(float(row["lr-AdamW"]) / RATE)
    assert all(len(rates) == 1 for rates in found.values())
    return [rates.pop() for rates in found.values()]


@pytest.mark.parametrize(
    ("trainer", "data", "expected"),
    [
        ({}, {}, [1 - step / 8 for step in range(8)]),
        ({"accumulate_grad_batches": 3}, {}, [1, 3 / 4, 2 / 4, 1 / 4]),  # 3 batches and 1 make 2 steps an epoch
        ({"max_steps": 5, "max_epochs": -1}, {}, [1 - step / 5 for step in range(5)]),
        ({"accumulate_grad_batches": 8}, {"batch_size": 1, "padding": "none"}, [1 - step / 10 for step in range(10)]),
    ],
)
def test_the_steps_of_a_training_are_counted_in_optimizer_steps(
    trainer: dict[str, Any], data: dict[str, Any], expected: list[float], tiny_config: Path, tmp_path: Path
) -> None:
    options = [word for name, value in data.items() for word in (f"--data.{name}", str(value))]
    assert fit(tiny_config, tmp_path / "run", trainer, *options, scheduler="linear") == 0
    assert logged_rates(tmp_path / "run") == pytest.approx(expected)


def test_a_batch_that_is_split_leaves_the_rates_as_they_are(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FitBatch, "_largest", lambda *args: 4)
    split = {"class_path": "ftkit.training.fit_batch.FitBatch"}
    callbacks = {"callbacks": [{"class_path": "LearningRateMonitor"}, split]}
    assert fit(tiny_config, tmp_path / "run", callbacks, scheduler="linear", warmup=2) == 0
    assert logged_rates(tmp_path / "run") == pytest.approx([0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_a_rate_that_is_found_is_scheduled_over_the_whole_training(tiny_config: Path, tmp_path: Path) -> None:
    finder = {
        "class_path": "LearningRateFinder",
        "init_args": {"num_training_steps": 16, "max_lr": 1e-3},
    }
    trainer = {"callbacks": [finder, {"class_path": "LearningRateMonitor"}], "max_epochs": 4}
    assert fit(tiny_config, tmp_path / "run", trainer, scheduler="linear") == 0
    found = json.loads((tmp_path / "run" / "result.json").read_text())["learning_rate"]
    expected = [found / RATE * (1 - step / 16) for step in range(16)]
    assert logged_rates(tmp_path / "run") == pytest.approx(expected)


def test_a_resumed_schedule_goes_on_where_it_was(tiny_config: Path, tmp_path: Path) -> None:
    schedule = {"scheduler": "cosine", "warmup": 0.25}
    whole = tmp_path / "whole"
    assert fit(tiny_config, whole, **schedule) == 0
    monitor = {"class_path": "LearningRateMonitor"}
    stop = {"class_path": "stops.StopAfter", "init_args": {"step": 3}}
    broken = tmp_path / "broken"
    assert fit(tiny_config, broken, {"callbacks": [monitor, stop]}, **schedule) == 128 + signal.SIGTERM
    assert fit(tiny_config, broken, None, "--resume", "true", **schedule) == 0
    assert (broken / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    states = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (broken, whole)]
    for name, value in states[1]["state_dict"].items():
        assert torch.equal(states[0]["state_dict"][name], value)


def test_a_warm_up_longer_than_the_training_is_warned_of(tiny_config: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="model.scheduler: .* still warms up after 8 steps, when the training ends"):
        assert fit(tiny_config, tmp_path / "run", scheduler="linear", warmup=100) == 0


def test_a_training_that_only_a_time_ends_has_no_schedule(
    tiny_config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    timed = {"max_epochs": -1, "max_time": "00:00:00:20"}
    assert fit(tiny_config, tmp_path / "run", timed, scheduler="cosine") == ExitCode.INPUT
    assert "error: model.scheduler: needs to know how many steps there are" in capfd.readouterr().err
    assert not list((tmp_path / "run").glob("checkpoints/*"))
