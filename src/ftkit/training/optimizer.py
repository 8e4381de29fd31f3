"""Build the optimizer and scheduler of a configuration, and check them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import nn

from ftkit.errors import InputError

Interval: TypeAlias = Literal["step", "epoch"]


def configured_optimizers(
    parameters: Iterable[nn.Parameter],
    optimizer: OptimizerCallable,
    scheduler: LRSchedulerCallable | None,
    lr: float | None = None,
    interval: Interval = "step",
) -> Any:
    """Return what ``configure_optimizers`` returns: a scheduler is stepped at an interval, or by what it monitors.

    Gradients are freed once a step has used them. Lightning alone would keep them until the next backward pass, beside
    the activations of the forward pass before it and beside all of validation.

    Args:
        parameters: The trainable ones.
        optimizer: Makes the optimizer from them.
        scheduler: Makes a learning-rate scheduler from the optimizer.
        lr: A learning rate that was found and replaces the optimizer's own.
        interval: Whether a scheduler is stepped with the optimizer or after each epoch. A ``ReduceLROnPlateau`` is
            stepped after each epoch.

    Raises:
        InputError: A rate or another setting is out of range.
    """
    try:
        made = optimizer(parameters)
    except InputError:
        raise
    except ValueError as error:  # torch checks the ranges
        raise InputError(str(error), field="model.optimizer") from error
    for group in made.param_groups:
        group["lr"] = group["lr"] if lr is None else lr
        if not 0 < group["lr"] < float("inf"):  # torch refuses negative ones only
            raise InputError("the learning rate must be positive", field="model.optimizer.lr", got=group["lr"])
    made.register_step_post_hook(lambda stepped, *_: stepped.zero_grad())
    if scheduler is None:
        return made
    schedule: Any = scheduler(made)
    if isinstance(schedule, ReduceLROnPlateau):
        return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "monitor": schedule.monitor}}
    if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise InputError(
            "needs a metric to monitor",
            field="model.scheduler",
            got="torch.optim.lr_scheduler.ReduceLROnPlateau",
            fix="use lightning.pytorch.cli.ReduceLROnPlateau with monitor: val/loss",
        )
    return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": interval}}
