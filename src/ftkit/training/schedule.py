"""Compare the length of a learning-rate schedule with that of the training."""

import math
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ftkit.errors import InputError

# What torch's schedulers call the step at which they are over, come around, or change the rate for the first time.
_ENDS = ("T_max", "total_iters", "total_steps", "total_size", "T_0", "step_size")


def schedule_length(state: Mapping[str, Any]) -> float | None:
    """Return after how many of its steps a scheduler of torch has done what it does, by its ``state_dict()``; or None.

    Example:
        >>> schedule_length({"milestones": {30: 1, 80: 1}, "gamma": 0.1})
        80
        >>> schedule_length({"_milestones": [10], "_schedulers": [{"total_iters": 10}, {"T_max": 90}]})
        100
    """
    parts = [schedule_length(part) or 0 for part in state.get("_schedulers", [])]
    if milestones := state.get("_milestones"):  # one part after the other
        return milestones[-1] + parts[-1]
    ends = [state[name] for name in _ENDS if isinstance(state.get(name), int | float)]
    return max([*ends, *state.get("milestones", ()), *parts], default=None)


def check_schedules(trainer: L.Trainer) -> None:
    """Warn of schedules that a training does not get to the end of.

    Raises:
        InputError: A schedule ends before the training does, and could not be stepped on.
    """
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau:
            continue
        scheduler, unit = config.scheduler, config.interval
        name, total = type(scheduler).__name__, _length_of_training(trainer, unit)
        length = schedule_length(scheduler.state_dict())
        if hasattr(scheduler, "total_steps") and scheduler.total_steps < total:
            raise InputError(
                f"{name} ends after {scheduler.total_steps} {unit}s, and the training has {total}",
                field="model.scheduler.total_steps",
                fix=f"use total_steps: {total}" if math.isfinite(total) else "limit the training by max_steps",
            )
        if length is not None and length > total:
            other = "epoch" if unit == "step" else "step"
            rank_zero_warn(
                f"model.scheduler: {name} takes {length:g} {unit}s, and the training has {total:g}, so the rate does "
                f"not get to where it should; shorten one, lengthen the other, or use scheduler_interval: {other}"
            )
        elif _still_rises(scheduler, total):
            rank_zero_warn(f"model.scheduler: {name} still warms up after {total:g} {unit}s, when the training ends")


def _length_of_training(trainer: L.Trainer, unit: str) -> float:
    """Return the steps or epochs of a training; infinite if only a time or a signal ends it."""
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()  # which is what estimated_stepping_batches does mostly, and says
    steps = trainer.estimated_stepping_batches
    if unit == "step":
        return steps
    in_an_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return math.ceil(steps / in_an_epoch) if math.isfinite(steps) and math.isfinite(in_an_epoch) else math.inf


def _still_rises(scheduler: Any, total: float) -> bool:
    """Return whether a rate that is a function of the step is highest, and rises, when the training ends."""
    if not hasattr(scheduler, "lr_lambdas") or not math.isfinite(total) or total < 2:
        return False
    factor, last = scheduler.lr_lambdas[0], int(total) - 1
    return factor(last) > max(factor(last * part // 100) for part in range(100))
