"""Compare two rows on the same test examples, with one seed or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from scipy.stats import binom

from ftkit.ablation.sweep import CellState, SweepRow
from ftkit.errors import InputError
from ftkit.evaluation.predictions import read_predictions
from ftkit.evaluation.statistics import ALPHA, PAIRED_RESAMPLES, can_be_significant, percentile_interval
from ftkit.run_folder import predictions_file

Example = tuple[str, str]  # id and label: with another label, what is right is another answer


@dataclass(frozen=True)
class Comparison:
    """A row against its reference, over the seeds and examples that both have.

    Args:
        seeds: The seeds that both have, sorted.
        difference: Mean test accuracy over these seeds minus that of the reference.
        n: The number of examples.
        disagreements: The examples of which the two got a different number right, counted over the seeds.
        interval: The 95% interval of ``difference``, see :func:`difference_interval`.
        p: The p-value of :func:`sign_flip_test`.
        p_holm: The same after Holm's correction over all comparisons of the ablation.
    """

    seeds: Sequence[int]
    difference: float
    n: int
    disagreements: int
    interval: tuple[float, float]
    p: float
    p_holm: float = nan

    @property
    def significant(self) -> bool:
        """Whether the difference has earned its star."""
        return self.p_holm < ALPHA

    @property
    def hopeless(self) -> bool:
        """Whether so few disagreements could never be significant, even all in one direction and tested alone."""
        return not can_be_significant(self.n, self.disagreements).possible


def compare(row: SweepRow, reference: SweepRow) -> Comparison | None:
    """Compare a row with its reference.

    Returns:
        The comparison, or None if they share no seed, lack prediction files, or were tested on different examples.

    Raises:
        InputError: A prediction file is damaged or does not fit its ``result.json``.
    """
    seeds = sorted({cell.seed for cell in row.done} & {cell.seed for cell in reference.done})
    ours = right_answers([cell for cell in row.done if cell.seed in seeds])
    theirs = right_answers([cell for cell in reference.done if cell.seed in seeds])
    if ours is None or theirs is None or ours.keys() != theirs.keys():
        return None
    gained = np.array([int(ours[example].sum()) - int(theirs[example].sum()) for example in ours])
    return Comparison(
        seeds=seeds,
        difference=float(gained.sum()) / (len(gained) * len(seeds)),
        n=len(gained),
        disagreements=int(np.count_nonzero(gained)),
        interval=difference_interval(gained, len(seeds)),
        p=sign_flip_test(gained),
    )


def right_answers(cells: Sequence[CellState]) -> Mapping[Example, np.ndarray] | None:
    """Whether each seed got a test example right, bool ``(seeds,)``, by the example's id and label.

    Returns:
        The answers, or None if there are no cells, a prediction file is missing, or the seeds had different examples.

    Raises:
        InputError: A prediction file is damaged or does not fit its ``result.json``.
    """
    columns = [column for column in map(_right_answers, cells) if column is not None]
    if not columns or len(columns) < len(cells) or any(column.keys() != columns[0].keys() for column in columns):
        return None
    return {example: np.array([column[example] for column in columns]) for example in columns[0]}


def sign_flip_test(gained: np.ndarray) -> float:
    """Exact two-sided test that neither of two rows tends to get more of an example's answers right.

    If there were no difference, each example's gain could as well have had the other sign. With one seed a gain is
    -1, 0 or 1 and this is the exact McNemar test. The seeds are taken as they are: the test speaks of new examples
    for these trained models.

    Args:
        gained: int ``(n,)``: by example, right answers of the row minus right answers of its reference.

    Returns:
        The p-value; 1 if nothing was gained or lost anywhere.

    Example:
        >>> round(sign_flip_test(np.array([1, 1, 1, 1, 1, 1, 0])), 5)
        0.03125
        >>> round(sign_flip_test(np.array([2, 1])), 5)  # of 3, 1, -1 and -3, two are as far from 0
        0.5

    Source: R. A. Fisher, The design of experiments (1935), section 21.
    """
    sizes, counts = np.unique(np.abs(gained[gained != 0]), return_counts=True)
    probability = np.ones(1)  # of the number of units that keep a positive sign
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        positive = np.zeros(size * count + 1)
        positive[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        probability = np.convolve(probability, positive)
    total = 2 * np.arange(len(probability)) - (len(probability) - 1)
    return min(1.0, float(probability[np.abs(total) >= abs(gained.sum())].sum()))


def difference_interval(gained: np.ndarray, seeds: int = 1) -> tuple[float, float]:
    """Bootstrap interval (95%) of the difference in accuracy over resampled examples, the seeds as they are.

    With one seed it is :func:`ftkit.evaluation.statistics.paired_bootstrap`.

    Args:
        gained: int ``(n,)``: by example, right answers of the row minus right answers of its reference.
        seeds: The number of answers per example.

    Example:
        >>> low, high = difference_interval(np.repeat([1, -1, 0], [25, 5, 70]))
        >>> f"{low:.2f} {high:.2f}"
        '0.10 0.30'
    """
    gains, counts = np.unique(gained, return_counts=True)
    # Resampling the examples is drawing how often each gain occurs.
    draws = np.random.default_rng(0).multinomial(len(gained), counts / len(gained), PAIRED_RESAMPLES)
    return percentile_interval(draws @ gains / (len(gained) * seeds))


def _right_answers(cell: CellState) -> Mapping[Example, bool] | None:
    path = cell.directory / predictions_file("test")
    if cell.result is None or not path.exists():
        return None
    predictions = read_predictions(path)
    correct = predictions.correct
    counted = cell.result.splits["test"]
    if (len(correct), int(correct.sum())) != (counted.n, counted.correct):
        raise InputError(
            f"{int(correct.sum())} of {len(correct)} right, but result.json says {counted.correct} of {counted.n}",
            file=path,
            fix="run the row again with --force",
        )
    examples = zip(predictions.ids, predictions.labels, strict=True)
    return dict(zip(examples, correct.tolist(), strict=True))
