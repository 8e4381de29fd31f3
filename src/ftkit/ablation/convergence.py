"""Decide from a run folder whether its training converged: the one definition of "not converged".

A difference between two variants says something about the variants only if both were trained: with a learning rate that
is too high for one of them, it says something about the rate. So no significance is claimed of a row of which a seed
did not converge. It did not if

1. it learned nothing: at the end it is not right more often on its own training examples than always answering their
   most frequent label would be (exact binomial test, one-sided; of pairs of preferences, than a coin); or
2. its training loss rose: over the last quarter of the logged steps it is significantly higher than over the first
   (Welch's t-test, one-sided); or
3. its training loss did not fall: it has no significant trend downwards over the logged steps (Mann-Kendall test,
   one-sided), while fewer than nine in ten training examples are right.

Each of the three tests is made at the 5% level. A run that logged its loss fewer than 12 times is judged by the first
alone, one that was not tested on its training examples by the second alone: a fall that is small against the noise
between batches is no fault of a model that was good to begin with. How the validation accuracy swings is no part of
this: with 149 messages it does by seven points in a training whose loss falls to a tenth.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from scipy import stats

from ftkit.ablation.evidence import read_curves
from ftkit.ablation.result import Split
from ftkit.ablation.sweep import CellState
from ftkit.results.predictions import PredictionFile
from ftkit.results.preference_file import is_preference
from ftkit.results.statistics import is_significant
from ftkit.run_folder import predictions_file

_LEAST = 12  # logged losses: three a quarter
_LEARNED = 0.9  # of the training examples right: what is left is no matter of convergence


def not_converged(cell: CellState) -> str:
    """Return why a run's training did not converge; empty if it did, or if that cannot be said.

    Args:
        cell: A run that is done.

    Raises:
        InputError: A file in its folder is damaged.
    """
    train = None if cell.result is None else cell.result.splits.get("train")
    return (train and _learned_nothing(train, cell.directory / predictions_file("train"))) or _loss(cell, train)


def _learned_nothing(train: Split, predictions: Path) -> str:
    if not predictions.exists():
        return ""
    labels: Counter[str] = Counter()
    pairs = True
    for batch in PredictionFile(predictions).batches(labeled=False):
        texts = batch["label"].to_pylist()
        labels.update(texts)
        pairs = pairs and is_preference(texts, batch["prediction"].to_pylist())
    (label, most), name = labels.most_common(1)[0], "a coin"
    right, n, share = train.correct, train.n - (train.ties or 0), 0.5
    if not pairs:
        share, name = most / labels.total(), f"always answering {label}"
    if (len(labels) == 1 and not pairs) or is_significant(float(stats.binom.sf(right - 1, n, share))):
        return ""
    return (
        f"{train.accuracy:.1%} of its {train.n:,} training examples are right, not significantly more than with "
        f"{name} ({share:.1%})"
    )


def _loss(cell: CellState, train: Split | None) -> str:
    curve = read_curves(cell.directory).get("train/loss")
    if curve is None or len(curve.values) < _LEAST:
        return ""
    quarter = len(curve.values) // 4
    first, last = np.array(curve.values[:quarter]), np.array(curve.values[-quarter:])
    found = f"(mean {first.mean():.3g} over the first quarter of the logged steps, {last.mean():.3g} over the last)"
    if _is_higher(last, first):
        return f"its training loss rose {found}"
    if train is not None and train.accuracy < _LEARNED and not _falls(np.array(curve.values)):
        return f"its training loss did not fall significantly {found}"
    return ""


def _is_higher(one: np.ndarray, other: np.ndarray) -> bool:
    if np.ptp(one) == np.ptp(other) == 0:  # without any noise
        return bool(one[0] > other[0])
    return is_significant(float(stats.ttest_ind(one, other, equal_var=False, alternative="greater").pvalue))


def _falls(losses: np.ndarray) -> bool:
    return is_significant(float(stats.kendalltau(np.arange(len(losses)), losses, alternative="less").pvalue))
