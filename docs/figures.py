"""Take the measured figures of README and documentation from the committed result files.

A figure is a link to the file that it comes from, and the link's title is its formula:

    [6.2 times as fast](../benchmarks/results/x.json "rows.1.plain_s / rows.1.ours.float32.seconds")

Names lead into the JSON file, or to a cell of the CSV file by the first cell of its row and the name of its column.
`python docs/figures.py` writes all figures and the picture of the README anew; a test checks that nothing changes.
"""

from __future__ import annotations

import csv
import json
import re
from functools import cache, reduce
from pathlib import Path
from typing import Any

import altair as alt

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/2026-11-22-smollm2.csv"
PICTURE = ROOT / "docs/assets/smollm2.svg"
FIGURE = re.compile(
    r'\[(?P<before>[^][\d]*)(?P<number>[\d,]*\.?\d+)(?P<after>[^][]*)\]\((?P<file>[^\s)]+) "(?P<formula>[^"]+)"\)'
)
_NUMBER_OR_SIGN = re.compile(r"[-+*/()]|\d+(\.\d+)?")


def pages() -> list[Path]:
    """Return every page that people read: README and the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def with_figures(page: Path) -> str:
    """Return the text of a page with its figures as the result files have them, in as many digits as it shows."""
    return FIGURE.sub(lambda found: _figure(page, found), page.read_text(encoding="utf-8"))


def _figure(page: Path, found: re.Match[str]) -> str:
    digits = len(found["number"].partition(".")[2])
    number = f"{value(page.parent / found['file'], found['formula']):,.{digits}f}"
    return f'[{found["before"]}{number}{found["after"]}]({found["file"]} "{found["formula"]}")'


def value(file: Path, formula: str) -> float:
    """Return what a formula of the values in a result file comes to."""
    data = _read(file.resolve())
    words = [word if _NUMBER_OR_SIGN.fullmatch(word) else str(_look_up(data, word)) for word in formula.split()]
    return float(eval(" ".join(words), {"__builtins__": {}}))  # of numbers and signs


def _look_up(data: Any, name: str) -> float:
    return float(reduce(lambda part, key: part[int(key) if isinstance(part, list) else key], name.split("."), data))


@cache
def _read(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return json.loads(text)
    return {next(iter(row.values())): row for row in csv.DictReader(text.splitlines())}


def picture() -> alt.LayerChart:
    """Return the test accuracies of SmolLM2's variants with their intervals, best first."""
    rows = list(_read(RESULTS).values())
    for row in rows:
        better = float(row["difference"] or 0) > 0
        significant = row["p_holm"] and float(row["p_holm"]) < 0.05
        row["verdict"] = (
            "row 1"
            if row["row"] == "1"
            else f"significantly {'better' if better else 'worse'} than row 1"
            if significant
            else "no significant difference from row 1"
        )
        row |= {name: 100 * float(row[name]) for name in ("test", "test_low", "test_high")}
        row |= {"label": f"{row['row']} {row['name'].replace('_', ' ')}", "text": f"{row['test']:.1f}"}
    order = [row["label"] for row in sorted(rows, key=lambda row: -row["test"])]
    colors = {
        "row 1": "#333333",
        "significantly better than row 1": "#1b7f4b",
        "no significant difference from row 1": "#8a8f98",
        "significantly worse than row 1": "#c0392b",
    }
    color = alt.Color(
        "verdict:N", scale=alt.Scale(domain=[*colors], range=[*colors.values()]),
        legend=alt.Legend(title=None, orient="bottom", columns=2),
    )  # fmt: skip
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=200, ticks=False, domain=False))
    )
    scale = alt.Scale(domain=[45, 100])
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("test_low:Q", scale=scale, title="test accuracy in %, 95% confidence interval"),
        x2="test_high:Q", color=color,
    )  # fmt: skip
    points = base.mark_point(filled=True, size=70, opacity=1).encode(x="test:Q", color=color)
    texts = base.mark_text(align="left", fontSize=11, color="#333333").encode(x=alt.value(568), text="text:N")
    return (
        (bars + points + texts)
        .properties(width=560, height=320, padding={"left": 8, "right": 24, "top": 8, "bottom": 8})
        .configure(background="#ffffff", font="Helvetica, Arial, sans-serif")
        .configure_view(strokeWidth=0)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor="#e8e8e8")
        .configure_legend(labelFontSize=12, labelLimit=300)
    )


if __name__ == "__main__":
    for page in pages():
        page.write_text(with_figures(page), encoding="utf-8")
    picture().save(PICTURE)
