"""Compute the scores of models without skill, and test whether a model is significantly better."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ftkit.results.metrics import Counts, Figure, figure_values, figures_of, missing_class
from ftkit.results.statistics import is_significant, mcnemar_exact

_EXACT_N = 2_000


@dataclass(frozen=True, kw_only=True)
class AgainstMajority:
    """A model beside one that always answers with the most frequent label, on the same examples."""

    better: int  # examples that the model gets right and the majority model does not
    worse: int  # examples that the majority model gets right and the model does not
    p_majority: float  # exact McNemar test of the two, two-sided
    p_holm: float  # the same after Holm's correction over the slices of a file; p_majority of a whole file

    def beats_majority(self) -> bool:
        """Return whether the model is right more often than the majority model, beyond chance."""
        return self.better > self.worse and is_significant(self.p_holm)

    def majority_record(self) -> dict[str, Any]:
        """Return the comparison for JSON."""
        return {
            "better_than_majority": self.better,
            "worse_than_majority": self.worse,
            "p_majority": self.p_majority,
            "p_majority_holm": self.p_holm,
            "beats_majority": self.beats_majority(),
        }


def against_majority(better: int, worse: int) -> dict[str, Any]:
    """Return the fields of :class:`AgainstMajority` of a whole file."""
    p = mcnemar_exact(better, worse)
    return {"better": better, "worse": worse, "p_majority": p, "p_holm": p}


@dataclass(frozen=True, kw_only=True)
class Baselines(AgainstMajority):
    """Two models without skill, on the same examples, and tests against them."""

    majority_is_positive: bool  # whether the majority model always answers with the positive class
    majority: dict[str, Figure]  # figures of always answering with the more frequent label
    prior: dict[str, Figure]  # expected figures of guessing the positive class as often as the labels hold it
    p_prior: float  # probability that guessing at the prior gets as many right as the model
    # Fisher's exact test, one-sided, that positive answers go with positive labels; NaN if a class is absent.
    p_related: float


def baselines_of(counts: Counts) -> Baselines:
    """Compare a model with the two models without skill.

    Example:
        A model that almost always answers yes, where 83% are yes:

        >>> baselines = baselines_of(Counts(tp=854, tn=17, fp=155, fn=13))
        >>> baselines.better, baselines.worse, f"{baselines.p_majority:.2f}", baselines.beats_majority()
        (17, 13, '0.58', False)
    """
    positive = counts.positives >= counts.negatives
    if positive:
        always = Counts(counts.positives, 0, counts.negatives, 0)
        better, worse = counts.tn, counts.positives - counts.tp
    else:
        always = Counts(0, counts.negatives, 0, counts.positives)
        better, worse = counts.tp, counts.negatives - counts.tn
    return Baselines(
        majority_is_positive=positive,
        majority=figures_of(always),
        prior=_guessing(counts),
        **against_majority(better, worse),
        p_prior=_p_guessing(counts),
        p_related=_p_related(counts),
    )


def _guessing(counts: Counts) -> dict[str, Figure]:
    """Return the figures of the average table of counts when positive is guessed at the rate of the labels."""
    if counts.n == 0:
        return figures_of(counts)
    rate = counts.positives / counts.n
    shares = np.array([[rate, 1 - rate, 0], [1 - rate, rate, 0]])
    values = figure_values(np.array([[counts.positives], [counts.negatives]]) * shares)
    missing = missing_class(counts.positives, counts.negatives)
    figures = {name: Figure.of(value, missing) for name, value in values.items()}
    return figures if figures["mcc"].value is None else {**figures, "mcc": Figure(0.0)}  # without what rounding left


def _p_guessing(counts: Counts) -> float:
    """Return P(guessing at the prior gets at least as many right)."""
    if counts.n == 0:
        return 1.0
    rate = counts.positives / counts.n
    if counts.n <= _EXACT_N:
        right_yes = stats.binom.pmf(np.arange(counts.positives + 1), counts.positives, rate)
        right_no = stats.binom.pmf(np.arange(counts.negatives + 1), counts.negatives, 1 - rate)
        return float(min(1.0, np.convolve(right_yes, right_no)[counts.correct :].sum()))
    mean = counts.n * (rate**2 + (1 - rate) ** 2)
    spread = np.sqrt(counts.n * rate * (1 - rate))
    return float(stats.norm.sf(counts.correct - 0.5, mean, spread)) if spread else 1.0


def _p_related(counts: Counts) -> float:
    """Return Fisher's exact test: the hypergeometric probability of at least so many true positives."""
    if counts.positives == 0 or counts.negatives == 0:
        return float("nan")
    said_yes = counts.tp + counts.fp
    return float(min(1.0, stats.hypergeom.sf(counts.tp - 1, counts.n, counts.positives, said_yes)))
