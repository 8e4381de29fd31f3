"""Compare two models on the same examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ftkit.errors import InputError
from ftkit.results.paired import paired_interval, sign_flip_test
from ftkit.results.predictions import PredictionFile
from ftkit.results.scan import AnswerFile
from ftkit.results.statistics import (
    Interval,
    Reach,
    can_be_significant,
    holm,
    is_significant,
    minimum_detectable_difference,
)

_SHOWN = 5


@dataclass(frozen=True)
class Comparison:
    """A model minus a reference, on the examples that both answered, with one answer an example or one of each seed.

    Attributes:
        name: The model's file.
        against: The reference's file.
        n: Shared examples.
        only_model: Examples of which the model gets more right.
        only_reference: Examples of which the reference gets more right.
        p: Exact test, two-sided (:func:`ftkit.results.paired.sign_flip_test`); with one answer an example McNemar's.
        p_holm: The same after Holm's correction over all comparisons made together.
        differences: Model minus reference, by figure; NaN where one is undefined.
        intervals: Intervals of the differences; that of the accuracy says the same as the test
            (:func:`ftkit.results.paired.paired_interval`).
        reach: Whether so few disagreements can be significant at all, even tested alone.
        missing: How many ids are only in the model's file, and the first of them.
        missing_in_model: The same for the reference's file.
        answers: How many answers an example has: that of one seed or of several, in halves where there are ties.
        comparisons: How many comparisons were made together.
        seeds: The seeds of an ablation that both have, sorted.
        converged: Whether the training of both did; if not, a difference says little about what was varied.
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
    missing: tuple[int, list[str]]
    missing_in_model: tuple[int, list[str]]
    answers: int = 1
    comparisons: int = 1
    seeds: Sequence[int] = ()
    converged: bool = True

    @property
    def difference(self) -> float:
        """The difference in accuracy."""
        return self.differences["accuracy"]

    @property
    def interval(self) -> Interval:
        """The interval of the difference in accuracy."""
        return self.intervals["accuracy"]

    @property
    def disagreements(self) -> int:
        """Examples of which one of the two gets more right."""
        return self.only_model + self.only_reference

    @property
    def significant(self) -> bool:
        """Whether the difference is significant after correction, between runs that converged."""
        return self.converged and is_significant(self.p_holm)

    @property
    def hopeless(self) -> bool:
        """Whether so few disagreements could never be significant, even all in one direction and tested alone."""
        return not self.reach.possible

    @property
    def detectable(self) -> float:
        """The smallest difference in accuracy that such comparisons find with 80% power.

        NaN if there is none, or if an example has several answers or half a one.
        """
        if self.answers > 1 or not self.disagreements:
            return math.nan
        return minimum_detectable_difference(self.n, self.disagreements / self.n, comparisons=self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON, ``null`` for what is undefined."""
        own = ("reach", "answers", "comparisons", "seeds", "converged")
        plain = {name: value for name, value in vars(self).items() if name not in own}
        plain["differences"] = {name: _or_none(value) for name, value in self.differences.items()}
        return plain | {"detectable": _or_none(self.detectable), "reach": vars(self.reach)}


def compare(a: AnswerFile, b: AnswerFile, level: float = 0.95, seed: int = 0) -> Comparison:
    """Compare two files of the same kind on the examples that both answer: a minus b.

    Args:
        a: The model's answers.
        b: The reference's answers.
        level: Confidence of the intervals.
        seed: Seed of the draws for intervals of figures besides the accuracy.

    Raises:
        InputError: The files share no id, or an id has different labels.
    """
    mine, theirs = shared_examples(a, b)
    n = len(mine)
    gained = a.correct[mine].astype(np.int16) - b.correct[theirs]
    only_a, only_b = int(np.count_nonzero(gained > 0)), int(np.count_nonzero(gained < 0))
    differences, intervals = a.differences(b, mine, theirs, level, seed)
    p = sign_flip_test(gained)
    return Comparison(
        name=str(a.path),
        against=str(b.path),
        n=n,
        only_model=only_a,
        only_reference=only_b,
        p=p,
        p_holm=p,
        differences={"accuracy": int(gained.sum(dtype=np.int64)) / (n * a.answers), **differences},
        intervals={"accuracy": paired_interval(gained, a.answers, level), **intervals},
        reach=can_be_significant(n, only_a + only_b),
        missing=left_over(a, mine),
        missing_in_model=left_over(b, theirs),
        answers=a.answers,
    )


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct comparisons that were made together for their number, by Holm's method.

    Args:
        comparisons: All that were made.

    Returns:
        The same in order.
    """
    adjusted = holm([one.p for one in comparisons])
    return [replace(one, p_holm=p, comparisons=len(comparisons)) for one, p in zip(comparisons, adjusted, strict=True)]


def shared_examples(a: AnswerFile, b: AnswerFile) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the shared ids in both files, int64 ``(shared,)`` each, in the order of the first.

    Raises:
        InputError: The files share no id, or an id has different labels.
    """
    _, mine, theirs = np.intersect1d(a.identity, b.identity, assume_unique=True, return_indices=True)
    if not len(mine):
        problem, got = f"no id in common with {b.path}", PredictionFile(a.path).examples([0])[0][0]
        fix = "compare predictions for the same examples"
        raise InputError(problem, file=a.path, field="id", got=got, fix=fix)
    order = np.argsort(mine)  # that of the hashes is another one in each run
    mine, theirs = mine[order], theirs[order]
    if (differing := a.target[mine] != b.target[theirs]).any():
        file, examples = PredictionFile(a.path), mine[differing]
        ((identity, row),) = file.examples([int(examples[0])])
        problem, fix = (
            f"{len(examples)} labels differ from those in {b.path}",
            "compare predictions for the same labels",
        )
        raise file.error(row, problem, field="label", got=identity, fix=fix)
    return mine, theirs


def left_over(answers: AnswerFile, shared: np.ndarray) -> tuple[int, list[str]]:
    """Return how many ids of a file are not among the shared ones, and the first of them."""
    left = np.ones(len(answers), bool)
    left[shared] = False
    rows = np.flatnonzero(left)
    if not len(rows):
        return 0, []
    return len(rows), [text for text, _ in PredictionFile(answers.path).examples(rows[:_SHOWN].tolist())]


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
