"""Intervals for every figure of a report: Wilson's for shares, seeded draws within each label for the others."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from ftkit.results.curves import Curve, probability_of
from ftkit.results.metrics import PROPORTIONS, Counts, Figure, figure_values
from ftkit.results.statistics import Interval, wilson_interval

K = TypeVar("K", bound=Hashable)
MAX_EXAMPLES = 100_000  # above, the intervals of the score figures are a matter of the third decimal, and slow
_MAX_DRAWS = 20_000_000
_TABLES, _LEAST_TABLES = 10_000, 1_000
_CELLS = 2_000_000  # drawn of all tables together, and a tenth of them at once
WRONG, RIGHT = np.array([[0, 1, 0]] * 2), np.array([[1, 0, 0]] * 2)
_AT_PREVALENCE = ("accuracy", "precision", "npv", "f_measure")


def count_intervals(counts: Counts, beta: float = 1.0, level: float = 0.95, seed: int = 0) -> dict[str, Interval]:
    """Return ``(low, high)`` of the figures that follow from the counts, by name; an undefined figure has none.

    Shares get Wilson's interval, the others :func:`table_limits`; their cost does not depend on the number of examples.

    Example:
        >>> intervals = count_intervals(Counts(tp=854, tn=17, fp=155, fn=13))
        >>> " ".join(f"{bound:.3f}" for bound in intervals["mcc"] + intervals["accuracy"])
        '0.099 0.279 0.815 0.859'
    """
    intervals = {name: wilson_interval(*share(counts), level) for name, share in PROPORTIONS.items()}
    found = {name for name, value in figure_values(counts.table(), beta).items() if not np.isnan(value)}
    drawn = table_limits(counts.table(), WRONG, RIGHT, lambda tables: figure_values(tables, beta), level, seed)
    return _defined({name: intervals.get(name, limits) for name, limits in drawn.items() if name in found})


def at_prevalence(counts: Counts, prevalences: Sequence[float]) -> list[dict[str, Figure]]:
    """Return the figures to expect at other shares of positives, with the recall and specificity found here.

    They are ``accuracy``, ``precision``, ``npv`` and ``f_measure`` for each share.

    Example:
        Of 100 positives 90 are found and of 100 negatives 80; where 1% is positive, few alarms are right:

        >>> at_prevalence(Counts(tp=90, tn=80, fp=20, fn=10), [0.01])[0]["precision"].text()
        '0.0435'
    """
    values = _at_prevalence(prevalences, counts.table())
    results = []
    for place, prevalence in enumerate(prevalences):
        missing = (counts.positives == 0 and prevalence > 0) or (counts.negatives == 0 and prevalence < 1)
        why = "recall or specificity is undefined" if missing else "nothing is answered so"
        here = {name: np.nan if missing else values[place, name] for name in _AT_PREVALENCE}
        results.append({name: Figure.of(value, why) for name, value in here.items()})
    return results


def prevalence_intervals(
    counts: Counts, prevalences: Sequence[float], level: float = 0.95, seed: int = 0
) -> list[dict[str, Interval]]:
    """Return ``(low, high)`` of what :func:`at_prevalence` returns and is defined, by :func:`table_limits`.

    Example:
        Six positives and six negatives, all answered right, do not make a precision of 1 where 1% is positive:

        >>> low, high = prevalence_intervals(Counts(tp=6, tn=6, fp=0, fn=0), [0.01])[0]["precision"]
        >>> f"{low:.3f} {high:.3f}"
        '0.017 1.000'
    """
    limits = table_limits(counts.table(), WRONG, RIGHT, partial(_at_prevalence, prevalences), level, seed)
    return [
        {name: limits[place, name] for name, figure in figures.items() if figure.value is not None}
        for place, figures in enumerate(at_prevalence(counts, prevalences))
    ]


def _at_prevalence(prevalences: Sequence[float], tables: np.ndarray) -> Mapping[tuple[int, str], np.ndarray]:
    """Return the figures of tables ``(..., 2, 3)`` in which such a share is positive, by its place and their name."""
    sizes = tables.sum(axis=-1, keepdims=True)
    shares = np.divide(tables, sizes, out=np.zeros(tables.shape), where=sizes > 0)
    every = [figure_values(shares * np.array([[share], [1 - share]])) for share in prevalences]
    return {(place, name): values[name] for place, values in enumerate(every) for name in _AT_PREVALENCE}


def table_limits(
    table: np.ndarray,
    worse: np.ndarray,
    better: np.ndarray,
    figures: Callable[[np.ndarray], Mapping[K, np.ndarray]],
    level: float = 0.95,
    seed: int = 0,
) -> dict[K, Interval]:
    """Return limits of figures of a table of counts that no empty cell makes look certain.

    The shares of each label's outcomes are drawn from a Dirichlet distribution whose parameters are their counts, with
    one count more in the worst outcome for the lower limit and one more in the best for the upper: of a single share
    these are Clopper and Pearson's limits, and so the table of 12 right answers of 12 has an interval, too.

    10,000 tables are drawn, of more than 200 cells fewer, but no fewer than 1,000.

    Args:
        table: int ``(labels, outcomes)``: counts; a label without any stays without.
        worse: The same shape: 1 in the outcome of each label that lowers the figures most, 0 elsewhere; or shares of
            that 1 in several.
        better: The same for the outcome that raises them.
        figures: From tables of expected counts, float64 ``(draws, labels, outcomes)``, to ``(draws,)`` by name.
        level: Confidence.
        seed: Seed of the draws.

    Returns:
        ``(low, high)`` by figure; ``nan`` where a draw leaves the figure undefined.

    Example:
        >>> right_wrong, share = np.array([[12, 0]]), lambda drawn: {"share": drawn[:, 0, 0] / 12}
        >>> low, high = table_limits(right_wrong, np.array([[0, 1]]), np.array([[1, 0]]), share)["share"]
        >>> f"{low:.2f} {high:.2f}"
        '0.74 1.00'

    Source: K. Krishnamoorthy and M. Lee, Inference for functions of parameters in discrete distributions based on
    fiducial approach: binomial and Poisson cases, J. Statistical Planning and Inference 140 (2010).
    """
    tail = (1 - level) / 2
    low, high = (_drawn(table, extra, figures, seed) for extra in (worse, better))
    return {name: (float(np.quantile(low[name], tail)), float(np.quantile(high[name], 1 - tail))) for name in low}


def _drawn(
    table: np.ndarray, extra: np.ndarray, figures: Callable[[np.ndarray], Mapping[K, np.ndarray]], seed: int
) -> dict[K, np.ndarray]:
    rng, left = np.random.default_rng(seed), min(_TABLES, max(_LEAST_TABLES, _CELLS // table.size))
    parts = []
    while left:
        count = min(left, max(1, _CELLS // 10 // table.size))
        weights = rng.standard_gamma(np.broadcast_to(table + extra, (count, *table.shape)))
        parts.append(figures(weights / weights.sum(axis=-1, keepdims=True) * table.sum(axis=-1, keepdims=True)))
        left -= count
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def score_intervals(
    target: np.ndarray, score: np.ndarray, kind: str, level: float = 0.95, resamples: int = 1_000, seed: int = 0
) -> dict[str, Interval]:
    """Return intervals of the score figures, by resampling within the positives and within the negatives.

    The calibration error has none: chance in the bins adds to it and resampling adds as much again, so that of a model
    that is well calibrated the interval would often lie above the figure itself.

    Args:
        target: ``(n,)``: 1 for a positive, 0 for a negative.
        score: float64 ``(n,)``.
        kind: ``probability`` or ``log_odds``.
        level: Confidence.
        resamples: Number of resamples; fewer are drawn from more than 20,000 examples.
        seed: Seed of the resampling.

    Returns:
        ``(low, high)`` by figure; empty above 100,000 examples or when a class is absent. A figure that no resample
        moves, for example an AUROC of 1, has none.
    """
    if len(score) > MAX_EXAMPLES:
        return {}
    order = np.argsort(-score)
    target, score = target[order].astype(float), score[order]
    strata = [np.flatnonzero(target == side) for side in (1, 0)]
    if not all(map(len, strata)):
        return {}
    rng = np.random.default_rng(seed)
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True))
    squared = (probability_of(score, kind) - target) ** 2
    values: dict[str, list[float]] = {"auroc": [], "average_precision": [], "brier": []}
    for _ in range(max(100, min(resamples, _MAX_DRAWS // len(score)))):
        weight = np.zeros(len(score), np.int64)
        for rows in strata:
            weight[rows] = np.bincount(rng.integers(0, len(rows), len(rows)), minlength=len(rows))
        tp = np.cumsum(weight * target)[last].astype(np.int64)
        reached = np.cumsum(weight)[last]
        kept = reached > 0  # the highest scores may not have been drawn
        curve = Curve(score[last][kept], tp[kept], (reached - tp)[kept], len(strata[0]), len(strata[1]))
        values["auroc"].append(curve.auroc().value or 0.0)
        values["average_precision"].append(curve.average_precision().value or 0.0)
        values["brier"].append(float(np.dot(weight, squared)) / len(score))
    limits = {name: np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]).tolist() for name, drawn in values.items()}
    return _defined({name: (low, high) for name, (low, high) in limits.items()})


def _defined(intervals: dict[str, Interval]) -> dict[str, Interval]:
    """Leave out those that are no statement: undefined ones, and points, which would claim to be sure."""
    return {name: (low, high) for name, (low, high) in intervals.items() if low < high}
