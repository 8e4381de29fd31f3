"""The colors of pages and charts, light and dark, and what draws a chart into a file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from altair import TopLevelMixin as Chart

LIGHT = {
    "ink": "#1d2330", "soft": "#5b6579", "grid": "#e4e7ec", "paper": "#ffffff", "shade": "#f6f7f9",
    "c0": "#2563eb", "c1": "#d9480f", "c2": "#0f8a5f", "c3": "#9333ea", "c4": "#b7791f", "c5": "#be185d",
}  # fmt: skip
DARK = {
    "ink": "#e6e9ef", "soft": "#a3adbd", "grid": "#333b49", "paper": "#151a23", "shade": "#1d2430",
    "c0": "#7aa5ff", "c1": "#ff9b6a", "c2": "#4fd1a1", "c3": "#c89bff", "c4": "#e9bf62", "c5": "#ff8cc0",
}  # fmt: skip
CATEGORIES = [f"var(--c{number})" for number in range(6)]
_TEXT = {"labelColor": "var(--soft)", "titleColor": "var(--ink)", "titleFontWeight": "normal", "labelFontSize": 11}
# Charts name the colors of the page's style sheet, so that one drawing follows the reader's light or dark setting.
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "title": {"color": "var(--ink)", "fontSize": 13, "anchor": "start"},
    "axis": {**_TEXT, "gridColor": "var(--grid)", "domainColor": "var(--soft)", "tickColor": "var(--soft)"},
    "legend": {**_TEXT, "title": None, "orient": "bottom", "columns": 1, "labelLimit": 320, "symbolOpacity": 1},
    "range": {"category": CATEGORIES},
    "line": {"strokeWidth": 2},
    "text": {"fill": "var(--ink)", "fontSize": 12},
}


FORMS = ("svg", "png", "pdf")


def specification(chart: Chart, colors: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the Vega-Lite specification of a chart, with ``colors`` in place of their names.

    If there are none the names stay, for a page whose style sheet knows them.
    """
    spec = chart.to_dict(validate=False) | {"config": CONFIG}
    if colors is None:
        return spec
    text = re.sub(r"var\(--(\w+)\)", lambda match: colors[match[1]], json.dumps(spec))
    return json.loads(text)


def image(chart: Chart, form: str, title: str = "") -> bytes:
    """Draw a chart in light colors, as the content of a file."""
    import vl_convert

    spec = specification(chart, LIGHT)
    spec["config"] |= {"background": LIGHT["paper"]}
    spec["width"] = 480  # a page gives it the width that there is
    spec |= {"title": title} if title else {}
    if form == "svg":
        return vl_convert.vegalite_to_svg(spec).encode()
    return vl_convert.vegalite_to_pdf(spec) if form == "pdf" else vl_convert.vegalite_to_png(spec, ppi=144)
