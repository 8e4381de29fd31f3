"""Rows with images as a dataset, and which rows belong to it."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from torch.utils.data import Dataset, get_worker_info

from ftkit.errors import InputError
from ftkit.rows.reader import ImageReference, Row
from ftkit.training.order import seeded_order
from ftkit.vlm.chat import ChatEncoder, EncodedRow

Batch = dict[str, Any]
ORIGIN = "origin"  # key of a batch: its BatchOrigin


class RowDataset(Dataset[Any]):
    """The rows of one split; images are opened when a row is asked for.

    Whoever keeps what a frozen tower makes of images may have the rows remembered without them, see
    :class:`BatchOrigin`. Until they are forgotten, rows come with the keys of their tiles and no picture is opened.

    Args:
        rows: The rows.
        encoder: Makes tokens and pixels of them.
    """

    def __init__(self, rows: Sequence[Row], encoder: ChatEncoder) -> None:
        self.rows, self.encoder = list(rows), encoder
        self.columns = list(dict.fromkeys(name for row in rows for name in row.columns))
        self._remembered: dict[int, bytes] = {}  # by the row's identity: its name is its own in one source only

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> EncodedRow:
        row = self.rows[index]
        packed = None if _in_worker() else self._remembered.get(id(row))
        return self.encoder.encode(row) if packed is None else EncodedRow(row, *pickle.loads(zlib.decompress(packed)))

    def training_batch(self, encoded: Sequence[EncodedRow]) -> Batch:
        """A batch to learn from.

        Returns:
            ``inputs``, see :meth:`ftkit.vlm.chat.ChatEncoder.inputs`; ``id``, a list of B strings; and, unless a worker
            makes the batch, ``origin``, a :class:`BatchOrigin`.
        """
        return self._batch(encoded) | self._origin(encoded, self.training_batch)

    def evaluation_batch(self, encoded: Sequence[EncodedRow]) -> Batch:
        """The same with ``answer`` (B strings) and ``columns`` (B strings by name).

        Except of pairs there are also ``prompts`` and, of each answer's text, ``affixes``.
        """
        batch = self._batch(encoded)
        batch["answer"] = [one.row.completion for one in encoded]
        if not self.encoder.preference:
            renderer, rows = self.encoder.renderer, [one.row for one in encoded]
            batch["prompts"] = self.encoder.prompts(encoded)
            batch["affixes"] = affixes = [renderer.affixes(row) for row in rows]
            batch["answer"] = [renderer.reference(row, one) for row, one in zip(rows, affixes, strict=True)]
        batch["columns"] = {name: [one.row.columns.get(name, "") for one in encoded] for name in self.columns}
        return batch | self._origin(encoded, self.evaluation_batch)

    def remember(self, encoded: EncodedRow, tile_keys: list[bytes]) -> None:
        """Let a row come without its images from now on."""
        empty: dict[str, Any] = {}
        kept = (encoded.prompt, encoded.answers, encoded.tokens, empty, encoded.cut, tile_keys, encoded.turns)
        # Packed, a row takes little more than its text: most of a prompt are image tokens, all alike.
        self._remembered[id(encoded.row)] = zlib.compress(pickle.dumps(kept), level=1)

    def forget(self, rows: Iterable[Row] | None = None) -> None:
        """Let rows come with their images again; None takes all rows."""
        for row in self.rows if rows is None else rows:
            self._remembered.pop(id(row), None)

    def _batch(self, encoded: Sequence[EncodedRow]) -> Batch:
        return {"inputs": self.encoder.inputs(encoded), "id": [one.row.id for one in encoded]}

    def _origin(self, encoded: Sequence[EncodedRow], make: Callable[[Sequence[EncodedRow]], Batch]) -> Batch:
        return {} if _in_worker() else {ORIGIN: BatchOrigin(self, encoded, make)}


class BatchOrigin:
    """Where a batch came from, for whoever puts what is kept of its images in their place.

    Args:
        dataset: The data set.
        encoded: The rows of the batch.
        make: Makes the batch of them.

    Attributes:
        dataset: The data set.
    """

    def __init__(
        self, dataset: RowDataset, encoded: Sequence[EncodedRow], make: Callable[[Sequence[EncodedRow]], Batch]
    ) -> None:
        self.dataset, self._make = dataset, make
        self._tiles = [one.tiles for one in encoded]
        self._encoded = [replace(one, images={}) for one in encoded]  # pixels are in the batch alone

    def tile_keys(self, of_pixels: Sequence[bytes]) -> list[list[bytes]]:
        """The keys of each row's tiles.

        Args:
            of_pixels: Those of the tiles whose pixels are in the batch, row by row.
        """
        found = iter(of_pixels)
        return [
            list(islice(found, tiles)) if one.tile_keys is None else one.tile_keys
            for one, tiles in zip(self._encoded, self._tiles, strict=True)
        ]

    def remember(self, tile_keys: Sequence[list[bytes] | None]) -> None:
        """Let rows come without their images from now on.

        Args:
            tile_keys: The keys of each row's tiles; None leaves the row as it is.
        """
        for one, keys in zip(self._encoded, tile_keys, strict=True):
            if one.tile_keys is None and keys is not None:
                self.dataset.remember(one, keys)

    def with_pixels(self, batch: Batch) -> Batch:
        """The batch with the images of all its rows; those that it lacks are opened, and their rows forgotten."""
        remembered = [one.row for one in self._encoded if one.tile_keys is not None]
        if not remembered:
            return batch
        self.dataset.forget(remembered)
        return self._make([self.dataset.encoder.encode(one.row) for one in self._encoded])


def _in_worker() -> bool:
    """Whether this is a worker of a data loader.

    Workers have copies of the data set, and what becomes of its images is known in the main process alone. So theirs
    come with pixels always, which they prepare beside the training.
    """
    return get_worker_info() is not None


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


def split_by_images(
    rows: Sequence[Row],
    fractions: tuple[float, float],
    seed: int,
    content_of: Callable[[ImageReference, Row], Hashable],
) -> dict[str, list[Row]]:
    """Divide rows into train, val and test so that no image is in two of them.

    Args:
        rows: The rows.
        fractions: Parts of the rows for train and validation, met as closely as the groups allow.
        seed: Decides which.
        content_of: What is equal for equal images; a saved data set holds an image anew with each row.

    Returns:
        The rows by split, each in their order.

    Example:
        >>> rows = [Row(str(number), "", "") for number in range(10)]
        >>> parts = split_by_images(rows, (0.8, 0.1), seed=1, content_of=lambda image, row: image)
        >>> {name: len(part) for name, part in parts.items()}
        {'train': 8, 'val': 1, 'test': 1}
    """
    group_of = _groups(rows, content_of)
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


def _groups(rows: Sequence[Row], content_of: Callable[[ImageReference, Row], Hashable]) -> list[int]:
    """The number of each row's group: rows that share an image, directly or through other rows."""
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    first: dict[Hashable, int] = {}
    for index, row in enumerate(rows):
        for image in row.images:
            parent[root(index)] = root(first.setdefault(content_of(image, row), index))
    return [root(index) for index in range(len(rows))]
