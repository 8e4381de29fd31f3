"""Order the examples of an epoch, and share them among processes: a pure function of seed and epoch.

Nothing is drawn from a running generator, so a resumed run visits what an uninterrupted one would have visited; and the
processes of a distributed run take turns in the order of a single one, so together they make the same batches.
Lightning would put a sampler of its own in the place of any that is not a ``DistributedSampler``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.utils.data import DistributedSampler

from ftkit.training.distributed import processes


def seeded_order(n: int, seed: int, epoch: int) -> Tensor:
    """Return the permutation of ``n`` examples that belongs to a seed and an epoch, (n,) int64."""
    # The entropy is mixed, so that seed 1 in epoch 2 has nothing to do with seed 2 in epoch 1.
    mixed = np.random.SeedSequence([seed % 2**64, epoch]).generate_state(1)
    return torch.randperm(n, generator=torch.Generator().manual_seed(int(mixed[0])))


class SharedSampler(DistributedSampler[int]):
    """Visit every ``num_replicas``-th example of an order, which is that of the examples; subclasses choose another.

    Together the processes' batches of ``batch_size`` are those of ``num_replicas * batch_size`` examples of one
    process.

    Args:
        n: Number of examples.
        batch_size: Examples in a batch of one process.
        drop_last: Whether the loader leaves out the last, smaller batch.
        even: All processes make equally many batches: where only some of them would have examples left for a last one,
            the others visit examples from the beginning of the order once more. Otherwise an example is repeated only
            if there are fewer examples than processes.
        num_replicas: Number of processes.
        rank: Which of them this is.

    Example:
        >>> [list(SharedSampler(5, even=even, num_replicas=2, rank=1)) for even in (True, False)]
        [[1, 3, 0], [1, 3]]
    """

    def __init__(
        self,
        n: int,
        batch_size: int = 1,
        drop_last: bool = False,
        even: bool = True,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(range(n), num_replicas, rank, drop_last=drop_last)  # type: ignore[arg-type]
        self.n, self.batch_size = n, batch_size
        over = n % (num_replicas * batch_size)
        if drop_last:
            self.total_size = n - n % num_replicas
        elif 0 < over < num_replicas and (even or n < num_replicas):
            self.total_size = n + num_replicas - over
        else:
            self.total_size = n
        self.num_samples = len(range(rank, self.total_size, num_replicas))

    def order(self) -> list[int]:
        """Return the examples of the epoch, of all processes."""
        return list(range(self.n))

    def __iter__(self) -> Iterator[int]:
        order = self.order()
        return (order[place % self.n] for place in range(self.rank, self.total_size, self.num_replicas))


class SeededSampler(SharedSampler):
    """Visit the ``n`` training examples in the order that belongs to the epoch.

    Lightning calls :meth:`set_epoch` before each epoch; whoever iterates a loader by hand calls it too.

    Example:
        >>> sampler = SeededSampler(4, seed=123)
        >>> sampler.set_epoch(1)
        >>> list(sampler) == seeded_order(4, seed=123, epoch=1).tolist()
        True
    """

    def __init__(self, n: int, seed: int, **sharing: Any) -> None:
        super().__init__(n, **sharing)
        self.seed = seed

    def order(self) -> list[int]:
        """Return the permutation of the epoch."""
        return seeded_order(self.n, self.seed, self.epoch).tolist()


class FixedSampler(SharedSampler):
    """Visit the examples in an order that is given, in every epoch."""

    def __init__(self, places: Sequence[int], **sharing: Any) -> None:
        super().__init__(len(places), **sharing)
        self.places = list(places)

    def order(self) -> list[int]:
        """Return the examples as they were given."""
        return self.places


def evaluation_sampler(places: Sequence[int], batch_size: int, trainer: L.Trainer | None) -> SharedSampler:
    """Return a sampler that visits each example once, in the order of ``places``, over all processes.

    Sharded weights (FSDP2) need the same number of batches on all processes, so there some of the first examples may be
    visited twice. Prediction files, and what is counted from them, hold each example once all the same.
    """
    sharing: dict[str, Any] = processes(trainer)
    even = trainer is not None and bool(sharing) and isinstance(trainer.strategy, ModelParallelStrategy)
    return FixedSampler(places, batch_size=batch_size, even=even, **sharing)
