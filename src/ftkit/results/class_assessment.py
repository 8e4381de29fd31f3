"""The full report of answers that name one of three and more classes, as data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ftkit.results.answers import ClassAnswers
from ftkit.results.assessment import figures_record
from ftkit.results.baselines import against_majority
from ftkit.results.class_metrics import class_figures, one_class, probability_figures
from ftkit.results.exact_match import RightOrWrong, Share
from ftkit.results.intervals import Interval
from ftkit.results.metrics import Figure
from ftkit.results.prediction_file import PredictionFile
from ftkit.results.settings import Settings
from ftkit.results.statistics import holm

_ERRORS = 10


@dataclass(frozen=True)
class ClassFigures:
    """Hold the figures of one class against the rest."""

    name: str
    n: int
    answered: int  # how often it is answered
    figures: dict[str, Figure]  # precision, recall, f1 and, where there are probabilities, auroc
    intervals: dict[str, Interval]  # (low, high) by figure, where there is one

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {"n": self.n, "answered": self.answered, **figures_record(self.figures, self.intervals)}


@dataclass(frozen=True)
class Confused:
    """A frequent error."""

    label: str  # the true class
    answer: str | None  # the class that was answered; None for answers that name no class
    count: int  # how often
    example: str  # the id of the first such example


@dataclass(frozen=True)
class ClassReport(RightOrWrong):
    """Everything known about one set of answers that name classes."""

    classes: tuple[str, ...]
    table: np.ndarray  # int64 (k, k + 1): counts, labels in rows and answers in columns, those that name no class last
    figures: dict[str, Figure]  # the figures by name, undefined ones with the reason
    intervals: dict[str, Interval]  # (low, high) by figure, where there is one
    by_class: list[ClassFigures] = field(default_factory=list)  # the figures of each class of a whole file
    errors: list[Confused] = field(default_factory=list)  # the most frequent errors of a whole file
    slices: dict[str, ClassReport] = field(default_factory=dict)  # reports of groups of examples
    # The most frequent answers that name no class, and how often they came.
    unparsed: dict[str, int] = field(default_factory=dict)

    @property
    def none(self) -> int:
        """How many answers name no class."""
        return int(self.table[:, -1].sum())

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON: unrounded, ``null`` for what is undefined and the reasons beside."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            **self.share.to_dict(),
            "unparsed": self.none,
            "table": {name: row.tolist() for name, row in zip(self.classes, self.table, strict=True)},
            **figures_record(self.figures, self.intervals),
            **({"by_class": {one.name: one.to_dict() for one in self.by_class}} if self.by_class else {}),
            "baselines": {"majority": self.majority_dict, **self.majority_record()},
            "errors": [vars(error) for error in self.errors],
            "slices": {name: report.to_dict() for name, report in self.slices.items()},
            "unparsed_answers": self.unparsed,
        }


def assess_classes(model: ClassAnswers, settings: Settings) -> ClassReport:
    """Report on a file of answers that name classes, with its slices."""
    whole = _assessed(model, str(model.path), slice(None), settings)
    figures, intervals = whole.figures, whole.intervals
    aurocs: list[dict[str, Figure]] = [{}] * len(model.classes.names)
    if model.score is not None:
        found, limits, known = probability_figures(model.target, model.score, settings.level)
        figures, intervals, aurocs = figures | found, intervals | limits, [{"auroc": auroc} for auroc in known]
    by_class = []
    for place, name in enumerate(model.classes.names):
        own, own_limits = one_class(whole.table, place, settings.level, settings.seed)
        n, answered = int(whole.table[place].sum()), int(whole.table[:, place].sum())
        by_class.append(ClassFigures(name, n, answered, own | aurocs[place], own_limits))
    parts = [_assessed(model, name, rows, settings) for name, rows in model.by_slice().items()]
    adjusted = holm([part.p_majority for part in parts])
    return replace(
        whole,
        figures=figures,
        intervals=intervals,
        by_class=by_class,
        errors=_errors(model, whole.table),
        slices={part.name: replace(part, p_holm=p) for part, p in zip(parts, adjusted, strict=True)},
        unparsed=model.unparsed,
    )


def _assessed(model: ClassAnswers, name: str, rows: Any, settings: Settings) -> ClassReport:
    """The report of some examples without their probabilities."""
    classes, table = model.classes.names, model.table(rows)
    figures, intervals = class_figures(table, settings.level, settings.seed)
    labeled, right = table.sum(axis=1).tolist(), np.diagonal(table)
    most = min(range(len(classes)), key=lambda place: (-labeled[place], classes[place]))
    better, worse = int(right.sum() - right[most]), int(labeled[most] - right[most])
    return ClassReport(
        name=name,
        share=Share.of(model.correct[rows], settings.level),
        majority=classes[most],
        tied=labeled.count(labeled[most]),
        majority_count=labeled[most],
        **against_majority(better, worse),
        classes=classes,
        table=table,
        figures=figures,
        intervals=intervals,
    )


def _errors(model: ClassAnswers, table: np.ndarray) -> list[Confused]:
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_ERRORS]
    cells = [divmod(cell, len(table) + 1) for cell in order[wrong.ravel()[order] > 0].tolist()]
    k, names = len(table), [*model.classes.names, None]
    firsts = [
        int(np.argmax((model.target == label) & (model.answer == (answer if answer < k else -1))))
        for label, answer in cells
    ]
    found = PredictionFile(model.path).examples(firsts)
    return [
        Confused(model.classes.names[label], names[answer], int(wrong[label, answer]), one["id"])
        for (label, answer), one in zip(cells, found, strict=True)
    ]
