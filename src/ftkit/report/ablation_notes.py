"""The lines below the table: what its figures are, what its marks mean, and what is special about single rows."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from ftkit.ablation.analysis import Analysis
from ftkit.ablation.folder import format_numbers
from ftkit.ablation.summary import NOT_RUN, RowSummary, rows_text, seeds_text
from ftkit.report.ablation_baselines import baseline_lines
from ftkit.report.duplicates import dependences
from ftkit.report.forgetting import forgetting_notes
from ftkit.report.search import search_notes
from ftkit.report.words import plural
from ftkit.results.duplicates import duplicates_line
from ftkit.results.statistics import ALPHA


def notes(analysis: Analysis, timing: bool = True) -> list[str]:
    """Return the lines below the table, without bullets."""
    rows = analysis.rows
    done = [row for row in rows if row.test is not None]
    lines = [*_figures(analysis)] if done else []
    lines += _duplicates(analysis)
    lines += _comparisons(analysis)
    lines += baseline_lines(analysis, timing)
    lines += search_notes(analysis)
    lines += forgetting_notes(analysis.rows)
    lines += _selected(analysis)
    lines += _published(analysis)
    if timing and done:
        lines += _costs(analysis)
    return [*lines, *(f"{row.label}: {note}" for row in rows for note in row.notes)]


def _duplicates(analysis: Analysis) -> Iterator[str]:
    found: dict[str, list[tuple[int, int]]] = {}
    for row in analysis.sweep.rows:
        for run in row.done:
            assert run.result is not None
            if counts := (run.result.raw.get("data") or {}).get("duplicates"):
                found.setdefault(duplicates_line(counts), []).append((row.number, run.seed))
    yield from (f"{line}{f' ({_runs_text(runs)})' if len(found) > 1 else ''}." for line, runs in found.items())
    effects = [row.duplicates for row in analysis.rows if row.duplicates is not None and row.duplicates.n_in_train]
    if effects:
        n, of = effects[0].n_in_train, effects[0].n_in_train + effects[0].n_rest
        yield f"no dup.: test without the {n:,} of {of:,} examples that have a duplicate or near-duplicate in train."
        yield from dependences((row.label, row.comparison) for row in analysis.rows)


def _runs_text(runs: Iterable[tuple[int, int]]) -> str:
    """Return runs, given by row and seed, in words, such as ``rows 1-3, seed 2``."""
    numbers, seeds = (sorted(set(one)) for one in zip(*runs, strict=True))
    return f"row{'s' * (len(numbers) > 1)} {format_numbers(numbers)}, {seeds_text(seeds)}"


def _figures(analysis: Analysis) -> Iterator[str]:
    rows = [row for row in analysis.rows if row.test is not None]
    results = analysis.sweep.results
    several = any(row.spread is not None for row in rows)
    of_pairs = any(result.splits["test"].ties is not None for result in results if "test" in result.splits)
    method = "of pairs exact against a coin, a tie counting as half" if of_pairs else "Wilson"
    method = "over examples and seeds" if several else method
    yield (
        f"Accuracies in %; test: n = {_list(row.n for row in rows)}, 95% interval ({method}), "
        f"{seeds_text(sorted({seed for row in rows for seed in row.seeds}))}; "
        f"data: {_list(result.data_source for result in results)}; "
        f"device: {_list(result.device for result in results)}."
    )
    by_seeds: dict[str, list[RowSummary]] = {}
    for row in rows:
        by_seeds.setdefault(seeds_text(row.seeds), []).append(row)
    if len(by_seeds) > 1:
        parts = "; ".join(f"{rows_text(group)} with {seeds}" for seeds, group in by_seeds.items())
        yield f"Not all rows were run with the same seeds: {parts}."
    if several:
        yield "Means over the seeds; ± sd: spread between seeds; the interval covers new seeds and new test examples."
    yield from _noise(analysis)


def _noise(analysis: Analysis) -> Iterator[str]:
    """Yield how far the reference lies from itself with other seeds, and which rows are within that."""
    reference = analysis.reference
    if (floor := reference.noise_floor) is None:
        return
    seeds = len(reference.seeds)
    means = floor / math.sqrt(seeds)
    within = [row for row, comparison in analysis.compared if abs(comparison.difference) <= means]
    yield (
        f"Noise floor: two runs of row {reference.number} with different seeds are up to {100 * floor:.2f} points "
        f"apart, two means over {seeds} seeds up to {100 * means:.2f} (95%, by the spread of {seeds} seeds)"
        + (f"; within that of row {reference.number}: {rows_text(within)}." if within else ".")
    )


def _comparisons(analysis: Analysis) -> Iterator[str]:
    compared, reference = analysis.compared, analysis.reference
    others = [row for row in analysis.rows if row.test is not None and row.number != reference.number]
    others = [row for row in others if reference.baseline or not row.baseline]  # those have their own
    name = f"row {reference.number}"
    if compared:
        common = len({tuple(row.seeds) for row in (reference, *(row for row, _ in compared))}) > 1
        several = any(len(comparison.seeds) > 1 for _, comparison in compared)
        test = "sign-flip test, seeds as they are," if several else "McNemar test"
        named = analysis.comparisons - len(compared)
        yield (
            f"vs {reference.number}: test accuracy minus that of {name} ({reference.name})"
            f"{', over the seeds that both have' if common else ''}; "
            f"* p < {ALPHA} in an exact {test} on the same examples, after Holm's correction for "
            f"{plural(analysis.comparisons, 'comparison')}"
            f"{f', {named} of them with rows that a question names' if named else ''}."
        )
    if unsure := [row for row, comparison in compared if not comparison.converged]:
        culprits = [row for row in analysis.rows if row.test is not None and not row.converged]
        yield f"No star for {rows_text(unsure)}: {rows_text(culprits)} did not converge, see below."
    if hopeless := [row for row, comparison in compared if comparison.hopeless]:
        yield f"Predictions too similar to {name}'s for any test to be significant: {rows_text(hopeless)}."
    if bare := [row for row in analysis.rows if row.test is None and row.metrics]:
        yield f"Without predictions (test_step returns none), so without accuracy and comparison: {rows_text(bare)}."
    if missing := [row for row in others if row.comparison is None]:
        shared = "no seed, test examples or prediction files in common"
        reason = "which has no results" if reference.test is None else shared
        yield f"Not compared with {name} ({reason}): {rows_text(missing)}."


def _selected(analysis: Analysis) -> Iterator[str]:
    """Say of the rows that were tested with their best checkpoint which one that is."""
    chosen: dict[str, list[str]] = {}
    for row in analysis.sweep.rows:
        for run in row.done:
            if run.result is not None and (found := run.result.raw.get("model_selection")):
                at = f"row {row.number} (seed {run.seed}) epoch {found['epoch']}, {found['value']:.4g}"
                chosen.setdefault(found["metric"], []).append(at)
    for metric, runs in chosen.items():
        listing = "; ".join(runs)
        yield f"Tested with the checkpoint that has the best {metric} on validation (epochs count from 0): {listing}."


def _published(analysis: Analysis) -> Iterator[str]:
    published = analysis.sweep.published
    if published.source:
        yield f"publ.: {published.source}"
    if any(row.published_inside is not None for row in analysis.rows):
        yield "in: whether the published test accuracy lies in our interval."
    for reason in dict.fromkeys(row.unjudged for row in analysis.rows if row.unjudged):
        rows = [row for row in analysis.rows if row.unjudged == reason]
        yield f"in: not comparable with the published figures: {rows_text(rows)} ({reason})."
    for row in analysis.rows:
        if row.status != NOT_RUN and row.published and row.published.note:
            yield f"{row.label}, published: {row.published.note}"


def _costs(analysis: Analysis) -> Iterator[str]:
    if shared := [row for row in analysis.rows if row.frozen_seconds]:
        paid = ", ".join(f"row {row.number} {row.frozen_seconds:,.1f}" for row in shared if row.frozen_seconds >= 0.05)
        yield (
            "sec.: seconds exclude computing cached frozen-layer features "
            f"({sum(row.frozen_seconds for row in shared):,.1f} s in all{f': {paid}' if paid else ''})."
        )
    if any(row.peak_memory_mb is not None for row in analysis.rows):
        yield _memory(on_cpu=any(machine.startswith("cpu") for machine in analysis.machines))
    for device in sorted({row.planned.device for row in analysis.rows if row.planned}):
        yield f"planned s, planned MB: what a run was planned to take on {device}, before it was made."
    if len(analysis.machines) > 1:
        yield f"Costs do not compare: the rows ran on different machines ({' | '.join(analysis.machines)})."
    else:
        yield f"front: no other row is at once as accurate, as fast and as small in memory ({analysis.machines[0]})."


def _memory(on_cpu: bool) -> str:
    if not on_cpu:
        return "peak MB: most memory allocated on the GPU during training."
    return (
        "peak MB: most resident memory of the whole process during training, libraries included. A process keeps some "
        "of what its earlier rows needed: the same row took up to a sixth more late in a sweep than first. For figures "
        "that compare closely, run each row in a process of its own."
    )


def changes(analysis: Analysis) -> Iterator[str]:
    """Yield in what each row was run otherwise than the reference."""
    changed = [row for row in analysis.rows if row.differs is not None]
    if changed:
        yield f"What was run differs from row {analysis.reference.number} in exactly:"
    for row in changed:
        yield f"{row.label}: {changed_settings(row) or 'nothing'}"


def changed_settings(row: RowSummary) -> str:
    """Return in what a row differs from the reference: settings as a row file nests them, without shared levels."""
    named = (
        (name.removeprefix("config.").replace(".init_args.", "."), words) for name, words in (row.differs or {}).items()
    )
    return "; ".join(f"{name}: {words}" for name, words in named)


def _list(values: Iterable[Any]) -> str:
    return ", ".join(map(str, sorted(set(values))))
