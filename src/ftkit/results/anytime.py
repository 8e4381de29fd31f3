"""A paired test that stays valid however often it is asked while examples are added."""

import math

import numpy as np
from scipy import optimize, special

from ftkit.results.statistics import Interval

_BETS = 4096  # fixed in advance, as a mixture of bets must be; sums are exact up to 8,191 examples
_SHARES = (1 - np.cos(np.pi * (np.arange(_BETS) + 0.5) / _BETS)) / 2  # Beta(1/2, 1/2), as points equally likely


def e_value(gained: np.ndarray, answers: int = 1, mean: float = 0.0) -> float:
    """Return the evidence against a mean gain an answer of ``mean``: 20 is enough at the level of 5%.

    A bet b turns a capital of 1 into the product over the examples of 1 + b (g - ``mean``), where g is the gain an
    answer; the e-value is the average over all bets that cannot lose more than the capital, by Beta(1/2, 1/2). If new
    examples gain ``mean`` on average whatever was seen before, the capital is a nonnegative martingale, so by Ville's
    inequality it ever reaches 1/alpha with probability alpha at most. A product is the same in every order, so the
    value depends on the set of examples alone, and sets that grow from look to look are steps of one martingale:
    nothing has to be recorded, and copying, renaming or sorting files resets nothing.

    (The largest value over the prefixes of an order, such as that of hashes of the ids, would not do: examples that
    are inserted later change the path. So evidence may also fade.)

    With one answer an example and ``mean`` 0, of d examples that one model alone gets right, a by the first, this is
    Robbins' test of a fair coin: 2^d B(a + 1/2, d - a + 1/2) / B(1/2, 1/2).

    Args:
        gained: int ``(n,)``: by example, right answers of one model minus right answers of the other.
        answers: The number of answers an example: no gain can be larger.
        mean: The null hypothesis, between -1 and 1.

    Example:
        >>> f"{e_value(np.array([1, 1, 1, 1, 1, 1, 1])):.1f}"  # seven of seven; six would be 14.4
        '26.8'

    Source: H. Robbins, Statistical methods related to the law of the iterated logarithm, Ann. Math. Statist. 41 (1970);
    for bounded gains F. Orabona and K.-S. Jun, Tight concentrations and confidence sequences from the regret of
    universal portfolio, arXiv 2110.14099 (2021).
    """
    return math.exp(min(_log_e(*_counted(gained, answers), mean), 700.0))


def confidence_sequence(gained: np.ndarray, answers: int = 1, level: float = 0.95) -> Interval:
    """Return the means against which :func:`e_value` is below 1 / (1 - level), within -1 to 1.

    The true mean is outside at any of all looks with probability 1 - ``level`` at most.

    Example:
        >>> low, high = confidence_sequence(np.repeat([1, -1, 0], [25, 5, 270]))
        >>> f"{low:.3f} {high:.3f}"  # with all examples at once: 0.029 to 0.108
        '0.013 0.132'
    """
    values, counts = _counted(gained, answers)
    edge = 1 - 1e-9
    center = float(np.clip(values @ counts / counts.sum(), -edge, edge))

    def excess(mean: float) -> float:
        return _log_e(values, counts, mean) + math.log1p(-level)

    low, high = (side if excess(side * edge) < 0 else optimize.brentq(excess, center, side * edge) for side in (-1, 1))
    return float(low), float(high)


def fewest_wins(differing: np.ndarray, alpha: float) -> np.ndarray:
    """Return the most wins of the worse model, of so many, for an :func:`e_value` of 1 / alpha; -1 if there is none."""
    low, high = np.full(len(differing), -1.0), differing // 2 + 1.0  # enough with low, and not with high
    while (high - low > 1).any():
        wins = (low + high) // 2
        capital = differing * math.log(2) + special.betaln(wins + 0.5, differing - wins + 0.5) - math.log(math.pi)
        low, high = np.where(capital >= -math.log(alpha), [wins, high], [low, wins])
    return low


def _counted(gained: np.ndarray, answers: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the different gains an answer, and how many examples have each."""
    values, counts = np.unique(gained, return_counts=True)
    return values / answers, counts


def _log_e(values: np.ndarray, counts: np.ndarray, mean: float) -> float:
    least, most = -1 / (1 - mean), 1 / (1 + mean)
    bets = least + _SHARES * (most - least)
    capital = counts @ np.log1p(np.outer(values - mean, bets))  # (bets,)
    return float(special.logsumexp(capital) - math.log(_BETS))
