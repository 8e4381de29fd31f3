import pytest
import torch
from torch.utils.data import DataLoader

from ftkit.classifier.samplers import EpochSampler, published_order
from ftkit.training.samplers import seeded_order


def orders_of_the_published_loop(n: int, batch_size: int, val: int, epochs: int) -> list[list[int]]:
    """Real loaders on the global generator, iterated where the published script iterates them."""
    torch.manual_seed(123)
    train = DataLoader(range(n), batch_size=batch_size, shuffle=True, drop_last=True)
    validation = DataLoader(range(val), batch_size=batch_size)

    def look(loader: DataLoader) -> None:
        for seen, _ in enumerate(loader):
            if seen == 5:
                break

    orders, step = [], -1
    for _ in range(epochs):
        order = []
        for batch in train:
            order += batch.tolist()
            step += 1
            if step % 50 == 0:
                look(train)
                look(validation)
        look(train)
        look(validation)
        orders.append(order)
    return orders


@pytest.mark.parametrize(("n", "batch_size", "val"), [(1045, 8, 149), (163, 1, 9), (411, 8, 3), (16, 8, 2)])
def test_published_order_is_that_of_real_loaders(n, batch_size, val):
    expected = orders_of_the_published_loop(n, batch_size, val, epochs=4)
    batches = n // batch_size
    for epoch, order in enumerate(expected):
        assert published_order(n, batches, 123, epoch).tolist()[: batches * batch_size] == order


def test_orders_are_permutations_that_differ_by_seed_and_epoch():
    orders = [seeded_order(100, seed, epoch).tolist() for seed in (1, 2) for epoch in (0, 1, 2)]
    orders += [published_order(100, 12, seed, epoch).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len(set(map(tuple, orders))) == len(orders)


@pytest.mark.parametrize("seed", [0, -1, 2**64 - 1])
@pytest.mark.parametrize("order", ["seeded", "published"])
def test_any_seed_that_torch_takes(seed, order):
    sampler = EpochSampler(5, batches=2, seed=seed, order=order)
    assert sorted(sampler) == list(range(5))


@pytest.mark.parametrize("order", ["seeded", "published"])
def test_sampler_depends_on_seed_and_epoch_alone(order):
    sampler = EpochSampler(50, batches=6, seed=123, order=order)
    sampler.set_epoch(3)
    first = list(sampler)
    torch.manual_seed(99)
    torch.rand(10)
    fresh = EpochSampler(50, batches=6, seed=123, order=order)
    assert list(fresh) != first
    fresh.set_epoch(3)
    assert list(fresh) == first == list(sampler)


def test_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(EpochSampler(50, 6, 123, "published"))
    list(EpochSampler(50, 6, 123, "seeded"))
    assert torch.equal(before, torch.get_rng_state())
