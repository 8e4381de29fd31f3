"""Answers of a row's runs to the test examples, from one prediction file a seed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from ftkit.ablation.result import Split
from ftkit.errors import InputError
from ftkit.results import comparison
from ftkit.results.class_metrics import class_values, present
from ftkit.results.comparison import Comparison
from ftkit.results.layout import score_parts
from ftkit.results.noise import probability_ahead
from ftkit.results.paired import sign_flip_test
from ftkit.results.prediction_file import identities
from ftkit.results.predictions import Predictions, read_predictions
from ftkit.results.preferences import CHOSEN, REJECTED, TIE, TIED, WON, half_points, is_preference
from ftkit.results.scan import MAX_LABELS, AnswerFile
from ftkit.results.several_classes import in_order, why_no_classes
from ftkit.results.statistics import is_significant

NEITHER = "neither"
_MOST_CLASSES = 8  # with more labels, such as the results of sums, a table of answers is no picture


@dataclass(frozen=True, kw_only=True)
class RunAnswers(AnswerFile):
    """The answers of one run; ``correct`` is in halves: 2 for a right one, 1 for a tie of a pair of preferences."""

    # How often each label got each answer; empty with more than 8 labels that are no classes.
    pairs: Counter[tuple[str, str]]
    classes: tuple[str, ...] = ()  # three and more classes in order; empty of yes/no questions and of free texts
    positive: str  # the class that the scores are of; empty without scores
    preferences: bool  # whether the examples are pairs of a chosen and a rejected answer
    answers: int = WON

    @property
    def macro_f1(self) -> float | None:
        """The mean F1 of three and more classes, see :func:`ftkit.results.class_metrics.class_values`."""
        if not self.classes:
            return None
        table = _table(self.pairs, self.classes)
        return float(class_values(present(table), table)["macro_f1"])


def read_run_answers(path: Path, counted: Split | None) -> RunAnswers:
    """Read the prediction file of a run.

    Raises:
        InputError: The file is damaged or does not fit ``result.json``.
    """
    found = read_predictions(path)
    labels, answers = ([text or "" for text in column] for column in (found.labels, found.predictions))
    points = half_points(found)
    right = int(np.count_nonzero(points == WON))
    if counted is not None and (len(points), right) != (counted.n, counted.correct):
        problem = f"{right} of {len(points)} right, but result.json says {counted.correct} of {counted.n}"
        raise InputError(problem, file=path, fix="run the row again with --force")
    classes = _classes(found, labels, answers)
    return RunAnswers(
        path=path,
        identity=identities(pa.array(found.ids)),
        target=np.array([hash(text) for text in labels]),
        correct=points,
        pairs=Counter(zip(labels, answers, strict=True) if classes or len(set(labels)) <= _MOST_CLASSES else ()),
        classes=classes,
        positive=score_parts(found.score_name)[1] if found.score_name else "",
        preferences=is_preference(labels, answers),
    )


def _classes(found: Predictions, labels: Sequence[str], answers: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that a file is about if there are three and more, as ``ftkit evaluate`` finds them."""
    scored = found.scored_classes
    if len(scored) > 1:
        return scored if set(labels) <= set(scored) and len(scored) <= MAX_LABELS else ()
    counted = Counter(labels)
    return (
        () if scored or why_no_classes(counted, Counter(answers), len(labels)) else tuple(sorted(counted, key=in_order))
    )


def _table(pairs: Counter[tuple[str, str]], labels: Sequence[str]) -> np.ndarray:
    """Return counts by label and answer, those that are no label last: int64 ``(k, k + 1)``."""
    place = {label: number for number, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels) + 1), np.int64)
    for (label, answer), count in pairs.items():
        if label in place:
            table[place[label], place.get(answer, -1)] += count
    return table


def over_seeds(runs: Sequence[RunAnswers | None]) -> AnswerFile | None:
    """Return the examples of several seeds, sorted, with ``correct``, int ``(seeds, n)``, in halves.

    It is None if there are no runs, a file is missing, or the seeds had different examples or labels.
    """
    known = [run for run in runs if run is not None]
    if not known or len(known) < len(runs):
        return None
    orders = [np.argsort(run.identity) for run in known]
    both = [np.stack([run.identity[order], run.target[order]]) for run, order in zip(known, orders, strict=True)]
    if any(not np.array_equal(one, both[0]) for one in both):
        return None
    points = np.stack([run.correct[order] for run, order in zip(known, orders, strict=True)])
    first, order = known[0], orders[0]
    return AnswerFile(
        path=first.path,
        identity=both[0][0],
        target=both[0][1],
        correct=points,
        answers=WON,
        in_train=None if first.in_train is None else first.in_train[order],
        cluster=None if first.cluster is None else first.cluster[order],
    )


def same_examples(ours: AnswerFile, theirs: AnswerFile) -> bool:
    """Return whether two rows were tested on the same examples, with the same labels."""
    return np.array_equal(ours.identity, theirs.identity) and np.array_equal(ours.target, theirs.target)


def compare(ours: AnswerFile | None, theirs: AnswerFile | None, seeds: Sequence[int]) -> Comparison | None:
    """Compare what two rows answered with the same seeds: ours minus theirs.

    It is None if one of them has no answers or they were tested on different examples or labels.
    """
    if ours is None or theirs is None or not same_examples(ours, theirs):
        return None
    unit = 1 if TIED in ours.correct or TIED in theirs.correct else WON  # halves only where there are any
    a, b = (
        replace(one, correct=one.correct.sum(axis=0) // unit, answers=WON * len(seeds) // unit)
        for one in (ours, theirs)
    )
    ahead = probability_ahead((ours.correct - theirs.correct) / WON) if len(ours) > 1 else None
    return replace(comparison.compare(a, b), seeds=seeds, ahead=ahead)


@dataclass(frozen=True)
class Baseline:
    """The best trivial baseline, and whether a row is significantly better."""

    name: str  # what it does, in words
    accuracy: float  # the share that it gets right
    beaten: bool  # whether the row is significantly better (sign_flip_test)


@dataclass(frozen=True)
class Confusion:
    """Answers to the test examples by label, summed over the seeds."""

    labels: Sequence[str]  # the labels, sorted; the positive class, if it is known, first
    answers: Sequence[str]  # the labels again, and neither if an answer was no label
    counts: Sequence[Sequence[int]]  # a row per label, a column per answer
    baseline: Baseline  # always answering the most frequent label; of pairs of preferences, a coin


def confusion_of(runs: Sequence[RunAnswers | None]) -> Confusion | None:
    """Count the answers of a row's runs by class; None without prediction files, or if there are too many labels."""
    files = [run for run in runs if run is not None]
    if not all(one.pairs for one in files):
        return None
    pairs = Counter[tuple[str, str]]()
    for one in files:
        pairs.update(one.pairs)
    if files and all(one.preferences for one in files):
        counts = [[pairs[CHOSEN, outcome] for outcome in (CHOSEN, REJECTED, TIE)]]
        return Confusion([CHOSEN], [CHOSEN, REJECTED, TIE], counts, _baseline(files, None))
    positive = next((one.positive for one in reversed(files) if one.positive), "")
    several = next((one.classes for one in files if one.classes), ())
    classes = {label for label, _ in pairs} | ({positive} if positive else set())
    if not 0 < len(classes) <= _MOST_CLASSES and not several:
        return None
    if len(classes) == 1:  # of one label alone nobody knows what the other would be called
        classes |= {answer for _, answer in pairs}
    labels = list(several) or sorted(classes, key=lambda label: (label != positive, label))
    table = _table(pairs, labels)
    answers = [*labels, NEITHER] if table[:, -1].any() else labels
    baseline = _baseline(files, labels[int(table.sum(axis=1).argmax())])
    return Confusion(labels, answers, table[:, : len(answers)].tolist(), baseline)


def _baseline(files: Sequence[RunAnswers], majority: str | None) -> Baseline:
    """Test a row, one file a seed, against its baseline on the same examples; of pairs that is a coin."""
    points, target, identity = (
        np.concatenate([getattr(one, name) for one in files]) for name in ("correct", "target", "identity")
    )
    without_skill = np.full(len(points), TIED) if majority is None else WON * (target == hash(majority))
    examples, places = np.unique(identity, return_inverse=True)
    gained = np.zeros(len(examples), np.int64)
    np.add.at(gained, places, points - without_skill)
    beaten = bool(gained.sum() > 0) and is_significant(sign_flip_test(gained))
    name = "a coin" if majority is None else f"always predicting {majority}"
    return Baseline(name, float(without_skill.sum()) / (WON * len(points)), beaten)
