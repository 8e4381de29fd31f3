"""What is known of preferences: their accuracy against chance, margins and drift, and what a training changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ftkit.results.intervals import Interval
from ftkit.results.paired import paired_interval
from ftkit.results.preference_file import LOST, TIED, WON, Preferences
from ftkit.results.statistics import clopper_pearson, holm, mcnemar_exact, mean_interval, wilson_interval


@dataclass(frozen=True)
class Outcomes:
    """How many pairs were won, lost and tied.

    Attributes:
        won: Pairs whose chosen answer has the higher reward.
        lost: Pairs whose rejected answer has it.
        tied: Pairs whose answers have the same.
        interval: The interval of the accuracy, see :func:`preference_interval`.
        p: Exact binomial test, two-sided, of the pairs that are no ties against 50%.
        p_holm: The same after Holm's correction over the slices of a file; ``p`` of a whole file.
    """

    won: int
    lost: int
    tied: int
    interval: Interval
    p: float
    p_holm: float

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
        """The outcomes for JSON."""
        return {
            "n": self.n,
            "won": self.won,
            "lost": self.lost,
            "tied": self.tied,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "p_chance": self.p,
            "p_chance_holm": self.p_holm,
        }


@dataclass(frozen=True)
class PreferenceReport:
    """What is known about one preference file.

    Attributes:
        name: The file.
        outcomes: How the pairs went.
        means: The mean of each measure, and its interval by Student's t; None where all values are the same.
        preferences: What was read.
        slices: How each group of pairs went.
    """

    name: str
    outcomes: Outcomes
    means: dict[str, tuple[float, Interval | None]]
    preferences: Preferences
    slices: dict[str, Outcomes] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON, unrounded."""
        return {
            "name": self.name,
            **self.outcomes.to_dict(),
            "means": {
                name: {"mean": mean, "interval": None if interval is None else list(interval)}
                for name, (mean, interval) in self.means.items()
            },
            "slices": {name: outcomes.to_dict() for name, outcomes in self.slices.items()},
            "columns": self.preferences.columns,
            "notes": self.preferences.notes,
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


def interval_of_counts(n: int, correct: int, ties: int | None = None, level: float = 0.95) -> Interval:
    """Return the interval of an accuracy: Wilson's, or :func:`preference_interval` where ties were counted.

    Args:
        n: Examples.
        correct: Right answers, ties apart.
        ties: Ties of pairs; None where the examples are no pairs.
        level: Confidence.
    """
    if ties is None:
        return wilson_interval(correct, n, level)
    return preference_interval(correct, n - correct - ties, ties, level)


def assess_preferences(preferences: Preferences, level: float = 0.95) -> PreferenceReport:
    """Report on a preference file.

    Args:
        preferences: What was read.
        level: Confidence of the intervals.
    """
    slices = {name: Outcomes.of(preferences.correct[rows], level) for name, rows in preferences.by_slice().items()}
    adjusted = holm([outcomes.p for outcomes in slices.values()])
    return PreferenceReport(
        name=str(preferences.path),
        outcomes=Outcomes.of(preferences.correct, level),
        means={name: mean_interval(values, level) for name, values in preferences.measures.items()},
        preferences=preferences,
        slices={
            name: replace(outcomes, p_holm=p) for (name, outcomes), p in zip(slices.items(), adjusted, strict=True)
        },
    )
