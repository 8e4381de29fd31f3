"""How long schedules are, and what is said of those that do not fit the training."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from torch import optim
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from ftkit.errors import InputError
from ftkit.training.schedule import check_schedules, schedule_length

Schedule = Callable[[optim.Optimizer], Any]


def optimizer() -> optim.Optimizer:
    return optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)


def sequence(made: optim.Optimizer) -> Any:
    warm, cool = lr_scheduler.LinearLR(made, total_iters=4), lr_scheduler.CosineAnnealingLR(made, T_max=8)
    return lr_scheduler.SequentialLR(made, [warm, cool], milestones=[4])


@pytest.mark.parametrize(
    ("schedule", "length"),
    [
        (lambda made: lr_scheduler.LinearLR(made, total_iters=9), 9),
        (lambda made: lr_scheduler.ConstantLR(made, total_iters=3), 3),
        (lambda made: lr_scheduler.PolynomialLR(made, total_iters=7), 7),
        (lambda made: lr_scheduler.CosineAnnealingLR(made, T_max=8), 8),
        (lambda made: lr_scheduler.CosineAnnealingWarmRestarts(made, T_0=6), 6),
        (lambda made: lr_scheduler.OneCycleLR(made, max_lr=1.0, total_steps=11), 11),
        (lambda made: lr_scheduler.CyclicLR(made, base_lr=0.1, max_lr=1.0, step_size_up=5), 10),
        (lambda made: lr_scheduler.StepLR(made, step_size=4), 4),
        (lambda made: lr_scheduler.MultiStepLR(made, milestones=[3, 12]), 12),
        (sequence, 12),
        (lambda made: lr_scheduler.ChainedScheduler([lr_scheduler.LinearLR(made, total_iters=9)]), 9),
        (lambda made: lr_scheduler.ExponentialLR(made, gamma=0.9), None),
        (lambda made: lr_scheduler.LambdaLR(made, lambda step: 1.0), None),
    ],
)
def test_a_schedule_says_how_long_it_is(schedule: Schedule, length: int | None) -> None:
    assert schedule_length(schedule(optimizer()).state_dict()) == length


class Scheduled(BoringModel):
    def __init__(self, schedule: Schedule, interval: str) -> None:
        super().__init__()
        self.schedule, self.interval = schedule, interval

    def configure_optimizers(self) -> Any:
        made = optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [made], [{"scheduler": self.schedule(made), "interval": self.interval}]

    def on_fit_start(self) -> None:
        check_schedules(self.trainer)


def fit(tmp_path: Path, schedule: Schedule, interval: str, **options: Any) -> list[str]:
    """Two epochs of six batches, three steps; what was warned of."""
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    length = {"max_epochs": 2} if "max_steps" not in options else {}
    trainer = L.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, enable_checkpointing=False, accumulate_grad_batches=2,
        limit_val_batches=0, **length, **options, **quiet,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(Scheduled(schedule, interval), DataLoader(RandomDataset(32, 12), 2))
    return [str(warning.message) for warning in caught if "model.scheduler" in str(warning.message)]


@pytest.mark.parametrize(
    ("schedule", "interval", "said"),
    [
        (lambda made: lr_scheduler.CosineAnnealingLR(made, T_max=6), "step", None),
        (lambda made: lr_scheduler.CosineAnnealingLR(made, T_max=7), "step", "takes 7 steps, and the training has 6,"),
        (lambda made: lr_scheduler.CosineAnnealingLR(made, T_max=2), "epoch", None),
        (
            lambda made: lr_scheduler.CosineAnnealingLR(made, T_max=6),
            "epoch",
            "takes 6 epochs, and the training has 2,",
        ),
        (lambda made: lr_scheduler.LambdaLR(made, lambda step: min(1, step / 3)), "step", None),
        (lambda made: lr_scheduler.LambdaLR(made, lambda step: min(1, step / 3)), "epoch", "still warms up after 2"),
        (lambda made: lr_scheduler.LambdaLR(made, lambda step: 0.9**step), "step", None),
        (sequence, "step", "SequentialLR takes 12 steps"),
        (lambda made: lr_scheduler.OneCycleLR(made, max_lr=1.0, total_steps=6), "step", None),
    ],
)
def test_one_that_is_longer_than_the_training_is_warned_of(
    schedule: Schedule, interval: str, said: str | None, tmp_path: Path
) -> None:
    found = fit(tmp_path, schedule, interval)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_the_length_of_the_training_may_be_given_in_steps(tmp_path: Path) -> None:
    assert fit(tmp_path, lambda made: lr_scheduler.StepLR(made, 3), "epoch", max_steps=7) == []
    (said,) = fit(tmp_path, lambda made: lr_scheduler.StepLR(made, 4), "epoch", max_steps=7)
    assert "StepLR takes 4 epochs, and the training has 3," in said


def test_one_that_could_not_be_stepped_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"OneCycleLR ends after 5 steps, and the training has 6; fix: use total_steps: 6"
    ):
        fit(tmp_path, lambda made: lr_scheduler.OneCycleLR(made, max_lr=1.0, total_steps=5), "step")
