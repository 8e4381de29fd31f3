"""Run modules in evaluation mode for a while."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Run modules without dropout and the like; each gets its own mode back afterwards, whatever happens.

    ``module.train()`` would not do: it also puts what is kept in evaluation mode, such as a frozen vision tower, into
    training mode.
    """
    training = [module for part in parts for module in part.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
