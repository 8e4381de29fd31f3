"""Prediction files in numbers: positives and negatives, answers and scores, with the same two classes in all files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ftkit.errors import InputError
from ftkit.evaluation.classes import Classes, resolve_classes, score_parts
from ftkit.evaluation.fields import Vocabulary
from ftkit.evaluation.figures import UNPARSED, Counts
from ftkit.evaluation.scan import Scan, scan, texts_at

_SHOWN = 5
NEUTRAL = {"probability": 0.5, "log_odds": 0.0}  # where a score favours neither class


@dataclass(frozen=True)
class Answers:
    """A prediction file in numbers.

    Attributes:
        path: The file.
        classes: The two classes.
        target: int8 ``(n,)``: 1 for a positive, 0 for a negative.
        answer: int8 ``(n,)``: 1, 0, or -1 for an answer that names neither class.
        identity: uint64 ``(n,)``: a hash of each id.
        score: float64 ``(n,)``: higher means more positive; None when the file has none.
        kind: ``probability`` or ``log_odds``; empty without scores.
        unparsed: The most frequent answers that name neither class, and how often they came.
        slices: The values of the slice column.
        slice: int16 ``(n,)``: codes into ``slices``, or None.
        columns: Which columns were taken for what.
        notes: What a reader should know about the file.
    """

    path: Path
    classes: Classes
    target: np.ndarray
    answer: np.ndarray
    identity: np.ndarray
    score: np.ndarray | None = None
    kind: str = ""
    unparsed: dict[str, int] = field(default_factory=dict)
    slices: list[str] = field(default_factory=list)
    slice: np.ndarray | None = None
    columns: str = ""
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.target)

    @property
    def counts(self) -> Counts:
        """The outcomes."""
        return Counts.of(self.target, self.answer)

    @property
    def correct(self) -> np.ndarray:
        """Whether each answer is right: bool ``(n,)``."""
        return self.target == self.answer


def read_answers(
    paths: Sequence[str | Path],
    positive: str | None = None,
    slice_by: str | None = None,
    normalize: bool = False,
    also: Sequence[str | Path] = (),
) -> list[Answers]:
    """Read prediction files that are reported together.

    Args:
        paths: The files.
        positive: The positive class by name, see :func:`~ftkit.evaluation.classes.resolve_classes`.
        slice_by: A column that tells groups of examples apart.
        normalize: Ignore case, outer blanks and a final full stop in labels and predictions.
        also: More files with the same classes, which are not sliced.

    Returns:
        The files in order, those of ``also`` at the end.

    Raises:
        InputError: A file cannot be read, an id comes twice, or there are not two classes.
    """
    scans = [scan(path, slice_by) for path in paths] + [scan(path) for path in also]
    classes = resolve_classes(scans, positive, normalize)
    return [_answers(one, classes) for one in scans]


def _answers(one: Scan, classes: Classes) -> Answers:
    answer = _translated(one.prediction, one.predictions, classes)
    score, kind = _oriented(one, classes)
    notes = list(one.layout.notes)
    if score is not None:
        notes += _disagreements(one.path, answer, score, kind)
    return Answers(
        path=one.path,
        classes=classes,
        target=_translated(one.label, one.labels, classes),
        answer=answer,
        identity=one.identity,
        score=score,
        kind=kind,
        unparsed=_unparsed(one, classes),
        slices=one.slices.texts,
        slice=one.slice,
        columns=one.layout.describe(),
        notes=notes,
    )


def _translated(codes: np.ndarray, vocabulary: Vocabulary, classes: Classes) -> np.ndarray:
    # The last entry serves the code -1.
    table = np.array([*map(classes.code, vocabulary.texts), UNPARSED], np.int8)
    return table[codes]


def _oriented(one: Scan, classes: Classes) -> tuple[np.ndarray | None, str]:
    """The scores so that higher means more positive, and their kind."""
    if one.score is None or one.layout.score_name is None:
        return None, ""
    kind, scored = score_parts(one.layout.score_name)
    code = classes.code(scored)
    if code == UNPARSED:
        raise InputError(
            "the score's class is not one of the labels",
            file=one.path,
            field=one.layout.score_name,
            got=scored,
            fix=f"name the column {kind}:{classes.positive}",
        )
    if code == 1:
        return one.score, kind
    return (1 - one.score if kind == "probability" else -one.score), kind


def _unparsed(one: Scan, classes: Classes) -> dict[str, int]:
    counts = np.bincount(one.prediction[one.prediction >= 0], minlength=len(one.predictions.texts)).tolist()
    found = Counter({
        text: count
        for text, count in zip(one.predictions.texts, counts, strict=True)
        if count and classes.code(text) == UNPARSED
    })  # fmt: skip
    return dict(found.most_common(_SHOWN))


def _disagreements(path: Path, answer: np.ndarray, score: np.ndarray, kind: str) -> list[str]:
    """A note on answers that are not on the side of the neutral score on which their own score lies."""
    neutral = NEUTRAL[kind]
    against = (answer != UNPARSED) & (score != neutral) & ((score > neutral) != (answer == 1))
    if not against.any():
        return []
    identity, line = texts_at(path, [int(np.argmax(against))])[0]
    return [f"{int(against.sum()):,} answers contradict their score at {neutral:g} (first: {identity}, line {line})"]
