"""Paired differences where examples come in clusters, such as near-duplicates, that are no independent evidence."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ftkit.results.paired import paired_interval, sign_flip_test


def clusters_of(n: int, pairs: np.ndarray) -> np.ndarray:
    """Return the cluster of each example: those that pairs connect, directly or through other examples.

    Args:
        n: The number of examples.
        pairs: int ``(m, 2)``: places of examples that belong together.

    Returns:
        int ``(n,)``: from 0, in the order in which clusters begin.

    Example:
        >>> clusters_of(5, np.array([[0, 3], [3, 4]])).tolist()
        [0, 1, 2, 0, 0]
    """
    first, second = pairs.reshape(-1, 2).T
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def cluster_sign_flip_test(gained: np.ndarray, clusters: np.ndarray) -> float:
    """Return the p-value of :func:`~ftkit.results.paired.sign_flip_test` where a whole cluster changes its sign.

    If there were no difference, all gains of a cluster together could as well have had the other sign; within a
    cluster they may depend on each other in any way. The distribution is exact, whatever the clusters' sizes.

    Args:
        gained: int ``(n,)``: by example, right answers of one model minus right answers of the other.
        clusters: int ``(n,)``: the cluster of each example, from 0.

    Example:
        >>> gained = np.array([1, 1, 1, 1, 1, 1])
        >>> cluster_sign_flip_test(gained, np.arange(6)), cluster_sign_flip_test(gained, np.array([0, 0, 0, 1, 2, 3]))
        (0.03125, 0.125)

    Source: I. A. Canay, J. P. Romano and A. M. Shaikh, Randomization tests under an approximate symmetry assumption,
    Econometrica 85 (2017); why clusters: E. Miller, Adding error bars to evals, arXiv 2411.00640 (2024).
    """
    return sign_flip_test(_sums(gained, clusters)[0])


def cluster_interval(
    gained: np.ndarray, clusters: np.ndarray, answers: int = 1, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the mean gain an answer that agrees with :func:`cluster_sign_flip_test`.

    It is :func:`~ftkit.results.paired.paired_interval` with clusters in the place of examples: the balance by inverting
    the test, so that 0 lies inside exactly where the p-value is at least ``1 - level``; the rate by Clopper and Pearson
    with the effective number of clusters, the square of all sizes' sum over the sum of their squares.

    Raises:
        ValueError: There are no examples.

    Example:
        >>> low, high = cluster_interval(np.array([1, 1, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 2, 3]))
        >>> low < 0 < high
        True
    """
    sums, sizes = _sums(gained, clusters)
    return paired_interval(sums, answers, level, sizes)


def _sums(gained: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gain of each cluster that there is, and its size."""
    _, numbers, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    sums = np.zeros(len(sizes), np.int64)
    np.add.at(sums, numbers, gained)
    return sums, sizes
