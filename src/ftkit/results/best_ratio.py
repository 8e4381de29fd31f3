"""The ratio of the best values of an option in two searches, with an interval."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from ftkit.results.statistics import Interval


class Scores(NamedTuple):
    """How good the values of an option were."""

    values: np.ndarray  # what was tried, rising and positive, float64 (k,)
    scores: np.ndarray  # how good each was, more is better, float64 (seeds, k)


class BestRatio(NamedTuple):
    """How many times as large the best value of one search is as that of another."""

    ratio: float  # of the values that are best on average over the seeds
    interval: Interval  # 0 or infinite at an end that the searches do not bound
    resolution: float  # the factor between its ends that the distance of the values alone makes


def best_within(tried: Scores) -> np.ndarray:
    """Return the logarithms between which the best value of each seed lies, float64 ``(2, seeds)``.

    They are halfway to the next lower value and halfway to the next higher one. Beyond the lowest and the highest
    nothing is known; of equally good values all are meant.

    Example:
        >>> tried = Scores(np.array([1.0, 4.0, 16.0]), np.array([[0.7, 0.9, 0.8], [0.9, 0.8, 0.7]]))
        >>> np.exp(best_within(tried)).round(6)
        array([[2., 0.],
               [8., 2.]])
    """
    logarithms = np.log(tried.values)
    borders = np.concatenate([[-np.inf], (logarithms[1:] + logarithms[:-1]) / 2, [np.inf]])
    best = tried.scores == tried.scores.max(axis=1, keepdims=True)
    return np.stack([borders[best.argmax(axis=1)], borders[len(logarithms) - best[:, ::-1].argmax(axis=1)]])


def best_ratio(ours: Scores, theirs: Scores, level: float = 0.95) -> BestRatio:
    """Return the best value of one search over that of another with the same seeds, and an interval.

    It is one over seeds, and no finer than what was tried.

    Each seed bounds the ratio from below and from above. The interval reaches from the lower limit of the mean lower
    bound to the upper limit of the mean upper bound, in logarithms, by Student's t over the seeds.

    Example:
        >>> rates, scores = np.array([1.0, 4.0, 16.0]), np.array([[0.7, 0.9, 0.8]] * 2)
        >>> found = best_ratio(Scores(10 * rates, scores), Scores(rates, scores))
        >>> round(found.ratio, 6), [round(end, 6) for end in found.interval]
        (10.0, [2.5, 40.0])
    """
    bounds = best_within(ours) - best_within(theirs)[::-1]
    seeds, ends = bounds.shape[1], np.array([-np.inf, np.inf])
    known = np.isfinite(bounds).all(axis=1) & (seeds > 1)
    if known.any():
        half = stats.t.isf((1 - level) / 2, seeds - 1) * bounds[known].std(axis=1, ddof=1) / seeds**0.5
        ends[known] = bounds[known].mean(axis=1) + np.array([-1, 1])[known] * half
    low, high = np.exp(ends).tolist()
    chosen, other = (one.values[one.scores.mean(axis=0).argmax()] for one in (ours, theirs))
    return BestRatio(float(chosen / other), (low, high), float(np.exp((bounds[1] - bounds[0]).mean())))
