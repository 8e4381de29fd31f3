"""Prediction files in numbers: labels, answers and scores, with the same classes in all files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ftkit.errors import InputError
from ftkit.results.class_metrics import class_values, present
from ftkit.results.classes import Classes, ClassNames, merged_labels
from ftkit.results.exact_match import read_free_answers
from ftkit.results.intervals import table_limits
from ftkit.results.layout import NEUTRAL, score_parts
from ftkit.results.metrics import UNPARSED, Counts, figure_values
from ftkit.results.prediction_file import ROW, PredictionFile
from ftkit.results.preferences import is_preference_file, read_preferences
from ftkit.results.scan import AnswerFile, Differences, NotBinaryError, Scan, scan
from ftkit.results.several_classes import find_classes
from ftkit.results.two_classes import UnknownPositiveError, resolve_classes

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class ClassAnswers(AnswerFile):
    """A file of answers that name classes, in numbers; ``target`` is int8: the place of each label among them."""

    classes: ClassNames
    answer: np.ndarray  # int8 (n,): the place of each answer among them, or -1 for one that names none
    score: np.ndarray | None = None  # float64 (n, k): the probability of each class; None when the file has none
    # The most frequent answers that name no class, and how often they came.
    unparsed: dict[str, int] = field(default_factory=dict)

    compared: ClassVar = ("macro_f1", "balanced_accuracy", "mcc")  # besides the accuracy

    def table(self, rows: Any = slice(None)) -> np.ndarray:
        """Return the counts of some examples: int64 ``(k, k + 1)``, by label and answer, those of no class last."""
        k = len(self.classes.names)
        codes = self.target[rows] * np.int16(k + 1) + self.answer[rows] % np.int16(k + 1)
        return np.bincount(codes, minlength=k * (k + 1)).reshape(k, k + 1)

    def figures_of(self, table: np.ndarray) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
        """Return what computes the figures of tables like ``table``, ``(k, k + 1)``, answers of no class first."""
        averaged = present(np.roll(table, -1, axis=1))
        return lambda tables: class_values(averaged, np.roll(tables, -1, axis=-1))

    def differences(
        self, other: ClassAnswers, mine: np.ndarray, theirs: np.ndarray, level: float, seed: int
    ) -> Differences:
        """Return the differences of F1, balanced accuracy and Matthews coefficient, NaN where one is undefined."""
        k = len(self.classes.names)
        shape, code = (k, k + 1, k + 1), np.min_scalar_type(-k * (k + 1) ** 2).type
        codes = self.target[mine] * code((k + 1) ** 2) + (self.answer[mine] + 1) * code(k + 1)
        # examples by label (0, 1, ...), answer here and answer there (-1, 0, 1, ... each)
        table = np.bincount(codes + other.answer[theirs] + code(1), minlength=np.prod(shape)).reshape(shape)
        here, there = (self.figures_of(table.sum(axis=axis)) for axis in (2, 1))

        def differences(tables: np.ndarray) -> dict[str, np.ndarray]:
            answers = tables.reshape(*tables.shape[:-2], *shape)
            ours, others = here(answers.sum(axis=-1)), there(answers.sum(axis=-2))
            return {name: ours[name] - others[name] for name in self.compared}

        found = {name: float(value) for name, value in differences(table.reshape(k, -1)).items()}
        right = np.eye(k, k + 1, 1)  # (k, k + 1)
        wrong = np.pad(1 - right[:, 1:], [(0, 0), (1, 0)]) / (k - 1) * (2 / k)  # as in class_figures
        lost = wrong[:, :, None] * right[:, None]  # of each label, only the other is right
        lost, won = lost.reshape(k, -1), lost.swapaxes(1, 2).reshape(k, -1)
        limits = table_limits(table.reshape(k, -1), lost, won, differences, level, seed)
        return found, {name: limits[name] for name in found if not np.isnan([found[name], *limits[name]]).any()}


@dataclass(frozen=True, kw_only=True)
class Answers(ClassAnswers):
    """A file of answers to yes/no questions, in numbers: 1 for a positive, 0 for a negative; ``score`` is ``(n,)``."""

    classes: Classes
    kind: str = ""  # of the scores, of which higher ones are more positive: probability or log_odds; empty without any

    compared: ClassVar = ("f_measure", "balanced_accuracy", "mcc")

    @property
    def counts(self) -> Counts:
        """The outcomes."""
        return Counts.of(self.target, self.answer)

    def figures_of(self, table: np.ndarray) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:  # noqa: D102
        return lambda tables: figure_values(_by_outcome(tables))


def binary_answers(scans: Sequence[Scan], positive: str | None, normalize_labels: bool) -> list[Answers]:
    """Return the answers of files that were read and hold yes/no questions.

    Raises:
        InputError: There are not two classes, or all answers of a file miss them by their spelling only.
    """
    classes = resolve_classes(scans, positive, normalize_labels)
    found = []
    for one in scans:
        answers, (score, kind) = _answers(one, classes), _oriented(one, classes)
        if score is not None and one.score_name:  # of several classes the most probable one may be below 0.5
            answers["notes"] += _disagreements(one.path, answers["answer"], score, kind)
        found.append(Answers(**answers, classes=classes, score=score, kind=kind))
    return found


def class_answers(scans: Sequence[Scan], classes: ClassNames) -> list[ClassAnswers]:
    """Return the answers of files that were read and are about three and more classes.

    Raises:
        InputError: All answers of a file miss the classes by their spelling only.
    """
    return [ClassAnswers(**_answers(one, classes), classes=classes, score=_ordered(one, classes)) for one in scans]


def any_answers(paths: Sequence[str | Path], normalize_labels: bool = False) -> Sequence[AnswerFile]:
    """Read prediction files that are compared, whatever kind of answers they hold, as ``ftkit evaluate`` does.

    Raises:
        InputError: A file cannot be used.
    """
    if any(map(is_preference_file, paths)):
        return [read_preferences(path) for path in paths]
    try:
        scans = [scan(path, None, normalize_labels) for path in paths]
        classes = find_classes(scans, normalize_labels)
        return class_answers(scans, classes) if classes is not None else binary_answers(scans, None, normalize_labels)
    except UnknownPositiveError as error:  # with either, the same answers are right
        return binary_answers(scans, error.names[0], normalize_labels)
    except NotBinaryError:
        return [read_free_answers(path, None, normalize_labels) for path in paths]


def _answers(one: Scan, classes: ClassNames) -> dict[str, Any]:
    """Return what answers of any classes have in common."""
    _, counted = one.counted()
    target = _coded(one.label, map(classes.code, one.labels))
    answer = _coded(one.prediction, map(classes.answer_code, one.predictions))
    warnings = one.common["warnings"] + _unparsed_warning(one, counted, int((answer == UNPARSED).sum()), classes)
    notes = one.common["notes"] + (merged_labels(one) if classes.normalize else [])
    found = Counter({text: count for text, count in counted.items() if classes.answer_code(text) == UNPARSED})
    own = {"target": target, "answer": answer, "correct": target == answer, "notes": notes, "warnings": warnings}
    return one.common | own | {"unparsed": dict(found.most_common(_SHOWN))}


def _coded(codes: np.ndarray, classes: Iterable[int]) -> np.ndarray:
    # The last entry serves the code -1.
    return np.array([*classes, UNPARSED], np.int8)[codes]


def _unparsed_warning(one: Scan, counts: Mapping[str, int], unparsed: int, classes: ClassNames) -> list[str]:
    """Say how many answers name no class, and how many of them would in another spelling.

    Raises:
        InputError: All do, and some would.
    """
    if not unparsed:
        return []
    n = len(one.prediction)
    spelled = None if classes.normalize else classes.normalized()
    missed = [text for text in counts if classes.answer_code(text) == UNPARSED]
    found = [text for text in missed if spelled is not None and spelled.answer_code(text) != UNPARSED]
    count = sum(counts[text] for text in found)
    if unparsed == n and found:
        problem, got = f"all {n:,} answers are {classes} as they are spelled", max(found, key=counts.__getitem__)
        fix = f"give --normalize-labels, which reads {count:,} of them"
        raise InputError(problem, file=one.path, field="prediction", got=got, fix=fix)
    advice = f"--normalize-labels reads {count:,} of them"
    if not found:
        advice = "--normalize-labels is given" if classes.normalize else "--normalize-labels would read none of them"
    empty = sum(counts[text] for text in missed if not text.strip())
    missing = f", {empty:,} of them empty or null" if empty else ""
    every = "All" if unparsed == n else f"{unparsed:,} of"
    return [f"{every} {n:,} answers are {classes} and count as errors{missing} ({advice})."]


def _oriented(one: Scan, classes: Classes) -> tuple[np.ndarray | None, str]:
    """Return the scores so that higher means more positive, and their kind."""
    if one.score is None:
        return None, ""
    if one.score_name is None:
        return one.score[:, [*map(classes.answer_code, one.scored_classes)].index(1)], "probability"
    kind, scored = score_parts(one.score_name)
    code = classes.answer_code(scored)
    if code == UNPARSED:
        problem, fix = "the score's class is not one of the labels", f"name the column {kind}:{classes.positive}"
        raise InputError(problem, file=one.path, field=one.score_name, got=scored, fix=fix)
    if code == 1:
        return one.score, kind
    return (1 - one.score if kind == "probability" else -one.score), kind


def _ordered(one: Scan, classes: ClassNames) -> np.ndarray | None:
    """Return the probabilities in the order of the classes."""
    places = [*map(classes.code, one.scored_classes)]
    return one.score if one.score is None or places == sorted(places) else one.score[:, np.argsort(places)]


def _disagreements(path: Path, answer: np.ndarray, score: np.ndarray, kind: str) -> list[str]:
    """Return a note on answers that are not on the side of the neutral score on which their own score lies."""
    neutral = NEUTRAL[kind]
    against = (answer != UNPARSED) & (score != neutral) & ((score > neutral) != (answer == 1))
    if not against.any():
        return []
    file = PredictionFile(path)
    (first,) = file.examples([int(np.argmax(against))])
    place = f"first: {first['id']}, line {file.line_of(first[ROW])}"
    return [f"{int(against.sum()):,} answers contradict their score at {neutral:g} ({place})"]


def _by_outcome(by_answer: np.ndarray) -> np.ndarray:
    return np.stack([by_answer[..., 1, [2, 1, 0]], by_answer[..., 0, [1, 2, 0]]], axis=-2)
