"""Train, val and test: the splits that are given, and those that are held out of train without a group in two."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ftkit.errors import InputError
from ftkit.examples.data_sets import splits_of
from ftkit.examples.sources import RecordSource, open_source
from ftkit.run_folder import SPLITS
from ftkit.training.samplers import seeded_order

T = TypeVar("T")
_USUAL = {"train": ("train",), "val": ("validation", "val", "valid", "dev"), "test": ("test",)}


def open_splits(
    given: Mapping[str, Any], dataset: Any, columns: Mapping[str, str | int] | None
) -> dict[str, RecordSource]:
    """Open the sources of train and of the other splits that there are.

    Args:
        given: For train, val and test a source or None; with ``dataset`` the name of one of its splits, and None takes
            the one that has a usual name, if there is one.
        dataset: A data set with splits, see :func:`ftkit.examples.data_sets.splits_of`; or None.
        columns: Our name of a column and the one in the sources; None takes the usual names.

    Raises:
        InputError: There is no train split, or a source cannot be used.
    """
    if dataset is None:
        if given["train"] is None:
            raise InputError("is not given", field="train", fix="name a file, or a data set with splits in dataset")
        return {name: open_source(one, columns) for name, one in given.items() if one is not None}
    found = splits_of(dataset)
    chosen = {name: given[name] or next(filter(found.get, _USUAL[name]), None) for name in SPLITS}
    for name, split in chosen.items():
        if (split is not None or name == "train") and split not in found:
            fix = f"name one of {', '.join(found)}"
            raise InputError("no such split", file=str(dataset)[:80], field=name, got=split, fix=fix)
    return {name: open_source(found[split], columns) for name, split in chosen.items() if split is not None}


def hold_out(
    given: Mapping[str, list[T]],
    fractions: tuple[float, float],
    seed: int,
    divide: Callable[[list[T], dict[str, float], int], dict[str, list[T]]],
) -> tuple[dict[str, list[T]], str]:
    """Hold the splits that are not given out of train.

    Args:
        given: The examples of train and of the other splits that are given.
        fractions: Parts for train and validation; the rest is for test, or if test is given, for train.
        seed: Decides which.
        divide: Divides examples into parts of such sizes by such a seed, see :func:`split_by_groups`.

    Returns:
        The examples by split, and what is said about it; nothing where nothing was held out.
    """
    train, val = fractions
    parts = {"train": train, "val": val, "test": 1 - train - val} if len(given) == 1 else {"train": 1 - val, "val": val}
    parts = {name: part for name, part in parts.items() if name == "train" or part > 1e-9}
    if "val" in given or len(parts) == 1:
        return dict(given), ""
    splits = {**given, **divide(given["train"], parts, seed)}
    names = [{"val": "validation", "test": "test"}[name] for name in parts if name != "train"]
    counts = " and ".join(f"{len(splits[name]):,}" for name in parts if name != "train")
    of = f"{counts} of {len(given['train']):,} train examples held out, split_seed {seed}"
    return splits, f"No {' and no '.join(names)} data given: {of}"


def split_by_groups(
    examples: Sequence[T], parts: Mapping[str, float], seed: int, keys: Callable[[T], Iterable[Hashable]]
) -> dict[str, list[T]]:
    """Divide examples so that no two that share a key, directly or through other examples, are in different parts.

    Args:
        examples: The examples.
        parts: The size of each part, 1 together, met as closely as the groups allow.
        seed: Decides which.
        keys: Returns the keys of an example, such as its images; an example without keys is a group of its own.

    Returns:
        The examples by part, each in their order.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(_groups(examples, keys)):
        members.setdefault(group, []).append(index)
    groups, last = list(members.values()), list(parts)[-1]
    bounds = {name: sum(list(parts.values())[: place + 1]) for place, name in enumerate(parts)}
    chosen: dict[str, list[int]] = {name: [] for name in parts}
    placed = 0
    for number in seeded_order(len(groups), seed, 0).tolist():
        # The group goes where its middle falls.
        middle = (placed + len(groups[number]) / 2) / len(examples)
        name = next(name for name, bound in bounds.items() if middle <= bound or name == last)
        chosen[name] += groups[number]
        placed += len(groups[number])
    return {name: [examples[index] for index in sorted(indices)] for name, indices in chosen.items()}


def _groups(examples: Sequence[T], keys: Callable[[T], Iterable[Hashable]]) -> list[int]:
    """Return the number of each example's group."""
    nodes: dict[Hashable, int] = {}  # of a graph, behind those of the examples
    edges = [
        (index, nodes.setdefault(key, len(examples) + len(nodes)))
        for index, example in enumerate(examples)
        for key in keys(example)
    ]
    ends = tuple(zip(*edges, strict=True)) or ((), ())
    size = len(examples) + len(nodes)
    graph = coo_array(([True] * len(edges), ends), shape=(size, size))
    return connected_components(graph, directed=False)[1][: len(examples)].tolist()
