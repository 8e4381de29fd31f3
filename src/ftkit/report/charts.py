"""The charts of all reports, made with Altair. Pointing at a mark shows the figures of its run or example."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from scipy import stats

from ftkit.report.theme import CATEGORIES
from ftkit.results.assessment import BinaryReport
from ftkit.results.intervals import at_prevalence, prevalence_intervals
from ftkit.results.metrics import figure_values
from ftkit.results.statistics import wilson_limits
from ftkit.results.threshold import Threshold, operating_tables

Chart = alt.TopLevelMixin
Records = Sequence[Mapping[str, Any]]
Named = Sequence[tuple[str, BinaryReport]]
_UNIT = alt.Scale(domain=[0, 1])
TICKS = alt.Axis(tickCount=5)
_REFERENCE: dict[str, Any] = {"color": "var(--soft)", "strokeDash": [5, 4], "strokeWidth": 1.5}
HEIGHT = 250  # of a chart, without its axes
_SIZE: dict[str, Any] = {"width": "container", "height": HEIGHT}
_WIDE = 6  # columns of a table of answers


def intervals(
    records: Records,
    title: str,
    tips: Mapping[str, str],
    at: float | None = None,
    domain: Sequence[float] | None = None,
    colors: Mapping[str, str] | None = None,
    also: Mapping[str, str] | None = None,
    parts: Records = (),
) -> Chart:
    """Draw figures with their intervals, one below the other.

    Args:
        records: From above; each has ``name``, ``value``, ``low``, ``high``, ``kind`` (what colors tell apart), and
            what is shown when one points at it.
        title: Of the axis.
        tips: Fields to show when pointed at, and their titles.
        at: Where to draw a dashed line.
        domain: The ends of the axis.
        colors: The color of each kind; those of the page in their order if not given.
        also: Fields with another figure each, drawn as a tick, and the color of the tick.
        parts: What the figures are means of: ``name``, ``value`` and ``seed``.
    """
    scale = alt.Scale(domain=list(colors), range=list(colors.values())) if colors else alt.Undefined
    kinds = list(dict.fromkeys(record["kind"] for record in records))
    legend = alt.Legend() if len(kinds) > 1 else None
    axis = alt.Axis(labelLimit=190, labelPadding=8, grid=False, ticks=False, domain=False)  # a dot at 0 has room
    base = alt.Chart(data(records)).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=axis),
        color=alt.Color("kind:N", scale=scale, legend=legend),
        tooltip=[alt.Tooltip(f"{name}:N", title=words) for name, words in tips.items()],
        **({"href": "href:N"} if all("href" in record for record in records) else {}),
    )
    across = alt.X("low:Q", title=title, scale=alt.Scale(domain=list(domain) if domain else alt.Undefined, zero=False))
    layers = [] if at is None else [_rule(x=at)]
    layers.append(base.mark_rule(strokeWidth=2).encode(x=across, x2="high:Q"))
    for name, color in (also or {}).items():
        tick = base.mark_tick(thickness=2, size=12).encode(x=f"{name}:Q", color=alt.value(color))
        layers.append(tick.transform_filter(f"isValid(datum.{name})"))
    if parts:
        part = alt.Chart(data(parts)).mark_point(size=22, color="var(--ink)", strokeWidth=1)
        layers.append(part.encode(x="value:Q", y=alt.Y("name:N", sort=None), tooltip=["seed:N", "value:Q"]))
    layers.append(base.mark_circle(size=60, opacity=1).encode(x="value:Q"))
    return alt.layer(*layers).properties(width="container", height=22 * len(records))


def confusion(counts: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], height: int) -> Chart:
    """Draw counts, one row per label; the shade is the share of the row, on the same scale in every such chart."""
    records = [
        {
            "label": rows[r],
            "answer": columns[c],
            "count": count,
            "share": count / max(1, sum(row)),
            "right": "right" if r == c else "wrong",
        }
        for r, row in enumerate(counts)
        for c, count in enumerate(row)
    ]
    few = len(columns) <= _WIDE  # so that there is room for all texts on a phone
    axis = alt.Axis(orient="top", labelAngle=0 if few else -60, **_BARE)
    base = alt.Chart(data(records)).encode(
        x=alt.X("answer:N", sort=list(columns), title=None, axis=axis),
        y=alt.Y("label:N", sort=list(rows), title=None, axis=alt.Axis(**_BARE)),
        tooltip=["label:N", "answer:N", alt.Tooltip("count:Q", format=","), alt.Tooltip("share:Q", format=".1%")],
    )
    shade = base.mark_rect(cornerRadius=4).encode(
        color=alt.Color(
            "right:N", scale=alt.Scale(domain=["right", "wrong"], range=[CATEGORIES[2], CATEGORIES[1]]), legend=None
        ),
        opacity=alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.06, 0.6]), legend=None),
    )
    number = base.mark_text(dy=-7 if few else 0, fontSize=13, fontWeight=600).encode(
        text=alt.Text("count:Q", format=",")
    )
    share = base.mark_text(dy=9, fontSize=11).encode(text=alt.Text("share:Q", format=".1%"))
    return alt.layer(shade, number, *([share] if few else [])).properties(width="container", height=height)


_BARE: dict[str, Any] = {"grid": False, "ticks": False, "domain": False, "labelPadding": 6}


def roc(scored: Named, level: float) -> Chart:
    """Draw recall against the false-positive rate of every threshold, and where the files' own answers are.

    The band holds, for each threshold, the rectangle of Wilson's intervals of both rates, which are independent: each
    covers the root of the level, so that the two together cover the level.

    Source: N. Campbell, Advanced statistical and numerical methods for the evaluation of ROC curves (1994); S.
    Macskassy and F. Provost, Confidence bands for ROC curves (2004).
    """
    lines, bands, dots = [], [], []
    grid = np.linspace(0, 1, 101)
    for name, report in _with(scored, "auroc", "AUROC"):
        curve, c = report.curve, report.counts
        assert curve is not None
        fp, tp = np.append(0, curve.fp), np.append(0, curve.tp)
        threshold = np.append(np.nan, curve.threshold)
        lines += _records(name, x=fp / curve.negatives, y=tp / curve.positives, threshold=threshold)
        z = stats.norm.isf((1 - level**0.5) / 2)
        left, right = wilson_limits(fp / curve.negatives, curve.negatives, z)
        below, above = wilson_limits(tp / curve.positives, curve.positives, z)
        # Where the rectangles of all thresholds begin and end above each rate.
        low = np.append(0, below)[np.searchsorted(right, grid, side="right")]
        bands += _records(name, x=grid, low=low, high=np.append(above, 1)[np.searchsorted(left, grid)])
        dots += _records(name, x=[c.fp / c.negatives], y=[c.tp / c.positives])
    layers = _curves(lines, dots, bands, "false-positive rate", "recall")
    return alt.layer(_diagonal(), *layers).properties(**_SIZE)


def precision_recall(scored: Named, level: float) -> Chart:
    """Draw precision against recall of every threshold; the band is Wilson's interval of the precision there."""
    lines, bands, dots, skill = [], [], [], []
    for name, report in _with(scored, "average_precision", "average precision"):
        curve, c = report.curve, report.counts
        assert curve is not None
        answered = curve.tp + curve.fp
        recall = curve.tp / curve.positives
        low, high = wilson_limits(curve.tp / answered, answered, stats.norm.isf((1 - level) / 2))
        lines += _records(name, x=recall, y=curve.tp / answered, threshold=curve.threshold)
        bands += _records(name, x=recall, low=low, high=high)
        skill.append({"name": name, "y": c.positives / c.n})
        if c.tp + c.fp:
            dots += _records(name, x=[c.tp / c.positives], y=[c.tp / (c.tp + c.fp)])
    prevalence = alt.Chart(data(skill)).mark_rule(**_REFERENCE).encode(y="y:Q", tooltip=alt.Tooltip("y:Q"))
    layers = _curves(lines, dots, bands, "recall", "precision")
    return alt.layer(prevalence, *layers).properties(**_SIZE)


def calibration(scored: Named) -> Chart:
    """Draw the share of positives against the mean probability of each bin, larger dots for more examples."""
    records = []
    for name, report in _with(scored, "calibration_error", "error"):
        found = report.calibration
        assert found is not None
        records += _records(name, x=found.predicted, y=found.observed, examples=found.count)
    records = [record for record in records if record["x"] is not None]
    base = alt.Chart(data(records)).encode(
        x=alt.X("x:Q", title=f"mean P({scored[0][1].positive}) in the bin", scale=_UNIT, axis=TICKS),
        y=alt.Y("y:Q", title="share that is so", scale=_UNIT),
        color=_color(records),
    )
    dots = base.mark_circle(opacity=1).encode(
        size=alt.Size("examples:Q", scale=alt.Scale(range=[20, 260]), legend=None),
        tooltip=[
            "name:N",
            alt.Tooltip("x:Q", title="mean probability", format=".3f"),
            alt.Tooltip("y:Q", title="share", format=".3f"),
            alt.Tooltip("examples:Q", format=","),
        ],
    )
    return alt.layer(_diagonal(), base.mark_line(), dots).properties(**_SIZE)


def thresholds(report: BinaryReport, titles: Mapping[str, str], threshold: Threshold | None) -> Chart:
    """Draw what every threshold would give of some figures, by name with their titles, and the frozen one."""
    assert report.curve is not None
    values, tables = operating_tables(report.curve)
    figures = figure_values(tables)
    finite = np.isfinite(values)  # log-odds may be infinite, and there is no place for these
    records = [
        record
        for figure, title in titles.items()
        for record in _records(title, x=values[finite], y=figures[figure][finite])
    ]
    across = f"threshold on the {report.kind.replace('_', ' ')}"
    lines = _curves(records, [], [], across, "figure", alt.Scale(zero=False, nice=False))
    frozen = [] if threshold is None or not np.isfinite(threshold.value) else [_rule(x=threshold.value)]
    return alt.layer(*lines, *frozen).properties(**_SIZE)


def prevalence(reports: Named, level: float) -> Chart:
    """Draw the precision to expect at every prevalence, with its interval."""
    shares = [k / 50 for k in range(51)]
    lines, bands, dots = [], [], []
    for name, report in reports:
        expected = [point["precision"].value for point in at_prevalence(report.counts, shares)]
        limits = [point.get("precision", (None, None)) for point in prevalence_intervals(report.counts, shares, level)]
        lines += _records(name, x=shares, y=expected)
        bands += _records(name, x=shares, low=[low for low, _ in limits], high=[high for _, high in limits])
        here, precision = report.figures["prevalence"].value, report.figures["precision"].value
        if here is not None and precision is not None:
            dots += _records(name, x=[here], y=[precision])
    return alt.layer(*_curves(lines, dots, bands, "prevalence", "precision")).properties(**_SIZE)


def _curves(lines: Records, dots: Records, bands: Records, x: str, y: str, scale: alt.Scale = _UNIT) -> list[alt.Chart]:
    """Lines over bands, dots on them, and what shows the figures of the nearest point of a line."""
    across = alt.X("x:Q", title=x, scale=scale, axis=TICKS)
    up = alt.Y("y:Q", title=y, scale=_UNIT)
    color = _color(lines)
    tips = [
        alt.Tooltip(f"{name}:Q", title=title, format=".3f")
        for name, title in {"x": x, "y": y, "threshold": "threshold"}.items()
        if any(name in record for record in lines)
    ]
    drawn = []
    if bands:
        area = alt.Chart(data(bands)).mark_area(opacity=0.15)
        drawn.append(area.encode(x=across, y=alt.Y("low:Q", title=y, scale=_UNIT), y2="high:Q", color=color))
    base = alt.Chart(data(lines)).encode(x=across, y=up, color=color, tooltip=["name:N", *tips])
    drawn += [base.mark_line(clip=True).encode(order="order:Q"), base.mark_circle(size=90, opacity=0)]
    if dots:
        answers = alt.Chart(data(dots)).mark_circle(size=70, opacity=1)
        drawn.append(answers.encode(x=across, y=up, color=color, tooltip=["name:N", *tips[:2]]))
    return drawn


def _records(name: str, **columns: Iterable[Any]) -> list[dict[str, Any]]:
    """One record per point; what is not a number has no place on an axis."""
    rows = zip(*columns.values(), strict=True)
    return [
        {"name": name, "order": order, **{key: _finite(value) for key, value in zip(columns, row, strict=True)}}
        for order, row in enumerate(rows)
    ]


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def data(records: Records) -> alt.InlineData:
    """Return records as the data of a chart."""
    return alt.InlineData(values=[dict(record) for record in records])


def _color(records: Records) -> alt.Color:
    """A color for each name."""
    names = list(dict.fromkeys(record["name"] for record in records))
    return alt.Color("name:N", scale=alt.Scale(domain=names))


def row_colors(names: Sequence[str]) -> alt.Color:
    """Return the encoding that gives each row of an ablation its color; the legend picks rows."""
    names = list(dict.fromkeys(names))
    many = [f"hsl({360 * place // len(names)}, 62%, 52%)" for place in range(len(names))]
    colors = CATEGORIES if len(names) <= len(CATEGORIES) else many
    return alt.Color(
        "name:N",
        scale=alt.Scale(domain=names, range=colors[: len(names)]),
        legend=alt.Legend(columns=2, labelLimit=120) if len(names) > 1 else None,
    )


def _with(scored: Named, figure: str, title: str) -> Named:
    """The files, named with one of their figures."""
    return [(f"{name}: {title} {report.figures[figure].text(3)}", report) for name, report in scored]


def _diagonal() -> alt.Chart:
    ends = alt.Chart(data([{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
    return ends.mark_line(**_REFERENCE).encode(x="x:Q", y="y:Q")


def _rule(x: float) -> alt.Chart:
    return alt.Chart(data([{"x": x}])).mark_rule(**_REFERENCE).encode(x="x:Q")
