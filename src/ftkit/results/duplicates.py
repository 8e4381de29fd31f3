"""Count examples that a data set has more than once: within and between splits, with equal or other labels."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ftkit.results.clusters import clusters_of
from ftkit.run_folder import SPLITS

Edges = tuple[np.ndarray, np.ndarray, np.ndarray]


class LabeledText(NamedTuple):
    """An example as far as duplicates go: its name, its text, its class or answer, and a key of each of its images."""

    id: str
    text: str
    label: str | None = None
    images: tuple[Hashable, ...] = ()


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of one kind. Arrays are ``(n,)``, of examples, or of images, ordered by split."""

    split: np.ndarray  # int64: 0 train, 1 val, 2 test
    # int64 (3, 3): pairs of duplicates in train, val or test; above the diagonal those between two splits.
    pairs: np.ndarray
    closest: np.ndarray  # int64: the place of the closest duplicate before it, one in train if there is any; -1 without
    similarity: np.ndarray  # float64: how close that is, in [0, 1]
    in_train: np.ndarray  # bool: whether it has a duplicate in train
    agrees: np.ndarray  # bool: whether it has duplicates in train, and all of them have its label
    cluster: np.ndarray  # int64: what is connected by duplicates, directly or through others, has the same number

    def pair_counts(self) -> dict[str, int]:
        """Return the number of pairs by splits, such as ``train-test``."""
        return {f"{SPLITS[a]}-{SPLITS[b]}": int(self.pairs[a, b]) for a, b in zip(*np.triu_indices(3), strict=True)}

    def counts(self, here: np.ndarray) -> dict[str, int]:
        """Count what is in a mask, what of it has a duplicate in train, and whose duplicates have its label or not."""
        found, same = int((here & self.in_train).sum()), int((here & self.agrees).sum())
        return {"total": int(here.sum()), "in_train": found, "same_label": same, "other_label": found - same}


def count_duplicates(unit: np.ndarray, split: np.ndarray, label: np.ndarray, edges: Iterable[Edges] = ()) -> Duplicates:
    """Find the duplicates of examples of which equal ones share a unit, and similar ones an edge between their units.

    Memory grows with the number of examples, whatever the number of pairs.

    Args:
        unit: int ``(n,)``: what is equal for equal examples, numbered from 0 in the order of their first example.
        split: int ``(n,)``: 0 train, 1 val, 2 test, in this order.
        label: int ``(n,)``: the class of each example.
        edges: Pairs of units, the smaller number first, and their similarity, some at a time, each pair once.

    Example:
        >>> found = count_duplicates(np.array([0, 0, 1, 0]), np.array([0, 0, 2, 2]), np.array([1, 1, 1, 0]))
        >>> found.closest.tolist(), found.in_train.tolist(), found.agrees.tolist()
        ([-1, 0, -1, 0], [True, True, False, True], [True, True, False, False])
        >>> found.pairs.tolist()
        [[1, 0, 2], [0, 0, 0], [0, 0, 0]]
    """
    n, units, kinds = len(unit), int(unit.max(initial=-1)) + 1, len(SPLITS)
    members = np.bincount(unit * kinds + split, minlength=units * kinds).reshape(units, kinds)
    first = np.unique(unit, return_index=True)[1]
    train, reached = split == 0, members[:, 0].copy()
    # All labels of a unit's duplicates in train are the same where the lowest is the highest.
    low, high = np.full(units, np.iinfo(np.int64).max), np.full(units, -1)
    np.minimum.at(low, unit[train], label[train])
    np.maximum.at(high, unit[train], label[train])
    lowest, highest, nearest = low.copy(), high.copy(), np.full(units, -1)
    score, similar = np.zeros(units), np.zeros(units)
    cluster, pairs = np.arange(units), members.T @ members
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
        nearest[b[order]], score[b[order]], similar[b[order]] = a[order], here[order], similarity[order]
        cluster = clusters_of(units, np.stack([cluster[a], cluster[b]], axis=1))[cluster]
    repeats = (first[unit] < np.arange(n)) & ((members[unit, 0] > 0) | (score[unit] <= 1))
    in_train = reached[unit] > train
    return Duplicates(
        split=split,
        pairs=np.triu(pairs),
        closest=np.where(repeats, first[unit], np.where(nearest[unit] >= 0, first[nearest[unit]], -1)),
        similarity=np.where(repeats, 1.0, similar[unit]),
        in_train=in_train,
        agrees=in_train & (lowest[unit] == label) & (highest[unit] == label),
        cluster=cluster[unit],
    )


def duplicates_line(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """Say how many val and test examples are in train as well, from what :meth:`Duplicates.counts` says by split.

    Example:
        >>> duplicates_line({"test": {"total": 300, "in_train": 40, "other_label": 0}})
        '40 of 300 test examples have a duplicate in train (but for case and white space)'
    """
    parts = []
    for name, found in counts.items():
        label = f" ({found['other_label']:,} with another label or answer)" if found["other_label"] else ""
        parts.append(f"{found['in_train']:,} of {found['total']:,} {name} examples{label}")
    return f"{' and '.join(parts)} have a duplicate in train (but for case and white space)"
