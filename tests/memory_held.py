"""How many tensors' memory is held at once, counted and not measured."""

import weakref

import torch
from torch import Tensor


class Held:
    """Counts the tensors it was given whose memory is still held, be it by a view, a slice or a graph.

    Attributes:
        given: Tensors so far.
        now: Those of which something is still held.
        most: The most at once.
    """

    def __init__(self) -> None:
        self.given = self.now = self.most = 0

    def watch(self, tensor: Tensor) -> Tensor:
        """A copy, detached, that is counted until nothing holds its memory any more."""
        array = tensor.detach().cpu().numpy().copy()  # held by the copy's storage
        weakref.finalize(array, self._released)
        self.given += 1
        self.now += 1
        self.most = max(self.most, self.now)
        return torch.from_numpy(array)

    def _released(self) -> None:
        self.now -= 1
