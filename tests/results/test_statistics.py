import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from ftkit.results.planning import minimum_detectable_difference
from ftkit.results.statistics import (
    can_be_significant,
    holm,
    mcnemar_exact,
    seed_spread,
    wilson_interval,
)


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (285, 300), (1, 3), (840_000, 1_000_000)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_is_statsmodels(correct, n, level):
    expected = proportion_confint(correct, n, alpha=1 - level, method="wilson")
    assert wilson_interval(correct, n, level) == pytest.approx(expected, abs=1e-12)


def test_wilson_by_hand():
    """z = 1.96 and 1 of 1: lower bound = 1 / (1 + z**2)."""
    z = stats.norm.isf(0.025)
    assert wilson_interval(1, 1) == pytest.approx((1 / (1 + z * z), 1.0))


def test_wilson_without_trials_and_with_nonsense():
    assert all(map(math.isnan, wilson_interval(0, 0)))
    for correct, n, level in ((3, 2, 0.95), (-1, 2, 0.95), (1, 2, 95)):
        with pytest.raises(ValueError, match="must lie"):
            wilson_interval(correct, n, level)


@settings(max_examples=60)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_statsmodels(a, b):
    expected = mcnemar([[5, a], [b, 5]], exact=True).pvalue if a + b else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(min(1.0, expected), abs=1e-12)


def test_holm_is_statsmodels():
    for seed in range(4):
        p_values = np.round(np.random.default_rng(seed).random(7) ** 3, 2).tolist()  # small ones and ties
        assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist(), abs=1e-12)


def test_holm_of_nothing():
    assert holm([]) == []


def test_five_messages_of_300_can_never_be_significant():
    assert [can_be_significant(300, k).possible for k in (0, 5, 6)] == [False, False, True]
    assert can_be_significant(5).possible is False


@settings(max_examples=60)
@given(st.integers(0, 40), st.floats(1e-8, 0.2))
def test_needed_disagreements_are_where_the_test_turns(most, alpha):
    reach = can_be_significant(1000, most, alpha)
    assert mcnemar_exact(reach.needed, 0) <= alpha * (1 + 1e-9)
    assert mcnemar_exact(reach.needed - 1, 0) > alpha * (1 - 1e-9)
    assert reach.possible == (most >= reach.needed)


@pytest.mark.parametrize(
    ("n", "disagreement", "comparisons"), [(300, 0.1, 1), pytest.param(2000, 0.3, 18, marks=pytest.mark.slow)]
)
def test_the_detectable_difference_is_found_with_its_power(n, disagreement, comparisons):
    difference = minimum_detectable_difference(n, disagreement, 0.8, comparisons)
    shares = [(disagreement + difference) / 2, (disagreement - difference) / 2, 1 - disagreement]
    draws = np.random.default_rng(0).multinomial(n, shares, 10_000)
    power = np.mean([mcnemar_exact(a, b) <= 0.05 / comparisons for a, b, _ in draws.tolist()])
    assert power == pytest.approx(0.8, abs=0.012)  # three standard errors


def test_where_every_model_disagrees_the_detectable_difference_is_that_of_a_sign_test():
    """Of 10 coins, 9 or 10 alike are significant: the chance of that is 0.8 at a share of 0.9167."""
    share = (1 + minimum_detectable_difference(10, 1.0)) / 2
    assert 10 * share**9 * (1 - share) + share**10 == pytest.approx(0.8, abs=1e-3)


def test_no_difference_is_detectable_with_too_few_disagreements():
    assert math.isnan(minimum_detectable_difference(100, 0.01))
    assert minimum_detectable_difference(1000, 0.1, comparisons=18) > minimum_detectable_difference(1000, 0.1)


def _simulated(seeds, n, seed_sd, rng):
    difficulty = rng.normal(1.5, 1.0, n)
    skill = rng.normal(0, seed_sd, (seeds, 1))
    return rng.random((seeds, n)) < stats.norm.cdf(difficulty + skill)


def test_seed_spread_finds_no_seed_effect_where_there_is_none():
    rng = np.random.default_rng(0)
    runs = [seed_spread(_simulated(8, 500, 0.0, rng)) for _ in range(40)]
    assert np.mean([run.seed_sd for run in runs]) < 0.006
    assert np.mean([run.observed_sd for run in runs]) > 0.008  # chance alone spreads the seeds


def test_seed_spread_finds_the_seed_effect_and_the_test_noise():
    rng = np.random.default_rng(1)
    runs = [seed_spread(_simulated(8, 500, 0.4, rng)) for _ in range(25)]
    many = _simulated(300, 5_000, 0.4, rng).mean(1)  # accuracies on a test set without noise
    assert np.mean([run.seed_sd for run in runs]) == pytest.approx(many.std(), rel=0.15)
    mean = np.mean([run.mean for run in runs])
    assert np.mean([run.test_sd for run in runs]) == pytest.approx(math.sqrt(mean * (1 - mean) / 500), rel=0.1)
    assert np.std([run.mean for run in runs]) == pytest.approx(np.mean([run.standard_error for run in runs]), rel=0.35)


def test_the_mean_of_few_seeds_lies_in_an_interval_by_students_t():
    """With three seeds that differ, 1.96 standard errors hold the truth in less than 9 of 10 cases."""
    rng = np.random.default_rng(2)
    truth = stats.norm.cdf(rng.normal(1.5, 1.0, 100_000) + rng.normal(0, 0.3, 100_000)).mean()
    runs = [seed_spread(_simulated(3, 600, 0.3, rng)) for _ in range(300)]
    misses = np.array([abs(run.mean - truth) / run.standard_error for run in runs])
    width = np.array([stats.t.isf(0.025, run.degrees_of_freedom) for run in runs])
    assert np.mean(misses < 1.96) < 0.9
    assert 0.9 < np.mean(misses < width) < 0.98


def test_degrees_of_freedom_are_those_of_what_makes_the_error():
    """Where the seeds alone differ they are the seeds' less one, where the examples alone do the examples' less one."""
    by_seed = np.array([[True] * 40 + [False] * 40, [True] * 80, [False] * 80])
    by_seed[0] = np.arange(80) % 2 == 0
    assert seed_spread(by_seed).degrees_of_freedom == pytest.approx(2, rel=0.05)
    by_example = np.tile(np.arange(80) < 60, (3, 1))
    assert seed_spread(by_example).degrees_of_freedom == pytest.approx(79)
    assert seed_spread(np.ones((3, 80))).degrees_of_freedom == math.inf


@pytest.mark.parametrize(("right", "n", "degrees"), [(1, 100, 198), (4, 50, 2), (5, 100, 2), (5, 300, 2), (7, 100, 2)])
def test_rounding_decides_nothing_where_a_mean_square_equals_the_residual(right: int, n: int, degrees: int):
    """As where one seed alone has answers that are right; with one such answer all three mean squares are equal."""
    one_seed = np.zeros((3, n))
    one_seed[2, :right] = 1
    assert seed_spread(one_seed).degrees_of_freedom == pytest.approx(degrees)


@settings(max_examples=60)
@given(st.integers(2, 4), st.integers(2, 6), st.integers(0, 2**24 - 1))
def test_the_standard_error_is_the_analysis_of_variance(seeds, n, bits):
    """By its sums of squares, one cell at a time."""
    x = np.array([bits >> k & 1 for k in range(seeds * n)], float).reshape(seeds, n)
    grand = x.mean()
    rows = sum(n * (x[i].mean() - grand) ** 2 for i in range(seeds)) / (seeds - 1)
    columns = sum(seeds * (x[:, j].mean() - grand) ** 2 for j in range(n)) / (n - 1)
    total = sum((x[i, j] - grand) ** 2 for i in range(seeds) for j in range(n))
    residual = (total - rows * (seeds - 1) - columns * (n - 1)) / ((seeds - 1) * (n - 1))
    found = seed_spread(x.astype(bool))
    assert found.seed_sd**2 == pytest.approx(max(0, (rows - residual) / n), abs=1e-9)
    variance = (max(0, rows - residual) + max(0, columns - residual) + residual) / (seeds * n)
    assert found.standard_error**2 == pytest.approx(variance, abs=1e-9)


def test_seed_spread_needs_two_seeds():
    with pytest.raises(ValueError, match=r"at least two seeds and two examples are needed \(got shape \(1, 9\)\)"):
        seed_spread(np.ones((1, 9)))
