"""The ratio of the best values of two searches: bounded by seeds and by what was tried."""

import math

import numpy as np
import pytest
from scipy import stats

from ftkit.results.best_ratio import Scores, best_ratio, best_within

RATES = np.array([1.0, 2.0, 4.0, 8.0, 16.0])


def at(*best: int) -> Scores:
    """Scores of one seed for each place of the best rate."""
    return Scores(RATES, -np.abs(np.arange(5) - np.array(best)[:, None]).astype(float))


def test_each_seed_bounds_its_best_value_and_an_edge_bounds_nothing_beyond() -> None:
    low, high = np.exp(best_within(at(2, 0, 4)))
    assert low == pytest.approx([8**0.5, 0, 128**0.5])
    assert high == pytest.approx([32**0.5, 2**0.5, math.inf])


def test_all_of_equally_good_values_are_meant() -> None:
    low, high = np.exp(best_within(Scores(RATES, np.array([[0.1, 0.9, 0.9, 0.9, 0.2]]))))
    assert (low[0], high[0]) == (pytest.approx(2**0.5), pytest.approx(128**0.5))


def test_the_interval_is_that_of_the_seeds_beyond_the_resolution() -> None:
    ours, theirs = at(2, 3, 2), at(1, 1, 1)
    found = best_ratio(ours, theirs, level=0.9)
    half = stats.t.isf(0.05, 2) * np.std([1, 2, 1], ddof=1) / 3**0.5  # in steps of 2
    assert np.log2(found.interval) == pytest.approx([4 / 3 - 1 - half, 4 / 3 + 1 + half])
    assert found.resolution == pytest.approx(4)
    assert found.ratio == 2


def test_one_seed_or_an_edge_leaves_an_end_open() -> None:
    assert best_ratio(at(2), at(1)).interval == (0.0, math.inf)
    low, high = best_ratio(at(4, 4), at(1, 1)).interval
    assert low == pytest.approx(4)
    assert math.isinf(high)


def test_intervals_cover_the_true_ratio_of_smooth_curves() -> None:
    numbers, hits, bounded = np.random.default_rng(3), 0, 0
    rates = np.geomspace(1e-5, 1e-1, 17)
    for _ in range(300):
        curves = [
            -((np.log10(rates / best) + numbers.uniform(-0.2, 0.2)) ** 2) + numbers.normal(0, 0.03, (3, 17))
            for best in (1e-3, 1e-3)
        ]
        low, high = best_ratio(*(Scores(rates, curve) for curve in curves)).interval
        bounded += high < math.inf and low > 0
        hits += low <= 1 <= high
    assert bounded > 280
    assert hits / 300 > 0.93
