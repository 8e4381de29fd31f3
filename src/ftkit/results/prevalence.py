"""What figures to expect where positives are more or less frequent than in the examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from ftkit.results.figures import Counts, Figure, figure_values
from ftkit.results.intervals import RIGHT, WRONG, Interval, by_label, cells_of, table_limits

_NAMES = ("accuracy", "precision", "npv", "f_measure")


def at_prevalence(counts: Counts, prevalences: Sequence[float]) -> list[dict[str, Figure]]:
    """Return the figures to expect at other shares of positives, with the recall and specificity found here.

    Args:
        counts: The outcomes found.
        prevalences: Shares of positives, in [0, 1].

    Returns:
        ``accuracy``, ``precision``, ``npv`` and ``f_measure`` for each share.

    Example:
        Of 100 positives 90 are found and of 100 negatives 80; where 1% is positive, few alarms are right:

        >>> at_prevalence(Counts(tp=90, tn=80, fp=20, fn=10), [0.01])[0]["precision"].text()
        '0.0435'
    """
    table = by_label(counts)
    results = []
    for prevalence in prevalences:
        missing = _is_missing(counts, prevalence)
        reason = "recall or specificity is undefined" if missing else "nothing is answered so"
        values = _figures_at(table, prevalence)
        results.append({
            name: Figure(None, reason) if missing or np.isnan(values[name]) else Figure(float(values[name]))
            for name in _NAMES
        })  # fmt: skip
    return results


def prevalence_intervals(
    counts: Counts, prevalences: Sequence[float], level: float = 0.95, seed: int = 0
) -> list[dict[str, Interval]]:
    """Return the intervals of what :func:`at_prevalence` returns, by :func:`ftkit.results.intervals.table_limits`.

    Args:
        counts: The outcomes found.
        prevalences: Shares of positives, in [0, 1].
        level: Confidence.
        seed: Seed of the draws.

    Returns:
        ``(low, high)`` by figure for each share; a figure that is undefined there has none.

    Example:
        Six positives and six negatives, all answered right, do not make a precision of 1 where 1% is positive:

        >>> low, high = prevalence_intervals(Counts(tp=6, tn=6, fp=0, fn=0), [0.01])[0]["precision"]
        >>> f"{low:.3f} {high:.3f}"
        '0.017 1.000'
    """
    limits = table_limits(by_label(counts), WRONG, RIGHT, partial(_figures_of_all, prevalences), level, seed)
    return [
        {name: limits[place, name] for name, figure in figures.items() if figure.value is not None}
        for place, figures in enumerate(at_prevalence(counts, prevalences))
    ]


def _is_missing(counts: Counts, prevalence: float) -> bool:
    return (counts.positives == 0 and prevalence > 0) or (counts.negatives == 0 and prevalence < 1)


def _figures_at(table: np.ndarray, prevalence: float) -> Mapping[str, np.ndarray]:
    """The figures of tables ``(..., 2, 3)`` in which so large a share is positive."""
    sizes = table.sum(axis=-1, keepdims=True)
    shares = np.divide(table, sizes, out=np.zeros(table.shape), where=sizes > 0)
    values = figure_values(cells_of(shares * np.array([[prevalence], [1 - prevalence]])))
    return {name: values[name] for name in _NAMES}


def _figures_of_all(prevalences: Sequence[float], table: np.ndarray) -> Mapping[tuple[int, str], np.ndarray]:
    every = [_figures_at(table, prevalence) for prevalence in prevalences]
    return {(place, name): values for place, figures in enumerate(every) for name, values in figures.items()}
