"""Share numbers among the processes of a distributed run."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor


def processes(trainer: L.Trainer | None) -> dict[str, int]:
    """Return how many processes share the examples and which this is: ``num_replicas`` and ``rank`` of a sampler.

    Args:
        trainer: The data module's.

    Returns:
        Nothing for a single process.
    """
    return dict((trainer and trainer.distributed_sampler_kwargs) or {})


def summed(trainer: L.Trainer, *values: Any) -> Tensor:
    """Sum some numbers over all processes, without gradients.

    Args:
        trainer: The module's.
        *values: Scalars, as tensors on the process's device or as plain numbers.

    Returns:
        As many sums, float32.
    """
    options: dict[str, Any] = {"dtype": torch.float32, "device": trainer.strategy.root_device}
    # A plain number is filled in by the device itself; to copy it there, the device would be waited for.
    scalars = [v.detach().to(**options) if isinstance(v, Tensor) else torch.full((), v, **options) for v in values]
    return trainer.strategy.reduce(torch.stack(scalars), reduce_op="sum")
