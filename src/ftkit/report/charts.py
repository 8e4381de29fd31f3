"""Draw the charts that all reports share, with Altair: figures with intervals, tables of counts, data and colors."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from ftkit.report.theme import CATEGORIES

Chart = alt.TopLevelMixin
Records = Sequence[Mapping[str, Any]]
TICKS = alt.Axis(tickCount=5)
REFERENCE: dict[str, Any] = {"color": "var(--soft)", "strokeDash": [5, 4], "strokeWidth": 1.5}
HEIGHT = 250  # of a chart, without its axes
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
    layers = [] if at is None else [rule(at)]
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


def data(records: Records) -> alt.InlineData:
    """Return records as the data of a chart."""
    return alt.InlineData(values=[dict(record) for record in records])


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


def rule(x: float) -> alt.Chart:
    """Draw a dashed line from below to above."""
    return alt.Chart(data([{"x": x}])).mark_rule(**REFERENCE).encode(x="x:Q")
