"""Which examples made a loss or a gradient that is not finite."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ftkit.errors import TrainingFailed
from ftkit.training.guards import FiniteGuard


class Root(L.LightningModule):
    """The root of a parameter times the rows' numbers: infinite gradients at 0, no number below."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.weight, self.named = nn.Parameter(torch.ones(1)), named

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (self.weight * (batch["value"] if self.named else batch)).sqrt().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def failure(folder: Path, bad: float, named: bool = True, batch_size: int = 7) -> str:
    """The message of a training whose second batch has the number that is given in it."""
    values = [1.0] * batch_size + [bad] * batch_size
    rows: Any = [{"id": f"row {n}", "value": value} if named else value for n, value in enumerate(values)]
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, default_root_dir=folder, logger=False, callbacks=[FiniteGuard()],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    with pytest.raises(TrainingFailed) as stop:
        trainer.fit(Root(named), DataLoader(rows, batch_size))
    return str(stop.value)


@pytest.mark.parametrize(
    ("what", "bad"), [("the loss", -1.0), ("the loss", math.inf), ("the norm of the gradients", 0.0)]
)
def test_the_first_examples_of_the_batch_are_named(what: str, bad: float, tmp_path: Path) -> None:
    told = failure(tmp_path, bad)
    batch = "the batch (of 7: row 7, row 8, row 9, row 10, row 11, ...)"
    assert told.startswith(f"{what} is not finite at step 1, epoch 0, rate 1e-06 (got ")
    assert f"; fix: look at {batch}, lower the learning rate" in told
    assert json.loads((tmp_path / "result.json").read_text())["reason"].endswith(f"; {batch}")


def test_a_small_batch_is_named_whole_and_one_without_names_not(tmp_path: Path) -> None:
    assert "look at the batch (of 2: row 2, row 3), lower" in failure(tmp_path, -1.0, batch_size=2)
    assert "look at the batch, lower" in failure(tmp_path, -1.0, named=False)
