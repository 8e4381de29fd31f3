"""When training must stop: before it learns from a broken loss."""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor

from ftkit.errors import TrainingFailed


class FiniteGuard(L.Callback):
    """Stops training before a step is taken on a loss or a gradient that is not finite."""

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Look at the loss of a batch.

        Raises:
            TrainingFailed: It is infinite or not a number.
        """
        if not torch.isfinite(loss):
            raise self._failure(trainer, "the loss", loss.item())

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the gradients of a step. Under a gradient scaler infinities are its own business.

        Raises:
            TrainingFailed: One is infinite or not a number.
        """
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
        if not torch.isfinite(norm):
            raise self._failure(trainer, "the norm of the gradients", norm.item())

    def _failure(self, trainer: L.Trainer, what: str, value: float) -> TrainingFailed:
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        return TrainingFailed(
            f"{what} is not finite at step {trainer.global_step}, epoch {trainer.current_epoch}, rate {rates[0]:g}",
            got=value,
            fix="lower the learning rate; the last checkpoint is from before this step",
        )
