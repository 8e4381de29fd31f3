"""Average a step's loss over its whole window of micro-batches, on all processes."""

from typing import Any

import torch
from torch import Tensor

from ftkit.errors import InputError
from ftkit.training.distributed import summed
from ftkit.training.trained_state import TrainedStateModule


class WindowedModule(TrainedStateModule):
    """A module whose losses are sums over tokens or pairs; each step divides by what its window of them holds."""

    def __init__(self) -> None:
        super().__init__()
        self._window = 0  # supervised tokens since the last step
        self._divided = 1  # by how many of them the losses were divided already
        self._sums: Tensor | float = 0.0  # of figures since the last step

    def window_loss(self, total: Tensor, count: int) -> Tensor:
        """Return what ``training_step`` returns, for a step that averages over its whole window of micro-batches.

        All losses of a window are divided by the tokens of its first micro-batch. Mostly there is no other, and the
        gradients need no division. Lightning divides by the number of micro-batches, the step by the rest.

        Args:
            total: The loss summed over the micro-batch's tokens (or pairs, or whatever is averaged over), a scalar.
            count: Their number.
        """
        if not self._window:  # the processes have to divide by the same
            self._divided = max(count, 1) if self.trainer.world_size == 1 else 1
        self._window += count
        return total * (self.trainer.accumulate_grad_batches / self._divided)

    def over_window(self, *values: Any) -> Tensor:
        """Return the sums of a micro-batch's figures over the window so far and over all processes, see :func:`summed`.

        Lightning hands to loggers what the last micro-batch of a window logs: then these are sums over the whole step.
        """
        self._sums = summed(self.trainer, *values) + self._sums
        return self._sums

    def restart_window(self) -> None:
        """Forget the micro-batches since the last step, for whoever starts their window again."""
        self._window, self._sums = 0, 0.0

    on_train_start = restart_window

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the supervised tokens of the window; Lightning clips them afterwards.

        Raises:
            InputError: The window has none.
        """
        count = self._window
        if self.trainer.world_size > 1:
            count = int(self.trainer.strategy.reduce(torch.tensor(count, device=self.device), reduce_op="sum"))
        self.restart_window()
        if not count:
            raise InputError(
                "no supervised token in the batches of a step",
                field="data",
                got=f"step {self.trainer.global_step}",
                fix="look at the examples: prompts may fill the whole length",
            )
        # The processes' gradients were averaged, not summed.
        divisor = count / (self._divided * self.trainer.world_size)
        if divisor == 1:
            return
        parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_div_(gradients, divisor)
