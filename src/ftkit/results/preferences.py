"""Preference files: which of two answers a model prefers, pair by pair, by how much, and how far it moved.

A pair is one row of a prediction file, which pandas reads as any other: its ``label`` is ``chosen``, its ``prediction``
is ``chosen``, ``rejected`` or ``tie``; ``log_odds:chosen`` is the margin, the chosen answer's reward minus the rejected
one's; ``logps_chosen`` and ``logps_rejected`` are the answers' log-probabilities, ``drift_chosen`` and
``drift_rejected`` how far these moved from the reference. Only label and prediction are needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ftkit.errors import InputError
from ftkit.results.layout import NEUTRAL, score_parts
from ftkit.results.paired import paired_interval
from ftkit.results.prediction_file import ROW, SCORE, PredictionFile
from ftkit.results.predictions import Predictions
from ftkit.results.scan import AnswerFile, Differences, gather
from ftkit.results.settings import Settings
from ftkit.results.statistics import Interval, clopper_pearson, holm, mcnemar_exact, mean_interval, wilson_interval

CHOSEN, REJECTED, TIE = "chosen", "rejected", "tie"
LOST, TIED, WON = 0, 1, 2  # pairs in halves: a tie is as good as a coin
MEASURES = ("logps_chosen", "logps_rejected", "drift_chosen", "drift_rejected")
_OUTCOMES = {REJECTED: LOST, TIE: TIED, CHOSEN: WON}


@dataclass(frozen=True, kw_only=True)
class Preferences(AnswerFile):
    """A preference file in numbers; ``correct`` is 2 where the chosen answer is preferred, 1 for a tie, else 0."""

    measures: dict[str, np.ndarray]  # float64 (n,) by name: margin and the columns of the file that are in MEASURES
    answers: int = WON

    def differences(
        self, other: Preferences, mine: np.ndarray, theirs: np.ndarray, level: float, seed: int
    ) -> Differences:
        """Return the mean differences of the measures that both files have, pair by pair; nothing is drawn."""
        both = [name for name in self.measures if name in other.measures]
        found = {name: mean_interval(self.measures[name][mine] - other.measures[name][theirs], level) for name in both}
        intervals = {name: interval for name, (_, interval) in found.items() if interval is not None}
        return {name: mean for name, (mean, _) in found.items()}, intervals


def is_preference(labels: Iterable[str | None], predictions: Iterable[str | None]) -> bool:
    """Return whether rows of a prediction file are pairs: every label is ``chosen``, every prediction an outcome."""
    return set(labels) == {CHOSEN} and set(predictions) <= _OUTCOMES.keys()


def is_preference_file(path: str | Path) -> bool:
    """Return whether a prediction file begins with pairs, see :func:`is_preference`.

    Raises:
        InputError: The file is no prediction file.
    """
    batch = next(PredictionFile(path).batches(labeled=False))
    return is_preference(batch["label"].unique().to_pylist(), batch["prediction"].unique().to_pylist())


def half_points(found: Predictions) -> np.ndarray:
    """Return how right each answer is, in halves, int8 ``(n,)``: 2 if it is right, 0 if it is wrong, 1 for a tie.

    A pair whose score favors neither answer is a tie, whatever the prediction says.
    """
    pairs = is_preference(found.labels, found.predictions)
    both = zip(found.labels, found.predictions, strict=True)
    points = np.array([_OUTCOMES[answer or ""] if pairs else WON * (label == answer) for label, answer in both])
    if pairs and found.score_name is not None:
        points[found.scores == NEUTRAL[score_parts(found.score_name)[0]]] = TIED
    return points.astype(np.int8)


def read_preferences(path: str | Path, slice_by: str | None = None) -> Preferences:
    """Read a preference file block by block.

    Raises:
        InputError: The file cannot be read, holds other rows than pairs, contradicts itself, or cannot be sliced so.
    """

    def keep(file: PredictionFile, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        measures = _measures(file, batch)
        return {**measures, "correct": _outcomes(file, batch, measures.get("margin"))}

    common, kept = gather(path, slice_by, keep)
    correct = kept.pop("correct")
    return Preferences(**common, target=np.zeros(len(correct), np.uint8), correct=correct, measures=kept)


def _outcomes(file: PredictionFile, batch: pa.RecordBatch, margin: np.ndarray | None) -> np.ndarray:
    """Return how the pairs of a batch went: int8 ``(rows,)``."""
    for name, allowed in (("label", [CHOSEN]), ("prediction", [CHOSEN, TIE, REJECTED])):
        fine = pc.is_in(batch[name], pa.array(allowed)).to_numpy(zero_copy_only=False)
        if not fine.all():
            place = int(np.argmin(fine))
            fix = f"a preference file has {' or '.join(allowed)} here; keep other examples in another file"
            problem, got = "not a pair as the others of the file are", batch[name][place].as_py()
            raise file.error(batch[ROW][place].as_py(), problem, field=name, got=got, fix=fix)
    points = pc.index_in(batch["prediction"], pa.array([*_OUTCOMES])).to_numpy().astype(np.int8)
    if margin is None:
        return points
    points[margin == 0] = TIED
    if (against := points != np.sign(margin) + 1).any():
        place = int(np.argmax(against))
        problem = f"the prediction is {batch['prediction'][place]}, but the margin {margin[place]:g} says otherwise"
        fix = f"a margin above 0 is {CHOSEN}, below 0 {REJECTED}, of 0 {TIE}"
        raise file.error(batch[ROW][place].as_py(), problem, field=file.layout.score_name, fix=fix)
    return points


def _measures(file: PredictionFile, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
    """Return margin and other measures of the pairs of a batch, those that the file has."""
    names = [name for name in MEASURES if name in file.layout.extra]
    found = {name: file.numbers(batch[name], batch[ROW], "is not a number", name) for name in names}
    if (score := file.layout.score_name) is None:
        return found
    kind, of = score_parts(score)
    if of != CHOSEN:
        fix = f"turn its sign and name it log_odds:{CHOSEN}"
        raise InputError("the score of a pair is that of the chosen answer", file=file.path, field=score, fix=fix)
    margin = batch[SCORE].to_numpy()
    if kind == "probability":
        with np.errstate(divide="ignore"):
            margin = np.log(margin) - np.log1p(-margin)
    return {"margin": margin, **found}


@dataclass(frozen=True)
class Outcomes:
    """How many pairs were won, lost and tied."""

    won: int  # pairs whose chosen answer has the higher reward
    lost: int  # pairs whose rejected answer has it
    tied: int  # pairs whose answers have the same
    interval: Interval  # the interval of the accuracy, see preference_interval
    p: float  # exact binomial test, two-sided, of the pairs that are no ties against 50%
    p_holm: float  # the same after Holm's correction over the slices of a file; p of a whole file

    @classmethod
    def of(cls, correct: np.ndarray, level: float = 0.95) -> Outcomes:
        """Count outcomes: int8 ``(n,)`` as in :class:`Preferences`, at least one."""
        lost, tied, won = (int(np.count_nonzero(correct == outcome)) for outcome in (LOST, TIED, WON))
        p = mcnemar_exact(won, lost)
        return cls(won, lost, tied, preference_interval(won, lost, tied, level), p, p)

    @property
    def n(self) -> int:
        """All pairs."""
        return self.won + self.lost + self.tied

    @property
    def accuracy(self) -> float:
        """The share of pairs that were won, a tie counting as half: 0.5 without any preference."""
        return (self.won + self.tied / 2) / self.n

    def to_dict(self) -> dict[str, Any]:
        """Return the outcomes for JSON."""
        counts = {"n": self.n, "won": self.won, "lost": self.lost, "tied": self.tied, "accuracy": self.accuracy}
        return counts | {"interval": list(self.interval), "p_chance": self.p, "p_chance_holm": self.p_holm}


@dataclass(frozen=True)
class PreferenceReport:
    """What is known about one preference file."""

    name: str
    outcomes: Outcomes  # how the pairs went
    # The mean of each measure, and its interval by Student's t; None where all values are the same.
    means: dict[str, tuple[float, Interval | None]]
    slices: dict[str, Outcomes] = field(default_factory=dict)  # how each group of pairs went

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON, unrounded."""
        return {
            "name": self.name,
            **self.outcomes.to_dict(),
            "means": {name: {"mean": mean, "interval": ends} for name, (mean, ends) in self.means.items()},
            "slices": {name: outcomes.to_dict() for name, outcomes in self.slices.items()},
        }


def preference_interval(won: int, lost: int, tied: int, level: float = 0.95) -> Interval:
    """Return the interval of a preference accuracy, in which a tie counts as half.

    It holds 0.5 exactly where the exact binomial test of the pairs that are no ties does not reject 50%. Without ties
    it is Clopper and Pearson's; with ties, how often they come is estimated as well
    (:func:`ftkit.results.paired.paired_interval`).

    Example:
        >>> low, high = preference_interval(79, 21, 0)
        >>> f"{low:.3f} {high:.3f}"
        '0.697 0.865'
        >>> low, high = preference_interval(0, 0, 100)
        >>> f"{low:.3f} {high:.3f}"
        '0.482 0.518'
    """
    if not tied:
        return clopper_pearson(won, won + lost, level)
    low, high = paired_interval(np.repeat(np.array([1, -1, 0], np.int8), [won, lost, tied]), level=level)
    return (1 + low) / 2, (1 + high) / 2


def interval_of_counts(n: int, correct: int, ties: int | None = None) -> Interval:
    """Return the interval of an accuracy: Wilson's, or :func:`preference_interval` of pairs, whose ties are apart."""
    return wilson_interval(correct, n) if ties is None else preference_interval(correct, n - correct - ties, ties)


def assess_preferences(preferences: Preferences, settings: Settings) -> PreferenceReport:
    """Report on a preference file, with its slices."""
    level = settings.level
    slices = {name: Outcomes.of(preferences.correct[rows], level) for name, rows in preferences.by_slice().items()}
    adjusted = dict(zip(slices, holm([outcomes.p for outcomes in slices.values()]), strict=True))
    return PreferenceReport(
        name=str(preferences.path),
        outcomes=Outcomes.of(preferences.correct, level),
        means={name: mean_interval(values, level) for name, values in preferences.measures.items()},
        slices={name: replace(outcomes, p_holm=adjusted[name]) for name, outcomes in slices.items()},
    )
