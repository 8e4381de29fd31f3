"""What the run folders of a row hold besides its figures: learning curves and answers by class."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ftkit.ablation.run_answers import MOST_CLASSES, RunAnswers
from ftkit.ablation.sweep import CellState
from ftkit.errors import InputError
from ftkit.results.paired import sign_flip_test
from ftkit.results.preference_file import CHOSEN, REJECTED, TIE, TIED, WON
from ftkit.results.statistics import is_significant
from ftkit.run_folder import CURVES_FILE

NEITHER = "neither"


@dataclass(frozen=True)
class Curve:
    """One figure while a cell trained.

    Args:
        steps: The optimizer steps behind each value.
        values: The values.
        epochs: The epoch of each value.
    """

    steps: list[float]
    values: list[float]
    epochs: list[int]


@dataclass(frozen=True)
class Baseline:
    """What is right without looking, and whether a row does better.

    Args:
        name: What it does, in words.
        accuracy: The share that it gets right.
        beaten: Whether the row is right more often, beyond chance (:func:`ftkit.results.paired.sign_flip_test`).
    """

    name: str
    accuracy: float
    beaten: bool


@dataclass(frozen=True)
class Confusion:
    """How the test examples of each label were answered, summed over the seeds.

    Args:
        labels: The labels, sorted; the positive class, if it is known, first.
        answers: The labels again, and ``neither`` if an answer was no label.
        counts: A row per label, a column per answer.
        baseline: Always answering the most frequent label; of pairs of preferences, a coin.
    """

    labels: Sequence[str]
    answers: Sequence[str]
    counts: Sequence[Sequence[int]]
    baseline: Baseline


def read_curves(directory: Path) -> Mapping[str, Curve]:
    """The curves of a run folder, by the name of the figure; none if it kept none.

    Raises:
        InputError: A value in its ``metrics.csv`` is no number.
    """
    path = directory / CURVES_FILE
    if not path.exists():
        return {}
    found: dict[str, Curve] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            try:
                step, epoch = float(record.pop("step")), int(record.pop("epoch", None) or 0)
                values = {name: float(text) for name, text in record.items() if text}
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"not a table of curves: {type(error).__name__} {error}", file=path) from None
            for name, value in values.items():
                curve = found.setdefault(name, Curve([], [], []))
                curve.steps.append(step)
                curve.values.append(value)
                curve.epochs.append(epoch)
    return found


def read_confusion(cells: Sequence[CellState]) -> Confusion | None:
    """The answers of a row's cells by class; None if no cell left a prediction file or the labels are no few classes.

    Raises:
        InputError: A prediction file is damaged.
    """
    files = [cell.answers for cell in cells if cell.answers is not None]
    if not all(one.pairs for one in files):
        return None
    pairs = Counter[tuple[str, str]]()
    for one in files:
        pairs.update(one.pairs)
    if files and all(one.preferences for one in files):
        counts = [[pairs[CHOSEN, outcome] for outcome in (CHOSEN, REJECTED, TIE)]]
        return Confusion([CHOSEN], [CHOSEN, REJECTED, TIE], counts, _baseline(files, None))
    positive = next((one.positive for one in reversed(files) if one.positive), "")
    classes = {label for label, _ in pairs} | ({positive} if positive else set())
    if not 0 < len(classes) <= MOST_CLASSES:
        return None
    if len(classes) == 1:  # of one label alone nobody knows what the other would be called
        classes |= {answer for _, answer in pairs}
    labels = sorted(classes, key=lambda label: (label != positive, label))
    counts = [[pairs[label, answer] for answer in labels] for label in labels]
    totals = [sum(count for (is_, _), count in pairs.items() if is_ == label) for label in labels]
    others = [total - sum(row) for total, row in zip(totals, counts, strict=True)]
    baseline = _baseline(files, labels[totals.index(max(totals))])
    if any(others):
        counts = [[*row, other] for row, other in zip(counts, others, strict=True)]
        return Confusion(labels, [*labels, NEITHER], counts, baseline)
    return Confusion(labels, labels, counts, baseline)


def _baseline(files: Sequence[RunAnswers], majority: str | None) -> Baseline:
    """The baseline of a row, one file a seed, tested on the same examples; of pairs, which have no majority, a coin."""
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
