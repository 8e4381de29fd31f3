"""Hold labeled texts, and count what a data module reports of them: how many, of which classes, how long."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ftkit.results.duplicates import LabeledText
from ftkit.run_folder import SPLITS, SplitName


class Example(NamedTuple):
    """Hold a labeled text: the place of its class among the classes, and its other columns by name."""

    id: str
    text: str
    label: int
    columns: dict[str, str | None]


def labels_of(examples: Iterable[Example]) -> list[int]:
    """Return the label of each example."""
    return [example.label for example in examples]


def labeled_texts(
    classes: Sequence[str], splits: Mapping[str, Sequence[Example]]
) -> dict[SplitName, Iterable[LabeledText]]:
    """Return the texts of each split with the names of their classes."""
    return {name: (LabeledText(one.id, one.text, classes[one.label]) for one in splits[name]) for name in SPLITS}


def example_counts(classes: Sequence[str], splits: Mapping[str, list[Example]]) -> dict[str, Any]:
    """Return by split: texts, those of each class, texts empty."""
    counted = {name: Counter(labels_of(splits[name])) for name in SPLITS}
    counts = {name: [counted[name][code] for code in range(len(classes))] for name in SPLITS}
    if len(classes) == 2:
        by_class: dict[str, Any] = {"positive": {name: count[1] for name, count in counts.items()}}
    else:
        by_class = {"classes": {name: dict(zip(classes, counts[name], strict=True)) for name in SPLITS}}
    return {
        "sizes": {name: len(splits[name]) for name in SPLITS},
        **by_class,
        "empty": {name: sum(not example.text.strip() for example in splits[name]) for name in SPLITS},
    }


def token_lengths(encoded: Mapping[SplitName, list[list[int]]], max_length: int) -> dict[str, Any]:
    """Return by split: lengths in tokens before cutting, texts cut."""
    lengths = {name: [len(ids) for ids in encoded[name]] for name in SPLITS}
    return {
        "longest": {name: max(lengths[name], default=0) for name in SPLITS},
        "mean_length": {name: round(sum(lengths[name]) / max(len(lengths[name]), 1), 2) for name in SPLITS},
        "truncated": {name: sum(length > max_length for length in lengths[name]) for name in SPLITS},
    }
