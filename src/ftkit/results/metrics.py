"""Metrics of yes/no decisions from their counts, with the reason where one is undefined."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

UNPARSED = -1  # the code of an answer that names neither class
_NOTHING_POSITIVE = "nothing was answered with the positive class"
Mode = Literal["min", "max"]
_LOWER = ("loss", "perplexity", "error", "brier", "unparsed", "/fn", "/fp")  # is better


def mode_of(monitor: str) -> Mode:
    """Return whether lower or higher values of a metric are better, by its name.

    Example:
        >>> mode_of("val/loss"), mode_of("val/accuracy")
        ('min', 'max')
    """
    return "min" if any(word in monitor.lower() for word in _LOWER) else "max"


class Figure(NamedTuple):
    """A figure, or why there is none."""

    value: float | None  # the figure; None when it is undefined
    reason: str = ""  # why it is undefined; empty otherwise

    @classmethod
    def of(cls, value: Any, reason: str) -> Figure:
        """Return a figure from a number; of NaN that it is undefined for this reason."""
        return cls(None, reason) if np.isnan(value) else cls(float(value))

    def text(self, digits: int | None = 4) -> str:
        """Return the figure in words, with so many decimals or, for None, all that it has.

        Example:
            >>> Figure(0.84).text(), Figure(0.84).text(None), Figure(None, "no positives").text()
            ('0.8400', '0.84', 'undefined (no positives)')
        """
        if self.value is None:
            return f"undefined ({self.reason})"
        return repr(self.value) if digits is None else f"{self.value:.{digits}f}"


@dataclass(frozen=True)
class Counts:
    """The outcomes of yes/no decisions.

    Example:
        >>> counts = Counts(tp=854, tn=17, fp=155, fn=13)
        >>> str(counts), counts.n, counts.positives
        ('Tp=854 Tn=17 Fp=155 Fn=13', 1039, 867)
    """

    tp: int  # positives answered with the positive class
    tn: int  # negatives answered with the negative class
    fp: int  # negatives answered with the positive class
    fn: int  # positives answered with the negative class
    unparsed_positive: int = 0  # positives whose answer names neither class
    unparsed_negative: int = 0  # negatives whose answer names neither class

    @classmethod
    def of(cls, target: np.ndarray, answer: np.ndarray) -> Counts:
        """Count labels against answers.

        Args:
            target: ``(n,)``: 1 for a positive, 0 for a negative.
            answer: ``(n,)``: 1, 0, or -1 for an answer that names neither class.
        """
        table = np.bincount(target.astype(np.int8) * np.int8(3) + answer.astype(np.int8) + np.int8(1), minlength=6)
        unparsed_negative, tn, fp, unparsed_positive, fn, tp = table.tolist()
        return cls(tp, tn, fp, fn, unparsed_positive, unparsed_negative)

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        text = f"Tp={self.tp} Tn={self.tn} Fp={self.fp} Fn={self.fn}"
        return f"{text} unparsed={self.unparsed}" if self.unparsed else text

    def table(self) -> np.ndarray:
        """Return the counts as a table: int64 ``(2, 3)``, positives and negatives by right, wrong and unparsed."""
        return np.array([[self.tp, self.fn, self.unparsed_positive], [self.tn, self.fp, self.unparsed_negative]])

    @property
    def unparsed(self) -> int:
        """Answers that name neither class."""
        return self.unparsed_positive + self.unparsed_negative

    @property
    def positives(self) -> int:
        """Examples of the positive class."""
        return self.tp + self.fn + self.unparsed_positive

    @property
    def negatives(self) -> int:
        """Examples of the negative class."""
        return self.tn + self.fp + self.unparsed_negative

    @property
    def n(self) -> int:
        """All examples."""
        return self.positives + self.negatives

    @property
    def correct(self) -> int:
        """Right answers."""
        return self.tp + self.tn


# The share that each proportion is: (successes, trials), for intervals and for the reader.
PROPORTIONS = {
    "accuracy": lambda c: (c.correct, c.n),
    "precision": lambda c: (c.tp, c.tp + c.fp),
    "recall": lambda c: (c.tp, c.positives),
    "specificity": lambda c: (c.tn, c.negatives),
    "npv": lambda c: (c.tn, c.tn + c.fn),
    "prevalence": lambda c: (c.positives, c.n),
    "predicted_positive_rate": lambda c: (c.tp + c.fp, c.n),
}


def figures_of(counts: Counts, beta: float = 1.0) -> dict[str, Figure]:
    """Return all figures that follow from the counts.

    An answer that names neither class is an error: it lowers accuracy and the recall of its class, and it is no
    prediction of either class. The Matthews coefficient takes it as a third answer (Gorodkin's R_K).

    Returns:
        ``accuracy``, ``precision``, ``recall``, ``f_measure``, ``specificity``, ``npv``, ``balanced_accuracy``,
        ``mcc``, ``prevalence``, ``predicted_positive_rate``, and ``f_beta`` when ``beta``, the weight of recall over
        precision, is not 1.

    Example:
        >>> figures = figures_of(Counts(tp=867, tn=0, fp=172, fn=0))
        >>> figures["accuracy"].text(), figures["specificity"].text(), figures["npv"].text()
        ('0.8345', '0.0000', 'undefined (nothing was answered with the negative class)')
        >>> figures["mcc"].text()
        'undefined (every answer is the same)'
    """
    values = figure_values(counts.table(), beta)
    return {name: Figure.of(value, _reason(name, counts)) for name, value in values.items()}


def figure_values(tables: np.ndarray, beta: float = 1.0) -> dict[str, np.ndarray]:
    """Return the figures of many tables of counts at once, NaN where undefined.

    Args:
        tables: ``(..., 2, 3)``: counts as in :meth:`Counts.table`.
        beta: Weight of recall over precision in ``f_beta``.

    Returns:
        float64 ``(...)`` by name, as in :func:`figures_of`.

    Source of the Matthews coefficient with more than two answers: J. Gorodkin, Comparing two K-category assignments by
    a K-category correlation coefficient, Computational Biology and Chemistry 28 (2004).
    """
    (tp, fn, unparsed_positive), (tn, fp, unparsed_negative) = np.moveaxis(tables, (-2, -1), (0, 1))
    positives, negatives = tp + fn + unparsed_positive, tn + fp + unparsed_negative
    n, said_yes, said_no = positives + negatives, tp + fp, tn + fn
    precision, recall, specificity = ratio(tp, said_yes), ratio(tp, positives), ratio(tn, negatives)
    # R_K: the covariance of labels and answers over the roots of their variances, all times n squared.
    covariance = (tp + tn) * n - positives * said_yes - negatives * said_no
    label_variance = n * n - positives**2 - negatives**2
    answer_variance = n * n - said_yes**2 - said_no**2 - (unparsed_positive + unparsed_negative) ** 2
    weight = beta * beta
    f_beta = ratio((1 + weight) * precision * recall, weight * precision + recall)
    return {
        "accuracy": ratio(tp + tn, n),
        "precision": precision,
        "recall": recall,
        "f_measure": ratio(2 * precision * recall, precision + recall),
        **({} if beta == 1 else {"f_beta": f_beta}),
        "specificity": specificity,
        "npv": ratio(tn, said_no),
        "balanced_accuracy": (recall + specificity) / 2,
        "mcc": ratio(covariance, np.sqrt(label_variance) * np.sqrt(answer_variance)),
        "prevalence": ratio(positives, n),
        "predicted_positive_rate": ratio(said_yes, n),
    }


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return quotients, NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, np.true_divide(numerator, denominator))


def missing_class(positives: int, negatives: int) -> str:
    """Return why a figure that needs both classes is undefined; empty if there are both."""
    if positives and negatives:
        return ""
    return "no negatives" if positives else "no positives" if negatives else "no examples"


def _reason(name: str, counts: Counts) -> str:
    """Return why a figure that came out as NaN has no value."""
    one_class = missing_class(counts.positives, counts.negatives)
    if counts.n == 0:
        return one_class
    if name in ("f_measure", "f_beta") and counts.positives:
        return "precision and recall are 0" if counts.tp + counts.fp else _NOTHING_POSITIVE
    said = {"precision": _NOTHING_POSITIVE, "npv": "nothing was answered with the negative class"}
    return said.get(name) or one_class or "every answer is the same"
