"""Planned numbers of examples and seeds, against sums over all outcomes and against simulated seeds."""

import math

import numpy as np
import pytest
from scipy import stats

from ftkit.results.anytime import e_value
from ftkit.results.planning import examples_needed, mcnemar_power, minimum_detectable_difference, seeds_needed
from ftkit.results.statistics import mcnemar_exact


def exact_power(n: int, disagreement: float, difference: float, growing: bool) -> float:
    """The probability of a finding, summed over every number of disagreements and of wins."""
    share, power = (1 + difference / disagreement) / 2, 0.0
    for d in range(n + 1):
        weight = math.comb(n, d) * disagreement**d * (1 - disagreement) ** (n - d)
        if weight < 1e-9:
            continue
        for wins in range(d + 1):
            gains = np.repeat([1, -1], [wins, d - wins])
            if e_value(gains) >= 20 if growing and d else mcnemar_exact(wins, d - wins) <= 0.05:
                power += weight * math.comb(d, wins) * share**wins * (1 - share) ** (d - wins)
    return power


@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize(("disagreement", "difference"), [(0.3, 0.25), (0.5, 0.3)])
def test_the_planned_number_of_examples_has_the_power_and_one_less_has_not(
    disagreement: float, difference: float, growing: bool
) -> None:
    n = examples_needed(difference, disagreement, growing=growing)
    assert n is not None
    assert exact_power(n, disagreement, difference, growing) >= 0.8 - 1e-6
    assert exact_power(n - 1, disagreement, difference, growing) < 0.8


def test_it_takes_more_examples_for_less_of_a_difference_more_power_and_more_comparisons() -> None:
    n = examples_needed(0.03, 0.1)
    assert n is not None
    for more in (examples_needed(0.02, 0.1), examples_needed(0.03, 0.1, 0.9), examples_needed(0.03, 0.1, 0.8, 5)):
        assert more is not None
        assert more > n
    assert examples_needed(1e-6, 0.5) is None


def test_it_is_the_inverse_of_the_detectable_difference() -> None:
    n = examples_needed(0.03, 0.1)
    assert n is not None
    assert minimum_detectable_difference(n, 0.1) == pytest.approx(0.03, abs=2e-5)
    assert mcnemar_power(n, 0.1, 0.03) == pytest.approx(0.8, abs=2e-3)


@pytest.mark.parametrize(("difference", "sd"), [(0.01, 0.01), (0.02, 0.012), (0.01, 0.02)])
def test_the_planned_number_of_seeds_has_the_power_of_a_simulated_t_test(difference: float, sd: float) -> None:
    seeds = seeds_needed(difference, sd)
    assert seeds is not None
    rng = np.random.default_rng(1)

    def power(k: int) -> float:
        p = stats.ttest_1samp(rng.normal(difference, sd, size=(40_000, k)), 0, axis=1).pvalue
        return float((p < 0.05).mean())

    assert power(seeds) > 0.79
    assert power(seeds - 1) < 0.81


def test_more_seeds_do_not_help_against_too_few_examples() -> None:
    """The test set's own error is 1 point: 1 point is never found with 80% power, 4 points are."""
    assert seeds_needed(0.01, 0.005, shared_variance=1e-4, n=1000) is None
    assert seeds_needed(0.04, 0.005, shared_variance=1e-4, n=1000) == 2
    alone = seeds_needed(0.03, 0.02, n=1000)
    with_examples = seeds_needed(0.03, 0.02, shared_variance=6e-5, n=1000)
    assert alone is not None
    assert with_examples is not None
    assert with_examples > alone
    assert seeds_needed(0.01, 0.0) == 2
