"""One pass over a prediction file that keeps numbers only: about 20 bytes per example, whatever the text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.layout import Layout
from ftkit.results.pairs import MEANING
from ftkit.results.predictions import PredictionBatch, check_unique, identities, stream_labeled

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


@dataclass(frozen=True, kw_only=True)
class AnswerFile:
    """What is known of the labelled examples of a prediction file of any kind.

    Attributes:
        path: The file.
        identity: int64 ``(n,)``: a hash of each id.
        slices: The values of the slice column.
        slice: int16 ``(n,)``: codes into ``slices``, or None.
        columns: Which columns were taken for what.
        notes: What a reader should know about the file.
        warnings: What a reader has to know before any figure.
    """

    path: Path
    identity: np.ndarray
    slices: list[str] = field(default_factory=list)
    slice: np.ndarray | None = None
    columns: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.identity)

    def by_slice(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values ``(n,)`` of each group of examples."""
        return {name: values[self.slice == code] for code, name in enumerate(self.slices)}


@dataclass(frozen=True)
class Gathered:
    """What one pass over a prediction file keeps.

    Attributes:
        file: What is kept of every file.
        layout: Which column holds what.
        columns: ``(n,)`` each, by name: what the caller wanted kept.
    """

    file: AnswerFile
    layout: Layout
    columns: dict[str, np.ndarray]


def gather(
    path: str | Path, slice_by: str | None, keep: Callable[[PredictionBatch], Mapping[str, np.ndarray]]
) -> Gathered:
    """Read one prediction file batch by batch.

    Args:
        path: The file.
        slice_by: A column that tells groups of examples apart.
        keep: From a batch to what is kept of it, ``(rows,)`` each, by name.

    Raises:
        InputError: The file cannot be read, an id comes twice, there is no such column, or it has too many values.
    """
    path, unlabeled = Path(path), 0
    slices = Vocabulary(limit=MAX_SLICES)
    parts: dict[str, list[np.ndarray]] = {"identity": []}
    for batch in stream_labeled(path):
        unlabeled += batch.unlabeled
        kept = {"identity": identities(batch.ids), **keep(batch)}
        if slice_by is not None:
            kept["slice"] = _slice_codes(batch, slice_by, slices)
        for name, part in kept.items():
            parts.setdefault(name, []).append(part)
    # One column at a time, so that only one is held twice.
    columns = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
    identity, layout = columns.pop("identity"), batch.layout
    check_unique(stream_labeled(path), identity)
    left_out = f"{unlabeled:,} of {unlabeled + len(identity):,} examples have no label and are left out of all figures."
    file = AnswerFile(
        path=path,
        identity=identity,
        slices=slices.texts,
        slice=columns.pop("slice", None),
        columns=layout.describe(),
        notes=layout.notes,
        warnings=[left_out] if unlabeled else [],
    )
    return Gathered(file, layout, columns)


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


@dataclass(frozen=True)
class Scan:
    """A prediction file whose labels are few classes.

    Attributes:
        file: What is known of every file.
        layout: Which column holds what.
        labels: The distinct labels.
        predictions: The distinct predictions.
        label: int16 ``(n,)``: codes into ``labels``.
        prediction: int16 ``(n,)``: codes into ``predictions``; -1 for what got no code.
        score: float64 ``(n,)``, or None.
    """

    file: AnswerFile
    layout: Layout
    labels: list[str]
    predictions: list[str]
    label: np.ndarray
    prediction: np.ndarray
    score: np.ndarray | None = None


def scan(
    path: str | Path, slice_by: str | None = None, normalize_labels: bool = False, known: Iterable[str] = ()
) -> Scan:
    """Read one prediction file with few different labels.

    Args:
        path: The file.
        slice_by: A column whose values are kept, too.
        normalize_labels: Whether predictions are kept as :func:`ftkit.normalize.normalize` spells them.
        known: Predictions that get a code of their own in any case.

    Raises:
        InputError: The file cannot be read, an id comes twice, there is no such column, or it or the label has too
            many values.
    """
    labels, predictions = Vocabulary(limit=MAX_LABELS), Vocabulary(known)

    def keep(batch: PredictionBatch) -> dict[str, np.ndarray]:
        kept = {
            "label": labels.encode(batch.labels),
            "prediction": predictions.encode(batch.predictions, normalize if normalize_labels else str),
        }
        if labels.overflowed:
            # A score column says that there is a positive class; without one, free texts may be meant.
            error = NotBinaryError(f"more than {MAX_LABELS} different labels", batch.table.path)
            raise error if batch.scores is None else InputError(str(error))
        return kept if batch.scores is None else {**kept, "score": batch.scores}

    kept = gather(path, slice_by, keep)
    wanted = {*map(normalize, labels.texts), *MEANING} if normalize_labels else set(labels.texts)
    if predictions.overflowed and not wanted <= set(predictions.texts):
        # A class may have come up only after the answers that took all codes: once more, with the classes first.
        return scan(path, slice_by, normalize_labels, known=sorted(wanted))
    return Scan(kept.file, kept.layout, labels.texts, predictions.texts, **kept.columns)
