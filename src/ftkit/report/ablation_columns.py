"""The columns of the table of an ablation: what each shows of a row, and where it has something to say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ftkit.ablation.analysis import Analysis
from ftkit.ablation.setting import short_setting
from ftkit.ablation.summary import RowSummary
from ftkit.report.forgetting import forgotten, text_names
from ftkit.run_folder import SplitName

STATUS = "status"
_LETTERS = 60  # of a status with its reason, less where a terminal has no room
Show = Callable[[RowSummary], str]


@dataclass(frozen=True)
class Column:
    """A column for people."""

    header: str  # its title where room is scarce: on a terminal and in Markdown
    title: str  # its title on a page
    show: Show  # the text of a row's cell
    shown: bool = True  # whether it has something to say
    left: bool = False  # aligned left, as words are
    main: bool = False  # among the first on a page


def columns(analysis: Analysis, timing: bool = True) -> list[Column]:
    """Return the columns that have something to say."""
    rows, reference = analysis.rows, analysis.reference.number
    published, planned = any(row.published for row in rows), any(row.planned for row in rows)
    seeds, classes = any(row.spread is not None for row in rows), any(row.macro_f1 is not None for row in rows)
    duplicates = any(row.duplicates is not None and row.duplicates.n_in_train > 0 for row in rows)
    without = "test accuracy without duplicates in train, %"
    open_rows = any(row.status != "done" for row in rows)
    # Of rows that have no accuracy, for want of predictions, the logged figures are shown.
    logged = dict.fromkeys(name for row in rows if row.test is None for name in row.metrics)
    every = [
        Column("row", "row", lambda row: str(row.number), main=True),
        Column("name", "variant", lambda row: row.name, left=True, main=True),
        Column("train", "train accuracy, %", _percent(lambda row: row.train)),
        Column("publ.", "published train, %", _published("train"), published),
        Column("val", "validation accuracy, %", _percent(lambda row: row.val)),
        Column("publ.", "published validation, %", _published("val"), published),
        Column("test", "test accuracy, %", _test, main=True),
        Column("± sd", "standard deviation between seeds", _percent(lambda row: row.spread), seeds, main=True),
        Column("95% int.", "95% interval", _interval, main=True),
        *_search_columns(rows),
        Column("mac. F1", "test macro F1, %", _percent(lambda row: row.macro_f1), classes, main=True),
        Column("no dup.", without, _percent(lambda row: getattr(row.duplicates, "rest", None)), duplicates, main=True),
        Column("publ.", "published test, %", _published("test"), published),
        Column("in", "published test within our interval", _inside, published),
        Column(f"vs {reference}", f"difference from row {reference}, points", _difference(reference), main=True),
        *(Column(name, f"forgetting of {name}, nats a token", forgotten(name), main=True) for name in text_names(rows)),
        *(Column(name, name, _logged(name)) for name in logged),
        Column("sec.", "seconds per run", _number(lambda row: row.seconds, ",.1f"), timing),
        Column("planned s", "planned seconds per run", _planned("seconds", ",.1f"), timing and planned),
        Column("peak MB", "peak memory, MB", _number(lambda row: row.peak_memory_mb, ",.0f"), timing),
        Column("planned MB", "planned peak memory, MB", _planned("peak_memory_mb", ",.0f"), timing and planned),
        Column("params", "trainable parameters", lambda row: _count(row.trainable)),
        Column("ckpt MB", "checkpoint, MB", _number(lambda row: row.checkpoint_mb, ",.1f"), timing),
        Column("front", "on the Pareto front", lambda row: "yes" if row.on_front else "", timing),
        Column(STATUS, STATUS, lambda row: cut(status(row), _LETTERS), open_rows, left=True, main=True),
    ]
    return [column for column in every if column.shown]


def _search_columns(rows: Sequence[RowSummary]) -> list[Column]:
    """Return what a search chose for each row, and how the row does as its file says."""
    if not any(row.choice for row in rows):
        return []
    return [
        Column("setting", "chosen setting", _setting, left=True),
        Column("tries", "settings that were tried", lambda row: str(len(row.choice.tries)) if row.choice else ""),
        Column("untuned", "test accuracy untuned, %", lambda row: _test(row.untuned) if row.untuned else "", main=True),
    ]


def _setting(row: RowSummary) -> str:
    return short_setting(row.choice.setting) if row.choice else ""


def _number(value_of: Callable[[RowSummary], float | None], form: str) -> Show:
    """Return what shows a figure of a row, or nothing where there is none."""
    return lambda row: "" if (value := value_of(row)) is None else format(value, form)


def _percent(share_of: Callable[[RowSummary], float | None]) -> Show:
    return _number(lambda row: None if (share := share_of(row)) is None else 100 * share, ".2f")


_test = _percent(lambda row: row.test)


def _planned(name: str, form: str) -> Show:
    return _number(lambda row: getattr(row.planned, name, None), form)


def _logged(name: str) -> Show:
    return _number(lambda row: row.metrics.get(name), ".4g")


def _published(split: SplitName) -> Show:
    return _number(lambda row: row.published_figure(split), ".2f")


def _interval(row: RowSummary) -> str:
    return f"{row.interval[0] * 100:.1f}-{row.interval[1] * 100:.1f}" if row.interval else ""


def _inside(row: RowSummary) -> str:
    return {True: "yes", False: "no", None: ""}[row.published_inside]


def _difference(reference: int) -> Show:
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


def cut(text: str, most: int) -> str:
    """Return a text of at most so many letters."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _count(value: int | None) -> str:
    """A number of parameters in three or four digits: 1,538 or 7.09M."""
    if value is None or value < 10_000:
        return "" if value is None else f"{value:,}"
    return f"{value / 1e6:.4g}M" if value >= 1_000_000 else f"{value / 1e3:.4g}k"
