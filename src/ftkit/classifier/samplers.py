"""The order of the training messages in an epoch: by seed and epoch, or that of the published script."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ftkit.training.samplers import SeededSampler

Order = Literal["seeded", "published"]

_EVALUATE_EVERY = 50  # batches, in the published script


def published_order(n: int, batches: int, seed: int, epoch: int) -> Tensor:
    """Return the permutation (n,) int64 that the published script's data loader draws in an epoch, counted from 0.

    The script draws from one generator, which its periodic evaluations move on as well: iterating a loader draws a seed
    for its workers, and a shuffling loader one more for its permutation. After every 50th batch, and after each epoch,
    it iterates the train loader (two draws) and the validation loader (one).

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


def balanced_order(label: Tensor, seed: int, epoch: int) -> Tensor:
    """Return N places of an epoch, (N,) int64, in which every class comes as often as any other, up to one.

    They come in rounds of one example of each class in random order. A large class shows other examples in other
    epochs; a small one begins anew once all its examples were shown.

    Args:
        label: The class of each example, (N,) int64.
        seed: Seed of the orders.
        epoch: The epoch, counted from 0.

    Example:
        >>> label = torch.tensor([0] * 9 + [1])
        >>> label[balanced_order(label, seed=123, epoch=0)].sum()
        tensor(5)
    """
    random = np.random.default_rng([seed % 2**64, epoch])
    groups = [(label == one).nonzero().flatten().numpy() for one in label.unique()]
    rounds = -(-len(label) // len(groups))
    turns = [
        np.concatenate([random.permutation(group) for _ in range(-(-rounds // len(group)))])[:rounds]
        for group in groups
    ]
    return torch.from_numpy(random.permuted(np.stack(turns, axis=1), axis=1).ravel()[: len(label)])


class EpochSampler(SeededSampler):
    """Visit the training messages in the order that belongs to the epoch.

    Args:
        n: Number of training messages.
        batches: Batches in an epoch, those of all processes taken together.
        seed: Seed of the orders.
        order: ``"seeded"`` or ``"published"``.
        label: The class of each message, (N,) int64, for an order in which all classes are alike; None takes the
            messages as they are.
        **sharing: See :class:`ftkit.training.samplers.SharedSampler`.
    """

    def __init__(
        self, n: int, batches: int, seed: int, order: Order, label: Tensor | None = None, **sharing: Any
    ) -> None:
        super().__init__(n, seed, **sharing)
        self.batches, self.published, self.label = batches, order == "published", label

    def order(self) -> list[int]:
        """Return the permutation of the epoch."""
        if self.label is not None:
            return balanced_order(self.label, self.seed, self.epoch).tolist()
        if not self.published:
            return super().order()
        return published_order(self.n, self.batches, self.seed, self.epoch).tolist()


def _draw(generator: torch.Generator) -> int:
    """Draw a seed as PyTorch's data loader and random sampler draw theirs."""
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())
