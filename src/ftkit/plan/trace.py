"""Trace steps of a network whose tensors have no numbers, and add up what a training costs."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ftkit.plan.packed import COUNTED
from ftkit.plan.steps import Costs, Memory, Step, update_of
from ftkit.plan.torch_internals import OperatorCosts


def cast(net: nn.Module, trainer: Any) -> None:
    """Give the weights of a network of fake tensors the type of the trainer's precision, if that is 16 bits alone.

    ``Module.to`` cannot replace the fake ones.
    """
    dtype = {"bf16-true": torch.bfloat16, "16-true": torch.float16}.get(trainer.precision)
    if dtype is None:
        return
    done: dict[nn.Parameter, nn.Parameter] = {}  # tied ones stay the same
    for part in net.modules():
        for name, one in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            if isinstance(one, nn.Parameter) and one.is_floating_point():
                setattr(part, name, done.setdefault(one, nn.Parameter(one.to(dtype), one.requires_grad)))
            elif one.is_floating_point():
                setattr(part, name, one.to(dtype))


def traced(net: nn.Module, run: Callable[[], Tensor], trainer: Any, training: bool) -> Step:
    """Return what a pass through a network costs, in the trainer's precision: forwards, and back from a loss.

    Args:
        net: The network.
        run: Goes forwards, and returns the loss if it trains.
        trainer: The trainer. Where it accumulates batches, gradients of an earlier one are there.
        training: Whether it goes back.
    """
    held = 0
    for one in net.parameters():
        earlier = training and one.requires_grad and trainer.accumulate_grad_batches > 1
        one.grad = torch.zeros_like(one) if earlier else None
        held += one.numel() * one.itemsize if earlier else 0
    with nullcontext() if training else torch.no_grad(), OperatorCosts() as costs:
        with trainer.precision_plugin.forward_context():
            found = run()
        if training:
            found.backward()
    net.zero_grad(set_to_none=True)
    return Step(costs.work, costs.peak + held)


def total(
    net: nn.Module, optimizer: Callable[[Any], Any], trained: Iterable[Step], copies: int = 1, **rest: Any
) -> Costs:
    """Return the costs of a training.

    Args:
        net: The network.
        optimizer: Makes the optimizer.
        trained: Its training steps; the largest decides the memory.
        copies: How many networks of its size are on the device, all but one of them frozen.
        **rest: Those of :class:`ftkit.plan.steps.Costs` that are known.
    """
    sizes = [one.numel() * one.itemsize for one in net.parameters() if one.requires_grad]
    made = optimizer([nn.Parameter(torch.zeros(1))])
    update, state = update_of(type(made).__name__, sizes, bool(made.defaults.get("fused")))
    weights = copies * sum(one.numel() * one.itemsize for one in [*net.parameters(), *net.buffers()])
    largest = max(step.peak for step in trained)
    memory = Memory(weights, sum(sizes), state, max(0, largest - sum(sizes)))
    trainable = sum(one.numel() for one in net.parameters() if one.requires_grad)
    frozen = sum(getattr(one, COUNTED, one.numel()) for one in net.parameters() if not one.requires_grad)
    return Costs(trainable, frozen, memory, update=update, **rest)
