"""Which examples made a loss or a gradient that is not finite."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ftkit.errors import TrainingFailed
from ftkit.training.guards import DivergenceGuard, FiniteGuard


class Root(L.LightningModule):
    """The root of a parameter times the rows' numbers: infinite gradients at 0, no number below."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.weight, self.named = nn.Parameter(torch.ones(1)), named

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (self.weight * (batch["value"] if self.named else batch)).sqrt().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-6)


class Apart(Root):
    """Optimizes manually: two rates, each with its loss and its step, by optimizers that Lightning does not see."""

    def __init__(self) -> None:
        super().__init__(named=True)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        for optimizer in self.optimizers(use_pl_optimizer=False):  # type: ignore[union-attr]
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), lr=rate) for rate in (1e-6, 1e-5)]


def failure(
    folder: Path, bad: float, named: bool = True, batch_size: int = 7, model: Root | None = None, **options: Any
) -> str:
    """The message of a training whose second batch has the number that is given in it."""
    values = [1.0] * batch_size + [bad] * batch_size + [1.0] * batch_size
    rows: Any = [{"id": f"row {n}", "value": value} if named else value for n, value in enumerate(values)]
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, default_root_dir=folder, logger=False, callbacks=[FiniteGuard()],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip
    with pytest.raises(TrainingFailed) as stop:
        trainer.fit(model or Root(named), DataLoader(rows, batch_size))
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


@pytest.mark.parametrize("bad", [-1.0, math.inf])
def test_of_the_batches_of_a_step_the_one_that_first_was_not_finite_is_named(bad: float, tmp_path: Path) -> None:
    model = Root(named=True)
    told = failure(tmp_path, bad, batch_size=2, model=model, accumulate_grad_batches=3)
    assert told.startswith("the loss is not finite at step 0, epoch 0, rate 1e-06 (got ")
    assert "look at the batch (of 2: row 2, row 3), lower" in told
    assert model.weight.item() == 1.0


def test_losses_of_manual_optimization_are_looked_at_before_any_step(tmp_path: Path) -> None:
    model = Apart()
    told = failure(tmp_path, -1.0, batch_size=2, model=model)
    assert told.startswith("the loss is not finite at step ")
    assert "look at the batch (of 2: row 2, row 3), lower" in told
    assert math.isfinite(model.weight.item())
    # Both steps of the first batch, none of the second.
    assert model.weight.item() == pytest.approx(1 - 1.1e-5, abs=1e-7)


def test_a_step_waits_for_the_device_once(tmp_path: Path, reads_of: Callable[[Callable[[], Any]], int]) -> None:
    class Logging(Root):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            self.log("train/loss", loss, prog_bar=True)
            return loss

    def counted(*callbacks: L.Callback) -> int:
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=1, accumulate_grad_batches=4, default_root_dir=tmp_path, logger=False,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
            callbacks=list(callbacks),
        )  # fmt: skip
        rows: Any = [{"id": str(number), "value": 1.0} for number in range(32)]
        return reads_of(lambda: trainer.fit(Logging(named=True), DataLoader(rows, 2)))

    without = counted()
    assert without > 0  # Lightning reads what goes into the progress bar
    assert counted(FiniteGuard()) - without == 4  # steps
    assert counted(DivergenceGuard(window=8)) - without == 2
    assert counted(DivergenceGuard()) == without
    assert counted(FiniteGuard(), DivergenceGuard(window=8)) - without == 6
