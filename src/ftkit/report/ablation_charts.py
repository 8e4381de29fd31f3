"""The charts of an ablation: accuracy by variant, accuracy against cost, learning curves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import altair as alt

from ftkit.ablation.analysis import Analysis, pareto_front
from ftkit.ablation.convergence import Curve, read_curves
from ftkit.ablation.run_answers import Confusion
from ftkit.ablation.summary import RowSummary
from ftkit.errors import InputError
from ftkit.report.ablation_notes import changed_settings
from ftkit.report.charts import TICKS, Chart, confusion, data, intervals, row_colors
from ftkit.report.class_report import MOST
from ftkit.report.document import Figure
from ftkit.report.forgetting import text_names
from ftkit.report.search_charts import search_figures
from ftkit.report.theme import CATEGORIES

# How a variant compares with the reference, and its color.
VERDICTS = {
    "reference": "var(--soft)",
    "significantly better": CATEGORIES[2],
    "significantly worse": CATEGORIES[1],
    "no significant difference": CATEGORIES[0],
    "not compared": CATEGORIES[3],
}
_POINTS = 24  # of a learning curve; more values are averaged
Curves = Mapping[int, Mapping[str, Curve]]  # of a row: by seed, then by figure


@dataclass(frozen=True)
class Plots:
    """The charts of a report: figures that a notebook shows and ``save(path)`` draws; ``chart`` is Altair's.

    Attributes:
        figures: The charts by name.
    """

    figures: Mapping[str, Figure]

    def accuracy(self) -> Figure:
        """Return the test accuracy of all variants with intervals."""
        return self._named("accuracy")

    def cost(self) -> Figure:
        """Return the accuracy against the time of a run."""
        return self._named("cost")

    def loss(self) -> Figure:
        """Return the training loss of all variants."""
        return self._named("loss")

    def validation(self) -> Figure:
        """Return the validation accuracy of all variants while they were trained."""
        return self._named("validation")

    def confusion(self, row: int) -> Figure:
        """Return the labels of a row against its answers.

        Args:
            row: Its number.
        """
        return self._named(f"{row:02}-confusion")

    def _named(self, name: str) -> Figure:
        if name not in self.figures:
            raise InputError("there is nothing to draw it from", field="plot", got=name)
        return self.figures[name]


def figures(analysis: Analysis, confusions: Mapping[int, Confusion]) -> Iterator[Figure]:
    """Draw all charts."""
    if any(row.test is not None for row in analysis.rows):
        caption = (
            "Dot and line: accuracy with its 95% interval; dashed: the reference; *: the difference from it is "
            "significant. A click on a dot opens the variant."
        )
        if any(row.published_figure("test") is not None for row in analysis.rows):
            caption += " Golden tick: the published figure"
            caption += ", of other data or another base model." if any(row.unjudged for row in analysis.rows) else "."
        if any(len(row.seeds) > 1 for row in analysis.rows):
            caption += " Small circles: the seeds."
        yield Figure("accuracy", "Test accuracy by variant", accuracy(analysis), caption, wide=True)
    if (chart := cost(analysis)) is not None:
        caption = (
            "Green: no other variant is at once as accurate, as fast and as small in memory. "
            f"All ran on the same machine ({analysis.machines[0]})."
        )
        yield Figure("cost", "Accuracy against time", chart, caption, wide=True)
    for name in text_names(analysis.rows):
        if (chart := forgotten(analysis, name)) is not None:
            caption = "Green: no other variant is at once as accurate and forgets as little."
            yield Figure(f"forgetting-{name}", f"Accuracy against forgetting of {name}", chart, caption, wide=True)
    yield from search_figures(analysis.rows)
    kept = {row.number: {cell.seed: read_curves(cell.directory) for cell in row.done} for row in analysis.sweep.rows}
    for name, figure, title, scale in (
        ("loss", "train/loss", "training loss", 1.0),
        ("validation", "val/accuracy", "validation accuracy, %", 100.0),
    ):
        if (chart := curves(analysis, kept, figure, title, scale)) is not None:
            caption = "A click on a name of the legend shows this variant alone; shift adds another."
            yield Figure(name, title.capitalize(), chart, caption)
    for row in analysis.rows:
        if (found := confusions.get(row.number)) is not None and len(found.labels) <= MOST:
            labels = [f"is {label}" for label in found.labels]
            given = [answer if answer not in found.labels else f"answered {answer}" for answer in found.answers]
            chart = confusion(found.counts, labels, given, 58 * len(labels))
            caption = "Rows are the labels; the share is of the row."
            yield Figure(f"{row.number:02}-confusion", f"Answers: {row.name}", chart, caption)


def accuracy(analysis: Analysis) -> Chart:
    """Draw the test accuracy of each variant, with its interval, its seeds and the published figure."""
    rows = [row for row in analysis.rows if row.test is not None and row.interval is not None]
    records = [_record(analysis, row) for row in rows]
    seeds = [
        {"name": _name(row), "value": 100 * test.accuracy, "seed": cell.seed}
        for row, run in zip(analysis.rows, analysis.sweep.rows, strict=True)
        if len(row.seeds) > 1
        for cell in run.done
        if cell.result is not None and (test := cell.result.splits.get("test")) is not None
    ]
    ends = [record[end] for record in records for end in ("low", "high", "published") if record[end] is not None]
    verdicts = {verdict: color for verdict, color in VERDICTS.items() if any(r["kind"] == verdict for r in records)}
    tips = {"name": "variant", "shown": "test accuracy", "against": f"against row {analysis.reference.number}"}
    published = {"published": CATEGORIES[4]} if any(record["published"] is not None for record in records) else {}
    tips |= dict.fromkeys(published, "published, %") | {"settings": "differs in"}
    reference = analysis.reference.test
    at = None if reference is None else 100 * reference
    domain = _padded(ends)
    return intervals(records, "test accuracy, %", tips, at, domain, verdicts, published, seeds)


def cost(analysis: Analysis) -> Chart | None:
    """Draw test accuracy against seconds; None if the rows ran on several machines, or their time is not known."""
    rows = [row for row in analysis.rows if row.test is not None and row.seconds is not None and row.interval]
    if not rows or len(analysis.machines) != 1:
        return None
    records = [_record(analysis, row) | {"seconds": row.seconds, "mb": row.peak_memory_mb} for row in rows]
    spans = [row.seconds or 0.0 for row in rows]
    log = min(spans) > 0 and max(spans) > 10 * min(spans)
    x_title = "seconds per run" + (", frozen layers apart" if any(row.frozen_seconds for row in rows) else "")
    x = alt.X("seconds:Q", title=x_title, scale=alt.Scale(type="log" if log else "linear", nice=True))
    memory = alt.Tooltip("mb:Q", title="peak memory, MB", format=",.0f")
    return _fronts(records, [bool(row.on_front) for row in rows], x, alt.Tooltip("seconds:Q", format=",.1f"), memory)


def forgotten(analysis: Analysis, name: str) -> Chart | None:
    """Draw test accuracy against what was forgotten of held-out texts of a name; None with fewer than two rows."""
    rows = [row for row in analysis.rows if row.test is not None and row.interval and name in row.forgetting]
    if len(rows) < 2:
        return None
    records = [_record(analysis, row) | {"forgetting": row.forgetting[name].increase} for row in rows]
    front = pareto_front([row.test or 0.0 for row in rows], [(row.forgetting[name].increase,) for row in rows])
    x = alt.X("forgetting:Q", title=f"forgetting of {name}, nats a token", scale=alt.Scale(zero=False, nice=True))
    return _fronts(records, front, x, alt.Tooltip("forgetting:Q", format="+.4f"))


def _fronts(records: Sequence[dict[str, Any]], front: Sequence[bool], x: alt.X, *tips: alt.Tooltip) -> Chart:
    """Draw test accuracy against something that should be small, those on the Pareto front in green."""
    kinds = ("on the Pareto front", "not on it")
    named = [
        {**record, "label": record["name"].split()[0], "front": kinds[not on]}
        for record, on in zip(records, front, strict=True)
    ]
    limits = _padded([record[end] for record in records for end in ("low", "high")])
    up = alt.Scale(domain=list(limits), nice=False)
    base = alt.Chart(data(named)).encode(
        x=x,
        y=alt.Y("value:Q", title="test accuracy, %", scale=up),
        color=alt.Color("front:N", scale=alt.Scale(domain=list(kinds), range=[CATEGORIES[2], CATEGORIES[0]])),
        href="href:N",
        tooltip=[alt.Tooltip("name:N", title="variant"), alt.Tooltip("shown:N", title="test accuracy"), *tips],
    )
    whisker = base.mark_rule(opacity=0.3).encode(y=alt.Y("low:Q", scale=up), y2="high:Q")
    words = base.mark_text(align="left", dx=7, dy=-6, fontSize=11).encode(text="label:N", color=alt.value("var(--ink)"))
    return alt.layer(whisker, base.mark_circle(size=60, opacity=1), words).properties(width="container", height=300)


def curves(analysis: Analysis, found: Mapping[int, Curves], figure: str, title: str, scale: float) -> Chart | None:
    """Overlay one figure of ``metrics.csv`` of all variants; None if no run kept it. The legend picks variants."""
    records: list[dict[str, Any]] = [
        {"name": f"{row.number} {row.name}", "seed": seed, "epoch": epoch, "step": step, "value": scale * value}
        for row in analysis.rows
        for seed, kept in found.get(row.number, {}).items()
        if figure in kept
        for epoch, step, value in thinned(kept[figure])
    ]
    if not records:
        return None
    picked = alt.selection_point(fields=["name"], bind="legend")
    base = alt.Chart(data(records)).encode(
        x=alt.X("epoch:Q", title="epoch", axis=TICKS),
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
        color=row_colors([record["name"] for record in records]),
        detail="seed:N",
        opacity=alt.condition(picked, alt.value(0.9), alt.value(0.08)),
        tooltip=["name:N", "seed:N", "step:Q", alt.Tooltip("value:Q", title=title, format=".4g")],
    )
    points = base.mark_circle(size=24)
    return (
        alt.layer(base.mark_line(strokeWidth=1.5), points).add_params(picked).properties(width="container", height=260)
    )


def thinned(curve: Curve, most: int = _POINTS) -> list[tuple[float, float, float]]:
    """Return a curve as at most so many points: epoch, step, and the mean of neighboring values.

    The epoch is the share of the steps so far of all epochs begun, so that runs with other batches lie side by side.

    Example:
        >>> thinned(Curve(steps=[9, 19, 29], values=[4.0, 2.0, 1.0], epochs=[0, 0, 1]), most=2)
        [(1.33, 19, 3.0), (2.0, 29, 1.0)]
    """
    steps, values = curve.steps, curve.values
    size = max(1, -(-len(values) // most))
    pace = (max(curve.epochs, default=0) + 1) / (steps[-1] + 1) if steps else 0.0
    ends = ((start, min(start + size, len(values)) - 1) for start in range(0, len(values), size))
    return [(round((steps[end] + 1) * pace, 2), steps[end], fmean(values[start : end + 1])) for start, end in ends]


def _record(analysis: Analysis, row: RowSummary) -> dict[str, Any]:
    """What the charts draw and show of a row that has an accuracy."""
    assert row.test is not None
    assert row.interval is not None
    low, high = (100 * end for end in row.interval)
    return {
        "name": _name(row),
        "kind": verdict(analysis, row),
        "value": 100 * row.test,
        "low": low,
        "high": high,
        "shown": f"{100 * row.test:.2f}% ({low:.1f} to {high:.1f})",
        "against": _against(row) or verdict(analysis, row),
        "published": row.published_figure("test"),
        "settings": changed_settings(row),
        "href": f"#row-{row.number}",
    }


def verdict(analysis: Analysis, row: RowSummary) -> str:
    """Return how a row compares with the reference: a name of :data:`VERDICTS`."""
    if row.number == analysis.reference.number:
        return "reference"
    if row.comparison is None:
        return "not compared"
    if not row.comparison.significant:
        return "no significant difference"
    return f"significantly {'better' if row.comparison.difference > 0 else 'worse'}"


def _against(row: RowSummary) -> str:
    if row.comparison is None:
        return ""
    low, high = (100 * end for end in row.comparison.interval)
    return f"{100 * row.comparison.difference:+.2f} points ({low:+.1f} to {high:+.1f})"


def _name(row: RowSummary) -> str:
    return f"{row.number} {row.name}{'*' if row.comparison and row.comparison.significant else ''}"


def _padded(percents: Sequence[float]) -> tuple[float, float]:
    """The limits of an axis: the range of the values with a little room, within what is possible."""
    low, high = min(percents), max(percents)
    room = 0.06 * (high - low) or 1.0
    return max(0, low - room), min(100, high + room)
