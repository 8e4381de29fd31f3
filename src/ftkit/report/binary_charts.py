"""The charts of yes/no answers. Pointing at a line shows the figures of its nearest point."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from scipy import stats

from ftkit.report.charts import HEIGHT, REFERENCE, TICKS, Chart, Records, data, rule
from ftkit.results.assessment import BinaryReport
from ftkit.results.intervals import at_prevalence, prevalence_intervals
from ftkit.results.metrics import figure_values
from ftkit.results.statistics import wilson_limits
from ftkit.results.threshold import Threshold, operating_tables

Named = Sequence[tuple[str, BinaryReport]]
_UNIT = alt.Scale(domain=[0, 1])
_SIZE: dict[str, Any] = {"width": "container", "height": HEIGHT}


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
    prevalence = alt.Chart(data(skill)).mark_rule(**REFERENCE).encode(y="y:Q", tooltip=alt.Tooltip("y:Q"))
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
    frozen = [] if threshold is None or not np.isfinite(threshold.value) else [rule(threshold.value)]
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


def _color(records: Records) -> alt.Color:
    """A color for each name."""
    names = list(dict.fromkeys(record["name"] for record in records))
    return alt.Color("name:N", scale=alt.Scale(domain=names))


def _with(scored: Named, figure: str, title: str) -> Named:
    """The files, named with one of their figures."""
    return [(f"{name}: {title} {report.figures[figure].text(3)}", report) for name, report in scored]


def _diagonal() -> alt.Chart:
    ends = alt.Chart(data([{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
    return ends.mark_line(**REFERENCE).encode(x="x:Q", y="y:Q")
