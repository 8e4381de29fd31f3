"""Make random draws, and the order of loaders, a pure function of seed, epoch and batch."""

import random
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

# What the numbers are drawn for; each has its own stream.
ORDER, FETCH, STEP = range(3)


def reseed(seed: int, epoch: int, batch_idx: int, stream: int = STEP) -> None:
    """Seed Python, NumPy and PyTorch (all devices) for one batch of an epoch, both counted from 0.

    Streams are independent: what the numbers are drawn for, one of ``ORDER``, ``FETCH`` and ``STEP``.
    """
    # The entropy is mixed, so that neighbouring batches and seeds have nothing in common.
    mixed = int(np.random.SeedSequence([seed % 2**64, epoch, batch_idx, stream]).generate_state(1, np.uint64)[0])
    seed_all(mixed % 2**63)


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if _accelerated():
        torch.manual_seed(seed)
    else:  # the same draws; for devices that are not there torch would note each time who asked, which takes longer
        torch.default_generator.manual_seed(seed)


@cache
def _accelerated() -> bool:
    """Return whether there is a device besides the CPU."""
    return torch.accelerator.is_available()


class ReplayLoader:
    """Make the batches of a data loader a function of seed and epoch, and let it start in the middle of an epoch.

    The global generators are seeded when an iteration begins and before each batch is fetched, so a shuffling sampler
    draws the same order, and a data set that draws random numbers draws the same ones. Generators that the loader was
    given move on from epoch to epoch; their states are kept and put back.

    Batches before the start are not loaded where the data set can be indexed in this process; otherwise they are loaded
    and dropped.

    Args:
        loader: The data loader; its attributes are this one's too.
        seed: Seed of the run.
        epoch: Gives the epoch.
        start: Gives the batch at which the coming iteration starts, and the states of the generators at the beginning
            of its epoch, or None where they are as they should be.
    """

    def __init__(
        self,
        loader: Any,
        seed: int,
        epoch: Callable[[], int],
        start: Callable[[], tuple[int, list[torch.Tensor] | None]],
    ) -> None:
        self.loader, self._seed, self._epoch, self._start = loader, seed, epoch, start
        self.generator_states: list[torch.Tensor] = []

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # not set yet: a copy is being made
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        epoch, (first, states) = self._epoch(), self._start()
        generators = _generators(self.loader)
        if states is not None:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
        self.generator_states = [generator.get_state() for generator in generators]
        reseed(self._seed, epoch, 0, ORDER)
        batches = iter(self.loader)
        passed = _indices(self.loader, batches)
        for batch_idx in count():
            reseed(self._seed, epoch, batch_idx, FETCH)
            try:
                batch = next(passed if batch_idx < first else batches)
            except StopIteration:
                return
            if batch_idx >= first:
                yield batch


def _generators(loader: Any) -> list[torch.Generator]:
    """Return the generators that a loader and its samplers were given, each once."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    holders = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found = (getattr(holder, "generator", None) for holder in holders)
    return list({id(generator): generator for generator in found if isinstance(generator, torch.Generator)}.values())


def _indices(loader: Any, batches: Iterator[Any]) -> Iterator[Any]:
    """Return what to iterate over to skip a batch: its indices alone if nothing else is lost by that."""
    indexed = getattr(loader, "batch_sampler", None) is not None and not isinstance(loader.dataset, IterableDataset)
    by_index = indexed and getattr(loader, "num_workers", None) == 0
    return getattr(batches, "_sampler_iter", batches) if by_index else batches
