"""A threshold chosen on validation scores, frozen into a small file, then applied to test scores."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ftkit.errors import InputError
from ftkit.results.answers import Answers
from ftkit.results.curves import Curve
from ftkit.results.layout import NEUTRAL
from ftkit.results.metrics import figure_values
from ftkit.storage import atomic_write, sha256_of

Criterion = Literal["accuracy", "f_measure", "balanced_accuracy", "mcc", "precision", "recall", "specificity", "npv"]
CRITERIA = get_args(Criterion)


@dataclass(frozen=True)
class Costs:
    """What each wrong answer costs; right ones cost nothing."""

    fp: float  # cost of answering positive to a negative
    fn: float  # cost of answering negative to a positive

    def __post_init__(self) -> None:
        if not (min(self.fp, self.fn) >= 0 and 0 < self.fp + self.fn < math.inf):
            problem = "must be finite, not negative, and not all 0"
            raise InputError(problem, field="costs", got=(self.fp, self.fn))

    def __str__(self) -> str:
        return f"mean cost at fp={self.fp:g}, fn={self.fn:g}"


@dataclass(frozen=True)
class Threshold:
    """A frozen decision: answer "positive" wherever the score is at least ``value``."""

    value: float  # the threshold
    kind: str  # the scores' kind, probability or log_odds
    positive: str  # the positive class
    negative: str  # the other class
    criterion: str  # what was made best
    achieved: float  # the criterion's value on the validation examples
    n: int  # validation examples
    source: str  # the validation file
    sha256: str  # its checksum

    def to_dict(self) -> dict[str, Any]:
        """Return the threshold for JSON, which has no numbers for infinite log-odds: they are written as texts."""
        return asdict(self) | {"value": self.value if math.isfinite(self.value) else str(self.value)}

    def save(self, path: str | Path) -> None:
        """Write the threshold as JSON."""
        with atomic_write(path) as file:
            file.write(json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Threshold:
        """Read a threshold that :meth:`save` wrote.

        Raises:
            InputError: The file holds something else.
        """
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", file=path) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"not a threshold file: {error}", file=path) from None
        if not isinstance(record, dict) or not _is_threshold(record):
            raise InputError("not a threshold file", file=path, fix="write one with --save_threshold")
        return cls(**record | {"value": float(record["value"])})

    def apply(self, answers: Answers) -> np.ndarray:
        """Return the answers at this threshold: int8 ``(n,)``, 1 or 0.

        Raises:
            InputError: The file has no such scores, other classes, or is the one that the threshold was chosen on.
        """
        positive, negative = answers.classes.positive, answers.classes.negative
        fix = "choose on validation, apply to test"
        if answers.score is None or answers.kind != self.kind:
            problem, got = f"the threshold needs scores {self.kind}:{self.positive}", answers.kind or "no scores"
        elif (positive, negative) != (self.positive, self.negative):
            problem = f"the threshold is for {self.positive} as the positive class and {self.negative} as the other"
            got = f"{positive} and {negative}"
            fix = f"give --positive {negative}" if (negative, positive) == (self.positive, self.negative) else fix
        elif sha256_of(answers.path) == self.sha256:
            problem, got = "the threshold was chosen on this very file", self.source
        else:
            return (answers.score >= self.value).astype(np.int8)
        raise InputError(problem, file=answers.path, got=got, fix=fix)


def freeze_threshold(validation: Answers, criterion: str | Costs) -> Threshold:
    """Choose the best threshold on a validation file.

    Raises:
        InputError: The file has no scores, or the criterion is undefined at every threshold.
    """
    path = validation.path
    if validation.score is None:
        fix = "add a column probability:CLASS or log_odds:CLASS"
        raise InputError("no scores to choose a threshold from", file=path, fix=fix)
    value, achieved = choose_threshold(Curve.of(validation.target, validation.score), criterion, validation.kind)
    classes = validation.classes
    return Threshold(
        value=value,
        kind=validation.kind,
        positive=classes.positive,
        negative=classes.negative,
        criterion=str(criterion),
        achieved=achieved,
        n=len(validation),
        source=path.name,
        sha256=sha256_of(path),
    )


def choose_threshold(curve: Curve, criterion: str | Costs, kind: str) -> tuple[float, float]:
    """Return the threshold that makes a figure highest, or the mean cost lowest, and that figure or cost.

    Of equally good ones the one nearest to the neutral score (0.5, or log-odds 0) is taken.

    Raises:
        InputError: The criterion is undefined at every threshold, or unknown.

    Example:
        >>> curve = Curve.of(np.array([1, 1, 0, 0]), np.array([0.9, 0.8, 0.7, 0.1]))
        >>> choose_threshold(curve, "accuracy", "probability")
        (0.8, 1.0)
        >>> choose_threshold(curve, Costs(fp=1, fn=5), "probability")
        (0.8, 0.0)
    """
    thresholds, tables = operating_tables(curve)
    if isinstance(criterion, Costs):
        goodness = -(criterion.fp * tables[:, 1, 1] + criterion.fn * tables[:, 0, 1]) / max(1, tables[0].sum())
    elif criterion in CRITERIA:
        goodness = figure_values(tables)[criterion]
    else:
        fix = f"use one of: {', '.join(CRITERIA)}"
        raise InputError("no such criterion", field="threshold_metric", got=criterion, fix=fix)
    if np.isnan(goodness).all():
        problem = f"{criterion} is undefined at every threshold: the validation file needs both classes"
        raise InputError(problem, field="threshold_metric")
    best = np.flatnonzero(goodness == np.nanmax(goodness))
    choice = best[np.argmin(np.abs(thresholds[best] - NEUTRAL[kind]))]
    achieved = float(goodness[choice])
    return float(thresholds[choice]), abs(achieved) if isinstance(criterion, Costs) else achieved


def operating_tables(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts at every threshold, from "nothing is positive" on.

    Returns:
        Thresholds float64 ``(k + 1,)`` and counts int64 ``(k + 1, 2, 3)`` as in
        :meth:`~ftkit.results.metrics.Counts.table`; only ``k`` where the highest score is infinite, for no threshold
        lies above that.
    """
    top = np.nextafter(curve.threshold[:1], np.inf)
    top = top[top > curve.threshold[:1]]
    nothing = np.zeros(len(top), np.int64)
    tp, fp = np.append(nothing, curve.tp), np.append(nothing, curve.fp)
    none = np.zeros_like(tp)
    counts = [[tp, curve.positives - tp, none], [curve.negatives - fp, fp, none]]
    return np.append(top, curve.threshold), np.moveaxis(np.array(counts), -1, 0)


def _is_threshold(record: dict[str, Any]) -> bool:
    """Return whether a mapping from a file holds what :meth:`Threshold.save` writes."""
    if record.keys() != {one.name for one in fields(Threshold)}:
        return False
    value, others = record["value"], [record[name] for name in ("kind", "positive", "negative", "criterion", "source")]
    if value not in ("inf", "-inf") and not _is_number(value):
        return False
    # One above all probabilities answers "negative" to everything.
    possible = record["kind"] != "probability" or 0 <= float(value) <= math.nextafter(1.0, math.inf)
    return possible and all(isinstance(text, str) for text in others) and _is_number(record["achieved"])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
