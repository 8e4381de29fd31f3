"""What is kept of a prediction file of any kind: numbers, about 20 bytes per example, whatever the text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ftkit.errors import InputError
from ftkit.results.layout import Layout
from ftkit.results.predictions import PredictionBatch, check_unique, identities, stream_labeled
from ftkit.results.statistics import Interval

MAX_SLICES = 50
# By figure: differences between two files, and their intervals.
Differences = tuple[dict[str, float], dict[str, Interval]]


@dataclass(frozen=True, kw_only=True)
class AnswerFile:
    """A prediction file in numbers, whatever kind of answers it holds.

    Attributes:
        path: The file.
        identity: int64 ``(n,)``: a hash of each id.
        target: ``(n,)``: the label of each example as a number, the same in all files.
        correct: ``(n,)``: whether each answer is right, bool, or how many of ``answers``, int.
        slices: The values of the slice column.
        slice: int16 ``(n,)``: codes into ``slices``, or None.
        columns: Which columns were taken for what.
        notes: What a reader should know about the file.
        warnings: What a reader has to know before any figure.
        answers: What ``correct`` counts for a right answer: 1, or 2 where an answer can be half right.
    """

    path: Path
    identity: np.ndarray
    target: np.ndarray
    correct: np.ndarray
    slices: list[str] = field(default_factory=list)
    slice: np.ndarray | None = None
    columns: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    answers: int = 1

    def __len__(self) -> int:
        return len(self.identity)

    def by_slice(self) -> dict[str, np.ndarray]:
        """Return whether the examples are in each group: bool ``(n,)`` by the group's name."""
        return {name: np.asarray(self.slice == code) for code, name in enumerate(self.slices)}

    def differences(self, other: Any, mine: np.ndarray, theirs: np.ndarray, level: float, seed: int) -> Differences:
        """Return this file's figures besides the accuracy minus those of another file of its kind.

        Args:
            other: The other file.
            mine: int64 ``(shared,)``: the shared examples in this file.
            theirs: The same examples in the other file.
            level: Confidence of the intervals.
            seed: Seed of the draws that they are made of.
        """
        return {}, {}


class Vocabulary:
    """Numbers the distinct texts of a column in the order in which they appear.

    Args:
        known: Texts that get the first codes.
        limit: No more than so many distinct texts get a code of their own; the others share the code -1.

    Attributes:
        texts: The distinct texts by code.
        overflowed: Whether some text has the code -1.

    Example:
        >>> vocabulary = Vocabulary()
        >>> vocabulary.encode(pa.array(["no", "yes", "no"])).tolist(), vocabulary.texts
        ([0, 1, 0], ['no', 'yes'])
    """

    def __init__(self, known: Iterable[str] = (), limit: int = 1_000) -> None:
        self.limit = limit
        self.overflowed = False
        self._codes = {text: code for code, text in enumerate(known)}

    @property
    def texts(self) -> list[str]:
        """The distinct texts by code."""
        return list(self._codes)

    def encode(self, cells: pa.Array, clean: Callable[[str], str] = str) -> np.ndarray:
        """Return the codes of texts, int16 ``(rows,)``; what is missing counts as empty.

        Args:
            cells: The texts.
            clean: What to make of a text first.
        """
        encoded = pc.fill_null(cells, "").dictionary_encode()
        codes = [self._code(clean(text)) for text in encoded.dictionary.to_pylist()]
        return np.array(codes, np.int16)[encoded.indices.to_numpy()]

    def _code(self, text: str) -> int:
        if text not in self._codes and len(self._codes) >= self.limit:
            self.overflowed = True
            return -1
        return self._codes.setdefault(text, len(self._codes))


@dataclass(frozen=True)
class Gathered:
    """What one pass over a prediction file keeps.

    Attributes:
        common: The attributes of :class:`AnswerFile` that need no look at the answers.
        layout: Which column holds what.
        columns: ``(n,)`` each, by name: what the caller wanted kept.
    """

    common: dict[str, Any]
    layout: Layout
    columns: dict[str, np.ndarray]


def gather(
    path: str | Path,
    slice_by: str | None,
    keep: Callable[[PredictionBatch], Mapping[str, np.ndarray]],
    stream: Callable[[Path], Iterator[PredictionBatch]] = stream_labeled,
) -> Gathered:
    """Read one prediction file batch by batch.

    Args:
        path: The file.
        slice_by: A column that tells groups of examples apart.
        keep: From a batch to what is kept of it, ``(rows,)`` each, by name.
        stream: Reads the file, by default without the examples that have no label.

    Raises:
        InputError: The file cannot be read, an id comes twice, there is no such column, or it has too many values.
    """
    path, unlabeled = Path(path), 0
    slices = Vocabulary(limit=MAX_SLICES)
    parts: dict[str, list[np.ndarray]] = {"identity": []}
    for batch in stream(path):
        unlabeled += batch.unlabeled
        kept = {"identity": identities(batch.ids), **keep(batch)}
        if slice_by is not None:
            kept["slice"] = _slice_codes(batch, slice_by, slices)
        for name, part in kept.items():
            parts.setdefault(name, []).append(part)
    # One column at a time, so that only one is held twice.
    columns = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
    identity, layout = columns.pop("identity"), batch.layout
    check_unique(stream(path), identity)
    left_out = f"{unlabeled:,} of {unlabeled + len(identity):,} examples have no label and are left out of all figures."
    common = {
        "path": path,
        "identity": identity,
        "slices": slices.texts,
        "slice": columns.pop("slice", None),
        "columns": layout.describe(),
        "notes": layout.notes,
        "warnings": [left_out] if unlabeled else [],
    }
    return Gathered(common, layout, columns)


def _slice_codes(batch: PredictionBatch, name: str, slices: Vocabulary) -> np.ndarray:
    """Return the codes (rows of the batch,) of what a column says, adding new values to ``slices``."""
    path, extra = batch.table.path, batch.extra
    if name not in extra:
        fix = f"use one of: {', '.join(extra)}" if extra else "add a column behind the others"
        raise InputError("no such column to slice by", file=path, field=name, fix=fix)
    codes = slices.encode(extra[name])
    if slices.overflowed:
        problem = f"more than {MAX_SLICES} different values to slice by"
        raise InputError(problem, file=path, field=name, fix="slice by a column with few values")
    return codes
