from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from ftkit.results.paired import paired_interval, sign_flip_test
from ftkit.results.statistics import can_be_significant, clopper_pearson, mcnemar_exact


def _gained(only_a: int, only_b: int, n: int) -> np.ndarray:
    return np.repeat([1, -1, 0], [only_a, only_b, n - only_a - only_b])


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95, 0.99])
def test_interval_and_exact_test_agree_on_every_small_table(level: float) -> None:
    for n in (1, 2, 5, 12, 18):
        for only_a, only_b in product(range(n + 1), repeat=2):
            if only_a + only_b > n:
                continue
            low, high = paired_interval(_gained(only_a, only_b, n), level=level)
            assert (low <= 0 <= high) == (mcnemar_exact(only_a, only_b) >= 1 - level), (n, only_a, only_b)
            assert -1 <= low < high <= 1
            assert low <= (only_a - only_b) / n <= high
            mirrored = paired_interval(_gained(only_b, only_a, n), level=level)
            assert mirrored == pytest.approx((-high, -low), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(st.integers(6, 400), st.data())
def test_interval_and_exact_test_agree(n: int, data: st.DataObject) -> None:
    only_a = data.draw(st.integers(0, n))
    only_b = data.draw(st.integers(0, min(n - only_a, 40)))
    low, high = paired_interval(_gained(only_a, only_b, n))
    assert (low <= 0 <= high) == (mcnemar_exact(only_a, only_b) >= 0.05)
    assert low < high
    if not can_be_significant(n, only_a + only_b).possible:
        assert low < 0 < high


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40))
def test_interval_and_sign_flip_test_agree_with_several_seeds(gains: list[int]) -> None:
    gained = np.array(gains)
    low, high = paired_interval(gained, answers=3)
    assert (low <= 0 <= high) == (sign_flip_test(gained) >= 0.05)
    assert low < high
    assert low - 1e-12 <= gained.mean() / 3 <= high + 1e-12


@settings(max_examples=60)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10))
def test_the_sign_flip_test_tries_every_sign(gains: list[int]) -> None:
    gained = np.array(gains)
    totals = [abs(sum(sign * gain for sign, gain in zip(signs, gains, strict=True)))
              for signs in product((-1, 1), repeat=len(gains))]  # fmt: skip
    assert sign_flip_test(gained) == pytest.approx(np.mean(np.array(totals) >= abs(gained.sum())))


def test_with_one_answer_an_example_the_sign_flip_test_is_mcnemars() -> None:
    for only_a, only_b in ((0, 0), (6, 0), (25, 5), (5, 25), (7, 7)):
        assert sign_flip_test(_gained(only_a, only_b, 60)) == pytest.approx(mcnemar_exact(only_a, only_b))


def test_the_parts_are_the_exact_intervals() -> None:
    """All one way: the difference is the rate. None at all: the bound of the rate. All of them: the share."""
    assert paired_interval(_gained(8, 0, 100))[1] == pytest.approx(clopper_pearson(8, 100)[1])
    assert paired_interval(_gained(0, 0, 100)) == pytest.approx((-(1 - 0.025**0.01), 1 - 0.025**0.01))
    assert (paired_interval(_gained(79, 21, 100))[1] + 1) / 2 == pytest.approx(clopper_pearson(79, 100)[1])


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (79, 100), (1, 3)])
def test_clopper_pearson_is_statsmodels(correct: int, n: int) -> None:
    for level in (0.8, 0.95):
        expected = proportion_confint(correct, n, alpha=1 - level, method="beta")
        assert clopper_pearson(correct, n, level) == pytest.approx(expected, abs=1e-12)


def test_seeds_that_answer_alike_say_no_more_than_one() -> None:
    gained = _gained(9, 2, 80)
    assert paired_interval(3 * gained, answers=3) == pytest.approx(paired_interval(gained))


def test_a_gain_of_two_is_twice_as_telling_as_one_of_one() -> None:
    """Worked out by hand: with gains of 2 and 1 alone, a total of 3 has probability s^2 / (s^2 + (1 - s)^2) * s."""
    low, high = paired_interval(np.array([2, 1, 0, 0]), answers=2)
    share = next(s for s in np.arange(0, 1, 1e-5) if s**2 / (s**2 + (1 - s) ** 2) * s >= 0.025)
    balance = (2 * (2 * share**2 / (share**2 + (1 - share) ** 2) - 1) + (2 * share - 1)) / 3
    rates = (np.array(clopper_pearson(2, 4)) + clopper_pearson(1, 4)) / 2
    assert high == pytest.approx(rates[1])
    assert low == pytest.approx(3 / 8 - np.hypot(3 / 8 * (1 - balance), balance * (rates[1] - 3 / 8)), abs=1e-4)


@pytest.mark.parametrize(("rate", "share"), [(0.05, 0.5), (0.1, 0.9), (0.3, 1.0), (0.6, 0.7), (1.0, 0.775)])
def test_the_interval_covers_the_truth_in_95_of_100_cases(rate: float, share: float) -> None:
    """Exactly: by the probability of every outcome of 40 examples."""
    n, covered = 40, 0.0
    for differing in range(n + 1):
        for only_a in range(differing + 1):
            low, high = paired_interval(_gained(only_a, differing - only_a, n))
            if low <= rate * (2 * share - 1) <= high:
                covered += stats.binom.pmf(differing, n, rate) * stats.binom.pmf(only_a, differing, share)
    assert covered >= 0.95


def test_an_interval_needs_examples() -> None:
    with pytest.raises(ValueError, match="needs examples"):
        paired_interval(np.array([], dtype=int))
