"""Sum up the runs of a row: accuracies over its seeds, the interval, the costs, what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import TypeVar

from scipy import stats

from ftkit.ablation.convergence import not_converged
from ftkit.ablation.folder import format_numbers
from ftkit.ablation.identity import EXTERNAL, SEEDS, changes, in_words
from ftkit.ablation.planned import Planned
from ftkit.ablation.published import Published, PublishedTable
from ftkit.ablation.run_answers import over_seeds
from ftkit.ablation.sweep import Choice, RunState, SweepRow
from ftkit.results.comparison import Comparison
from ftkit.results.forgetting import Forgetting, forgetting
from ftkit.results.known_examples import DuplicatesEffect
from ftkit.results.noise import noise_floor
from ftkit.results.preferences import WON, interval_of_counts
from ftkit.results.statistics import seed_spread, wilson_limits
from ftkit.run_folder import SplitName

NOT_RUN = "not run"
T = TypeVar("T", int, float)


@dataclass(frozen=True)
class RowSummary:
    """One row in figures; accuracies are fractions, averaged over the seeds, and None where there is none."""

    number: int
    name: str
    question: str  # what the row asks
    seeds: Sequence[int]  # the seeds that are done
    train: float | None  # train accuracy
    val: float | None  # validation accuracy
    test: float | None  # test accuracy
    spread: float | None  # standard deviation of the test accuracy between seeds; None with fewer than two
    noise_floor: float | None  # within which difference two runs that differ in the seed alone lie, see results.noise
    interval: tuple[float, float] | None  # the 95% interval of the test accuracy, see accuracy_interval
    n: int | None  # the number of test examples
    macro_f1: float | None  # the macro F1 of the test where there are three and more classes
    metrics: Mapping[str, float]  # what the test logged, averaged over the seeds
    published: Published | None  # the published figures, in percent
    unjudged: str  # why ours are not judged by them, such as other data; empty if they are
    seconds: float | None  # time per run, without frozen_seconds
    frozen_seconds: float  # time for what frozen layers make of the data, all runs together: little where it was there
    peak_memory_mb: float | None  # highest memory use of any run
    trainable: int | None  # the number of trainable parameters
    checkpoint_mb: float | None  # the size of the checkpoint
    status: str  # done, external, not converged, skipped, failed, unfinished, running, not run or 2 of 3 seeds
    reason: str  # why the first missing seed is missing; empty if none is, or if nobody knows
    converged: bool  # whether the training of every seed did, see convergence
    notes: Sequence[str]  # why a seed is missing, did not converge, or was run otherwise than the first one
    baseline: bool  # whether nothing was trained by gradients
    # Against the reference row, if that is possible; of baselines none, unless the reference is one.
    comparison: Comparison | None = None
    # The comparisons with other rows that the question names, by their numbers.
    named: Mapping[int, Comparison] = field(default_factory=dict)
    # The settings in which the row differs from its reference; None if one of them was not run.
    differs: Mapping[str, str] | None = None
    # Whether no other row is as accurate, as fast and as small; None if that cannot be said.
    on_front: bool | None = None
    choice: Choice | None = None  # what a search chose; the other figures are of that setting
    # Of a row that was tuned, the same figures of the row as its file says, if that was run.
    untuned: RowSummary | None = None
    # Test accuracy with and without the examples that have a duplicate in train, where they are known.
    duplicates: DuplicatesEffect | None = None
    # The losses of held-out texts before and after, by the name of the texts, where they were measured.
    forgetting: Mapping[str, Forgetting] = field(default_factory=dict)
    # What was planned for a run before it was made, if anything was.
    planned: Planned | None = None

    @property
    def label(self) -> str:
        """Return number and name for headings, such as ``Row 8 (xl)``."""
        return f"Row {self.number} ({self.name})"

    @property
    def published_inside(self) -> bool | None:
        """Return whether the published test accuracy lies in our interval; None if they cannot be compared."""
        published = self.published_figure("test")
        if self.interval is None or published is None or self.unjudged:
            return None
        low, high = self.interval
        return low - 5e-5 <= published / 100 <= high + 5e-5  # it is rounded to two decimals of a percent

    def published_figure(self, split: SplitName) -> float | None:
        """Return the published accuracy of a split, in percent."""
        return None if self.published is None else getattr(self.published, split)


def seeds_text(seeds: Sequence[int]) -> str:
    """Return seeds in words.

    Example:
        >>> seeds_text([123]), seeds_text([123, 124])
        ('seed 123', 'seeds 123, 124')
    """
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def rows_text(rows: Iterable[RowSummary]) -> str:
    """Return the numbers of rows, such as ``rows 1-3,5``."""
    numbers = [row.number for row in rows]
    return f"row{'s' if len(numbers) > 1 else ''} {format_numbers(numbers)}"


def summarize(row: SweepRow, published: PublishedTable) -> RowSummary:
    """Sum up the runs of a row by themselves; ``published`` knows what the published figures were made with."""
    done = row.results
    tests = [result.splits["test"] for result in done if "test" in result.splits]
    trouble = {run.seed: reason for run in row.done if (reason := not_converged(run))}

    def accuracy(split: SplitName) -> float | None:
        return _mean(result.splits[split].accuracy for result in done if split in result.splits)

    return RowSummary(
        number=row.number,
        name=row.name,
        question=row.question,
        seeds=[run.seed for run in row.done],
        train=accuracy("train"),
        val=accuracy("val"),
        test=accuracy("test"),
        spread=stdev(test.accuracy for test in tests) if len(tests) > 1 else None,
        noise_floor=noise_floor([test.accuracy for test in tests]) if len(tests) > 1 else None,
        interval=accuracy_interval(row.done),
        n=tests[0].n if tests else None,
        macro_f1=_mean(run.answers.macro_f1 for run in row.done if run.answers is not None),
        metrics={
            name: value
            for name in dict.fromkeys(name for result in done for name in result.metrics)
            if (value := _mean(result.metrics.get(name) for result in done)) is not None
        },
        published=row.published,
        unjudged=published.other_origin(done) if done and row.published else "",
        seconds=_mean(result.seconds for result in done),
        frozen_seconds=sum(result.frozen_seconds for result in done),
        peak_memory_mb=_max(result.peak_memory_mb for result in done),
        trainable=_max(result.trainable for result in done),
        checkpoint_mb=_max(result.checkpoint_mb for result in done),
        status="not converged" if trouble and len(row.done) == len(row.runs) else _status(row.runs),
        reason=next((run.reason for run in row.runs if run.status != "done"), ""),
        converged=not trouble,
        notes=_notes(row, trouble),
        baseline=any(result.baseline for result in done),
        choice=row.choice,
        untuned=summarize(before_tuning(row), published) if row.choice and row.untuned else None,
        forgetting=_forgetting(row.done),
    )


def before_tuning(row: SweepRow) -> SweepRow:
    """Return a row with the runs as its file says; one that was not tuned as it is."""
    return replace(row, runs=row.untuned, choice=None) if row.choice else row


def accuracy_interval(runs: Sequence[RunState]) -> tuple[float, float] | None:
    """Return the 95% interval of the mean test accuracy of a row; None without runs.

    With one seed it is Wilson's interval for the number of test examples, or of pairs
    :func:`ftkit.results.preferences.preference_interval`. With several, whose answers are known,
    the noise of the test set and the spread between seeds are estimated apart
    (:func:`ftkit.results.statistics.seed_spread`), and Wilson's interval is taken for the number of examples that
    would alone give that standard error, with Student's t for its degrees of freedom, since two or three seeds say
    little of their spread; so it covers new examples and new seeds. Without prediction files, or with one example, it
    is that of one test set with the mean accuracy.
    """
    tests = [run.result.splits["test"] for run in runs if run.result is not None and "test" in run.result.splits]
    if not tests:
        return None
    if len(tests) == 1:
        return interval_of_counts(tests[0].n, tests[0].correct, tests[0].ties)
    mean, n = fmean(test.accuracy for test in tests), float(tests[0].n)
    degrees_of_freedom = math.inf
    answers = over_seeds([run.answers for run in runs])
    if answers is not None and len(answers) > 1:
        spread = seed_spread(answers.correct / WON)
        degrees_of_freedom = spread.degrees_of_freedom
        n = mean * (1 - mean) / spread.standard_error**2 if spread.standard_error else n
    low, high = wilson_limits(mean, n, float(stats.t.isf(0.025, degrees_of_freedom)))
    return float(low), float(high)


def _forgetting(runs: Sequence[RunState]) -> dict[str, Forgetting]:
    """Return what was forgotten, by the name of the texts, where every run has measured it."""
    names = [name for name in (runs[0].losses if runs else ()) if all(name in run.losses for run in runs)]
    found = {name: forgetting([run.losses[name] for run in runs]) for name in names}
    return {name: one for name, one in found.items() if one is not None}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _max(values: Iterable[T | None]) -> T | None:
    return max((value for value in values if value is not None), default=None)


def _status(runs: Sequence[RunState]) -> str:
    statuses = [run.status for run in runs]
    if not statuses:
        return NOT_RUN
    if len(set(statuses)) == 1:
        return EXTERNAL if any(run.external for run in runs) else statuses[0]
    return f"{statuses.count('done')} of {len(statuses)} seeds"


def _notes(row: SweepRow, trouble: Mapping[int, str]) -> list[str]:
    several = len(row.runs) > 1
    stated = [
        f"made elsewhere, read from {run.identity[EXTERNAL]['predictions']}; its costs are as stated, not measured"
        for run in row.done[:1]
        if run.external
    ]
    missing = [
        (f"seed {run.seed}: " if several else "") + run.status + (f": {run.reason}" if run.reason else "")
        for run in row.runs
        if run.status != "done"
    ]
    missing += [f"{f'seed {seed}: ' if several else ''}not converged: {reason}" for seed, reason in trouble.items()]
    return [*stated, *missing] + [
        f"seed {run.seed} was run otherwise than seed {row.done[0].seed}: {differing}"
        for run in row.done[1:]
        if not run.external and (differing := _differing(row.done[0], run))
    ]


def _differing(one: RunState, other: RunState) -> str:
    """Return the settings besides the seed in which two runs of a row differ: their mean mixes two variants."""
    found = changes(one.identity, other.identity).items()
    return in_words({name: words for name, words in found if name.rpartition(".")[2] not in SEEDS})
