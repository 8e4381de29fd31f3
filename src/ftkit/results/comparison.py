"""Two models on the same examples: what differs, and whether chance explains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from ftkit.errors import InputError
from ftkit.results.answers import Answers
from ftkit.results.figures import figure_values
from ftkit.results.intervals import Interval, table_limits
from ftkit.results.paired import paired_interval, sign_flip_test
from ftkit.results.predictions import examples_at, stream_labeled
from ftkit.results.statistics import (
    Reach,
    can_be_significant,
    holm,
    minimum_detectable_difference,
)

_FIGURES = ("f_measure", "balanced_accuracy", "mcc")  # besides the accuracy
_SHOWN = 5


@dataclass(frozen=True)
class Comparison:
    """A model against a reference, on the examples that both answered.

    Attributes:
        name: The model's file.
        against: The reference's file.
        n: Shared examples.
        only_model: Examples that only the model gets right.
        only_reference: Examples that only the reference gets right.
        p: Exact McNemar test, two-sided (:func:`ftkit.results.paired.sign_flip_test`).
        p_holm: The same after Holm's correction over all comparisons made together.
        differences: Model minus reference, by figure; NaN where one is undefined.
        intervals: Intervals of the differences; that of the accuracy says the same as the test
            (:func:`ftkit.results.paired.paired_interval`).
        reach: Whether so few disagreements can be significant at all, even tested alone.
        detectable: The smallest difference in accuracy that such a comparison finds with 80% power; NaN if none.
        missing: How many ids are only in the model's file, and the first of them.
        missing_in_model: The same for the reference's file.
    """

    name: str
    against: str
    n: int
    only_model: int
    only_reference: int
    p: float
    p_holm: float
    differences: dict[str, float]
    intervals: dict[str, Interval]
    reach: Reach
    detectable: float
    missing: tuple[int, list[str]]
    missing_in_model: tuple[int, list[str]]

    def to_dict(self) -> dict[str, Any]:
        """The comparison for JSON, ``null`` for what is undefined."""
        plain = {name: value for name, value in vars(self).items() if name != "reach"}
        plain["differences"] = {name: _or_none(value) for name, value in self.differences.items()}
        plain["detectable"] = _or_none(self.detectable)
        return plain | {"reach": vars(self.reach)}


class Answered(Protocol):
    """A prediction file in numbers.

    Attributes:
        path: The file.
        identity: int64 ``(n,)``: a hash of each id.
        target: ``(n,)``: the label of each example as a number, the same in all files.
        correct: ``(n,)``: whether each answer is right, bool, or how much of it, int8.
    """

    @property
    def path(self) -> Path: ...  # noqa: D102

    @property
    def identity(self) -> np.ndarray: ...  # noqa: D102

    @property
    def target(self) -> np.ndarray: ...  # noqa: D102

    @property
    def correct(self) -> np.ndarray: ...  # noqa: D102


A = TypeVar("A", bound=Answered)
Differences = tuple[dict[str, float], dict[str, Interval]]
# From two files and their rows of the shared ids: differences and intervals by figure.
Differ = Callable[[A, A, np.ndarray, np.ndarray], Differences]


def compare(models: Sequence[Answers], reference: Answers, level: float = 0.95, seed: int = 0) -> list[Comparison]:
    """Compare yes/no answers, see :func:`compare_with`; ``seed`` is that of the draws for the intervals."""
    return compare_with(models, reference, level, partial(_binary_differences, level=level, seed=seed))


def compare_with(
    models: Sequence[A], reference: A, level: float = 0.95, differ: Differ[A] | None = None, answers: int = 1
) -> list[Comparison]:
    """Compare each model with the reference, correcting for their number.

    Args:
        models: The models' answers.
        reference: The reference's answers.
        level: Confidence of the intervals.
        differ: Works out the differences of figures other than the accuracy; None where there are no others.
        answers: What ``correct`` counts for a right answer: 1, or 2 where an answer can be half right.

    Raises:
        InputError: Two files share no id, or an id has different labels.
    """
    pairs = [_compared(model, reference, level, differ, answers, len(models)) for model in models]
    adjusted = holm([pair.p for pair in pairs])
    return [replace(pair, p_holm=p) for pair, p in zip(pairs, adjusted, strict=True)]


def _compared(
    model: A, reference: A, level: float, differ: Differ[A] | None, answers: int, comparisons: int
) -> Comparison:
    mine, theirs = _shared(model, reference)
    n = len(mine)
    gained = model.correct[mine].astype(np.int8) - reference.correct[theirs].astype(np.int8)
    disagreements = int(np.count_nonzero(gained))
    differences, intervals = differ(model, reference, mine, theirs) if differ else ({}, {})
    return Comparison(
        name=str(model.path),
        against=str(reference.path),
        n=n,
        only_model=int(np.count_nonzero(gained > 0)),
        only_reference=int(np.count_nonzero(gained < 0)),
        p=sign_flip_test(gained),
        p_holm=1.0,
        differences={"accuracy": int(gained.sum(dtype=np.int64)) / (n * answers), **differences},
        intervals={"accuracy": paired_interval(gained, answers, level), **intervals},
        reach=can_be_significant(n, disagreements),
        detectable=minimum_detectable_difference(n, disagreements / n, comparisons=comparisons)
        if disagreements and answers == 1
        else float("nan"),
        missing=_left_over(model, mine),
        missing_in_model=_left_over(reference, theirs),
    )


def _shared(model: Answered, reference: Answered) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the shared ids in both files."""
    _, mine, theirs = np.intersect1d(model.identity, reference.identity, assume_unique=True, return_indices=True)
    order = np.argsort(mine)  # that of the hashes is another one in each run
    mine, theirs = mine[order], theirs[order]
    if not len(mine):
        raise InputError(
            f"no id in common with {reference.path}",
            file=model.path,
            field="id",
            got=examples_at(stream_labeled(model.path), [0])[0][0],
            fix="compare predictions for the same examples",
        )
    if (differing := model.target[mine] != reference.target[theirs]).any():
        rows = mine[differing]
        identity, row, table = examples_at(stream_labeled(model.path), [int(rows.min())])[0]
        raise InputError(
            f"{len(rows)} labels differ from those in {reference.path}",
            file=model.path,
            line=table.line_of(row),
            field="label",
            got=identity,
            fix="compare predictions for the same labels",
        )
    return mine, theirs


# Of each label, (model's answer, reference's answer): only the reference is right, or only the model.
_LOST = np.array([[[0, 0, 0], [0, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 1], [0, 0, 0]]]).reshape(2, 9)
_WON = _LOST.reshape(2, 3, 3).swapaxes(1, 2).reshape(2, 9)


def _binary_differences(
    model: Answers, reference: Answers, mine: np.ndarray, theirs: np.ndarray, level: float, seed: int
) -> Differences:
    """Differences of the figures besides the accuracy, and their intervals."""
    target, answer, other = model.target[mine], model.answer[mine], reference.answer[theirs]
    # (2, 9): examples by label (0, 1), model's answer and reference's answer (-1, 0, 1 each)
    table = np.bincount((target * 9 + (answer + 1) * 3 + other + 1).astype(np.int8), minlength=18).reshape(2, 9)
    differences = {name: float(value) for name, value in _figure_differences(table).items()}
    limits = table_limits(table, _LOST, _WON, _figure_differences, level, seed)
    defined = [name for name, value in differences.items() if not np.isnan([value, *limits[name]]).any()]
    return differences, {name: limits[name] for name in defined}


def _figure_differences(table: np.ndarray) -> dict[str, np.ndarray]:
    answers = table.reshape(*table.shape[:-1], 3, 3)
    model, reference = (figure_values(_cells(answers.sum(axis=axis))) for axis in (-1, -2))
    return {name: model[name] - reference[name] for name in _FIGURES}


def _cells(by_answer: np.ndarray) -> np.ndarray:
    """Counts in the order of :class:`Counts` from ``(..., label, answer)`` with answers -1, 0, 1."""
    negative, positive = by_answer[..., 0, :], by_answer[..., 1, :]
    return np.stack(
        [
            positive[..., 2],
            negative[..., 1],
            negative[..., 2],
            positive[..., 1],
            positive[..., 0],
            negative[..., 0],
        ],
        axis=-1,
    )


def _left_over(answers: Answered, shared: np.ndarray) -> tuple[int, list[str]]:
    left = np.ones(len(answers.identity), bool)
    left[shared] = False
    rows = np.flatnonzero(left)
    if not len(rows):
        return 0, []
    return len(rows), [text for text, *_ in examples_at(stream_labeled(answers.path), rows[:_SHOWN].tolist())]


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
