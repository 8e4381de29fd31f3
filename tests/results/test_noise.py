"""The noise floor and the probability to be ahead, against their definitions."""

import numpy as np
import pytest
from scipy import stats

from ftkit.results.noise import noise_floor, probability_ahead


def test_two_new_seeds_lie_within_the_noise_floor_in_95_of_100_cases() -> None:
    draws = np.random.default_rng(0).normal(0.9, 0.01, (4000, 5))
    within = [abs(one - other) <= noise_floor(known) for *known, one, other in draws]
    assert np.mean(within) == pytest.approx(0.95, abs=0.015)


def test_one_seed_is_ahead_as_often_as_new_examples_say() -> None:
    gains = np.repeat([1.0, -1.0, 0.0], [12, 8, 380])[None]
    mean, deviation = 4 / 400, np.std(gains, ddof=1) / 20
    assert probability_ahead(gains) == pytest.approx(stats.norm.cdf(mean / deviation))
    assert probability_ahead(-gains) == pytest.approx(1 - probability_ahead(gains))


def test_a_new_run_is_ahead_as_often_as_runs_with_all_their_variance_are() -> None:
    """Seeds shift all answers, examples have a difference of their own, and both draw noise."""
    draw = np.random.default_rng(1)

    def gains(seeds: int) -> np.ndarray:
        return 0.02 + draw.normal(0, 0.02, (seeds, 1)) + draw.normal(0, 0.2, 100) + draw.normal(0, 0.2, (seeds, 100))

    ahead = np.mean([gains(1).mean() > 0 for _ in range(4000)])
    assert np.mean([probability_ahead(gains(20)) for _ in range(200)]) == pytest.approx(ahead, abs=0.05)
