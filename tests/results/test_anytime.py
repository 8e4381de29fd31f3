"""The test for growing data: its value, its interval, and that asking often finds nothing where nothing is."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

from ftkit.results.anytime import confidence_sequence, e_value, fewest_wins
from ftkit.results.statistics import mcnemar_exact


@cache
def evidence(only_a: int, only_b: int) -> float:
    return e_value(gained(only_a, only_b, only_a + only_b))


def gained(only_a: int, only_b: int, n: int) -> np.ndarray:
    return np.repeat([1, -1, 0], [only_a, only_b, n - only_a - only_b])


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (7, 0), (25, 5), (5, 25), (60, 60), (300, 200)])
def test_with_one_answer_an_example_it_is_the_beta_binomial_mixture(only_a: int, only_b: int) -> None:
    share = special.betaln(only_a + 0.5, only_b + 0.5) - special.betaln(0.5, 0.5)
    expected = math.exp((only_a + only_b) * math.log(2) + share)
    assert e_value(gained(only_a, only_b, 1000)) == pytest.approx(expected, rel=1e-9)


def test_the_mixture_worked_by_hand() -> None:
    """Of two gains in two: 4 B(5/2, 1/2) / B(1/2, 1/2) = 4 * 3/8; of one in two: 4 * 1/8."""
    assert e_value(gained(2, 0, 2)) == pytest.approx(1.5)
    assert e_value(gained(1, 1, 2)) == pytest.approx(0.5)


def test_with_several_answers_and_another_mean_it_is_the_integral_over_all_bets() -> None:
    gains, mean = np.array([3, 3, 2, 1, 0, 0, -1]), 0.1
    least, most = -1 / (1 - mean), 1 / (1 + mean)

    def capital(angle: float) -> float:
        bet = least + (1 - math.cos(angle)) / 2 * (most - least)
        return math.prod(1 + bet * (gain / 3 - mean) for gain in gains.tolist()) / math.pi

    assert e_value(gains, 3, mean) == pytest.approx(integrate.quad(capital, 0, math.pi)[0], rel=1e-9)


@pytest.mark.parametrize("answers", [1, 2])
def test_under_the_null_hypothesis_its_mean_is_one_whatever_came_before(answers: int) -> None:
    """The property of a martingale, summed over every next gain of a distribution whose mean is the null's."""
    values = np.arange(-answers, answers + 1)
    chances = np.full(len(values), 1 / len(values))
    for before in product(values.tolist(), repeat=2):
        after = sum(
            chance * e_value(np.array([*before, gain]), answers) for gain, chance in zip(values, chances, strict=True)
        )
        assert after == pytest.approx(e_value(np.array(before), answers), rel=1e-9)
    skewed = {1: Fraction(3, 10), -1: Fraction(1, 10), 0: Fraction(6, 10)}  # mean 1/5
    after = sum(float(chance) * e_value(np.array([1, gain]), 1, 0.2) for gain, chance in skewed.items())
    assert after == pytest.approx(e_value(np.array([1]), 1, 0.2), rel=1e-9)


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=40), st.randoms())
def test_no_order_changes_it(gains: list[int], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(gains, len(gains))
    assert e_value(np.array(gains), 2) == e_value(np.array(shuffled), 2)


@pytest.mark.parametrize(("only_a", "only_b", "n"), [(6, 0, 10), (7, 0, 10), (25, 5, 300), (5, 25, 300), (70, 30, 900)])
def test_the_interval_says_what_the_test_says(only_a: int, only_b: int, n: int) -> None:
    for level in (0.9, 0.95, 0.99):
        low, high = confidence_sequence(gained(only_a, only_b, n), level=level)
        assert (low <= 0 <= high) == (e_value(gained(only_a, only_b, n)) <= 1 / (1 - level))
        assert -1 <= low < (only_a - only_b) / n < high <= 1
        for bound in (low, high):
            assert e_value(gained(only_a, only_b, n), 1, bound) == pytest.approx(1 / (1 - level), rel=1e-6)


def test_an_interval_of_all_or_nothing_stays_within_what_is_possible() -> None:
    assert confidence_sequence(gained(9, 0, 9))[1] == 1
    assert confidence_sequence(gained(0, 9, 9))[0] == -1
    low, high = confidence_sequence(gained(0, 0, 300))
    assert low == pytest.approx(-high)
    assert 0 < high < 0.02


def test_seeds_that_answer_alike_say_no_more_than_one() -> None:
    assert e_value(3 * gained(9, 2, 80), 3) == pytest.approx(e_value(gained(9, 2, 80)))
    assert confidence_sequence(3 * gained(9, 2, 80), 3) == pytest.approx(confidence_sequence(gained(9, 2, 80)))


def test_fewest_wins_is_where_the_value_reaches_the_level() -> None:
    differing = np.arange(1, 70)
    for alpha in (0.05, 0.01):
        for d, wins in zip(differing.tolist(), fewest_wins(differing, alpha).tolist(), strict=True):
            enough = [w for w in range(d // 2 + 1) if evidence(d - w, w) >= 1 / alpha]
            assert wins == max(enough, default=-1), (d, alpha)


def share_of_false_findings(found: Callable[[int, int], bool], histories: int = 400) -> float:
    """Two equal models: how often a finding is made at any of 60 looks at data that grow from 10 to 600 examples."""
    rng = np.random.default_rng(7)
    gains = rng.choice([1, -1, 0], p=[0.1, 0.1, 0.8], size=(histories, 600))
    wins, losses = ((gains == sign).cumsum(axis=1)[:, 9::10] for sign in (1, -1))
    return float(np.mean([any(map(found, a, b)) for a, b in zip(wins.tolist(), losses.tolist(), strict=True)]))


def test_asked_repeatedly_while_data_grow_it_finds_nothing_in_95_of_100_cases() -> None:
    naive = share_of_false_findings(cache(lambda a, b: mcnemar_exact(a, b) < 0.05))
    assert naive > 0.15  # the fixed-n test at each look
    assert 0 < share_of_false_findings(cache(lambda a, b: evidence(a, b) >= 20)) <= 0.05
