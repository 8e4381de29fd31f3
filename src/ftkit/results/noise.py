"""How far two runs of the same variant lie apart, and how often one variant comes out ahead of another."""

import math
from collections.abc import Sequence
from statistics import stdev

import numpy as np
from scipy import stats

from ftkit.results.statistics import seed_spread


def noise_floor(accuracies: Sequence[float]) -> float:
    """Return within which difference two runs that differ in the seed alone lie in 95% of cases.

    That of two new seeds on the same examples, by Student's t, since a few seeds say little of their spread. It takes
    the accuracies of two seeds or more.

    Example:
        >>> round(noise_floor([0.90, 0.91, 0.92]), 4)
        0.0608
    """
    quantile = float(stats.t.isf((1 - 0.95) / 2, len(accuracies) - 1))
    return quantile * math.sqrt(2) * stdev(accuracies)


def probability_ahead(gains: np.ndarray) -> float:
    """Return how probable it is that A scores above B with a new seed on as many new examples.

    The mean gain is compared with the standard deviation of a single seed's: that between seeds and that of a test set
    of this size together, taken as normal. With one seed it is that of new examples alone.

    Args:
        gains: float ``(seeds, n)``: what A gets right minus what B gets right, by seed and example.

    Example:
        >>> gains = np.zeros((3, 100))
        >>> probability_ahead(gains)
        0.5
        >>> gains[:, :2], gains[0, 2:9] = 1, -1
        >>> round(probability_ahead(gains), 2)
        0.47

    Source: X. Bouthillier and others, Accounting for variance in machine learning benchmarks, MLSys (2021), which
    counts how often A is ahead in runs in which all sources of variance vary.
    """
    mean, n = float(gains.mean()), gains.shape[1]
    if len(gains) == 1:
        deviation = float(gains.std(ddof=1)) / math.sqrt(n)
    else:
        spread = seed_spread(gains)
        deviation = math.hypot(spread.seed_sd, spread.test_sd)
    return float(stats.norm.cdf(mean / deviation)) if deviation else 0.5 + 0.5 * float(np.sign(mean))
