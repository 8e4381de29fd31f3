"""Compare two rows on the same test examples, with one seed or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from ftkit.ablation.sweep import CellState, SweepRow
from ftkit.errors import InputError
from ftkit.results.paired import paired_interval, sign_flip_test
from ftkit.results.predictions import read_predictions
from ftkit.results.preference_file import WON, half_points
from ftkit.results.statistics import can_be_significant, is_significant
from ftkit.run_folder import predictions_file

Example = tuple[str, str | None]  # id and label: with another label, what is right is another answer


@dataclass(frozen=True)
class Comparison:
    """A row against its reference, over the seeds and examples that both have.

    Args:
        seeds: The seeds that both have, sorted.
        difference: Mean test accuracy over these seeds minus that of the reference.
        n: The number of examples.
        disagreements: The examples of which the two got a different number right, counted over the seeds.
        interval: The 95% interval of ``difference``, see :func:`ftkit.results.paired.paired_interval`.
        p: The p-value of :func:`ftkit.results.paired.sign_flip_test`.
        p_holm: The same after Holm's correction over all comparisons of the ablation.
        converged: Whether the training of both did; if not, a difference says little about what was varied.
    """

    seeds: Sequence[int]
    difference: float
    n: int
    disagreements: int
    interval: tuple[float, float]
    p: float
    p_holm: float = nan
    converged: bool = True

    @property
    def significant(self) -> bool:
        """Whether the difference has earned its star."""
        return self.converged and is_significant(self.p_holm)

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
        difference=float(gained.sum()) / (WON * len(gained) * len(seeds)),
        n=len(gained),
        disagreements=int(np.count_nonzero(gained)),
        interval=paired_interval(gained, WON * len(seeds)),
        p=sign_flip_test(gained),
    )


def right_answers(cells: Sequence[CellState]) -> Mapping[Example, np.ndarray] | None:
    """How right each seed was on a test example in halves, int ``(seeds,)``, by the example's id and label.

    A right answer is two halves; a tie of a pair of preferences is one.

    Returns:
        The answers, or None if there are no cells, a prediction file is missing, or the seeds had different examples.

    Raises:
        InputError: A prediction file is damaged or does not fit its ``result.json``.
    """
    columns = [column for column in map(_right_answers, cells) if column is not None]
    if not columns or len(columns) < len(cells) or any(column.keys() != columns[0].keys() for column in columns):
        return None
    return {example: np.array([column[example] for column in columns]) for example in columns[0]}


def _right_answers(cell: CellState) -> Mapping[Example, int] | None:
    path = cell.directory / predictions_file("test")
    if cell.result is None or not path.exists():
        return None
    predictions = read_predictions(path)
    points = half_points(predictions.labels, predictions.predictions, predictions.scores, predictions.score_name)
    right, counted = int(np.count_nonzero(points == WON)), cell.result.splits["test"]
    if (len(points), right) != (counted.n, counted.correct):
        raise InputError(
            f"{right} of {len(points)} right, but result.json says {counted.correct} of {counted.n}",
            file=path,
            fix="run the row again with --force",
        )
    examples = zip(predictions.ids, predictions.labels, strict=True)
    return dict(zip(examples, points.tolist(), strict=True))
