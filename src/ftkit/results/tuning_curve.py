"""The expected best validation result against the number of tries, with simultaneous bands."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from ftkit.results.metrics import Mode


class TuningCurve(NamedTuple):
    """The expected best of 1, 2, ... tries."""

    mean: np.ndarray  # the estimate, float64 (budget,)
    low: np.ndarray  # the lower end of the band, float64 (budget,)
    high: np.ndarray  # the upper end


def tuning_curve(
    values: Sequence[float], budget: int, mode: Mode = "max", ends: tuple[float, float] = (0.0, 1.0)
) -> TuningCurve:
    """Estimate the best validation result that a number of tries is expected to give.

    The estimate resamples the tries with replacement. The band is that of Kolmogorov and Smirnov for the distribution
    of the results: exact, and for all budgets at once, if the tries were drawn independently; wider with ties. It needs
    the ends that bound the results.

    Source: J. Dodge and others, Show Your Work: Improved Reporting of Experimental Results (2019); N. Lourie, K. Cho
    and H. He, Show Your Work with Confidence (arXiv 2311.09480), whose package ``opda`` computes the same.

    Example:
        >>> tuning_curve([0.5, 0.9], 2).mean
        array([0.7, 0.8])
    """
    sign = 1.0 if mode == "max" else -1.0
    found, n = np.sort(sign * np.asarray(values, dtype=float)), len(values)
    low, high = sorted(sign * end for end in ends)
    points = np.concatenate([[low], found, [high]])  # with what lies outside of all that was seen
    counted = np.arange(n + 1) / n  # the distribution at each but the last of these points
    apart = stats.kstwo(n).ppf(0.95)
    curves = [
        _expected_best(points, np.append(np.clip(counted + shift, 0.0, 1.0), 1.0), budget)
        for shift in (0, apart, -apart)
    ]
    mean, worst, best = (sign * curve for curve in curves)
    return TuningCurve(mean, *((worst, best) if mode == "max" else (best, worst)))


def _expected_best(points: np.ndarray, distribution: np.ndarray, budget: int) -> np.ndarray:
    powers = distribution ** np.arange(1, budget + 1)[:, None]  # (budget, n + 2)
    return np.asarray(np.diff(powers, prepend=0.0) @ points)
