"""Stop training before a step on a loss that is not finite, and when the loss has diverged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor

from ftkit.errors import TrainingFailed, at_least
from ftkit.training.logged_values_internals import logged_in_step
from ftkit.training.recorder import record_unfinished

NAMED = 5  # examples of a batch


class FiniteGuard(L.Callback):
    """Stop training before a step is taken on a loss or a gradient that is not finite.

    The message names the first examples of the batch whose loss it is, or of the last batch of a step whose gradients
    are, where batches say their ``id``. A monitored metric that is not finite never makes a checkpoint the best one.

    Reading a number waits until the device has computed it. So the losses of a step's batches and the norm of its
    gradients are read together, once, before the step. A module that optimizes manually may step in ways of its own:
    there each loss is read before its backward pass.
    """

    def __init__(self) -> None:
        self._ids: list[Any] = []
        self._losses: list[tuple[Tensor, list[Any]]] = []  # of the batches since the last step, with their ids

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Keep checkpoint callbacks from ranking what is not a number: Lightning takes the first it sees as best."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.save_top_k > 0:
                callback.check_monitor_top_k = _finite_only(callback)  # type: ignore[method-assign]

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note what the batch holds."""
        self._ids = list(batch["id"]) if isinstance(batch, Mapping) and "id" in batch else []

    def on_before_zero_grad(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Forget the losses of batches whose gradients are thrown away."""
        self._losses.clear()

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Note the loss of a batch.

        Raises:
            TrainingFailed: It is infinite or not a number, and the module optimizes manually.
        """
        self._losses.append((loss.detach(), self._ids))
        if not pl_module.automatic_optimization:
            self._look(trainer)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Check the losses and the gradients of a step; infinite gradients under a gradient scaler are left to it.

        Raises:
            TrainingFailed: One is infinite or not a number.
        """
        norm = None
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
            norm = torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
        self._look(trainer, norm)

    def _look(self, trainer: L.Trainer, norm: Tensor | None = None) -> None:
        """Read everything that came since the last step at once."""
        noted, self._losses = self._losses, []
        named = [("the loss", ids) for _, ids in noted] + [("the norm of the gradients", self._ids)]
        values = read_at_once([*(loss for loss, _ in noted), *([] if norm is None else [norm])])
        for (what, ids), value in zip(named, values, strict=False):
            if not math.isfinite(value):
                raise self._failure(trainer, what, value, ids)

    def _failure(self, trainer: L.Trainer, what: str, value: float, ids: list[Any]) -> TrainingFailed:
        where = f"at step {trainer.global_step}, epoch {trainer.current_epoch}, rate {_rate(trainer):g}"
        more = ", ..." if len(ids) > NAMED else ""
        examples = f" (of {len(ids)}: {', '.join(map(str, ids[:NAMED]))}{more})" if ids else ""
        record_unfinished(trainer, "failed", f"{what} is not finite {where} (got {value}); the batch{examples}")
        return TrainingFailed(
            f"{what} is not finite {where}",
            got=value,
            fix=f"look at the batch{examples}, lower the learning rate; the last checkpoint is from before this step",
        )


@dataclass
class Climb:
    """Tell a loss that climbs and stays up from one that is only noisy.

    Losses are averaged over blocks of ``window``. A block counts as up if its mean lies above the best block's by a
    quarter and by half of what had been gained since the first block, and by four standard errors. ``patience`` blocks
    up in a row, and the training is lost.

    Example:
        >>> climb = Climb(window=1, patience=2)
        >>> [climb.add(loss) for loss in (0.9, 0.5, 0.8, 0.5, 1.0, 1.1)]
        [False, False, False, False, False, True]
    """

    window: int
    patience: int
    first: float = math.nan
    best: float = math.inf
    best_error: float = 0.0
    up: int = 0
    block: list[float] = field(default_factory=list)

    def add(self, loss: float) -> bool:
        """Take one more loss; return whether it has climbed for good."""
        self.block.append(loss)
        if len(self.block) < self.window:
            return False
        values, self.block = np.array(self.block), []
        mean = float(values.mean())
        error = float(values.std(ddof=1)) / math.sqrt(self.window) if self.window > 1 else 0.0
        if math.isnan(self.first):
            self.first = mean
        gained = self.first - self.best if math.isfinite(self.best) else 0.0
        margin = max(self.best / 4, gained / 2, 4 * math.hypot(error, self.best_error))
        self.up = self.up + 1 if mean > self.best + margin else 0
        if mean < self.best:
            self.best, self.best_error = mean, error
        return self.up >= self.patience


class DivergenceGuard(L.Callback):
    """Stop a training whose loss climbs and stays up, with what to do about it (exit code 4).

    It reads ``train/loss`` if the module logs it, else the loss of the batch, see :class:`Climb`. Two logs of one
    fine-tuning, each figure an average of many steps: with a rate that warmed up to 2e-4 the loss went from 0.74
    through 0.86 to 1.13, 1.12, 1.14 and stayed there; the guard would have stopped it there, 0.80 of
    its first epoch. With a tenth of that rate it went from 0.82 through 0.54, 0.55, 0.51, 0.55 to 0.53; the guard would
    have said nothing.

    Args:
        enabled: Whether it looks at all.
        window: Batches whose losses are averaged; with accumulated gradients there are several in a step.
        patience: Averages in a row that must be up. Nothing is found in fewer than ``window * (patience + 1)`` batches,
            so a short training needs smaller numbers.

    Raises:
        InputError: ``window`` or ``patience`` is below 1.
    """

    def __init__(self, enabled: bool = True, window: int = 25, patience: int = 4) -> None:
        at_least(1, window=window, patience=patience)
        self.enabled = enabled
        self.climb = Climb(window, patience)
        self._unread: list[Tensor] = []  # losses on their device: they are read once a window

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss of a batch, and look at those of a window.

        Raises:
            TrainingFailed: It has climbed for good.
        """
        loss = logged_in_step(trainer, "train/loss")
        if loss is None:
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not self.enabled or loss is None:
            return
        self._unread.append(torch.as_tensor(loss).detach())
        if len(self.climb.block) + len(self._unread) < self.climb.window or not self._read():
            return
        found = (
            f"the loss has climbed from {self.climb.best:.4g} and stayed up for "
            f"{self.climb.patience * self.climb.window} batches at step {trainer.global_step}, "
            f"epoch {trainer.current_epoch}, rate {_rate(trainer):g}"
        )
        record_unfinished(trainer, "failed", found)
        raise TrainingFailed(
            found,
            got=float(loss),
            fix="lower the learning rate tenfold or warm up longer, then look at the data and its order; "
            "--divergence.enabled false goes on regardless",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen so far."""
        self._read()
        return asdict(self.climb)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint, with this run's window and patience."""
        self._unread.clear()
        if state_dict.get("window") == self.climb.window:
            self.climb = Climb(**{**state_dict, "patience": self.climb.patience})

    def _read(self) -> bool:
        """Add what was not read yet; return whether the loss has climbed for good."""
        losses, self._unread = read_at_once(self._unread), []
        lost = False
        for loss in losses:
            lost = self.climb.add(loss)
        return lost


def read_at_once(values: Sequence[Tensor]) -> list[float]:
    """Read numbers from a device, which is waited for once; tensors of one element each, also of a sharded network."""
    whole = [value.full_tensor() if isinstance(value, DTensor) else value for value in values]
    return torch.stack([value.reshape(()).to(whole[0].device) for value in whole]).tolist() if whole else []


def _finite_only(callback: ModelCheckpoint) -> Any:
    ranked = callback.check_monitor_top_k

    def check(trainer: L.Trainer, current: Tensor | None = None) -> bool:
        finite = current is None or bool(torch.isfinite(torch.as_tensor(current)))
        if trainer.strategy.reduce_boolean_decision(finite):  # in all processes: none may go on alone
            return ranked(trainer, current)
        rank_zero_warn(f"{callback.monitor} is {float(torch.as_tensor(current))}: no candidate for the best checkpoint")
        return False

    return check


def _rate(trainer: L.Trainer) -> float:
    return next(group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups)
