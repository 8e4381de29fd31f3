"""Train, validation and test splits: the published one of the SMS messages, and others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ftkit.errors import InputError
from ftkit.run_folder import SPLITS

PUBLISHED_FRACTIONS = (0.7, 0.1)
PUBLISHED_SEED = 123

Split = dict[str, NDArray[np.int64]]


def balanced_split(
    labels: Sequence[int],
    fractions: tuple[float, float] = PUBLISHED_FRACTIONS,
    seed: int = PUBLISHED_SEED,
) -> Split:
    """Draw as many messages of the larger class as the smaller one has, shuffle, and cut.

    With the defaults, and the rows that pandas reads, it is the published split of the SMS messages to the
    message. Its draws are those of ``DataFrame.sample(random_state=seed)``, each from a generator that starts
    anew: negative messages are sampled, the positive ones follow them, and the whole is shuffled twice. Train
    and validation sizes are rounded down.

    Args:
        labels: 0 (negative) or 1 (positive) for each message.
        fractions: Parts of the balanced messages for train and validation; the rest is for test.
        seed: Seed of each draw.

    Returns:
        The places in ``labels`` that make up ``train``, ``val`` and ``test``, in order.

    Raises:
        InputError: The fractions leave a split empty, or the seed is out of range.

    Source: the experiment script of chapter 6 of S. Raschka, Build a Large Language Model (From Scratch).

    Example:
        >>> split = balanced_split([0] * 30 + [1] * 10)
        >>> [len(split[name]) for name in SPLITS]
        [14, 2, 4]
    """
    _check(fractions, seed)
    target = np.asarray(labels)
    groups = [np.flatnonzero(target == label) for label in (0, 1)]
    smaller = min(map(len, groups))
    # A class of the smaller size is not drawn from; the negative one is even then, which shuffles it.
    drawn = [
        group if label and len(group) == smaller else _sample(group, smaller, seed)
        for label, group in enumerate(groups)
    ]
    order = np.concatenate(drawn)
    for _ in range(2):
        order = _sample(order, len(order), seed)
    return _checked(_cut(order, fractions), fractions)


def stratified_split(labels: Sequence[int], fractions: tuple[float, float], seed: int) -> Split:
    """Use every message: cut each class in the same proportions, then shuffle within each split.

    Args:
        labels: 0 or 1 for each message.
        fractions: Parts of each class for train and validation, rounded down; the rest is for test.
        seed: Seed of the one generator that makes all draws.

    Returns:
        The places in ``labels`` that make up ``train``, ``val`` and ``test``, in order.

    Raises:
        InputError: The fractions leave a split empty, or the seed is out of range.

    Example:
        >>> split = stratified_split([0] * 30 + [1] * 10, (0.7, 0.1), seed=123)
        >>> [(len(split[name]), int((split[name] >= 30).sum())) for name in SPLITS]
        [(28, 7), (4, 1), (8, 2)]
    """
    _check(fractions, seed)
    random = np.random.RandomState(seed)
    target = np.asarray(labels)
    parts = [_cut(random.permutation(np.flatnonzero(target == label)), fractions) for label in (0, 1)]
    return _checked(
        {name: random.permutation(np.concatenate([part[name] for part in parts])) for name in SPLITS},
        fractions,
    )


def _sample(rows: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return the rows that pandas' ``sample(count, random_state=seed)`` takes."""
    return rows[np.random.RandomState(seed).permutation(len(rows))[:count]]


def _cut(order: NDArray[np.int64], fractions: tuple[float, float]) -> Split:
    train_end = int(len(order) * fractions[0])
    val_end = train_end + int(len(order) * fractions[1])
    return {"train": order[:train_end], "val": order[train_end:val_end], "test": order[val_end:]}


def _check(fractions: tuple[float, float], seed: int) -> None:
    if min(fractions) <= 0 or sum(fractions) >= 1:
        raise InputError(
            "must be two positive fractions, train and validation, whose sum is below 1",
            field="fractions",
            got=fractions,
            fix="use for example [0.7, 0.1]",
        )
    if not 0 <= seed < 2**32:
        raise InputError("must be from 0 to 2**32 - 1", field="split_seed", got=seed)


def _checked(split: Split, fractions: tuple[float, float]) -> Split:
    if empty := [name for name in SPLITS if len(split[name]) == 0]:
        raise InputError(
            f"0 messages in the split {' and '.join(empty)}",
            field="fractions",
            got=fractions,
            fix="give more messages, or other fractions",
        )
    return split
