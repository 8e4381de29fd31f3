"""Differences on the same examples: the exact test, and the interval that says the same as the test."""

from collections.abc import Sequence
from math import hypot
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from ftkit.results.statistics import clopper_pearson, mcnemar_exact


def sign_flip_test(gained: np.ndarray) -> float:
    """Return the p-value, exact and two-sided, that neither of two models tends to get more of an example right.

    If there were no difference, each example's gain could as well have had the other sign. With one answer an example
    a gain is -1, 0 or 1 and this is the exact McNemar test. Several seeds are taken as they are: the test speaks of new
    examples for these trained models.

    Args:
        gained: int ``(n,)``: by example, right answers of one model minus right answers of the other.

    Returns:
        The p-value; 1 if nothing was gained or lost anywhere.

    Example:
        >>> round(sign_flip_test(np.array([1, 1, 1, 1, 1, 1, 0])), 5)
        0.03125
        >>> round(sign_flip_test(np.array([2, 1])), 5)  # of 3, 1, -1 and -3, two are as far from 0
        0.5

    Source: R. A. Fisher, The design of experiments (1935), section 21.
    """
    differences = _differences(gained, np.ones_like(gained))
    if len(differences.counts) <= 1:
        return mcnemar_exact(int((gained > 0).sum()), int((gained < 0).sum()))
    return min(1.0, 2 * _upper_tail(differences, abs(int(gained.sum())), 0.0))


def paired_interval(
    gained: np.ndarray, answers: int = 1, level: float = 0.95, sizes: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the interval of a mean gain on the same examples that agrees with the exact test.

    0 lies inside exactly where the p-value of :func:`sign_flip_test` (with one answer an example: the exact McNemar
    test) is at least ``1 - level``. The mean gain is the product of two parts, each with an exact interval:

    - the balance of the examples on which the models differ, from -1 (all lost) to 1 (all gained), by inverting the
      test: with one answer an example this is Clopper and Pearson's interval of the share that was gained; with more,
      the same for the sign-flip distribution, tilted so that a gain of 2 is twice as telling as one of 1;
    - the rate at which the models differ, by Clopper and Pearson; with several answers the mean over their number.

    Each part has its distance from the estimate to its own limit; the limit of the product lies as far away as the
    square root of the sum of both squares (MOVER, the square-and-add method), which never crosses 0 unless the
    balance's limit does. Where no example differs, what is left is the exact bound of the rate.

    The coverage of a 95% interval, summed over all outcomes of 1 to 3,000 examples with rates from 0.001 to 1 and
    balances from 0 to 1, was nowhere below 95.0%, and 97% to 99% on average. The balance alone, times the observed
    rate, would agree with the test as well, but cover as little as 24%: the rate is itself estimated. With 2 to 5
    answers an example, simulated, it was 94% to 98%.

    Args:
        gained: int ``(n,)``: by example, right answers of one model minus right answers of the other.
        answers: The number of answers an example: no gain can be larger.
        level: Confidence, between 0 and 1.
        sizes: int ``(n,)``: how many examples each gain is the sum of; None for 1. What is telling is the mean of the
            sum, and the rate is of as many independent examples as the weights leave, the square of the sum of all
            sizes over the sum of their squares.

    Returns:
        Lower and upper bound of the mean gain an answer, within -1 to 1; never of width 0.

    Raises:
        ValueError: There are no examples.

    Example:
        >>> low, high = paired_interval(np.repeat([1, -1, 0], [25, 5, 270]))
        >>> f"{low:.3f} {high:.3f}"
        '0.029 0.108'
        >>> low, high = paired_interval(np.repeat([1, 0], [5, 295]))  # five disagreements can never be significant
        >>> f"{low:.3f} {high:.3f}"
        '-0.001 0.038'

    Source of the combination: G. Y. Zou and A. Donner, Construction of confidence limits about effect measures: a
    general approach, Statistics in Medicine 27 (2008); of the rate of sums: E. L. Korn and B. I. Graubard, Confidence
    intervals for proportions with small expected number of positive counts estimated from survey data, Survey
    Methodology 24 (1998); of the conditional interval: D. Liddell, Simplified exact
    analysis of case-referent studies: matched pairs; dichotomous exposure, J. Epidemiology and Community Health 37
    (1983).
    """
    n = len(gained)
    if n == 0:
        raise ValueError("an interval of a difference needs examples")
    sizes = np.ones(n, np.int64) if sizes is None else sizes
    rate, *rate_limits = _rate(np.abs(gained), sizes, answers, level)
    balance, *balance_limits = _balance(gained, sizes, level)
    low, high = (
        rate * balance + side * _distance(rate, rate_limits, balance, limit, side)
        for side, limit in zip((-1, 1), balance_limits, strict=True)
    )
    return low, high


def _distance(rate: float, rate_limits: Sequence[float], balance: float, limit: float, side: int) -> float:
    """Return how far the product's limit is from the estimate: a larger rate takes it further from 0 on either side."""
    furthest = rate_limits[1] if limit * side > 0 else rate_limits[0]
    return hypot(rate * (limit - balance), limit * (furthest - rate))


def _rate(differing: np.ndarray, sizes: np.ndarray, answers: int, level: float) -> tuple[float, float, float]:
    """Return the mean size of a difference and its limits: gains of at least 1, of at least 2, ... are proportions."""
    n, means = sizes.sum() ** 2 / (sizes.astype(float) ** 2).sum(), differing / sizes
    shares = [float(sizes @ np.clip(means - least, 0, 1) / sizes.sum()) for least in range(answers)]
    low, high = np.mean([clopper_pearson(share * n, n, level) for share in shares], axis=0).tolist()
    return sum(shares) / answers, low, high


class _Differences(NamedTuple):
    """Differences other than 0: their amounts, the amounts by example, and how many there are of each, ``(k,)``."""

    amounts: np.ndarray
    means: np.ndarray
    counts: np.ndarray

    @property
    def total(self) -> int:
        return int(self.amounts @ self.counts)


def _differences(gained: np.ndarray, sizes: np.ndarray) -> _Differences:
    differing = gained != 0
    kinds = np.stack([np.abs(gained)[differing], sizes[differing]]).astype(np.int64)
    (amounts, of), counts = np.unique(kinds, axis=1, return_counts=True)
    return _Differences(amounts, amounts / of, counts)


def _balance(gained: np.ndarray, sizes: np.ndarray, level: float) -> tuple[float, float, float]:
    """Return gains minus losses over their sum, and its exact limits; anything may be where nothing differs."""
    differences, total = _differences(gained, sizes), int(gained.sum())
    if not len(differences.counts):
        return 0.0, -1.0, 1.0
    size = differences.total
    if len(differences.counts) == 1:
        low, high = clopper_pearson(int((gained > 0).sum()), int(differences.counts[0]), level)
        return total / size, 2 * low - 1, 2 * high - 1
    return total / size, _lowest_balance(differences, total, level), -_lowest_balance(differences, -total, level)


def _lowest_balance(differences: _Differences, total: int, level: float) -> float:
    """Return the mean balance under which a total of at least ``total`` has probability ``(1 - level) / 2``."""
    if total == -differences.total:
        return -1.0
    tail, limit = (1 - level) / 2, 40 / differences.means.min()  # odds of e^40 are those of certainty
    log_odds = optimize.brentq(lambda odds: _upper_tail(differences, total, odds) - tail, -limit, limit, xtol=1e-14)
    weights = differences.amounts * differences.counts
    return float(weights @ (2 * special.expit(differences.means * log_odds) - 1)) / differences.total


def _upper_tail(differences: _Differences, total: int, log_odds: float) -> float:
    """Return P(gains minus losses >= ``total``) where ``log_odds * mean`` are a difference's odds to be a gain."""
    amounts, means, counts = differences
    n, p = np.repeat([counts, special.expit(np.clip(log_odds * means, -40, 40))], counts + 1, axis=1)
    pmf = stats.binom.pmf(np.concatenate([np.arange(count + 1) for count in counts]), n, p)
    probability = np.ones(1)  # of the number of units that were gained
    for amount, part in zip(amounts, np.split(pmf, (counts + 1).cumsum()[:-1]), strict=True):
        gained = np.zeros(amount * (len(part) - 1) + 1)
        gained[::amount] = part
        probability = np.convolve(probability, gained)
    least = (total + differences.total) // 2
    return float(probability[least:].sum())
