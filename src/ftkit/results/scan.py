"""One pass over a prediction file whose labels are few classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.answer_file import Vocabulary, gather
from ftkit.results.layout import Layout
from ftkit.results.pairs import MEANING
from ftkit.results.predictions import PredictionBatch

MAX_LABELS = 50


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


@dataclass(frozen=True)
class Scan:
    """A prediction file whose labels are few classes.

    Attributes:
        common: What :func:`ftkit.results.answer_file.gather` kept.
        layout: Which column holds what.
        labels: The distinct labels.
        predictions: The distinct predictions.
        label: int16 ``(n,)``: codes into ``labels``.
        prediction: int16 ``(n,)``: codes into ``predictions``; -1 for what got no code.
        score: float64 ``(n,)``, or None.
    """

    common: dict[str, Any]
    layout: Layout
    labels: list[str]
    predictions: list[str]
    label: np.ndarray
    prediction: np.ndarray
    score: np.ndarray | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.common["path"]


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
    return Scan(kept.common, kept.layout, labels.texts, predictions.texts, **kept.columns)
