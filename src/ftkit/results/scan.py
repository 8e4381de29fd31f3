"""One pass over a prediction file that keeps numbers only: about 20 bytes per example, whatever the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.fields import Fields, Vocabulary
from ftkit.results.layout import Layout
from ftkit.results.pairs import MEANING
from ftkit.results.predictions import PredictionBlock, duplicate_id, stream_labeled

MAX_LABELS = 50
MAX_SLICES = 50


class NotBinaryError(InputError):
    """The labels are free texts or many classes, and nothing says which one is positive.

    Args:
        labels: What the labels are instead, in words.
        path: The file.
    """

    def __init__(self, labels: str, path: Path) -> None:
        fix = "a yes/no evaluation needs two: is this the right column?"
        super().__init__(labels, file=path, field="label", fix=fix)
        self.labels = labels


@dataclass
class Scan:
    """What one pass over a prediction file keeps.

    Attributes:
        path: The file.
        layout: Which column holds what.
        labels: The distinct labels.
        predictions: The distinct predictions.
        label: int16 ``(n,)``: codes into ``labels``.
        prediction: int16 ``(n,)``: codes into ``predictions``; -1 for what got no code.
        identity: uint64 ``(n,)``: a hash of each id.
        score: float64 ``(n,)``, or None.
        slices: The distinct values of the slice column.
        slice: int16 ``(n,)``: codes into ``slices``, or None.
        unlabeled: Examples without a label, which are left out of all the above.
    """

    path: Path
    layout: Layout
    labels: Vocabulary
    predictions: Vocabulary
    label: np.ndarray
    prediction: np.ndarray
    identity: np.ndarray
    score: np.ndarray | None = None
    slices: Vocabulary = field(default_factory=Vocabulary)
    slice: np.ndarray | None = None
    unlabeled: int = 0


def scan(
    path: str | Path, slice_by: str | None = None, normalize_labels: bool = False, known: Iterable[str] = ()
) -> Scan:
    """Read one prediction file block by block.

    Args:
        path: The file.
        slice_by: A column whose values are kept, too.
        normalize_labels: Whether predictions are kept as :func:`ftkit.normalize.normalize` spells them.
        known: Predictions that get a code of their own in any case.

    Raises:
        InputError: The file cannot be read, an id comes twice, there is no such column, or it or the label has too
            many values.
    """
    path = Path(path)
    labels, predictions, slices = (
        Vocabulary(limit=MAX_LABELS),
        Vocabulary(known),
        Vocabulary(limit=MAX_SLICES),
    )
    unlabeled = 0
    parts: dict[str, list[np.ndarray]] = {
        "label": [],
        "prediction": [],
        "identity": [],
        "score": [],
        "slice": [],
    }
    for block in stream_labeled(path):
        layout = block.layout
        unlabeled += block.unlabeled
        answers = block.predictions
        if normalize_labels:
            answers = Fields.of(map(normalize, answers.texts()))
        parts["label"].append(labels.encode(block.labels, block.lines))
        parts["prediction"].append(predictions.encode(answers, block.lines))
        parts["identity"].append(block.ids.hashes())
        if block.scores is not None:
            parts["score"].append(block.scores)
        if slice_by is not None:
            parts["slice"].append(slices.encode(slice_column(path, block, slice_by), block.lines))
        if labels.overflowed or slices.overflowed:
            raise _too_many(path, layout, labels, slice_by)
    wanted = {*map(normalize, labels.texts), *MEANING} if normalize_labels else set(labels.texts)
    if predictions.overflowed and not wanted <= set(predictions.texts):
        # A class may have come up only after the answers that took all codes: once more, with the classes first.
        return scan(path, slice_by, normalize_labels, known=sorted(wanted))
    # One column at a time, so that only one is held twice.
    column = {name: np.concatenate(parts.pop(name)) for name in list(parts) if parts[name]}
    check_unique(path, column["identity"])
    return Scan(
        path,
        layout,
        labels,
        predictions,
        column["label"],
        column["prediction"],
        column["identity"],
        column.get("score"),
        slices,
        column.get("slice"),
        unlabeled,
    )


def texts_at(path: Path, rows: Sequence[int]) -> list[tuple[str, int]]:
    """Ids and line numbers of some rows, counted from 0, by another pass over the file."""
    found: dict[int, tuple[str, int]] = {}
    before = 0
    for block in stream_labeled(path):
        here = [row for row in rows if before <= row < before + len(block.lines)]
        found.update({row: (block.ids.text(row - before), int(block.lines[row - before])) for row in here})
        before += len(block.lines)
        if len(found) == len(set(rows)):
            break
    return [found[row] for row in rows]


def slice_column(path: Path, block: PredictionBlock, name: str) -> Fields:
    """The column to slice by.

    Raises:
        InputError: There is none of this name.
    """
    if name not in block.extra:
        raise _no_such_column(path, name, block.layout)
    return block.extra[name]


def slice_codes(path: Path, block: PredictionBlock, name: str, slices: Vocabulary) -> np.ndarray:
    """Return the codes (rows of the block,) of what a column says, adding new values to ``slices``.

    Raises:
        InputError: There is no such column, or it has too many values to tell groups apart.
    """
    codes = slices.encode(slice_column(path, block, name), block.lines)
    if slices.overflowed:
        raise too_many_slices(path, name)
    return codes


def too_many_slices(path: Path, name: str | None) -> InputError:
    """The error for a slice column that tells no groups apart."""
    return InputError(
        f"more than {MAX_SLICES} different values to slice by",
        file=path,
        field=name,
        fix="slice by a column with few values",
    )


def check_unique(path: Path, identity: np.ndarray) -> None:
    """Refuse a file in which an id comes twice.

    Args:
        path: The file.
        identity: uint64 ``(n,)``: a hash of each id.

    Raises:
        InputError: Two lines share an id; both are named.
    """
    ordered = np.sort(identity)
    if not (ordered[1:] == ordered[:-1]).any():
        return
    order = np.argsort(identity, kind="stable")
    pairs = np.flatnonzero(identity[order][1:] == identity[order][:-1])
    first, second = min(zip(order[pairs], order[pairs + 1], strict=True), key=lambda pair: pair[1])
    (text, line), (_, second_line) = texts_at(path, [int(first), int(second)])
    raise duplicate_id(path, text, line, second_line)


def _no_such_column(path: Path, name: str, layout: Layout) -> InputError:
    return InputError(
        "no such column to slice by",
        file=path,
        field=name,
        fix=f"use one of: {', '.join(layout.extra)}" if layout.extra else "add a column behind the others",
    )


def _too_many(path: Path, layout: Layout, labels: Vocabulary, slice_by: str | None) -> InputError:
    if not labels.overflowed:
        return too_many_slices(path, slice_by)
    # A score column says that there is a positive class; without one, free texts may be meant.
    error = NotBinaryError(f"more than {MAX_LABELS} different labels", path)
    return error if layout.score_name is None else InputError(str(error))
