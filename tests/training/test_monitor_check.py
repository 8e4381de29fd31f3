"""A monitored metric that is never logged is refused before training, or after one step."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import Tensor
from torch.utils.data import DataLoader

from ftkit.errors import InputError
from ftkit.training.model_selection import BestCheckpoint, EarlyStop
from ftkit.training.monitor_check import MonitorCheck


class Module(L.LightningModule):
    steps = 0

    def __init__(self, monitor: str = "val/loss") -> None:
        super().__init__()
        self.net, self.monitor = torch.nn.Linear(1, 1), monitor

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.steps += 1
        loss = self.net(batch).square().mean()
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/late", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/loss", self.net(batch).square().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [{"scheduler": ReduceLROnPlateau(optimizer, self.monitor), "monitor": self.monitor}]


class LogsLater(Module):
    def on_train_epoch_end(self) -> None:
        self.log("own", 1.0)


class LogsNothing(Module):
    def on_train_epoch_end(self) -> None:
        """As that of a module of ours does."""

    on_train_epoch_end.__module__ = "ftkit.vlm.dpo"


class LogsForIt(L.Callback):
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log("own", 1.0)


def fit(module: Module, folder: Path, *callbacks: L.Callback, validation: bool = True, **options: Any) -> None:
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[MonitorCheck(), *callbacks], **options,
    )  # fmt: skip
    loader = DataLoader(torch.ones(4, 1))
    trainer.fit(module, loader, loader if validation else None)


LOGGED = "train/late, train/loss, train/loss_epoch, train/loss_step, val/loss"
NOT_LOGGED = "trainer.callbacks.monitor: EarlyStopping monitors a metric that is not logged"


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (EarlyStopping("val_loss"), NOT_LOGGED),
        (ModelCheckpoint(monitor="val_loss"), "trainer.callbacks.monitor: ModelCheckpoint monitors a metric that"),
        (ModelCheckpoint(filename="{epoch}-{val_loss:.2f}"), "trainer.callbacks.filename: ModelCheckpoint's filename"),
        (EarlyStop("val_loss", "min", 1), "monitor: EarlyStop monitors a metric that is not logged"),
        (BestCheckpoint("val_loss", "min"), "monitor: BestCheckpoint monitors a metric that is not logged"),
    ],
)
def test_a_misspelt_metric_of_validation_is_refused_before_training(
    callback: L.Callback, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        fit(module := Module(), tmp_path, callback)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("(got 'val_loss'); fix: did you mean val/loss? Logged are val/loss")
    assert module.steps == 0


def test_a_module_of_ours_logs_nothing_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean val/loss"):
        fit(module := LogsNothing(), tmp_path, EarlyStopping("val_loss"))
    assert module.steps == 0


def test_one_of_training_is_refused_after_one_step(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        fit(module := Module(), tmp_path, EarlyStopping("train_loss"))
    assert str(caught.value).startswith(NOT_LOGGED)
    assert str(caught.value).endswith(f"(got 'train_loss'); fix: did you mean train/loss? Logged are {LOGGED}")
    assert module.steps == 1


@pytest.mark.parametrize("callback", [EarlyStop("val_loss", "min", 1), BestCheckpoint("val_loss", "min")])
def test_early_stopping_and_model_selection_see_to_a_sanity_check(callback: L.Callback, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean val/loss"):
        fit(module := Module(), tmp_path, callback, num_sanity_val_steps=0)
    assert module.steps == 0


@pytest.mark.parametrize(("callback", "steps"), [(EarlyStop("val/loss", "min", 1), 1), (EarlyStopping("val/loss"), 0)])
def test_no_sanity_check_is_longer_than_that(callback: L.Callback, steps: int, tmp_path: Path) -> None:
    validated: list[bool] = []

    class Watched(Module):
        def on_validation_batch_start(self, *_: Any) -> None:
            validated.append(self.trainer.sanity_checking)

    for given, expected in ((0, steps), (2, 2)):
        fit(Watched(), tmp_path, callback, num_sanity_val_steps=given)
        assert sum(validated) == expected
        validated.clear()


def test_so_is_that_of_a_scheduler(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^model.scheduler.monitor: Reduce.* 'zebra'\); fix: logged"):
        fit(module := Module(monitor="zebra"), tmp_path)
    assert module.steps == 1


def test_without_a_sanity_check_it_is_refused_after_the_first_validation(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean val/loss"):
        fit(module := Module(), tmp_path, EarlyStopping("val_loss"), num_sanity_val_steps=0)
    assert module.steps == 4


def test_without_validation_its_metrics_are_not_logged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(got 'val/loss'\).*ogged are train/late, train/loss, "):
        fit(Module(monitor="train/late"), tmp_path, EarlyStopping("val/loss"), validation=False)


@pytest.mark.parametrize(
    "callback",
    [
        EarlyStopping("train/late", check_on_train_epoch_end=True),
        EarlyStopping("train/loss_epoch", check_on_train_epoch_end=True),
        EarlyStopping("zebra", strict=False),
        ModelCheckpoint(monitor="step", mode="max", filename="{epoch}-{step}-{val/loss:.1f}"),
    ],
)
def test_what_is_logged_at_any_time_may_be_monitored(callback: L.Callback, tmp_path: Path) -> None:
    fit(module := Module(), tmp_path, callback)
    assert module.steps == 8


def test_so_may_what_ones_own_code_logs_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    for module, more in ((LogsLater(), []), (Module(), [LogsForIt()])):
        fit(module, tmp_path, *more, EarlyStopping("own", check_on_train_epoch_end=True))
        assert module.steps == 8
