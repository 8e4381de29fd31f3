"""A training that a pruner may stop."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from ftkit.errors import Pruned
from ftkit.training.pruning import PruneUnpromising


class Trial:
    """Takes what is reported, and prunes at the third validation."""

    def __init__(self) -> None:
        self.reported: list[tuple[float, int]] = []

    def report(self, value: float, step: int) -> None:
        self.reported.append((value, step))

    def should_prune(self) -> bool:
        return len(self.reported) == 3


class Validated(BoringModel):
    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", torch.tensor(self.trainer.global_step / 2))


def fit(folder: Path, trial: Trial, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    sizes = {"limit_train_batches": 2, "limit_val_batches": 1, "num_sanity_val_steps": 0, "accelerator": "cpu"}
    pruned = [PruneUnpromising(trial, "val/loss")]
    checkpoint = options.pop("ckpt_path", None)
    trainer = L.Trainer(default_root_dir=folder, callbacks=pruned, **quiet, **sizes, **options)
    trainer.fit(Validated(), ckpt_path=checkpoint)
    return trainer


def test_a_resumed_training_is_judged_by_all_its_validations(tmp_path: Path) -> None:
    fit(tmp_path, Trial(), max_epochs=2).save_checkpoint(tmp_path / "stopped.ckpt")
    trial = Trial()
    with pytest.raises(Pruned, match=r"stopped at step 6 \(validation 3\): val/loss 3"):
        fit(tmp_path, trial, max_epochs=4, ckpt_path=tmp_path / "stopped.ckpt")
    assert trial.reported == [(1, 1), (2, 2), (3, 3)]
