"""Early stopping and the best checkpoint by what they see: NaN, patience, and several processes."""

import math
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
