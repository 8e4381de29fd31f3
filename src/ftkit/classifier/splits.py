"""Train, validation and test splits: the published one of the SMS messages, and others."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ftkit.errors import InputError
from ftkit.run_folder import SPLITS

PUBLISHED_FRACTIONS = (0.7, 0.1)
PUBLISHED_SEED = 123
_FOLDS = 20  # at most, so parts are met to 1 in 20

Split = dict[str, NDArray[np.int64]]


def balanced_split(
    labels: Sequence[int],
    fractions: tuple[float, float] = PUBLISHED_FRACTIONS,
    seed: int = PUBLISHED_SEED,
) -> Split:
    """Draw as many messages of the larger class as the smaller one has, shuffle, and cut.

    With the defaults, and the rows that pandas reads, it is the published split of the SMS messages to the message. Its
    draws are those of ``DataFrame.sample(random_state=seed)``, each from a generator that starts anew: negative
    messages are sampled, the positive ones follow them, and the whole is shuffled twice. Train and validation sizes are
    rounded down.

    Args:
        labels: 0 (negative) or 1 (positive) for each message.
        fractions: Parts of the balanced messages for train and validation; the rest is for test.
        seed: Seed of each draw.

    Returns:
        The places in ``labels`` that make up ``train``, ``val`` and ``test``, in order.

    Raises:
        InputError: The fractions leave a split empty, or the seed is out of range.

    Source: the experiment script of chapter 6 of S. Raschka, Build a Large Language Model (From Scratch).
    """
    _check(fractions, seed)
    groups = groups_of(labels)
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
        As :func:`balanced_split`.

    Example:
        >>> split = stratified_split([0] * 30 + [1] * 10, (0.7, 0.1), seed=123)
        >>> [(len(split[name]), int((split[name] >= 30).sum())) for name in SPLITS]
        [(28, 7), (4, 1), (8, 2)]
    """
    _check(fractions, seed)
    random = np.random.RandomState(seed)
    parts = [_cut(random.permutation(group), fractions) for group in groups_of(labels)]
    return _checked(
        {name: random.permutation(np.concatenate([part[name] for part in parts])) for name in SPLITS},
        fractions,
    )


def divide_stratified(labels: Sequence[int], parts: Mapping[str, float], seed: int) -> Split:
    """Divide any number of classes in the same proportions, as closely as whole examples allow.

    What rounding takes from a part in one class it gives back in the next, so that the sizes of the parts are met. The
    first part gets at least one example of each class.

    Args:
        labels: The class of each example, from 0.
        parts: The size of each part, 1 together.
        seed: Seed of the draws.

    Returns:
        The places in ``labels`` by part, shuffled.
    """
    random, before = np.random.default_rng(seed), 0
    first, *others = parts
    divided: dict[str, list[NDArray[np.int64]]] = {name: [] for name in parts}
    for group in groups_of(labels):
        left, end = random.permutation(group), before + len(group)
        for name in others:
            size = min(round(end * parts[name]) - round(before * parts[name]), len(left) - 1)
            divided[name].append(left[:size])
            left = left[size:]
        divided[first].append(left)
        before = end
    return {name: random.permutation(np.concatenate(places)) for name, places in divided.items()}


def divide_grouped(labels: Sequence[int], groups: Sequence[int], parts: Mapping[str, float], seed: int) -> Split:
    """Divide examples so that no group is in two parts, each class in the same proportions as far as groups allow.

    The parts are made of up to 20 folds of scikit-learn's ``StratifiedGroupKFold``.

    Args:
        labels: The class of each example, from 0.
        groups: The group of each example.
        parts: The size of each part, 1 together.
        seed: Seed of the folds.

    Returns:
        The places in ``labels`` by part, in order.

    Raises:
        InputError: The groups are too few or too large: a part would be empty, or the first one without some class.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import

    target = np.asarray(labels)
    most = min(_FOLDS, len(set(groups)), int(np.bincount(target).max()))
    counts = range(len(parts), most + 1)
    divided: Split = {}
    if counts:
        sizes = np.array(list(parts.values()))
        folds = min(counts, key=lambda count: round(float(np.abs(sizes - (sizes * count).round() / count).sum()), 9))
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer examples than there are folds
            found = [test for _, test in splitter.split(target, target, groups)]
        ends = (sizes.cumsum() * folds).round().astype(int)
        for name, begin, end in zip(parts, [0, *ends], ends, strict=False):
            divided[name] = np.sort(np.concatenate([np.empty(0, np.int64), *found[begin:end]]))
    whole = bool(counts) and all(map(len, divided.values()))
    if not whole or set(target[divided[next(iter(parts))]]) != set(labels):
        problem = f"{len(set(groups))} groups of duplicates cannot be divided so that train has each class"
        raise InputError(
            f"{problem} and {' and '.join(list(parts)[1:])} an example",
            field="split", got="grouped", fix="use split: all, or give more examples",
        )  # fmt: skip
    return divided


def draw_down(labels: Sequence[int], seed: int) -> list[int]:
    """Return places in ``labels``, in order, that have as many examples of each class as the smallest class has.

    Example:
        >>> len(draw_down([0, 0, 0, 0, 1, 1, 2, 2, 2], seed=1))
        6
    """
    random, groups = np.random.default_rng(seed), groups_of(labels)
    smallest = min(map(len, groups))
    return sorted(np.concatenate([random.permutation(group)[:smallest] for group in groups]).tolist())


def groups_of(labels: Sequence[int]) -> list[NDArray[np.int64]]:
    """Return the places of each class."""
    target = np.asarray(labels)
    return [np.flatnonzero(target == label) for label in np.unique(target)]


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
