"""Processes that share the rows of an epoch make the batches of one process."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, DistributedSampler

from ftkit.training.samplers import SeededSampler, SharedSampler, evaluation_sampler
from ftkit.training.sharding import FullySharded

SIZE = 3


def batches(sampler: Any, batch_size: int, drop_last: bool = False) -> list[list[int]]:
    loader: Any = DataLoader(range(1000), batch_size, sampler=sampler, drop_last=drop_last)  # type: ignore[arg-type]
    assert len(list(sampler)) == len(sampler)
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("processes", [2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 7, 12, 13, 24, 25, 26, 27, 30, 35])
def test_steps_hold_the_rows_of_one_process(n: int, processes: int, drop_last: bool) -> None:
    sampler = SeededSampler(n, seed=1, batch_size=processes * SIZE, drop_last=drop_last)
    sampler.set_epoch(2)
    whole = batches(sampler, processes * SIZE, drop_last)
    shares = []
    for rank in range(processes):
        share = SeededSampler(n, 1, batch_size=SIZE, drop_last=drop_last, num_replicas=processes, rank=rank)
        share.set_epoch(2)
        shares.append(batches(share, SIZE, drop_last))
    assert {len(share) for share in shares} == {len(whole)}  # or a process would wait for ever
    for number, batch in enumerate(whole):
        together = [row for share in shares for row in share[number]]
        assert set(together) >= set(batch)
        if len(batch) >= processes:
            assert sorted(together) == sorted(batch)
        else:  # nobody may stay without a row
            assert len(together) == processes


def test_lightning_leaves_it_in_place() -> None:
    """It asks just that before it would put in one of its own."""
    assert isinstance(SharedSampler(3), DistributedSampler)


@pytest.mark.parametrize(("strategy", "repeated"), [(DDPStrategy(), 0), (FullySharded(), 1)])
def test_evaluation_visits_each_row_once_unless_weights_are_in_parts(strategy: Any, repeated: int) -> None:
    shares = []
    for rank in range(2):
        sharing = {"num_replicas": 2, "rank": rank}
        trainer: Any = SimpleNamespace(strategy=strategy, distributed_sampler_kwargs=sharing)
        sampler = evaluation_sampler(range(9), 4, trainer)
        torch.manual_seed(rank)
        shares.append(list(sampler))
    assert shares[0] == [0, 2, 4, 6, 8]
    assert shares[1] == [1, 3, 5, 7] + [0] * repeated


@pytest.mark.parametrize("places", [range(9), [3, 1, 0, 2]])
def test_one_process_evaluates_in_the_order_that_is_given(places: Any) -> None:
    alone: Any = SimpleNamespace(strategy=None, distributed_sampler_kwargs=None)
    for trainer in (None, alone):
        assert list(evaluation_sampler(places, 4, trainer)) == list(places)
