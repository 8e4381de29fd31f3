"""Splits of examples with images: no image is in two of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ftkit.examples.reader import Example, ImageReference
from ftkit.training.samplers import seeded_order


def split_by_images(
    examples: Sequence[Example],
    fractions: tuple[float, float],
    seed: int,
    content_of: Callable[[ImageReference, Example], Hashable],
) -> dict[str, list[Example]]:
    """Divide examples into train, val and test so that no image is in two of them.

    Args:
        examples: The examples.
        fractions: Parts of the examples for train and validation, met as closely as the groups allow.
        seed: Decides which.
        content_of: What is equal for equal images; a saved data set holds an image anew with each example.

    Returns:
        The examples by split, each in their order.

    Example:
        >>> examples = [Example(str(number), "", "") for number in range(10)]
        >>> parts = split_by_images(examples, (0.8, 0.1), seed=1, content_of=lambda image, example: image)
        >>> {name: len(part) for name, part in parts.items()}
        {'train': 8, 'val': 1, 'test': 1}
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(_groups(examples, content_of)):
        members.setdefault(group, []).append(index)
    groups = list(members.values())
    bounds = {"train": fractions[0], "val": fractions[0] + fractions[1], "test": 1.0}
    chosen: dict[str, list[int]] = {name: [] for name in bounds}
    placed = 0
    for number in seeded_order(len(groups), seed, 0).tolist():
        # The group goes where its middle falls.
        middle = (placed + len(groups[number]) / 2) / len(examples)
        name = next(name for name, bound in bounds.items() if middle <= bound or name == "test")
        chosen[name] += groups[number]
        placed += len(groups[number])
    return {name: [examples[index] for index in sorted(indices)] for name, indices in chosen.items()}


def _groups(examples: Sequence[Example], content_of: Callable[[ImageReference, Example], Hashable]) -> list[int]:
    """Return the number of each example's group: examples that share an image, directly or through other examples."""
    contents: dict[Hashable, int] = {}  # nodes of a graph behind those of the examples
    edges = [
        (index, contents.setdefault(content_of(image, example), len(examples) + len(contents)))
        for index, example in enumerate(examples)
        for image in example.images
    ]
    nodes = len(examples) + len(contents)
    ends = tuple(zip(*edges, strict=True)) or ((), ())
    graph = coo_array(([True] * len(edges), ends), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1][: len(examples)].tolist()
