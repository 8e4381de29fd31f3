"""Share numbers among the processes of a distributed run."""

from typing import Any

import lightning as L
import torch
from torch import Tensor


def processes(trainer: L.Trainer | None) -> dict[str, int]:
    """Return ``num_replicas`` and ``rank`` of a sampler, by the data module's trainer; nothing for a single process."""
    return dict((trainer and trainer.distributed_sampler_kwargs) or {})


def summed(trainer: L.Trainer, *values: Any) -> Tensor:
    """Sum tensors on the process's device, or numbers, over all processes: float32, without gradients."""
    options: dict[str, Any] = {"dtype": torch.float32, "device": trainer.strategy.root_device}
    # A plain number is filled in by the device itself; to copy it there, the device would be waited for.
    scalars = [v.detach().to(**options) if isinstance(v, Tensor) else torch.full((), v, **options) for v in values]
    return trainer.strategy.reduce(torch.stack(scalars), reduce_op="sum")
