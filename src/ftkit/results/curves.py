"""Evaluate scores: the operating points of every threshold, and the metrics that need no threshold.

All counts stay integers and all figures are float64. The functional metrics of torchmetrics give the same figures in
float32, whose counts end at 2**24 examples; the tests compare with them and with scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ftkit.results.metrics import Figure, missing_class

BINS = 15
_PART = 1 << 20  # points


@dataclass(frozen=True)
class Curve:
    """The outcomes of answering "positive" wherever ``score >= threshold``, one per distinct score."""

    threshold: np.ndarray  # float64 (k,), falling
    tp: np.ndarray  # int64 (k,): positives at or above the threshold
    fp: np.ndarray  # int64 (k,): negatives at or above the threshold
    positives: int
    negatives: int

    @classmethod
    def of(cls, target: np.ndarray, score: np.ndarray) -> Curve:
        """Sort the examples by score once; tied scores are one point.

        Args:
            target: ``(n,)``: 1 for a positive, 0 for a negative.
            score: float64 ``(n,)``: higher means more positive.

        Example:
            >>> curve = Curve.of(np.array([1, 0, 1]), np.array([0.9, 0.4, 0.4]))
            >>> curve.threshold.tolist(), curve.tp.tolist(), curve.fp.tolist()
            ([0.9, 0.4], [1, 2], [0, 1])
        """
        order = np.argsort(score)[::-1]
        score, target = score[order], target[order]
        del order  # with ten million examples these arrays are what a report weighs
        tp = np.cumsum(target, dtype=np.int64)
        fp = np.arange(1, len(score) + 1) - tp
        positives, negatives = (int(tp[-1]), int(fp[-1])) if len(score) else (0, 0)
        last = np.append(score[1:] != score[:-1], [True] * min(1, len(score)))
        if not last.all():
            score = score[last]  # one after the other, so that only one is held twice
            tp = tp[last]
            fp = fp[last]
        return cls(score, tp, fp, positives, negatives)

    def auroc(self) -> Figure:
        """Return the area under the ROC curve: P(a positive scores above a negative) + P(a tie) / 2."""
        if missing := missing_class(self.positives, self.negatives):
            return Figure(None, missing)
        # Twice the area in units of one positive times one negative: a sum of integers.
        double_area = sum(int(np.dot(fp - fp_before, tp + tp_before)) for tp_before, tp, fp_before, fp in self._steps())
        return Figure(double_area / (2 * self.positives * self.negatives))

    def average_precision(self) -> Figure:
        """Return the mean precision over the steps of recall, without interpolation."""
        if missing := missing_class(self.positives, self.negatives):
            return Figure(None, missing)
        total = sum(float(np.dot(tp - tp_before, tp / (tp + fp))) for tp_before, tp, _, fp in self._steps())
        return Figure(total / self.positives)

    def _steps(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield ``tp`` and ``fp`` before and after each point, in parts that need little memory."""
        for start in range(0, len(self.tp), _PART):
            part = []
            for counts in (self.tp, self.fp):
                after = counts[start : start + _PART]
                part += [np.append(counts[start - 1] if start else 0, after[:-1]), after]
            yield part[0], part[1], part[2], part[3]

    def thinned(self, points: int = 400) -> Curve:
        """Return at most about so many points, for a plot; the first and the last one stay."""
        keep = np.unique(np.linspace(0, len(self.threshold) - 1, min(points, len(self.threshold))).round().astype(int))
        return Curve(self.threshold[keep], self.tp[keep], self.fp[keep], self.positives, self.negatives)


@dataclass(frozen=True)
class Calibration:
    """Predicted probabilities against what came true, in bins of equal width."""

    count: np.ndarray  # int64 (bins,): examples per bin [k / bins, (k + 1) / bins); the last one holds 1 too
    predicted: np.ndarray  # float64 (bins,): mean probability, NaN in an empty bin
    observed: np.ndarray  # float64 (bins,): share of positives, NaN in an empty bin

    @classmethod
    def of(cls, target: np.ndarray, probability: np.ndarray, bins: int = BINS) -> Calibration:
        """Put each example into its bin.

        Args:
            target: ``(n,)``: 1 for a positive, 0 for a negative.
            probability: float64 ``(n,)``: P(positive) in [0, 1].
            bins: Number of bins.
        """
        place = np.minimum((probability * bins).astype(np.int64), bins - 1)
        count = np.bincount(place, minlength=bins)
        with np.errstate(invalid="ignore"):
            predicted = np.bincount(place, probability, bins) / count
            observed = np.bincount(place, target, bins) / count
        return cls(count, predicted, observed)

    def error(self) -> Figure:
        """Return the expected calibration error: the mean gap between both, weighted by the bins' counts.

        Source: C. Guo et al., On calibration of modern neural networks, ICML 2017 (for P(positive), as torchmetrics).
        """
        if not self.count.any():
            return Figure(None, "no examples")
        gap = np.abs(self.predicted - self.observed)
        return Figure(float(np.nansum(gap * self.count) / self.count.sum()))


def brier(target: np.ndarray, probability: np.ndarray) -> Figure:
    """Return the Brier score: the mean squared gap between P(positive) and what came true.

    Example:
        >>> brier(np.array([1, 0]), np.array([0.8, 0.4])).text()
        '0.1000'
    """
    if not len(target):
        return Figure(None, "no examples")
    return Figure(float(np.mean((probability - target) ** 2)))


def probability_of(score: np.ndarray, kind: str) -> np.ndarray:
    """Return P(positive) from scores of either kind, ``probability`` or ``log_odds``."""
    return score if kind == "probability" else expit(score)
