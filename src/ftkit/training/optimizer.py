"""Build the optimizer and scheduler of a configuration, and check them."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias, get_args

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import nn
from transformers import get_scheduler

from ftkit.errors import InputError

Interval: TypeAlias = Literal["step", "epoch"]
ScheduleName: TypeAlias = Literal["cosine", "linear", "constant"]
Scheduler: TypeAlias = ScheduleName | LRSchedulerCallable | None


def configured_optimizers(
    parameters: Iterable[nn.Parameter],
    optimizer: OptimizerCallable,
    scheduler: Scheduler,
    lr: float | None = None,
    interval: Interval = "step",
    warmup: float = 0.0,
    steps: Callable[[], float] = lambda: math.inf,
) -> Any:
    """Return what ``configure_optimizers`` returns: a scheduler is stepped at an interval, or by what it monitors.

    Gradients are freed once a step has used them. Lightning alone would keep them until the next backward pass, beside
    the activations of the forward pass before it and beside all of validation.

    Args:
        parameters: The trainable ones.
        optimizer: Makes the optimizer from them.
        scheduler: Makes a learning-rate scheduler from the optimizer; or the name of one, see :func:`named_schedule`.
        lr: A learning rate that was found and replaces the optimizer's own.
        interval: Whether a scheduler is stepped with the optimizer or after each epoch. A ``ReduceLROnPlateau`` is
            stepped after each epoch.
        warmup: The warm-up of a named schedule.
        steps: Returns the optimizer steps of the training, infinite if unknown; called for a named schedule.

    Raises:
        InputError: A rate or another setting is out of range, or does not go with the scheduler.
    """
    check_warmup(scheduler, warmup, interval)
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
    if isinstance(scheduler, str):
        schedule: Any = named_schedule(scheduler, made, warmup, steps())
    else:
        schedule = scheduler(made)
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


def check_warmup(scheduler: Scheduler, warmup: float, interval: Interval) -> None:
    """Refuse a warm-up that is out of range, and what does not go with the scheduler."""
    named = isinstance(scheduler, str)
    if not 0 <= warmup < math.inf or (warmup > 1 and warmup % 1):
        problem = "must be a fraction of the steps below 1, or a number of steps"
        raise InputError(problem, field="model.warmup", got=warmup)
    if warmup and not named:
        fix = f"use model.scheduler: {' or '.join(get_args(ScheduleName))}"
        raise InputError("needs a schedule that is named", field="model.warmup", got=warmup, fix=fix)
    if named and interval == "epoch":
        problem = f"the schedule {scheduler} is stepped with the optimizer"
        raise InputError(problem, field="model.scheduler_interval", got=interval, fix="use step")


def named_schedule(name: ScheduleName, optimizer: torch.optim.Optimizer, warmup: float, steps: float) -> Any:
    """Return transformers' schedule of a name, to be stepped with the optimizer.

    The rate rises linearly from 0 in the warm-up; then it stays, or falls to 0 at the end, in a straight line or along
    half a cosine wave. The number of ``steps`` is infinite if unknown.

    Raises:
        InputError: The schedule depends on the number of steps, and it is unknown.
    """
    if math.isinf(steps) and (name != "constant" or 0 < warmup < 1):
        problem, fix = "needs to know how many steps there are", "set trainer.max_epochs or max_steps, beside max_time"
        raise InputError(problem, field="model.scheduler", got=name, fix=fix)
    first = math.ceil(warmup * steps) if 0 < warmup < 1 else int(warmup)
    known = "constant_with_warmup" if name == "constant" else name
    return get_scheduler(known, optimizer, first, None if math.isinf(steps) else int(steps))
