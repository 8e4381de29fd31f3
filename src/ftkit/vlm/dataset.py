"""Rows with images as a dataset, and which rows belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from ftkit.errors import InputError
from ftkit.rows.reader import ImageReference, Row
from ftkit.training.order import seeded_order
from ftkit.vlm.chat import ChatEncoder, EncodedRow

Batch = dict[str, Any]


class RowDataset(Dataset[Any]):
    """The rows of one split; images are opened when a row is asked for.

    Args:
        rows: The rows.
        encoder: Makes tokens and pixels of them.
    """

    def __init__(self, rows: Sequence[Row], encoder: ChatEncoder) -> None:
        self.rows, self.encoder = list(rows), encoder
        self.columns = list(dict.fromkeys(name for row in rows for name in row.columns))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> EncodedRow:
        return self.encoder.encode(self.rows[index])

    def training_batch(self, encoded: Sequence[EncodedRow]) -> Batch:
        """``inputs``, see :meth:`ftkit.vlm.chat.ChatEncoder.inputs`, and ``id``, a list of B strings."""
        return {"inputs": self.encoder.inputs(encoded), "id": [one.row.id for one in encoded]}

    def evaluation_batch(self, encoded: Sequence[EncodedRow]) -> Batch:
        """The same with ``answer`` (B strings), ``columns`` (B strings by name) and, except of pairs, ``prompts``."""
        batch = self.training_batch(encoded)
        if not self.encoder.preference:
            batch["prompts"] = self.encoder.prompts(encoded)
        batch["answer"] = [one.row.completion for one in encoded]
        batch["columns"] = {name: [one.row.columns.get(name, "") for one in encoded] for name in self.columns}
        return batch


def leave_out_unusable(rows: Sequence[Row], encoder: ChatEncoder, split: str) -> tuple[list[Row], dict[str, int]]:
    """The rows that something can be learnt from.

    Args:
        rows: The rows of a split.
        encoder: Knows the length rule and whether there are pairs; without both no row is looked at.
        split: The split's name, for the error.

    Returns:
        The rows, and the numbers of those among them with an answer ``cut``, and of those left out: ``skipped`` are
        too long, ``equal`` are pairs without a preference, since both answers are the same or are so when cut.

    Raises:
        InputError: No row is left, or the rule of evaluation finds no room for an answer.
    """
    kept, counts = [], {"cut": 0, "skipped": 0, "equal": 0}
    if encoder.length.max_length is None and not encoder.preference:
        return list(rows), counts
    for row in rows:
        answers, cut = encoder.fitted(row)
        if answers is None:
            counts["skipped"] += 1
        elif encoder.preference and answers[0] == answers[1]:
            counts["equal"] += 1
        else:
            kept.append(row)
            counts["cut"] += cut
    if rows and not kept:
        raise _nothing_left(len(rows), counts, encoder.length.max_length, split)
    return kept, counts


def _nothing_left(rows: int, counts: dict[str, int], max_length: int | None, split: str) -> InputError:
    if not counts["equal"]:
        return InputError(
            f"all {rows} {split} rows are longer", field="max_length", got=max_length,
            fix="allow more tokens, or let the processor make fewer of an image",
        )  # fmt: skip
    longer = f", {counts['skipped']} rows are longer than {max_length} tokens" if counts["skipped"] else ""
    return InputError(
        f"no {split} row is left: in {counts['equal']} pairs both answers are the same, as they are or cut{longer}",
        field="rejected",
        fix="give pairs whose answers differ, or allow more tokens",
    )


def split_by_images(rows: Sequence[Row], fractions: tuple[float, float], seed: int) -> dict[str, list[Row]]:
    """Divide rows into train, val and test so that no image file is in two of them.

    Args:
        rows: The rows.
        fractions: Parts of the rows for train and validation, met as closely as the groups allow.
        seed: Decides which.

    Returns:
        The rows by split, each in their order.

    Example:
        >>> rows = [Row(str(number), "", "") for number in range(10)]
        >>> {name: len(part) for name, part in split_by_images(rows, (0.8, 0.1), seed=1).items()}
        {'train': 8, 'val': 1, 'test': 1}
    """
    group_of = _groups(rows)
    members: dict[int, list[int]] = {}
    for index, group in enumerate(group_of):
        members.setdefault(group, []).append(index)
    groups = list(members.values())
    bounds = {"train": fractions[0], "val": fractions[0] + fractions[1], "test": 1.0}
    chosen: dict[str, list[int]] = {name: [] for name in bounds}
    placed = 0
    for number in seeded_order(len(groups), seed, 0).tolist():
        # The group goes where its middle falls.
        middle = (placed + len(groups[number]) / 2) / len(rows)
        name = next(name for name, bound in bounds.items() if middle <= bound or name == "test")
        chosen[name] += groups[number]
        placed += len(groups[number])
    return {name: [rows[index] for index in sorted(indices)] for name, indices in chosen.items()}


def _groups(rows: Sequence[Row]) -> list[int]:
    """The number of each row's group: rows that share an image, directly or through other rows."""
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    first: dict[ImageReference, int] = {}
    for index, row in enumerate(rows):
        for image in row.images:
            parent[root(index)] = root(first.setdefault(image, index))
    return [root(index) for index in range(len(rows))]
