"""Count examples that stand in a data set more than once: within and between splits, with equal or other labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ftkit.results.clusters import clusters_of
from ftkit.run_folder import SPLITS

Edges = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Twins:
    """Examples and their twins, for one meaning of the word. Arrays are ``(n,)``, of examples ordered by split.

    Attributes:
        pairs: int64 ``(3, 3)``: the number of pairs of twins in train, val or test; above the diagonal those between
            two splits.
        twin: int64: the place of the closest twin before the example, one in train if there is any; -1 without.
        similarity: float64: how close it is, in [0, 1].
        in_train: bool: whether the example has a twin in train.
        agrees: bool: whether it has twins in train, and all of them have its label.
        cluster: int64: the number of the cluster of examples that are twins of each other, directly or through others.
    """

    pairs: np.ndarray
    twin: np.ndarray
    similarity: np.ndarray
    in_train: np.ndarray
    agrees: np.ndarray
    cluster: np.ndarray


def count_twins(unit: np.ndarray, split: np.ndarray, label: np.ndarray, edges: Iterable[Edges] = ()) -> Twins:
    """Find the twins of examples of which equal ones share a unit, and similar ones an edge between their units.

    Memory grows with the number of examples, whatever the number of pairs.

    Args:
        unit: int ``(n,)``: what is equal for equal examples, numbered from 0 in the order of their first example.
        split: int ``(n,)``: 0 train, 1 val, 2 test, in this order.
        label: int ``(n,)``: the class of each example.
        edges: Pairs of units, the smaller number first, and their similarity, some at a time, each pair once.

    Example:
        >>> found = count_twins(np.array([0, 0, 1, 0]), np.array([0, 0, 2, 2]), np.array([1, 1, 1, 0]))
        >>> found.twin.tolist(), found.in_train.tolist(), found.agrees.tolist()
        ([-1, 0, -1, 0], [True, True, False, True], [True, True, False, False])
        >>> found.pairs.tolist()
        [[1, 0, 2], [0, 0, 0], [0, 0, 0]]
    """
    n, units, kinds = len(unit), int(unit.max(initial=-1)) + 1, len(SPLITS)
    members = np.bincount(unit * kinds + split, minlength=units * kinds).reshape(units, kinds)
    first = np.unique(unit, return_index=True)[1]
    train, reached = split == 0, members[:, 0].copy()
    low, high = np.full(units, np.iinfo(np.int64).max), np.full(units, -1)
    np.minimum.at(low, unit[train], label[train])
    np.maximum.at(high, unit[train], label[train])
    lowest, highest, nearest = low.copy(), high.copy(), np.full(units, -1)
    score, closest = np.zeros(units), np.zeros(units)
    cluster = np.arange(units)
    pairs = members.T @ members
    np.fill_diagonal(pairs, (np.diag(pairs) - members.sum(axis=0)) // 2)
    for a, b, similarity in edges:
        between = members[a].T @ members[b]
        pairs += between + between.T - np.diag(np.diag(between))
        for one, other in ((a, b), (b, a)):
            np.add.at(reached, one, members[other, 0])
            np.minimum.at(lowest, one, low[other])
            np.maximum.at(highest, one, high[other])
        here = similarity + (members[a, 0] > 0)  # one in train comes before a closer one elsewhere
        order = np.argsort(here, kind="stable")
        order = order[here[order] > score[b[order]]]
        # Of several the last one, the closest, stays.
        nearest[b[order]], score[b[order]], closest[b[order]] = a[order], here[order], similarity[order]
        cluster = clusters_of(units, np.stack([cluster[a], cluster[b]], axis=1))[cluster]
    repeats = (first[unit] < np.arange(n)) & ((members[unit, 0] > 0) | (score[unit] <= 1))
    found = np.where(repeats, first[unit], np.where(nearest[unit] >= 0, first[nearest[unit]], -1))
    in_train = reached[unit] > train
    return Twins(
        pairs=np.triu(pairs),
        twin=found,
        similarity=np.where(repeats, 1.0, closest[unit]),
        in_train=in_train,
        agrees=in_train & (lowest[unit] == label) & (highest[unit] == label),
        cluster=cluster[unit],
    )


def twins_line(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Say how many val and test examples stand in train as well.

    Args:
        counts: By split ``examples``, ``twins`` and ``conflict``.

    Example:
        >>> twins_line({"test": {"examples": 300, "twins": 40, "conflict": 2}})
        '40 of 300 test examples (2 with another label) stand in train as well, but for case and white space'
    """
    parts = []
    for name, found in counts.items():
        label = f" ({found['conflict']:,} with another label)" if found["conflict"] else ""
        parts.append(f"{found['twins']:,} of {found['examples']:,} {name} examples{label}")
    return f"{' and '.join(parts)} stand in train as well, but for case and white space"
