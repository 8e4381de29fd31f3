"""The table of an ablation, from its output folder alone: a line per row, our figures and the published."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from ftkit.ablation.analysis import Analysis
from ftkit.ablation.claim_findings import JudgedClaim
from ftkit.ablation.folder import Format
from ftkit.ablation.identity import in_words
from ftkit.ablation.summary import NOT_RUN, RowSummary, rows_text
from ftkit.report.ablation_columns import STATUS, columns, cut
from ftkit.report.ablation_notes import changes, notes
from ftkit.report.claims import claim_lines, claimed
from ftkit.report.document import Table, table_lines
from ftkit.report.forgetting import forgetting_record
from ftkit.report.search import searched

_TERMINAL = 150  # columns
_LEAST_STATUS = len("not converged")


def table(analysis: Analysis, format: Format, timing: bool = True) -> str:
    """Return the table of an ablation.

    Args:
        analysis: The rows, compared.
        format: ``markdown``, ``csv`` or ``json`` (unrounded, for programs), ``spreadsheet`` (as CSV, with no cell that
            such a program would take for a formula) or ``text`` (for a terminal of 150 columns).
        timing: With what differs from run to run: seconds, memory, size of the checkpoint, and the front made of them.
    """
    if format in ("csv", "spreadsheet"):
        records = [record(row, timing, analysis.claim) for row in analysis.rows]
        if format == "spreadsheet":
            records = [{name: spreadsheet_cell(cell) for name, cell in row.items()} for row in records]
        return _csv(records)
    if format == "json":
        found = [record(row, timing, analysis.claim) for row in analysis.rows]
        return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    pipes = format == "markdown"
    lines = table_lines(compact(analysis, timing, None if pipes else _TERMINAL), pipes)
    bullet = "- " if pipes else ""
    left_out = [row for row in analysis.rows if row.status == NOT_RUN]
    not_run = [f"Not run: {rows_text(left_out)}."] if left_out else []
    below = (*notes(analysis, timing), *not_run, *changes(analysis), *claim_lines(analysis))
    return "\n".join([*lines, "", *(bullet + line for line in below)]) + "\n"


def record(row: RowSummary, timing: bool = True, claim: JudgedClaim | None = None) -> dict[str, Any]:
    """Return a row's figures, unrounded and flat; None for what is not known."""
    low, high = row.interval or (None, None)
    compared, published = row.comparison, row.published
    measured = {
        "seconds": row.seconds,
        "frozen_seconds": row.frozen_seconds,
        "peak_memory_mb": row.peak_memory_mb,
        "checkpoint_mb": row.checkpoint_mb,
        "on_front": row.on_front,
    }
    if row.planned is not None:
        measured |= {f"planned_{name}": value for name, value in asdict(row.planned).items()}
    return {
        "row": row.number,
        "name": row.name,
        "seeds": " ".join(map(str, row.seeds)),
        "train": row.train,
        "val": row.val,
        "test": row.test,
        "test_spread": row.spread,
        **({} if row.noise_floor is None else {"noise_floor": row.noise_floor}),
        "test_low": low,
        "test_high": high,
        "n": row.n,
        **({} if row.macro_f1 is None else {"test_macro_f1": row.macro_f1}),
        **_without_duplicates(row),
        **forgetting_record(row),
        "test_metrics": "; ".join(f"{name}={value!r}" for name, value in row.metrics.items()),
        "difference": compared and compared.difference,
        "difference_low": compared and compared.interval[0],
        "difference_high": compared and compared.interval[1],
        "disagreements": compared and compared.disagreements,
        "p": compared and compared.p,
        "p_holm": compared and compared.p_holm,
        "probability_ahead": compared and compared.ahead,
        "published_train_percent": published and published.train,
        "published_val_percent": published and published.val,
        "published_test_percent": published and published.test,
        "published_minutes": published and published.minutes,
        "published_inside": row.published_inside,
        **(measured if timing else {}),
        "trainable_parameters": row.trainable,
        **searched(row),
        **claimed(claim, row.number),
        "status": row.status,
        "converged": row.converged if row.test is not None else None,
        "notes": " / ".join(row.notes),
        "differs": in_words(row.differs or {}),
    }


def _without_duplicates(row: RowSummary) -> dict[str, Any]:
    if (effect := row.duplicates) is None:
        return {}
    check = row.comparison and row.comparison.duplicates
    return {
        "test_duplicates_in_train": effect.in_train,
        "n_duplicates_in_train": effect.n_in_train,
        "test_without_duplicates": effect.rest,
        "difference_without_duplicates": check and check.n and check.difference,
        "p_holm_without_duplicates": check and check.p_holm,
        "difference_low_clusters": check and check.clusters_interval[0],
        "difference_high_clusters": check and check.clusters_interval[1],
        "p_holm_clusters": check and check.clusters_p_holm,
        "depends_on_duplicates": row.comparison and row.comparison.depends_on_duplicates,
    }


def spreadsheet_cell(cell: Any) -> Any:
    """Return a cell that no spreadsheet program takes for a formula: an apostrophe is put before a text. Numbers stay.

    Source: OWASP, CSV injection.

    Example:
        >>> spreadsheet_cell("=1+1"), spreadsheet_cell("ok"), spreadsheet_cell(-0.5)
        ("'=1+1", 'ok', -0.5)
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def figure_names(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of all figures that rows have; one without classes, or that has not run, has fewer."""
    return list(dict.fromkeys(name for one in records for name in one))


def _csv(records: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, figure_names(records), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


def compact(analysis: Analysis, timing: bool = True, most: int | None = None) -> Table:
    """Return the table with short headers, without the rows that were not run.

    Where a line may have ``most`` letters only, the status gives way.
    """
    shown = columns(replace(analysis, rows=analysis.ran), timing)
    head = [column.header for column in shown]
    rows = [[column.show(row) for column in shown] for row in analysis.ran]
    if most is not None and head[-1] == STATUS:
        others = [max(3, *map(len, cells)) for cells in zip(head, *rows, strict=True)][:-1]
        room = max(_LEAST_STATUS, most - sum(others) - 2 * len(others))
        rows = [[*cells[:-1], cut(cells[-1], room)] for cells in rows]
    right = frozenset(place for place, column in enumerate(shown) if not column.left)
    return Table(head, rows, right, rule=True)
