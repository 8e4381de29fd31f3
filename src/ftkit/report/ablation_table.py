"""The table of an ablation, from its output folder alone: a line per row, our figures and the published."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ftkit.ablation.analysis import Analysis
from ftkit.ablation.claim_findings import JudgedClaim
from ftkit.ablation.folder import Format
from ftkit.ablation.setting import short_setting
from ftkit.ablation.summary import NOT_RUN, RowSummary, rows_text
from ftkit.report.ablation_notes import changes, notes
from ftkit.report.claims import claim_lines, claimed
from ftkit.report.document import Table, table_lines
from ftkit.report.forgetting import forgetting_record, forgotten, text_names
from ftkit.report.search import searched
from ftkit.run_folder import SplitName

_TERMINAL = 150  # columns
_LEAST_STATUS = len("not converged")
STATUS = "status"
_LETTERS = 60  # of a status with its reason, less where a terminal has no room


@dataclass(frozen=True)
class Column:
    """A column for people."""

    header: str  # its title where room is scarce: on a terminal and in Markdown
    title: str  # its title on a page
    show: Callable[[RowSummary], str]  # the text of a row's cell
    shown: bool = True  # whether it has something to say
    left: bool = False  # aligned left, as words are
    main: bool = False  # among the first on a page


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
        **(searched(row) if row.choice else {}),
        **claimed(claim, row.number),
        "status": row.status,
        "converged": row.converged if row.test is not None else None,
        "notes": " / ".join(row.notes),
        "differs": "; ".join(f"{name}: {words}" for name, words in (row.differs or {}).items()),
    }


def _without(row: RowSummary) -> str:
    if row.duplicates is None or row.duplicates.rest is None:
        return ""
    return f"{100 * row.duplicates.rest:.2f}"


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


def columns(analysis: Analysis, timing: bool = True) -> list[Column]:
    """Return the columns that have something to say."""
    rows, reference = analysis.rows, analysis.reference.number
    published = any(row.published for row in rows)
    planned = any(row.planned for row in rows)
    # Of rows that have no accuracy, for want of predictions, the logged figures are shown.
    logged = dict.fromkeys(name for row in rows if row.test is None for name in row.metrics)
    every = [
        Column("row", "row", lambda row: str(row.number), main=True),
        Column("name", "variant", lambda row: row.name, left=True, main=True),
        Column("train", "train accuracy, %", _value("train", ".2f", 100)),
        Column("publ.", "published train, %", _published("train"), published),
        Column("val", "validation accuracy, %", _value("val", ".2f", 100)),
        Column("publ.", "published validation, %", _published("val"), published),
        Column("test", "test accuracy, %", _value("test", ".2f", 100), main=True),
        Column(
            "± sd",
            "standard deviation between seeds",
            _value("spread", ".2f", 100),
            any(row.spread is not None for row in rows),
            main=True,
        ),
        Column("95% int.", "95% interval", _interval, main=True),
        *search_columns(rows),
        Column(
            "mac. F1",
            "test macro F1, %",
            _value("macro_f1", ".2f", 100),
            any(row.macro_f1 is not None for row in rows),
            main=True,
        ),
        Column(
            "no dup.",
            "test accuracy without duplicates in train, %",
            _without,
            any(row.duplicates is not None and row.duplicates.n_in_train > 0 for row in rows),
            main=True,
        ),
        Column("publ.", "published test, %", _published("test"), published),
        Column("in", "published test within our interval", _inside, published),
        Column(f"vs {reference}", f"difference from row {reference}, points", _difference(reference), main=True),
        *(Column(name, f"forgetting of {name}, nats a token", forgotten(name), main=True) for name in text_names(rows)),
        *(Column(name, name, _logged(name)) for name in logged),
        Column("sec.", "seconds per run", _value("seconds", ",.1f"), timing),
        Column("planned s", "planned seconds per run", _planned("seconds", ",.1f"), timing and planned),
        Column("peak MB", "peak memory, MB", _value("peak_memory_mb", ",.0f"), timing),
        Column("planned MB", "planned peak memory, MB", _planned("peak_memory_mb", ",.0f"), timing and planned),
        Column("params", "trainable parameters", lambda row: _count(row.trainable)),
        Column("ckpt MB", "checkpoint, MB", _value("checkpoint_mb", ",.1f"), timing),
        Column("front", "on the Pareto front", lambda row: "yes" if row.on_front else "", timing),
        Column(
            STATUS,
            STATUS,
            lambda row: _cut(status(row), _LETTERS),
            any(row.status != "done" for row in rows),
            True,
            True,
        ),
    ]
    return [column for column in every if column.shown]


def search_columns(rows: Sequence[RowSummary]) -> list[Column]:
    """Return what a search chose for each row, and how the row does as its file says."""
    if not any(row.choice for row in rows):
        return []
    test = _value("test", ".2f", 100)
    return [
        Column("setting", "chosen setting", _setting, left=True),
        Column("tries", "settings that were tried", lambda row: str(len(row.choice.tries)) if row.choice else ""),
        Column("untuned", "test accuracy untuned, %", lambda row: test(row.untuned) if row.untuned else "", main=True),
    ]


def _setting(row: RowSummary) -> str:
    return short_setting(row.choice.setting) if row.choice else ""


def _value(name: str, form: str, scale: int = 1) -> Callable[[RowSummary], str]:
    def show(row: RowSummary) -> str:
        value = getattr(row, name)
        return _number(None if value is None else scale * value, form)

    return show


def _planned(name: str, form: str) -> Callable[[RowSummary], str]:
    return lambda row: _number(getattr(row.planned, name, None), form)


def _logged(name: str) -> Callable[[RowSummary], str]:
    return lambda row: _number(row.metrics.get(name), ".4g")


def _published(split: SplitName) -> Callable[[RowSummary], str]:
    return lambda row: _number(row.published_figure(split), ".2f")


def _interval(row: RowSummary) -> str:
    return f"{row.interval[0] * 100:.1f}-{row.interval[1] * 100:.1f}" if row.interval else ""


def _inside(row: RowSummary) -> str:
    return {True: "yes", False: "no", None: ""}[row.published_inside]


def _difference(reference: int) -> Callable[[RowSummary], str]:
    def show(row: RowSummary) -> str:
        if row.number == reference:
            return "ref. "
        if row.comparison is None:
            return ""
        return f"{row.comparison.difference * 100:+.2f}{'*' if row.comparison.significant else ' '}"

    return show


def status(row: RowSummary) -> str:
    """Return the status of a row and the first line of why it has no figures; the notes give the reason in full."""
    reason = row.reason.partition("\n")[0]
    return f"{row.status}: {reason}" if reason else row.status


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _count(value: int | None) -> str:
    """A number of parameters in three or four digits: 1,538 or 7.09M."""
    if value is None or value < 10_000:
        return _number(value, ",")
    return f"{value / 1e6:.4g}M" if value >= 1_000_000 else f"{value / 1e3:.4g}k"


def spreadsheet_cell(cell: Any) -> Any:
    """Return a cell that no spreadsheet program takes for a formula: an apostrophe is put before a text. Numbers stay.

    Source: OWASP, CSV injection.

    Example:
        >>> spreadsheet_cell("=1+1"), spreadsheet_cell("ok"), spreadsheet_cell(-0.5)
        ("'=1+1", 'ok', -0.5)
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _csv(records: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    names = list(dict.fromkeys(name for one in records for name in one))  # a row without classes has fewer
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


def compact(analysis: Analysis, timing: bool = True, most: int | None = None) -> Table:
    """Return the table with short headers, without the rows that were not run.

    If it may have so many letters a line at ``most``, the status gives way.
    """
    ran = [row for row in analysis.rows if row.status != NOT_RUN]
    shown = columns(replace(analysis, rows=ran), timing)
    head = [column.header for column in shown]
    rows = [[column.show(row) for column in shown] for row in ran]
    if most is not None and head[-1] == STATUS:
        others = [max(3, *map(len, cells)) for cells in zip(head, *rows, strict=True)][:-1]
        room = max(_LEAST_STATUS, most - sum(others) - 2 * len(others))
        rows = [[*cells[:-1], _cut(cells[-1], room)] for cells in rows]
    right = frozenset(place for place, column in enumerate(shown) if not column.left)
    return Table(head, rows, right, rule=True)
