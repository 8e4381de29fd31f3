"""What a search over settings found, in words and figures."""

from collections.abc import Iterator
from typing import Any

from ftkit.ablation.analysis import Analysis
from ftkit.ablation.setting import short_setting
from ftkit.ablation.summary import RowSummary, rows_text, seeds_text
from ftkit.results.comparison import Comparison


def searched(row: RowSummary) -> dict[str, Any]:
    """Return what a search chose for a row, if there was one, unrounded and flat."""
    choice, untuned = row.choice, row.untuned
    if choice is None:
        return {}
    return {
        "setting": "; ".join(f"{path}={value!r}" for path, value in choice.setting.items()),
        "tries": len(choice.tries),
        "tries_stopped_early": len(choice.pruned),
        "monitor": choice.monitor,
        "monitor_value": choice.value,
        "edges": "; ".join(f"{path}={end}" for path, end in choice.edges.items()),
        "tests_looked_at": choice.looks,
        "untuned_test": untuned and untuned.test,
    }


def search_notes(analysis: Analysis) -> Iterator[str]:
    """Yield what was searched, and what a reader has to mind of it."""
    tuned = [(row, row.choice) for row in analysis.rows if row.choice is not None]
    if not tuned:
        return
    how = {f"{'lowest' if one.mode == 'min' else 'highest'} {one.monitor}" for _, one in tuned}
    seeds = {seeds_text(one.seeds) for _, one in tuned}
    yield (
        f"setting: chosen on validation, by the {' or '.join(sorted(how))}, mean over {' or '.join(sorted(seeds))}; "
        "all figures are of that setting, and settings that were not chosen were not tested. "
        "untuned: the row as its file says."
    )
    by_tries: dict[int, list[RowSummary]] = {}
    for row, one in tuned:
        by_tries.setdefault(len(one.tries), []).append(row)
    if len(by_tries) > 1:
        shown = "; ".join(f"{rows_text(rows)} had {tries}" for tries, rows in sorted(by_tries.items()))
        yield f"Not the same chance for all: {shown} tries."
    if stopped := [f"{len(one.pruned)} of row {row.number}" for row, one in tuned if one.pruned]:
        yield f"Tries that were stopped early by their validation, and so were not chosen: {', '.join(stopped)}."
    if missing := [row for row in analysis.rows if row.test is not None and not row.baseline and row.choice is None]:
        yield f"Not tuned: {rows_text(missing)}."
    for row in analysis.rows:
        yield from _of_row(row, analysis)


def _of_row(row: RowSummary, analysis: Analysis) -> Iterator[str]:
    if row.choice is None:
        return
    for path, end in row.choice.edges.items():
        value = short_setting({path: row.choice.setting[path]})
        more = "larger" if end == "largest" else "smaller"
        yield f"{row.label}: best at the edge of its range: {value} is the {end} that was tried; try {more} ones."
    if row.choice.looks > 1:
        yield (
            f"{row.label}: tests looked at: {row.choice.looks}, for an earlier search chose another setting, which was "
            "tested too."
        )
    untuned = row.untuned and row.untuned.comparison
    if untuned and row.comparison and _finding(untuned) != _finding(row.comparison):
        yield (
            f"{row.label}: untuned {_finding(untuned)} row {analysis.reference.number} ({_points(untuned)}), "
            f"tuned {_finding(row.comparison)} it ({_points(row.comparison)})."
        )


def _finding(comparison: Comparison) -> str:
    if not comparison.significant:
        return "not significantly different from"
    return f"significantly {'better' if comparison.difference > 0 else 'worse'} than"


def _points(comparison: Comparison) -> str:
    return f"{100 * comparison.difference:+.1f} points"
