"""Read the learning curves of a run and decide whether its training converged.

A difference between two variants says something about the variants only if both were trained: with a learning rate that
is too high for one of them, it says something about the rate. So no significance is claimed of a row of which a seed
did not converge. It did not if

1. it learned nothing: at the end it is not right more often on its own training examples than always answering their
   most frequent label would be (exact binomial test, one-sided; of pairs of preferences, than a coin); or
2. its training loss rose: over the last quarter of the logged steps it is significantly higher than over the first
   (Welch's t-test, one-sided); or
3. its training loss did not fall: it has no significant trend downwards over the logged steps (Mann-Kendall test,
   one-sided), while fewer than nine in ten training examples are right; or
4. none of its test answers is right, of which always giving the most frequent label would get so many right that none
   at all is significantly fewer (exact binomial test, one-sided).

Each of the four tests is made at the 5% level. A run that logged its loss fewer than 12 times is judged by the first
alone, one that was not tested on its training examples by the second and the fourth: a fall that is small against the
noise between batches is no fault of a model that was good to begin with. How the validation accuracy swings is no part
of this: with 149 messages it does by seven points in a training whose loss falls to a tenth.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from ftkit.ablation.result import Split
from ftkit.ablation.sweep import RunState
from ftkit.errors import InputError
from ftkit.results.answer_counts import LabelsAndAnswers, labels_and_answers, labels_in
from ftkit.results.preferences import is_preference
from ftkit.results.statistics import is_significant
from ftkit.run_folder import CURVES_FILE, predictions_file

_LEAST = 12  # logged losses: three a quarter
_LEARNED = 0.9  # of the training examples right: what is left is no matter of convergence


@dataclass(frozen=True)
class Curve:
    """One figure while a run trained."""

    steps: list[float]  # the optimizer steps behind each value
    values: list[float]
    epochs: list[int]  # the epoch of each value


def read_curves(directory: Path) -> Mapping[str, Curve]:
    """Return the curves of a run folder, by the name of the figure; none if it kept none.

    Raises:
        InputError: A value in its ``metrics.csv`` is no number.
    """
    path = directory / CURVES_FILE
    if not path.exists():
        return {}
    found: dict[str, Curve] = {}
    try:
        records = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except (ValueError, csv.Error) as error:
        raise InputError(f"not a table of curves: {error}", file=path) from None
    for record in records:
        try:
            step, epoch = float(record.pop("step")), int(record.pop("epoch", None) or 0)
            values = {name: float(text) for name, text in record.items() if text}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"not a table of curves: {type(error).__name__} {error}", file=path) from None
        for name, value in values.items():
            curve = found.setdefault(name, Curve([], [], []))
            curve.steps.append(step)
            curve.values.append(value)
            curve.epochs.append(epoch)
    return found


def not_converged(run: RunState) -> str:
    """Return why a run's training did not converge; empty if it did, or if that cannot be said.

    Raises:
        InputError: A file in its folder is damaged.
    """
    if run.result is not None and run.result.baseline:  # nothing was trained
        return ""
    splits = {} if run.result is None else run.result.splits
    train, test = splits.get("train"), splits.get("test")
    found = learned_nothing(train, "training", _counted(run, "train")) if train else ""
    curve = read_curves(run.directory).get("train/loss")
    if found or curve is None or len(curve.values) < _LEAST:
        return found
    if found := _loss(curve, train):
        return found
    return _never_right(test, _counted(run, "test")) if test is not None and not test.accuracy else ""


def _counted(run: RunState, split: str) -> LabelsAndAnswers:
    """Count the predictions of a split; nothing where the run left none."""
    predictions = run.directory / predictions_file(split)
    return labels_and_answers(predictions) if predictions.exists() else Counter()


def learned_nothing(found: Split, split: str, counts: LabelsAndAnswers) -> str:
    """Return a sentence if the answers of a split are no better than a constant one; empty if they are too few."""
    if (chance := _chance(counts)) is None:
        return ""
    (share, name), n = chance, found.n - (found.ties or 0)
    if is_significant(float(stats.binom.sf(found.correct - 1, n, share))) or not is_significant(share**found.n):
        return ""
    return (
        f"{found.accuracy:.1%} of its {found.n:,} {split} examples are right, not significantly more than with "
        f"{name} ({share:.1%})"
    )


def _never_right(test: Split, counts: LabelsAndAnswers) -> str:
    if (chance := _chance(counts)) is None:
        return ""
    share, name = chance
    if not is_significant((1 - share) ** test.n):
        return ""
    return f"none of its {test.n:,} test answers is right ({name}: {share:.1%}); see {predictions_file('test')}"


def _chance(counts: LabelsAndAnswers) -> tuple[float, str] | None:
    """Return how often one who looks at no example is right, and how; None if always, or without labels."""
    if counts and is_preference(*zip(*counts, strict=True)):
        return 0.5, "a coin"
    labels = labels_in(counts)
    if len(labels) < 2:
        return None
    label, most = labels.most_common(1)[0]
    return most / labels.total(), f"always answering {label}"


def _loss(curve: Curve, train: Split | None) -> str:
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
