"""Which rows are worth their cost: those that no other row beats at once in accuracy and in every cost."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(accuracies: Sequence[float], costs: Sequence[tuple[float, ...]]) -> list[bool]:
    """Whether each candidate lies on the Pareto front.

    A candidate is off the front if another is at least as accurate and at most as costly in every respect, and
    better in one of them.

    Args:
        accuracies: One accuracy per candidate; more is better.
        costs: The costs of each candidate, all in the same order; less is better.

    Example:
        The second is less accurate and slower than the first; the third is the cheapest.

        >>> pareto_front([0.95, 0.94, 0.90], [(10.0,), (12.0,), (3.0,)])
        [True, False, True]
    """
    points = [(-accuracy, *cost) for accuracy, cost in zip(accuracies, costs, strict=True)]
    return [not any(_dominates(other, point) for other in points) for point in points]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
