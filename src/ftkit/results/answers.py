"""Prediction files in numbers: positives and negatives, answers and scores, with the same two classes in all files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ftkit.errors import InputError
from ftkit.results.classes import Classes, merged_labels, resolve_classes, score_parts
from ftkit.results.intervals import table_limits
from ftkit.results.metrics import UNPARSED, Counts, figure_values
from ftkit.results.predictions import PredictionFile
from ftkit.results.scan import AnswerFile, Differences, Scan, scan

_SHOWN = 5
_COMPARED = ("f_measure", "balanced_accuracy", "mcc")  # besides the accuracy
# Of each label, (answer here, answer there): only the other is right, or only this one.
_LOST = np.array([[[0, 0, 0], [0, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 1], [0, 0, 0]]]).reshape(2, 9)
_WON = _LOST.reshape(2, 3, 3).swapaxes(1, 2).reshape(2, 9)
NEUTRAL = {"probability": 0.5, "log_odds": 0.0}  # where a score favours neither class


@dataclass(frozen=True, kw_only=True)
class Answers(AnswerFile):
    """A file of answers to yes/no questions, in numbers; ``target`` is 1 for a positive, 0 for a negative.

    Attributes:
        classes: The two classes.
        answer: int8 ``(n,)``: 1, 0, or -1 for an answer that names neither class.
        score: float64 ``(n,)``: higher means more positive; None when the file has none.
        kind: ``probability`` or ``log_odds``; empty without scores.
        unparsed: The most frequent answers that name neither class, and how often they came.
    """

    classes: Classes
    answer: np.ndarray
    score: np.ndarray | None = None
    kind: str = ""
    unparsed: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> Counts:
        """The outcomes."""
        return Counts.of(self.target, self.answer)

    def differences(self, other: Answers, mine: np.ndarray, theirs: np.ndarray, level: float, seed: int) -> Differences:
        """Return the differences of F-measure, balanced accuracy and Matthews coefficient, NaN where one is undefined.

        Args:
            other: The other file.
            mine: int64 ``(shared,)``: the shared examples in this file.
            theirs: The same examples in the other file.
            level: Confidence of the intervals.
            seed: Seed of the draws that they are made of.
        """
        target, answer, theirs = self.target[mine], self.answer[mine], other.answer[theirs]
        # (2, 9): examples by label (0, 1), answer here and answer there (-1, 0, 1 each)
        table = np.bincount((target * 9 + (answer + 1) * 3 + theirs + 1).astype(np.int8), minlength=18).reshape(2, 9)
        found = {name: float(value) for name, value in _figure_differences(table).items()}
        limits = table_limits(table, _LOST, _WON, _figure_differences, level, seed)
        return found, {name: limits[name] for name in found if not np.isnan([found[name], *limits[name]]).any()}


def read_answers(
    paths: Sequence[str | Path],
    positive: str | None = None,
    slice_by: str | None = None,
    normalize_labels: bool = False,
    also: Sequence[str | Path] = (),
) -> list[Answers]:
    """Read prediction files that are reported together.

    Args:
        paths: The files.
        positive: The positive class by name, see :func:`~ftkit.results.classes.resolve_classes`.
        slice_by: A column that tells groups of examples apart.
        normalize_labels: Compare labels and predictions as :func:`ftkit.normalize.normalize` spells them.
        also: More files with the same classes, which are not sliced.

    Returns:
        The files in order, those of ``also`` at the end.

    Raises:
        InputError: A file cannot be read, an id comes twice, there are not two classes, or all answers of a file miss
            them by their spelling only.
    """
    scans = [scan(path, slice_by, normalize_labels) for path in paths]
    scans += [scan(path, None, normalize_labels) for path in also]
    classes = resolve_classes(scans, positive, normalize_labels)
    return [_answers(one, classes) for one in scans]


def _answers(one: Scan, classes: Classes) -> Answers:
    counts = np.bincount(one.prediction[one.prediction >= 0], minlength=len(one.predictions)).tolist()
    counted = {text: count for text, count in zip(one.predictions, counts, strict=True) if count}
    target = _coded(one.label, map(classes.code, one.labels))
    answer = _coded(one.prediction, map(classes.answer_code, one.predictions))
    warnings = one.common["warnings"] + _unparsed_warning(one, counted, int((answer == UNPARSED).sum()), classes)
    score, kind = _oriented(one, classes)
    notes = one.common["notes"] + (merged_labels(one) if classes.normalize else [])
    if score is not None:
        notes += _disagreements(one.path, answer, score, kind)
    found = Counter({text: count for text, count in counted.items() if classes.answer_code(text) == UNPARSED})
    return Answers(
        **one.common | {"notes": notes, "warnings": warnings},
        classes=classes,
        target=target,
        answer=answer,
        correct=target == answer,
        score=score,
        kind=kind,
        unparsed=dict(found.most_common(_SHOWN)),
    )


def _coded(codes: np.ndarray, classes: Iterable[int]) -> np.ndarray:
    # The last entry serves the code -1.
    return np.array([*classes, UNPARSED], np.int8)[codes]


def _unparsed_warning(one: Scan, counts: Mapping[str, int], unparsed: int, classes: Classes) -> list[str]:
    """Say how many answers name no class, and how many of them would in another spelling.

    Raises:
        InputError: All do, and some would.
    """
    if not unparsed:
        return []
    names, n = f"{classes.positive} nor {classes.negative}", len(one.prediction)
    spelled = None if classes.normalize else classes.normalized()
    missed = [text for text in counts if classes.answer_code(text) == UNPARSED]
    found = [text for text in missed if spelled is not None and spelled.answer_code(text) != UNPARSED]
    count = sum(counts[text] for text in found)
    if unparsed == n and found:
        problem, got = f"all {n:,} answers are neither {names} as they are spelled", max(found, key=counts.__getitem__)
        fix = f"give --normalize-labels, which reads {count:,} of them"
        raise InputError(problem, file=one.path, field="prediction", got=got, fix=fix)
    advice = f"--normalize-labels reads {count:,} of them"
    if not found:
        advice = "--normalize-labels is given" if classes.normalize else "--normalize-labels would read none of them"
    empty = sum(counts[text] for text in missed if not text.strip())
    missing = f", {empty:,} of them empty or null" if empty else ""
    every = "All" if unparsed == n else f"{unparsed:,} of"
    return [f"{every} {n:,} answers are neither {names} and count as errors{missing} ({advice})."]


def _oriented(one: Scan, classes: Classes) -> tuple[np.ndarray | None, str]:
    """Return the scores so that higher means more positive, and their kind."""
    if one.score is None or one.score_name is None:
        return None, ""
    kind, scored = score_parts(one.score_name)
    code = classes.answer_code(scored)
    if code == UNPARSED:
        problem, fix = "the score's class is not one of the labels", f"name the column {kind}:{classes.positive}"
        raise InputError(problem, file=one.path, field=one.score_name, got=scored, fix=fix)
    if code == 1:
        return one.score, kind
    return (1 - one.score if kind == "probability" else -one.score), kind


def _disagreements(path: Path, answer: np.ndarray, score: np.ndarray, kind: str) -> list[str]:
    """Return a note on answers that are not on the side of the neutral score on which their own score lies."""
    neutral = NEUTRAL[kind]
    against = (answer != UNPARSED) & (score != neutral) & ((score > neutral) != (answer == 1))
    if not against.any():
        return []
    file = PredictionFile(path)
    ((identity, row),) = file.examples([int(np.argmax(against))])
    first = f"first: {identity}, line {file.line_of(row)}"
    return [f"{int(against.sum()):,} answers contradict their score at {neutral:g} ({first})"]


def _figure_differences(table: np.ndarray) -> dict[str, np.ndarray]:
    answers = table.reshape(*table.shape[:-1], 3, 3)
    # (..., label, answer) with labels 0, 1 and answers -1, 0, 1
    mine, theirs = (figure_values(_by_outcome(answers.sum(axis=axis))) for axis in (-1, -2))
    return {name: mine[name] - theirs[name] for name in _COMPARED}


def _by_outcome(by_answer: np.ndarray) -> np.ndarray:
    return np.stack([by_answer[..., 1, [2, 1, 0]], by_answer[..., 0, [1, 2, 0]]], axis=-2)
