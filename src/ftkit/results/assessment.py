"""The full report of one set of answers, as data: what the metric, the command and the pages all show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ftkit.results.answers import Answers
from ftkit.results.baselines import Baselines, baselines_of
from ftkit.results.curves import Calibration, Curve, brier, probability_of
from ftkit.results.intervals import Interval, count_intervals, score_intervals
from ftkit.results.metrics import Counts, Figure, figures_of
from ftkit.results.settings import DEFAULTS, Settings
from ftkit.results.statistics import holm


@dataclass(frozen=True)
class BinaryReport:
    """Everything known about one set of yes/no answers."""

    name: str  # what is reported, for example the file
    positive: str  # the positive class
    negative: str  # the other class
    counts: Counts  # the outcomes
    figures: dict[str, Figure]  # the figures by name, undefined ones with the reason
    intervals: dict[str, Interval]  # (low, high) by figure, where there is one
    baselines: Baselines  # the models without skill and the tests against them
    curve: Curve | None = None  # some hundred operating points for plots, or None without scores
    calibration: Calibration | None = None  # probabilities against what came true, or None without scores
    kind: str = ""  # probability or log_odds; empty without scores
    slices: dict[str, BinaryReport] = field(default_factory=dict)  # reports of groups of examples
    # The most frequent answers that name neither class, and how often they came.
    unparsed: dict[str, int] = field(default_factory=dict)

    @property
    def always(self) -> str:
        """The class that the majority model always answers with."""
        return self.positive if self.baselines.majority_is_positive else self.negative

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON: unrounded, ``null`` for what is undefined and the reasons beside."""
        baselines = self.baselines
        return {
            "name": self.name,
            "positive": self.positive,
            "negative": self.negative,
            "n": self.counts.n,
            "counts": {**vars(self.counts), "unparsed": self.counts.unparsed},
            **figures_record(self.figures, self.intervals),
            "baselines": {
                "majority": {"answer": self.always, **{name: f.value for name, f in baselines.majority.items()}},
                "prior": {name: f.value for name, f in baselines.prior.items()},
                **baselines.majority_record(),
                "p_prior": baselines.p_prior,
                "p_related": None if np.isnan(baselines.p_related) else baselines.p_related,
            },
            "slices": {name: report.to_dict() for name, report in self.slices.items()},
            "unparsed_answers": self.unparsed,
        }


def figures_record(figures: Mapping[str, Figure], intervals: Mapping[str, Interval]) -> dict[str, Any]:
    """Return figures for JSON, with the reasons of undefined ones and the intervals."""
    return {
        "figures": {name: figure.value for name, figure in figures.items()},
        "undefined": {name: figure.reason for name, figure in figures.items() if figure.value is None},
        "intervals": {name: list(interval) for name, interval in intervals.items()},
    }


def assess(
    target: np.ndarray,
    answer: np.ndarray,
    positive: str,
    negative: str,
    name: str = "",
    score: np.ndarray | None = None,
    kind: str = "",
    settings: Settings = DEFAULTS,
) -> BinaryReport:
    """Report on answers to yes/no questions.

    ``target`` is 1 for a positive, 0 for a negative, int ``(n,)``; ``answer`` the same, or -1 for an answer that names
    neither class; ``score`` higher for more positive, float64 ``(n,)``, of the kind ``probability`` or ``log_odds``.

    Example:
        A model that always answers yes, where 84 of 100 are yes:

        >>> report = assess(np.repeat([1, 0], [84, 16]), np.ones(100, int), "yes", "no")
        >>> report.figures["accuracy"].text(2), report.figures["f_measure"].text(2)
        ('0.84', '0.91')
        >>> report.figures["balanced_accuracy"].text(2), report.baselines.beats_majority()
        ('0.50', False)
    """
    counts = Counts.of(target, answer)
    figures = figures_of(counts, settings.beta)
    intervals = {}
    if settings.intervals:
        intervals = count_intervals(counts, settings.beta, settings.level, seed=settings.seed)
    curve = calibration = None
    if score is not None:
        curve = Curve.of(target, score)
        figures["auroc"], figures["average_precision"] = curve.auroc(), curve.average_precision()
        curve = curve.thinned()
        probability = probability_of(score, kind)
        calibration = Calibration.of(target, probability)
        figures["brier"], figures["calibration_error"] = brier(target, probability), calibration.error()
        if settings.intervals:
            intervals |= score_intervals(target, score, kind, settings.level, seed=settings.seed)
    return BinaryReport(
        name=name,
        positive=positive,
        negative=negative,
        counts=counts,
        figures=figures,
        intervals=intervals,
        baselines=baselines_of(counts),
        curve=curve,
        calibration=calibration,
        kind=kind,
    )


def assess_binary(model: Answers, settings: Settings) -> BinaryReport:
    """Report on a file of answers to yes/no questions, with its slices."""
    whole = assess_answers(model, model.answer, str(model.path), settings, score=model.score)
    parts = [assess_answers(model, model.answer, name, settings, rows) for name, rows in model.by_slice().items()]
    adjusted = holm([part.baselines.p_majority for part in parts])
    slices = {
        part.name: replace(part, baselines=replace(part.baselines, p_holm=p))
        for part, p in zip(parts, adjusted, strict=True)
    }
    return replace(whole, slices=slices, unparsed=model.unparsed)


def assess_answers(
    model: Answers,
    answer: np.ndarray,
    name: str,
    settings: Settings,
    rows: Any = slice(None),
    score: np.ndarray | None = None,
) -> BinaryReport:
    """Report on other answers, int ``(n,)``, to the examples of a file, or to some of them."""
    positive, negative = model.classes.positive, model.classes.negative
    return assess(model.target[rows], answer[rows], positive, negative, name, score, model.kind, settings)
