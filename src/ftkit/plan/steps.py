"""Hold what the steps of a training cost, and add them up to minutes and memory on a device."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any, NamedTuple

from ftkit.errors import InputError
from ftkit.plan.device import Device
from ftkit.plan.torch_internals import Operator, Work

_ANCHORS = 3  # widths that are traced; what lies between two of them costs a mean of both


class Step(NamedTuple):
    """Hold the cost of a forward pass, with or without the backward pass.

    Args:
        work: Its operators.
        peak: The most bytes that it holds at a time, besides the weights.
    """

    work: Work
    peak: int


@dataclass(frozen=True)
class Memory:
    """Bytes by part at the peak of a training.

    Args:
        weights: Parameters and buffers.
        gradients: Of all trainable parameters.
        optimizer: The optimizer's state.
        activations: Everything else that a step holds: what the backward pass needs, and what is made on the way.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """Return the bytes of all parts."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass
class Costs:
    """Hold the cost of a training, whatever the device.

    Args:
        trainable: Number of trainable parameters.
        frozen: Number of frozen parameters.
        memory: Its peak.
        steps: How often each step is taken, in training and evaluation.
        updates: How often the optimizer steps.
        update: What one of its steps costs.
        shared: What is computed once for all runs that name the same, by name: cached outputs of frozen layers.
        batch: Examples in a batch.
        positions: Those that the network needs of the batches of training and validation, padding and cached ones
            among them; answers are left out.
    """

    trainable: int
    frozen: int
    memory: Memory
    steps: list[tuple[float, Step]]
    updates: int
    update: Work
    shared: dict[str, list[tuple[float, Step]]] = field(default_factory=dict)
    batch: int = 1
    positions: float = 0

    def seconds(self, device: Device) -> float:
        """Return the time of the training and its evaluations, without what is shared."""
        update = device.seconds(self.update) + device.update_us / 1e6
        return device.run_s + self.updates * update + seconds(self.steps, device)

    @property
    def products(self) -> Counter[str]:
        """Return the floating-point operations of all steps by type, those that are shared too."""
        found: Any = Counter()
        for times, step in chain(self.steps, *self.shared.values()):
            for one, n in step.work.items():
                found[one.dtype] += times * n * one.operations
        return found

    @property
    def moved(self) -> float:
        """Return the bytes read and written in all steps, those that are shared too."""
        steps = chain(self.steps, *self.shared.values())
        return sum(times * sum(one.size * n for one, n in step.work.items()) for times, step in steps)

    def largest_batch(self, device: Device) -> int:
        """Return the largest number of examples in a batch that fits; 0 if not even one does."""
        left = 1e9 * (device.memory_gb - device.reserved_gb) - (self.memory.total - self.memory.activations)
        return max(0, int(left // (self.memory.activations / self.batch)))


def seconds(steps: Iterable[tuple[float, Step]], device: Device) -> float:
    """Return the time of steps, each taken so often."""
    return sum(times * (device.seconds(step.work) + device.step_us / 1e6) for times, step in steps)


def length(trainer: Any, batches: int) -> tuple[float, int]:
    """Return the epochs of a training, of the last one perhaps a part, and how often its optimizer steps.

    Args:
        trainer: The trainer, whose ``max_epochs`` or ``max_steps`` ends it.
        batches: How many batches an epoch has.

    Raises:
        InputError: It has no end.
    """
    updates = -(-batches // trainer.accumulate_grad_batches)
    ends = [trainer.max_steps / updates] if trainer.max_steps != -1 else []
    ends += [trainer.max_epochs] if trainer.max_epochs not in (None, -1) else []
    if not ends:
        raise InputError("has no end", field="trainer", fix="give max_epochs or max_steps")
    return min(ends), math.ceil(min(ends) * updates)


def positions(widths: Counter[tuple[int, int]]) -> int:
    """Return how many positions batches have, of which the examples and positions are counted."""
    return sum(size * width * times for (size, width), times in widths.items())


def between(widths: Counter[tuple[int, int]], trace: Callable[[int, int], Step]) -> list[tuple[float, Step]]:
    """Return the steps of batches of all widths, though few of them are traced.

    Args:
        widths: How many batches there are by examples and positions.
        trace: Returns the cost of a step by examples and positions.

    Example:
        >>> found = between(Counter({(8, 10): 1, (8, 20): 3, (8, 30): 1}), lambda size, width: Step(Work(), width))
        >>> [(times, step.peak) for times, step in found]
        [(1.0, 10), (3.0, 20), (1.0, 30)]
    """
    steps = []
    for size in sorted({size for size, _ in widths}):
        known = sorted(width for one, width in widths if one == size)
        last = len(known) - 1
        anchors = sorted({known[last * place // (_ANCHORS - 1)] for place in range(_ANCHORS)})
        times = {anchors[0]: float(widths[size, anchors[0]]), **dict.fromkeys(anchors[1:], 0.0)}
        for low, high in pairwise(anchors):
            for width in (one for one in known if low < one <= high):
                share = (width - low) / (high - low)
                times[high] += widths[size, width] * share
                times[low] += widths[size, width] * (1 - share)
        steps += [(count, trace(size, width)) for width, count in sorted(times.items())]
    return steps


def update_of(optimizer: str, parameters: Iterable[int], fused: bool) -> tuple[Work, int]:
    """Return what a step of the optimizer costs, and the bytes of its state.

    Adam and similar optimizers read weight, gradient and two moments and write three of them, in one kernel or in a
    dozen passes.

    Args:
        optimizer: The name of its class.
        parameters: Bytes of each trainable tensor.
        fused: Whether one kernel does it.
    """
    size = sum(parameters)
    moments = 2 if "Adam" in optimizer else 1 if "Lion" in optimizer else 0
    moved = (2 + moments + 1 + moments) * (1 if fused or not moments else 4)
    kernels = 1 if fused else 12
    return Work({Operator("", 0, moved * size / kernels): kernels}), moments * size
