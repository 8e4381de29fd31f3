from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.results.clusters import cluster_interval, cluster_sign_flip_test, clusters_of
from ftkit.results.paired import paired_interval, sign_flip_test
from ftkit.results.statistics import clopper_pearson

GAINS = st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 6)), min_size=1, max_size=40)


def _arrays(drawn: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    gained, clusters = np.array(drawn).T
    return gained, clusters


def test_clusters_are_connected_examples() -> None:
    pairs = np.array([[6, 1], [1, 4], [2, 3], [3, 2]])
    assert clusters_of(7, pairs).tolist() == [0, 1, 2, 2, 1, 3, 1]
    assert clusters_of(3, np.zeros((0, 2), int)).tolist() == [0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(GAINS)
def test_a_whole_cluster_changes_its_sign(drawn: list[tuple[int, int]]) -> None:
    """All signs are tried, in plain Python."""
    gained, clusters = _arrays(drawn)
    sums = [int(gained[clusters == cluster].sum()) for cluster in sorted(set(clusters.tolist()))]
    totals = [
        abs(sum(sign * one for sign, one in zip(signs, sums, strict=True)))
        for signs in product((-1, 1), repeat=len(sums))
    ]
    assert cluster_sign_flip_test(gained, clusters) == pytest.approx(np.mean(np.array(totals) >= abs(sum(sums))))


@settings(max_examples=80, deadline=None)
@given(GAINS, st.sampled_from([0.8, 0.95]))
def test_interval_and_test_agree(drawn: list[tuple[int, int]], level: float) -> None:
    gained, clusters = _arrays(drawn)
    low, high = cluster_interval(gained, clusters, level=level)
    p = cluster_sign_flip_test(gained, clusters)
    assert (low <= 0 <= high) == (p >= 1 - level)
    assert -1 <= low < high <= 1
    assert low - 1e-12 <= gained.mean() <= high + 1e-12


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_without_clusters_both_are_those_of_single_examples(gains: list[int]) -> None:
    gained, alone = np.array(gains), np.arange(len(gains)) * 7 + 3  # the names of clusters do not matter
    assert cluster_sign_flip_test(gained, alone) == sign_flip_test(gained)
    assert cluster_interval(gained, alone, answers=3) == paired_interval(gained, answers=3)


def test_copies_of_examples_say_no_more_than_the_examples() -> None:
    gained = np.repeat([1, -1, 0], [9, 1, 90])
    copies, clusters = np.repeat(gained, 4), np.repeat(np.arange(100), 4)
    assert cluster_sign_flip_test(copies, clusters) == pytest.approx(sign_flip_test(gained))
    assert cluster_interval(copies, clusters) == pytest.approx(paired_interval(gained))
    assert sign_flip_test(copies) < 1e-6 < 0.02 < sign_flip_test(gained)


def test_what_a_cluster_gains_and_loses_cancels() -> None:
    gained, clusters = np.array([1, -1, 1, 1, 1, 1, 1, 1]), np.array([0, 0, 1, 2, 3, 4, 5, 6])
    assert cluster_sign_flip_test(gained, clusters) == 2 / 2**6


def test_one_large_cluster_widens_the_interval_more_than_its_examples_apart() -> None:
    gained = np.repeat([1, 0], [12, 288])
    apart, together = np.arange(300), np.append(np.zeros(20, int), np.arange(1, 281))
    assert np.diff(cluster_interval(gained, together)) > 1.5 * np.diff(cluster_interval(gained, apart))


def test_an_interval_needs_examples() -> None:
    with pytest.raises(ValueError, match="needs examples"):
        cluster_interval(np.zeros(0, int), np.zeros(0, int))


@pytest.mark.parametrize("alike", [0.0, 1.0])
@pytest.mark.parametrize(("rate", "share"), [(0.1, 0.5), (0.3, 0.7)])
def test_the_interval_covers_the_truth_where_clusters_answer_alike(rate: float, share: float, alike: float) -> None:
    """100 clusters of 1 to 6 examples, whose gains are all alike or independent of each other."""
    rng, covered, wrong, runs = np.random.default_rng(7), 0, 0, 100
    for _ in range(runs):
        sizes = rng.choice(6, 100, p=[0.6, 0.2, 0.08, 0.05, 0.04, 0.03]) + 1
        clusters = np.repeat(np.arange(100), sizes)
        gained = rng.choice([1, -1, 0], len(clusters), p=[rate * share, rate * (1 - share), 1 - rate])
        if alike:
            gained = gained[np.searchsorted(clusters, np.arange(100))][clusters]
        low, high = cluster_interval(gained, clusters)
        covered += low <= rate * (2 * share - 1) <= high
        wrong += cluster_sign_flip_test(gained, clusters) < 0.05
    assert covered >= 0.94 * runs
    assert share != 0.5 or wrong <= 0.06 * runs


def test_a_large_cluster_that_answers_alike_is_as_telling_as_a_single_example() -> None:
    """Worked out by hand: a cluster of two and one of one are gained, each with probability s: both with s^2."""
    low, _ = cluster_interval(np.array([1, 1, 1, 0]), np.array([0, 0, 1, 2]))
    independent = 4**2 / (2**2 + 1 + 1)
    balance = 2 * 0.025**0.5 - 1
    upper = clopper_pearson(3 / 4 * independent, independent)[1]
    assert low == pytest.approx(3 / 4 - np.hypot(3 / 4 * (1 - balance), balance * (upper - 3 / 4)))


def test_large_clusters_of_small_gains_have_the_interval_of_their_signs() -> None:
    """Eight clusters of about 100 examples, each with one gain more than losses: nearly those of 8 equal signs."""
    clusters = np.repeat(np.arange(8), [100, 100, 100, 100, 99, 99, 99, 99])
    gained = np.zeros(len(clusters), int)
    gained[np.unique(clusters, return_index=True)[1]] = 1
    equal = np.repeat(np.arange(8), 100)
    ones = (np.arange(800) % 100 == 0).astype(int)
    assert cluster_interval(gained, clusters) == pytest.approx(cluster_interval(ones, equal), rel=0.02)
    gained[clusters == 7] *= -1
    ones[equal == 7] *= -1
    assert cluster_interval(gained, clusters) == pytest.approx(cluster_interval(ones, equal), rel=0.02)
