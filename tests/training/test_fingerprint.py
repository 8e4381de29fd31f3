"""Weights that compute something else have another digest, and those that compute the same have the same."""

from threading import current_thread

import pytest
import torch
from torch import nn

from ftkit.training.fingerprint import Unchanged, digests, each_hashed, weights_of
from quantized_layers import KINDS, quantized


def digest(module: nn.Module) -> str:
    (found,) = digests([weights_of(module)])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_scales_of_quantized_weights_count(kind: str) -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 64)
    layer = quantized(weight, kind)
    assert torch.equal(layer.weight, quantized(2 * weight, kind).weight)  # the integers alone do not tell
    assert digest(layer) == digest(quantized(weight, kind)) != digest(quantized(2 * weight, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_running_a_quantized_layer_changes_nothing(kind: str) -> None:
    layer = quantized(torch.randn(64, 64), kind).eval()
    before, unchanged = digest(layer), Unchanged(weights_of(layer))
    with torch.inference_mode():
        layer(torch.randn(2, 64))
    assert digest(layer) == before
    assert unchanged()


def test_every_weight_and_buffer_counts() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    net.register_buffer("beside", torch.ones(2), persistent=False)
    digests_so_far = {digest(net)}
    for tensor in weights_of(net):
        with torch.no_grad():
            tensor.add_(1)
        digests_so_far.add(digest(net))
    assert len(digests_so_far) == 1 + 8


def test_a_shared_weight_counts_once_and_parts_can_be_left_out() -> None:
    net = nn.Sequential(nn.Embedding(5, 3), nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 5, bias=False))
    net[2].weight = net[0].weight
    assert [tuple(tensor.shape) for tensor in weights_of(net)] == [(5, 3), (3, 3), (3,)]
    assert [tuple(tensor.shape) for tensor in weights_of(net, without=[net[1], net[2]])] == [(5, 3)]
    assert digests([]) == []


def test_what_was_changed_stays_changed() -> None:
    layer = nn.Linear(3, 2).requires_grad_(False)
    learnt, written = Unchanged(weights_of(layer)), Unchanged(weights_of(layer))
    assert learnt()
    layer.bias.requires_grad_(True)
    assert not learnt()
    layer.bias.requires_grad_(False)
    assert not learnt()
    assert written()  # nobody asked meanwhile
    layer.weight.zero_()
    assert not written()
    with torch.inference_mode():
        made_there = nn.Linear(3, 2).requires_grad_(False)
    assert Unchanged(weights_of(made_there))()


def test_what_is_small_is_hashed_without_threads_and_everything_in_its_order() -> None:
    names = lambda size: each_hashed(lambda number: (number, current_thread().name), range(20), size)  # noqa: E731
    few, many = names(1000), names(100_000_000)
    assert [number for number, _ in few] == [number for number, _ in many] == list(range(20))
    assert {thread for _, thread in few} == {current_thread().name}
    assert current_thread().name not in {thread for _, thread in many}
