"""Better, worse, equivalent, not shown: what follows from gains and losses."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy import stats

from ftkit.results.anytime import e_value
from ftkit.results.paired import paired_interval, sign_flip_test
from ftkit.results.statistics import mcnemar_exact
from ftkit.results.verdict import judge


def gains(only_a: int, only_b: int, n: int) -> np.ndarray:
    return np.repeat([1, -1, 0], [only_a, only_b, n - only_a - only_b])[None]


def test_a_verdict_on_fixed_examples_is_that_of_the_exact_test_for_every_small_table() -> None:
    for only_a, only_b in product(range(13), repeat=2):
        found = judge(gains(only_a, only_b, 30))
        p = mcnemar_exact(only_a, only_b)
        expected = "not shown" if p >= 0.05 else "better" if only_a > only_b else "worse"
        assert (found.outcome, found.p, found.test) == (expected, p, "fixed_n"), (only_a, only_b)


def test_a_verdict_on_growing_data_is_that_of_the_test_for_it() -> None:
    for only_a, only_b in ((6, 0), (7, 0), (0, 7), (25, 5), (12, 4)):
        found = judge(gains(only_a, only_b, 60), growing=True)
        evidence = e_value(gains(only_a, only_b, 60)[0])
        expected = "not shown" if evidence < 20 else "better" if only_a > only_b else "worse"
        assert (found.outcome, found.e_value, found.test) == (expected, evidence, "anytime")
        assert found.p == pytest.approx(min(1, 1 / evidence))


def test_figures_are_those_of_the_gains() -> None:
    found = judge(gains(25, 5, 300))
    assert (found.effect, found.n, found.only_a, found.only_b) == (20 / 300, 300, 25, 5)
    assert found.interval == found.interval_examples == paired_interval(gains(25, 5, 300)[0])
    assert found.interval_seeds is None
    assert found.level == 0.95


def test_half_points_count_half() -> None:
    found = judge(np.array([[2, 1, 0, -1]]), answers=2)
    assert found.effect == 0.25
    assert found.p == sign_flip_test(np.array([2, 1, 0, -1]))


@pytest.mark.parametrize("growing", [False, True])
def test_smaller_effects_than_the_minimal_one_are_not_shown(growing: bool) -> None:
    low, _ = judge(gains(60, 10, 300), growing=growing).interval
    assert judge(gains(60, 10, 300), growing=growing, minimal_effect=low - 1e-6).outcome == "better"
    assert judge(gains(60, 10, 300), growing=growing, minimal_effect=low + 1e-6).outcome == "not shown"
    assert judge(gains(10, 60, 300), growing=growing, minimal_effect=low - 1e-6).outcome == "worse"
    assert judge(gains(10, 60, 300), growing=growing, minimal_effect=low + 1e-6).outcome == "not shown"


@pytest.mark.parametrize("growing", [False, True])
def test_equivalent_is_what_lies_within_the_margin_on_both_sides(growing: bool) -> None:
    assert judge(gains(5, 5, 2000), growing=growing, margin=0.01).outcome == "equivalent"
    assert judge(gains(5, 5, 2000), growing=growing, margin=0.001).outcome == "not shown"
    assert judge(gains(25, 2, 2000), growing=growing, margin=0.05).outcome == "equivalent"  # and significant
    assert judge(gains(25, 2, 2000), growing=growing, margin=0.015).outcome == "better"
    assert judge(gains(2, 25, 2000), growing=growing, margin=0.015).outcome == "worse"


@cache
def is_equivalent(n: int, only_a: int, only_b: int, margin: float) -> bool:
    return judge(gains(only_a, only_b, n), margin=margin).outcome == "equivalent"


@pytest.mark.parametrize(("n", "rate", "margin"), [(100, 0.12, 0.1), (60, 0.2, 0.2), (120, 0.06, 0.05)])
def test_at_the_margin_equivalence_is_claimed_in_5_of_100_cases_at_most(n: int, rate: float, margin: float) -> None:
    """Exactly: by the probability of every outcome where the true difference is the margin."""
    claimed = 0.0
    for differing in range(n + 1):
        weight = stats.binom.pmf(differing, n, rate)
        for only_a in range(differing + 1):
            chance = weight * stats.binom.pmf(only_a, differing, (1 + margin / rate) / 2)
            if chance > 1e-6 and is_equivalent(n, only_a, differing - only_a, margin):
                claimed += chance
    assert 0.01 < claimed <= 0.05


def test_several_comparisons_share_the_level() -> None:
    assert judge(gains(6, 0, 60)).outcome == "better"  # p = 0.031
    found = judge(gains(6, 0, 60), comparisons=2)
    assert (found.outcome, found.level, found.p) == ("not shown", 0.975, 0.03125)
    assert judge(gains(7, 0, 60), growing=True).outcome == "better"
    assert judge(gains(7, 0, 60), growing=True, comparisons=2).outcome == "not shown"


def seeded(*differences: float, n: int = 400) -> np.ndarray:
    """Gains of seeds that differ by so much each, on examples of their own."""
    rng = np.random.default_rng(0)
    found = np.zeros((len(differences), n), int)
    for row, difference in zip(found, differences, strict=True):
        row[rng.permutation(n)[: abs(round(difference * n))]] = np.sign(difference)
    return found


def test_seeds_that_lie_far_apart_show_nothing_of_other_seeds() -> None:
    """One seed wins by 20 points and two are even: the models at hand differ, and nobody knows about the next seed."""
    found = judge(seeded(0.2, 0.01, 0.0))
    assert found.p < 0.001
    assert found.interval_examples[0] > 0
    assert found.interval_seeds is not None
    assert found.interval_seeds[0] < 0 < found.interval_seeds[1]
    assert found.outcome == "not shown"
    assert found.interval == (found.interval_seeds[0], found.interval_seeds[1])


def test_seeds_that_agree_show_it_of_other_seeds_too() -> None:
    found = judge(seeded(0.1, 0.11, 0.09))
    assert found.outcome == "better"
    assert found.interval_seeds is not None
    assert found.interval[0] == min(found.interval_seeds[0], found.interval_examples[0])
    assert judge(seeded(0.1, 0.11, 0.09), growing=True).outcome == "better"
    assert judge(-seeded(0.1, 0.11, 0.09)).outcome == "worse"


def test_seeds_that_differ_are_not_equivalent() -> None:
    even = seeded(0.0, 0.001, 0.0, n=3000)
    assert judge(even, margin=0.02).outcome == "equivalent"
    apart = seeded(0.04, -0.04, 0.0, n=3000)
    assert judge(apart[:1] * 0, margin=0.02).outcome == "equivalent"
    assert judge(apart, margin=0.02).outcome == "not shown"


def test_seeds_that_may_become_more_share_the_level_of_one_look() -> None:
    looks = [judge(seeded(*[0.1] * seeds), growing_seeds=True) for seeds in range(1, 9)]
    assert [look.comparisons for look in looks[:4]] == [1, 2, 6, 12]
    assert sum(1 / look.comparisons for look in looks[1:]) <= 1
    assert looks[2].interval_examples == judge(seeded(0.1, 0.1, 0.1), comparisons=6).interval_examples
    assert looks[2].outcome == "better"


def equal_models(seeds: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Gains of two models that are equally good but for the seed, by a point more or less."""
    hard, shifts = rng.beta(4, 1, size=n), rng.normal(0, 0.01, size=(2, seeds, 1))
    right = rng.random((2, seeds, n)) < hard + shifts
    return right[0].astype(int) - right[1]


@pytest.mark.slow
def test_asked_at_every_number_of_seeds_it_finds_nothing_in_95_of_100_cases() -> None:
    rng = np.random.default_rng(2)
    histories = [[equal_models(6, 300, rng)[:k] for k in range(2, 7)] for _ in range(100)]
    naive, found = (
        np.mean([any(judge(look, growing_seeds=growing).outcome != "not shown" for look in one) for one in histories])
        for growing in (False, True)
    )
    assert naive > 0.08
    assert found <= 0.05


def test_a_seed_of_one_example_is_judged() -> None:
    assert judge(np.array([[1], [1]])).outcome == "not shown"
