"""Analyze an output folder: each row by itself, against the reference row, and accuracy against cost."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import le
from pathlib import Path

from ftkit.ablation.claim_findings import JudgedClaim, judge_claim
from ftkit.ablation.folder import SELECTION, format_numbers
from ftkit.ablation.identity import changes
from ftkit.ablation.planned import read_plan
from ftkit.ablation.run_answers import RunAnswers, compare, over_seeds
from ftkit.ablation.summary import NOT_RUN, RowSummary, before_tuning, summarize
from ftkit.ablation.sweep import RunState, Sweep, SweepRow, read_sweep
from ftkit.errors import InputError
from ftkit.results.comparison import Comparison, corrected
from ftkit.results.known_examples import DuplicatesEffect, KnownExamples, beside, known_examples
from ftkit.results.scan import AnswerFile

Answers = Mapping[Path, RunAnswers | None]  # of runs, by their folder
_NAMED_ROWS = re.compile(r"\brow \d+|\brows [\d-]+(?:(?:, ?| and |, and | or )[\d-]+)*", re.IGNORECASE)


@dataclass(frozen=True)
class Analysis:
    """A sweep with its statistics; tables and reports only render it."""

    sweep: Sweep  # the output folder
    rows: Sequence[RowSummary]  # the rows in figures
    reference: RowSummary  # the row that the others are compared with
    machines: Sequence[str]  # what the rows ran on; with more than one, costs cannot be compared
    # The baseline with the best validation accuracy, of equal ones the first; None without baselines.
    best_baseline: RowSummary | None = None
    # The comparisons of trained rows with it, by row number, corrected among themselves.
    over_baseline: Mapping[int, Comparison] = field(default_factory=dict)
    # What the run folders know of the test examples: a duplicate in train is one in that of any row.
    known: KnownExamples | None = None
    claim: JudgedClaim | None = None  # what was found of the claim about the rows, if there is one

    @property
    def ran(self) -> list[RowSummary]:
        """Return the rows that were run, whatever came of it."""
        return [row for row in self.rows if row.status != NOT_RUN]

    @property
    def compared(self) -> list[tuple[RowSummary, Comparison]]:
        """Return the rows that were compared with the reference, and how."""
        return [(row, row.comparison) for row in self.rows if row.comparison is not None]

    @property
    def comparisons(self) -> int:
        """Count the comparisons that were made, and corrected together."""
        return len(self.compared) + sum(len(row.named) for row in self.rows)


def analyse(directory: str | Path, reference: int | None = None) -> Analysis:
    """Read the output folder of ``ftkit ablation run`` and compare its rows with one, the first if none is given.

    Each row is compared with the reference, and one whose question names other rows ("can LoRA stand in for row 5?")
    with each of these too. All p-values are corrected together, so that a table and a report say the same of a row.

    Raises:
        InputError: ``directory`` is not such a folder, a file in it is damaged, or there is no such row.
    """
    sweep = read_sweep(directory)
    origin = _reference(sweep, reference)
    summaries = {row.number: summarize(row, sweep.published) for row in sweep.rows}
    known = known_examples(beside(run.test_predictions) for run in sweep.done)
    answers = {run.directory: run.answers for run in sweep.done}
    if known is not None:
        answers = {folder: None if one is None else known.mark(one) for folder, one in answers.items()}
    converged = {number for number, row in summaries.items() if row.converged}
    baselines = {number for number, row in summaries.items() if row.baseline}
    apart = set() if origin.number in baselines else baselines
    against, named = _comparisons([row for row in sweep.rows if row.number not in apart], origin, converged, answers)
    summaries |= _compared_untuned(sweep, origin, summaries, apart)
    planned = read_plan(Path(directory))
    machines = sorted({result.machine for result in sweep.results})
    rows = [
        replace(
            summaries[row.number],
            comparison=against.get(row.number),
            named={other: found for (one, other), found in named.items() if one == row.number},
            differs=None if row is origin or row.number in apart else _differences(origin, row),
            planned=planned.get(row.number),
            duplicates=DuplicatesEffect.of(found) if (found := _over_seeds(row.done, answers)) is not None else None,
        )
        for row in sweep.rows
    ]
    if len(machines) == 1:
        rows = _with_front(rows)
    validated = [(row.val, -row.number, row) for row in rows if row.baseline and row.val is not None]
    best = max(validated)[2] if validated else None
    trained = [row for row in sweep.rows if row.number not in baselines]
    pairs = [] if best is None else [(row, sweep.rows[rows.index(best)]) for row in trained]
    over = {row: found for (row, _), found in _judged(pairs, converged, answers).items()}
    numbered = {row.number: row for row in sweep.rows}
    claim = None if sweep.claim is None else judge_claim(sweep.claim, numbered, converged)
    return Analysis(sweep, rows, rows[sweep.rows.index(origin)], machines, best, over, known, claim)


def _reference(sweep: Sweep, number: int | None) -> SweepRow:
    for row in sweep.rows:
        if number in (None, row.number):
            return row
    there = format_numbers([row.number for row in sweep.rows])
    raise InputError(f"there is no row {number}; the rows are {there}", field="reference")


def _comparisons(
    rows: Sequence[SweepRow], origin: SweepRow, converged: Collection[int], answers: Answers
) -> tuple[Mapping[int, Comparison], Mapping[tuple[int, int], Comparison]]:
    """Return comparisons with the reference by row, and with named rows by both, all corrected together."""
    others = [row for row in rows if row is not origin]
    pairs = [(row, origin) for row in others]
    pairs += [(row, other) for row in others for other in others if other is not row and _names(row, other)]
    made = _judged(pairs, converged, answers)
    against = {row: found for (row, other), found in made.items() if other == origin.number}
    return against, {both: found for both, found in made.items() if both[1] != origin.number}


def _judged(
    pairs: Sequence[tuple[SweepRow, SweepRow]], converged: Collection[int], answers: Answers
) -> dict[tuple[int, int], Comparison]:
    """Return the comparisons of pairs of rows that can be made, by their numbers, corrected for how many they are."""
    known = {(row.number, other.number): _compared(row, other, answers) for row, other in pairs}
    made = {both: found for both, found in known.items() if found is not None}
    return {
        both: replace(found, converged=set(both) <= set(converged))
        for both, found in zip(made, corrected(list(made.values())), strict=True)
    }


def _compared_untuned(
    sweep: Sweep, origin: SweepRow, summaries: Mapping[int, RowSummary], apart: Collection[int]
) -> dict[int, RowSummary]:
    """Compare the rows as their files say with one another, where they were tuned; corrected by themselves."""
    known = {number: row.untuned for number, row in summaries.items() if row.untuned is not None}
    if not known:
        return {}
    rows = {row.number: before_tuning(row) for row in sweep.rows if row.number not in apart}
    converged = {number for number, row in summaries.items() if known.get(number, row).converged}
    answers = {run.directory: run.answers for row in rows.values() for run in row.done}
    against, _ = _comparisons(list(rows.values()), rows[origin.number], converged, answers)
    return {
        number: replace(summaries[number], untuned=replace(row, comparison=against.get(number)))
        for number, row in known.items()
    }


def _compared(row: SweepRow, other: SweepRow, answers: Answers) -> Comparison | None:
    """Compare two rows over the seeds that both have."""
    seeds = sorted({run.seed for run in row.done} & {run.seed for run in other.done})
    ours, theirs = (_over_seeds([run for run in one.done if run.seed in seeds], answers) for one in (row, other))
    return compare(ours, theirs, seeds)


def _over_seeds(runs: Sequence[RunState], answers: Answers) -> AnswerFile | None:
    return over_seeds([answers[run.directory] for run in runs])


def _names(row: SweepRow, other: SweepRow) -> bool:
    """Return whether the question of a row names another one, as ``row 5`` or ``rows 2, 4-6 and 8`` do."""
    named = " ".join(_NAMED_ROWS.findall(row.question))
    ends = [(int(first), int(last or first)) for first, last in SELECTION.findall(named)]
    return any(first <= other.number <= last for first, last in ends)


def _differences(origin: SweepRow, row: SweepRow) -> Mapping[str, str] | None:
    """Return the settings in which two rows differ, for a seed that both have if there is one."""
    if not origin.done or not row.done or any(run.external for run in (*origin.done, *row.done)):
        return None
    common = {run.seed for run in origin.done} & {run.seed for run in row.done}
    one, other = (next((run for run in runs if run.seed in common), runs[0]) for runs in (origin.done, row.done))
    return changes(one.identity, other.identity)


def _with_front(rows: Sequence[RowSummary]) -> list[RowSummary]:
    known = {
        row.number: (row.test, (row.seconds, row.peak_memory_mb))
        for row in rows
        if row.test is not None and row.seconds is not None and row.peak_memory_mb is not None
    }
    front = pareto_front([accuracy for accuracy, _ in known.values()], [costs for _, costs in known.values()])
    on_front = dict(zip(known, front, strict=True))
    return [replace(row, on_front=on_front.get(row.number)) for row in rows]


def pareto_front(accuracies: Sequence[float], costs: Sequence[tuple[float, ...]]) -> list[bool]:
    """Return whether each candidate lies on the Pareto front.

    A candidate is off the front if another is at least as accurate and at most as costly in every respect, and
    better in one of them.

    Example:
        The second is less accurate and slower than the first; the third is the cheapest.

        >>> pareto_front([0.95, 0.94, 0.90], [(10.0,), (12.0,), (3.0,)])
        [True, False, True]
    """
    points = [(-accuracy, *cost) for accuracy, cost in zip(accuracies, costs, strict=True)]
    beaten = ((other != one and all(map(le, other, one)) for other in points) for one in points)
    return [not any(by) for by in beaten]
