"""What an output folder says: each row by itself, against the reference row, and its worth for its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ftkit.ablation.folder import format_numbers
from ftkit.ablation.identity import changes
from ftkit.ablation.paired import Comparison, compare
from ftkit.ablation.pareto import pareto_front
from ftkit.ablation.summary import RowSummary, summarise
from ftkit.ablation.sweep import Sweep, SweepRow, read_sweep
from ftkit.errors import InputError
from ftkit.evaluation.statistics import holm


@dataclass(frozen=True)
class Analysis:
    """A sweep and what follows from it; tables and reports only show it.

    Args:
        sweep: The output folder.
        rows: The rows in figures.
        reference: The row that the others are compared with.
        machines: What the rows ran on; with more than one, costs cannot be compared.
    """

    sweep: Sweep
    rows: Sequence[RowSummary]
    reference: RowSummary
    machines: Sequence[str]


def analyse(directory: str | Path, reference: int | None = None) -> Analysis:
    """Read an output folder and compare its rows.

    Args:
        directory: The output folder of ``ftkit ablation run``.
        reference: The number of the row to compare with; the first row if not given.

    Raises:
        InputError: ``directory`` is not such a folder, a file in it is damaged, or there is no such row.
    """
    sweep = read_sweep(directory)
    origin = _reference(sweep, reference)
    compared = _comparisons(sweep, origin)
    machines = sorted({cell.result.machine for row in sweep.rows for cell in row.cells if cell.result is not None})
    rows = [
        replace(
            summarise(row, sweep.published),
            comparison=compared.get(row.number),
            differs=None if row is origin else _differences(origin, row),
        )
        for row in sweep.rows
    ]
    if len(machines) == 1:
        rows = _with_front(rows)
    return Analysis(sweep, rows, rows[sweep.rows.index(origin)], machines)


def _reference(sweep: Sweep, number: int | None) -> SweepRow:
    for row in sweep.rows:
        if number in (None, row.number):
            return row
    there = format_numbers([row.number for row in sweep.rows])
    raise InputError(f"there is no row {number}; the rows are {there}", field="reference")


def _comparisons(sweep: Sweep, origin: SweepRow) -> Mapping[int, Comparison]:
    """The comparisons that are possible, by row, corrected for their number."""
    made = {row.number: compare(row, origin) for row in sweep.rows if row is not origin}
    possible = {number: comparison for number, comparison in made.items() if comparison is not None}
    corrected = holm([comparison.p for comparison in possible.values()])
    return {
        number: replace(comparison, p_holm=p_holm)
        for (number, comparison), p_holm in zip(possible.items(), corrected, strict=True)
    }


def _differences(origin: SweepRow, row: SweepRow) -> Mapping[str, str] | None:
    """In what was run, for a seed that both have if there is one."""
    if not origin.done or not row.done:
        return None
    common = {cell.seed for cell in origin.done} & {cell.seed for cell in row.done}
    one, other = (next((cell for cell in cells if cell.seed in common), cells[0]) for cells in (origin.done, row.done))
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
