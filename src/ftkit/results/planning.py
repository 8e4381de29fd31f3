"""The power of paired comparisons, and how many examples or seeds it takes to see a difference.

Two models answer the same ``n`` examples. ``disagreement`` is the share that only one of the two gets right, in (0, 1];
``difference`` the true difference in accuracy, above 0 and at most the disagreement; ``power`` the probability of
finding it; and ``comparisons`` how many are made together (Bonferroni, the first step of Holm).
"""

import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

from ftkit.results import anytime
from ftkit.results.statistics import ALPHA

_MOST_EXAMPLES, _MOST_SEEDS = 10**8, 10**4


def examples_needed(
    difference: float, disagreement: float, power: float = 0.8, comparisons: int = 1, growing: bool = False
) -> int | None:
    """Return how many examples it takes by the exact McNemar test, or by one look of the test for growing data.

    The number has the power where one less has not; it is None above a hundred million.

    Example:
        >>> examples_needed(0.03, 0.1), examples_needed(0.03, 0.1, growing=True)
        (920, 1980)
    """
    test = (anytime.fewest_wins,) if growing else ()
    alpha = ALPHA / comparisons
    return _first(lambda n: mcnemar_power(n, disagreement, difference, alpha, *test) >= power, 1, _MOST_EXAMPLES)


def seeds_needed(
    difference: float, sd: float, power: float = 0.8, comparisons: int = 1, shared_variance: float = 0.0, n: int = 2
) -> int | None:
    """Return how many seeds both models must be trained with for a t test to find the difference.

    ``sd`` is the standard deviation of the difference between seeds. ``shared_variance``, estimated from ``n`` test
    examples, is the part of the squared standard error that more seeds do not lower. The number is at least 2, and None
    if ten thousand would not do.

    Example:
        >>> seeds_needed(0.01, 0.01), seeds_needed(0.01, 0.01, shared_variance=0.01**2)
        (10, None)
    """

    def enough(seeds: int) -> bool:
        own = sd**2 / seeds
        error = own + shared_variance
        if not error:
            return True
        degrees = error**2 / (own**2 / (seeds - 1) + shared_variance**2 / (n - 1))  # Satterthwaite's
        limit, shift = stats.t.isf(ALPHA / comparisons / 2, degrees), difference / error**0.5
        return bool(stats.nct.sf(limit, degrees, shift) >= power)

    return _first(enough, 2, _MOST_SEEDS)


def minimum_detectable_difference(n: int, disagreement: float, power: float = 0.8, comparisons: int = 1) -> float:
    """Return the smallest difference that the exact McNemar test finds with the given power.

    It is NaN when not even one-sided disagreement would suffice.

    Example:
        >>> f"{minimum_detectable_difference(300, 0.05):.4f}"
        '0.0368'

    Source: the unconditional power of the exact test, summed over the number of disagreements: S. W. Duffy,
    Asymptotic and exact power for the McNemar test and its analogue with R controls per case, Biometrics 40 (1984).
    """
    alpha = ALPHA / comparisons

    def excess(difference: float) -> float:
        return mcnemar_power(n, disagreement, difference, alpha) - power

    # More than every disagreement in one direction cannot be.
    return float(optimize.brentq(excess, 0.0, disagreement)) if excess(disagreement) >= 0 else math.nan


def _fewest_wins(differing: np.ndarray, alpha: float) -> np.ndarray:
    """Return the most wins of the worse model, of so many, with which the exact McNemar test is significant."""
    fewest = stats.binom.ppf(alpha / 2, differing, 0.5)
    return fewest - (stats.binom.cdf(fewest, differing, 0.5) > alpha / 2)


def mcnemar_power(
    n: int,
    disagreement: float,
    difference: float,
    alpha: float = ALPHA,
    fewest_wins: Callable[[np.ndarray, float], np.ndarray] = _fewest_wins,
) -> float:
    """Return the probability that a paired test at the level ``alpha`` finds the difference.

    The test is given by the most wins of the worse model with which it finds one, from numbers of disagreements,
    ``(k,)``, and the level; that of McNemar by default.
    """
    least, most = stats.binom.ppf([1e-9, 1 - 1e-9], n, disagreement)
    counts = np.arange(least, most + 1)
    fewest, share = fewest_wins(counts, alpha), (1 + difference / disagreement) / 2  # of the better one's wins
    found = stats.binom.cdf(fewest, counts, share) + stats.binom.cdf(fewest, counts, 1 - share)
    return float(stats.binom.pmf(counts, n, disagreement) @ found)


def _first(enough: Callable[[int], bool], low: int, most: int) -> int | None:
    high = low
    while not enough(high):
        low, high = high + 1, 2 * high
        if high > most:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high
