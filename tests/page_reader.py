"""Takes a report's page apart: what it says, draws and loads."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import altair as alt
import vl_convert

VOID = ("meta", "link", "input", "br", "img")


class Page(HTMLParser):
    """What a page holds.

    Attributes:
        charts: The Vega-Lite specifications of its charts, each of which was drawn once.
        words: Its text, without scripts and styles.
        places: How many places for charts it has.
        tags: All elements.
        loads: All that it could load.
        open: Elements that were not closed.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words, self.places = "", 0
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        found = re.search('<script type="application/json" id="charts">(.*?)</script>', html, re.DOTALL)
        text = found[1] if found else "[]"
        assert "<" not in text  # no text of a user can end the script
        self.charts: list[dict[str, Any]] = json.loads(text, parse_constant=lambda name: 1 / 0)
        for chart in self.charts:
            # Checked against the schema, which takes too long for every report, or with all records.
            alt.Chart.from_dict({**chart, "datasets": {name: rows[:1] for name, rows in chart["datasets"].items()}})
            assert vl_convert.vegalite_to_svg(chart).startswith("<svg")
        assert "default-src 'none'" in html

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.places += dict(attrs).get("class") == "chart"
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")]
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data if self.open and self.open[-1] not in ("script", "style") else ""

    def values(self, chart: int) -> list[dict[str, Any]]:
        """All records of a chart."""
        return [record for data in self.charts[chart]["datasets"].values() for record in data]
