"""In which order an epoch visits the training messages: a pure function of a seed and the epoch's number.

Nothing is drawn from a running generator, so a resumed run visits what an unbroken one would have visited.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

Order = Literal["seeded", "published"]

_EVALUATE_EVERY = 50  # batches, in the published script


def seeded_order(n: int, seed: int, epoch: int) -> Tensor:
    """A permutation of ``n`` messages that belongs to a seed and an epoch.

    Returns:
        Indices (n,) int64.

    Example:
        >>> sorted(seeded_order(3, seed=123, epoch=0).tolist())
        [0, 1, 2]
    """
    # The entropy is mixed, so that seed 1 in epoch 2 has nothing to do with seed 2 in epoch 1.
    mixed = np.random.SeedSequence([seed % 2**64, epoch]).generate_state(1)
    return torch.randperm(n, generator=torch.Generator().manual_seed(int(mixed[0])))


def published_order(n: int, batches: int, seed: int, epoch: int) -> Tensor:
    """The permutation that the published script's data loader draws in an epoch.

    The script draws from one generator, which its periodic evaluations move on as well: iterating a loader
    draws a seed for its workers, and a shuffling loader one more for its permutation. After every 50th batch,
    and after each epoch, it iterates the train loader (two draws) and the validation loader (one).

    Args:
        n: Number of training messages.
        batches: Batches in an epoch.
        seed: What the script's ``torch.manual_seed`` was given.
        epoch: The epoch, counted from 0.

    Returns:
        Indices (n,) int64.

    Source: the experiment script of chapter 6 of S. Raschka, Build a Large Language Model (From Scratch).
    """
    script = torch.Generator().manual_seed(seed)
    for past in range(epoch):
        first = past * batches
        evaluations = sum(batch % _EVALUATE_EVERY == 0 for batch in range(first, first + batches)) + 1
        for _ in range(2 + 3 * evaluations):
            _draw(script)
    _draw(script)  # the seed of the loader's workers
    return torch.randperm(n, generator=torch.Generator().manual_seed(_draw(script)))


class EpochSampler(Sampler[int]):
    """Visits the training messages in the order that belongs to the epoch.

    Lightning calls :meth:`set_epoch` before each epoch; whoever iterates a loader by hand calls it too.

    Args:
        n: Number of training messages.
        batches: Batches in an epoch.
        seed: Seed of the orders.
        order: ``"seeded"`` or ``"published"``.

    Example:
        >>> sampler = EpochSampler(4, batches=2, seed=123, order="seeded")
        >>> sampler.set_epoch(1)
        >>> list(sampler) == seeded_order(4, seed=123, epoch=1).tolist()
        True
    """

    def __init__(self, n: int, batches: int, seed: int, order: Order) -> None:
        self.n, self.batches, self.seed, self.order = n, batches, seed, order
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, that the next iteration belongs to."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        if self.order == "published":
            yield from published_order(self.n, self.batches, self.seed, self.epoch).tolist()
        else:
            yield from seeded_order(self.n, self.seed, self.epoch).tolist()


def _draw(generator: torch.Generator) -> int:
    """One seed, drawn as PyTorch's data loader and random sampler draw theirs."""
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())
