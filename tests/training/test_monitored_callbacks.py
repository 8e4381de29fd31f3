"""Early stopping and the best checkpoint by what they see: NaN, patience, and several processes."""

import json
import math
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ftkit.errors import InputError
from ftkit.results.metrics import mode_of
from ftkit.training.guards import FiniteGuard
from ftkit.training.model_selection import BestCheckpoint, EarlyStop
from ftkit.training.recorder import RunRecorder
from scale_out import run_in_two

NAN = math.nan
CURVES = ([1.0, 2.0, 0.5, 3.0, 0.1], [NAN, 2.0, 0.5, 3.0, 0.1])  # of each process, by epoch


class Scripted(L.LightningModule):
    """Has the validation figures that it is told to have, by process."""

    def __init__(self, *curves: list[float]) -> None:
        super().__init__()
        self.weight, self.curves = nn.Parameter(torch.zeros(1)), curves

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/error", self.curves[self.trainer.global_rank][self.trainer.current_epoch], sync_dist=False)

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("test/loss", 0.0, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.125)


class Loaders(L.LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.zeros(2, 1))  # type: ignore[arg-type]

    val_dataloader = test_dataloader = train_dataloader


class Noted(L.Callback):
    """Writes down where a process stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        (self.folder / f"stopped{trainer.global_rank}").write_text(str(trainer.current_epoch))


def fit(folder: Path, curve: list[float], *callbacks: L.Callback, **options: Any) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=len(curve), default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[RunRecorder(), FiniteGuard(), *callbacks],
        **options,
    )  # fmt: skip
    trainer.fit(Scripted(curve), datamodule=Loaders())
    return trainer


def scripted(batch_size: int) -> tuple[L.LightningModule, L.LightningDataModule]:
    return Scripted(*CURVES), Loaders()


@pytest.mark.parametrize("kind", ["early stopping", "model selection", "ModelCheckpoint"])
def test_processes_pass_over_a_nan_of_any_of_them_together(kind: str, tmp_path: Path) -> None:
    """Where one decided alone, it would wait for the others until they time out."""
    chosen: dict[str, L.Callback] = {
        "early stopping": EarlyStop("val/error", "min", patience=1),
        "model selection": BestCheckpoint("val/error", "min"),
        "ModelCheckpoint": ModelCheckpoint(tmp_path, "top", monitor="val/error", enable_version_counter=False),
    }
    last = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
    callbacks = [RunRecorder(), FiniteGuard(), chosen[kind], last, Noted(tmp_path)]
    strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=15))
    run_in_two(tmp_path, scripted, 1, strategy, max_epochs=5, callbacks=callbacks)  # type: ignore[arg-type]
    stopped = {(tmp_path / f"stopped{rank}").read_text() for rank in (0, 1)}
    assert stopped == ({"4"} if kind == "early stopping" else {"5"})  # 2, 0.5, 3: stopped after epoch 3


def test_without_patience_nothing_is_stopped(tmp_path: Path) -> None:
    assert fit(tmp_path, [1, 2, 3, 4, 5], EarlyStop("val/error", "min")).current_epoch == 5
    assert fit(tmp_path, [1, 2, 3, 4, 5], EarlyStop("val/error", "min", patience=None)).current_epoch == 5
    assert fit(tmp_path, [1, 2, 3, 4, 5], EarlyStop("val/error", "min", patience=2)).current_epoch == 3


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("val/loss", "min"), ("val/Perplexity", "min"), ("val/error", "min"), ("val/brier", "min"),
        ("val/unparsed_positive", "min"), ("val/fn", "min"), ("val/fp", "min"), ("val/calibration_error", "min"),
        ("val/accuracy", "max"), ("val/macro_f1", "max"), ("val/tp", "max"), ("val/npv", "max"),
    ],
)  # fmt: skip
def test_the_name_of_a_metric_says_whether_lower_is_better(metric: str, mode: str) -> None:
    assert mode_of(metric) == mode


def test_a_change_below_min_delta_is_no_improvement(tmp_path: Path) -> None:
    curve = [3.0, 2.8, 2.6, 2.4]
    assert fit(tmp_path, curve, EarlyStop("val/error", "min", 1, min_delta=0.5)).current_epoch == 2
    assert fit(tmp_path, curve, EarlyStop("val/error", "min", 1, min_delta=0.1)).current_epoch == 4
    assert fit(tmp_path, curve, EarlyStop("val/error", "max", 1)).current_epoch == 2


@pytest.mark.parametrize("interval", [1.0, 0.5])  # Lightning looks at the end of the epoch, or of each validation
def test_nan_counts_as_no_validation(interval: float, tmp_path: Path) -> None:
    stop = EarlyStop("val/error", "min", patience=2)
    assert fit(tmp_path, [NAN, NAN, 3.0, 2.0, 1.0], stop, val_check_interval=interval).current_epoch == 5
    assert float(stop.best_score) == 1.0


@pytest.mark.parametrize(
    ("before", "now", "goes_on"), [(1, 3, True), (1, 2, True), (1, 1, False), (3, 3, False), (3, 1, False)]
)
def test_more_patience_lets_a_stopped_run_go_on(before: int, now: int, goes_on: bool) -> None:
    first, second = (EarlyStop("val/error", "min", patience) for patience in (before, now))
    first.wait_count = 1
    second.load_state_dict(first.state_dict())
    assert (second.patience, second.wait_count, second.goes_on) == (now, 1, goes_on)


@pytest.mark.parametrize(
    ("epochs", "options", "fits"),
    [
        (1, {}, True),
        (3, {"check_val_every_n_epoch": 3}, True),
        (2, {"check_val_every_n_epoch": 3}, False),
        (3, {"max_steps": 2}, True),  # of two batches an epoch
        (3, {"max_steps": 1}, False),
        (3, {"max_steps": 1, "accumulate_grad_batches": 2}, True),
        (1, {"check_val_every_n_epoch": None, "val_check_interval": 2}, True),
        (1, {"check_val_every_n_epoch": None, "val_check_interval": 3}, False),
    ],
)
def test_a_training_has_to_reach_its_first_validation(
    epochs: int, options: dict[str, Any], fits: bool, tmp_path: Path
) -> None:
    curve = [2.0, 1.0, 0.5][:epochs]
    with nullcontext() if fits else pytest.raises(InputError, match="model_selection: the training ends before its"):
        fit(tmp_path, curve, BestCheckpoint("val/error", "min"), **options)
        assert json.loads((tmp_path / "result.json").read_text())["model_selection"]["metric"] == "val/error"


def test_the_best_is_told_in_words_and_an_earlier_one_is_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lightning.pytorch")
    best = tmp_path / "checkpoints" / "best.ckpt"
    best.parent.mkdir()
    for suffix in ("", ".sha256"):
        Path(f"{best}{suffix}").write_text("of an earlier training")
    fit(tmp_path, [2.0, 1.0, 1.0], BestCheckpoint("val/error", "min"))
    assert f"lowest val/error 1 at epoch 1 (counted from 0), step 4; it is {best}" in caplog.text  # the first of two
    assert not Path(f"{best}.sha256").exists()  # which nothing here writes
    fit(tmp_path, [1.0, 2.0, 1.5], BestCheckpoint("val/error", "max"))
    assert "highest val/error 2 at epoch 1 (counted from 0), step 4" in caplog.text
