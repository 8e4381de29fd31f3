"""Small pure functions that draw SVG: axes, lines, points with error bars, bars, a table of counts.

A plot is one frame and the marks in it: ``plot(frame, line(frame, x, y), points(frame, x, y))``. Colours come from the
page's style sheet (``STYLE``), which follows the reader's light or dark setting; nothing is fetched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLORS = 6  # the style sheet has c0 to c5; more series repeat them
LIGHT = """
:root { --ink: #1d2330; --soft: #667085; --grid: #e4e7ec; --paper: #ffffff; --shade: #f6f7f9;
  --c0: #2563eb; --c1: #d9480f; --c2: #0f8a5f; --c3: #9333ea; --c4: #b7791f; --c5: #be185d; }
"""
DARK = """
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --grid: #333b49; --paper: #151a23;
  --shade: #1d2430; --c0: #7aa5ff; --c1: #ff9b6a; --c2: #4fd1a1; --c3: #c89bff; --c4: #e9bf62; --c5: #ff8cc0; } }
"""
RULES = """
svg.plot { width: 100%; height: auto; max-width: 460px; display: block; }
svg.plot text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg.plot .title { font-weight: 600; font-size: 13px; } svg.plot .tick { fill: var(--soft); font-size: 11px; }
svg.plot .grid { stroke: var(--grid); } svg.plot .axis { stroke: var(--soft); }
svg.plot .line { fill: none; stroke-width: 2; } svg.plot .dashed { stroke-dasharray: 5 4; stroke-width: 1.5; }
svg.plot .c0 { stroke: var(--c0); } svg.plot .c1 { stroke: var(--c1); } svg.plot .c2 { stroke: var(--c2); }
svg.plot .c3 { stroke: var(--c3); } svg.plot .c4 { stroke: var(--c4); } svg.plot .c5 { stroke: var(--c5); }
svg.plot .neutral { stroke: var(--soft); }
svg.plot .f0 { fill: var(--c0); } svg.plot .f1 { fill: var(--c1); } svg.plot .f2 { fill: var(--c2); }
svg.plot .f3 { fill: var(--c3); } svg.plot .f4 { fill: var(--c4); } svg.plot .f5 { fill: var(--c5); }
svg.plot .pale { opacity: 0.3; }
"""
STYLE = LIGHT + DARK + RULES


@dataclass(frozen=True)
class Frame:
    """A rectangle of data coordinates on a drawing.

    Attributes:
        x: Lowest and highest value on the horizontal axis.
        y: The same for the vertical axis.
        width: Of the drawing, in its own units.
        height: Of the drawing.
        left: Room for the vertical axis' labels.
        right: Room on the right.
        top: Room for the title.
        bottom: Room for the horizontal axis' labels.
    """

    x: tuple[float, float] = (0.0, 1.0)
    y: tuple[float, float] = (0.0, 1.0)
    width: int = 420
    height: int = 320
    left: int = 52
    right: int = 14
    top: int = 30
    bottom: int = 46

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies on the drawing, kept within the frame.

        Example:
            >>> Frame().at(0, 0), Frame().at(1, 1)
            ((52.0, 274.0), (406.0, 30.0))
        """
        across = _share(x, self.x) * (self.width - self.left - self.right)
        up = _share(y, self.y) * (self.height - self.top - self.bottom)
        return round(self.left + across, 2), round(self.height - self.bottom - up, 2)


def plot(
    frame: Frame,
    *marks: str,
    title: str,
    x_label: str = "",
    y_label: str = "",
    y_names: Sequence[str] | None = None,
    legend: Sequence[str] = (),
) -> str:
    """A drawing with axes, grid and marks.

    Args:
        frame: Its coordinates.
        marks: What other functions of this module drew in the same frame.
        title: Shown above, and read to those who cannot see.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        y_names: Names for 0, 1, 2, ... on the vertical axis instead of numbers.
        legend: Names of the series in the order of their colours; none are shown for a single one.

    Returns:
        An ``<svg>`` element.

    Example:
        >>> frame = Frame()
        >>> svg = plot(frame, line(frame, [0, 1], [0, 1]), title="ROC", legend=["a.tsv", "b.tsv"])
        >>> svg.startswith('<svg class="plot"'), "a.tsv" in svg
        (True, True)
    """
    middle = (frame.left + frame.width - frame.right) / 2
    parts = [_text(middle, 18, title, "title", "middle"), _axes(frame, y_names)]
    parts += [*marks, _text(middle, frame.height - 8, x_label, anchor="middle")]
    height = (frame.top + frame.height - frame.bottom) / 2
    parts.append(f'<text transform="translate(14 {height}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    rows = _legend_rows(legend, frame.width) if len(legend) > 1 else []
    parts += [_legend_row(row, frame.height + 10 + 17 * place) for place, row in enumerate(rows)]
    return _svg(frame.width, frame.height + 17 * len(rows), title, parts)


def line(frame: Frame, xs: Sequence[float], ys: Sequence[float], color: int | None = 0, dashed: bool = False) -> str:
    """A line through points; a point that is not a number is left out.

    Args:
        frame: The coordinates.
        xs: Horizontal values.
        ys: Vertical values.
        color: Number of the series, None for a neutral line.
        dashed: Draw dashes.
    """
    places = [frame.at(x, y) for x, y in zip(xs, ys, strict=True) if not (math.isnan(x) or math.isnan(y))]
    path = " ".join(f"{x},{y}" for x, y in places)
    return f'<polyline class="line {_stroke(color)}{" dashed" if dashed else ""}" points="{path}"/>'


def points(
    frame: Frame,
    xs: Sequence[float],
    ys: Sequence[float],
    color: int = 0,
    errors: Sequence[tuple[float, float]] | None = None,
    names: Sequence[str] | None = None,
    radius: float = 4,
) -> str:
    """Points, with error bars and names that show when pointed at.

    Args:
        frame: The coordinates.
        xs: Horizontal values.
        ys: Vertical values.
        color: Number of the series.
        errors: Lower and upper end of each point's vertical error bar.
        names: What each point is.
        radius: Size of the points.
    """
    parts = []
    for place, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if math.isnan(x) or math.isnan(y):
            continue
        if errors is not None:
            (across, low), (_, high) = frame.at(x, errors[place][0]), frame.at(x, errors[place][1])
            caps = [(across - 4, end, across + 4, end) for end in (low, high)]
            for x1, y1, x2, y2 in [(across, low, across, high), *caps]:
                parts.append(f'<line class="{_stroke(color)}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
        cx, cy = frame.at(x, y)
        name = f"<title>{escape(names[place])}</title>" if names else ""
        parts.append(f'<circle class="f{color % COLORS}" cx="{cx}" cy="{cy}" r="{radius}">{name}</circle>')
    return "".join(parts)


def bars(
    frame: Frame, xs: Sequence[float], heights: Sequence[float], width: float, color: int = 0, pale: bool = False
) -> str:
    """Upright bars from the lower edge of the frame.

    Args:
        frame: The coordinates.
        xs: The bars' centres.
        heights: Their upper ends.
        width: Their width in horizontal units.
        color: Number of the series.
        pale: Draw them faintly, behind other marks.
    """
    parts = []
    for x, height in zip(xs, heights, strict=True):
        if math.isnan(height):
            continue
        (left, top), (right, bottom) = frame.at(x - width / 2, height), frame.at(x + width / 2, frame.y[0])
        parts.append(
            f'<rect class="f{color % COLORS}{" pale" if pale else ""}" x="{left}" y="{top}" '
            f'width="{max(0.5, round(right - left - 1, 2))}" height="{round(bottom - top, 2)}"/>'
        )
    return "".join(parts)


def count_table(counts: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], title: str) -> str:
    """Counts as shaded cells, for example a confusion matrix with the labels as rows.

    Args:
        counts: One row of counts per label.
        rows: The labels.
        columns: The answers in the same order, then others: the diagonal is right.
        title: Shown above.

    Returns:
        An ``<svg>`` element.
    """
    wide, high, left, top = 96, 64, 108, 64
    width, height = left + wide * len(columns) + 14, top + high * len(rows) + 14
    most = max(1, *(max(row) for row in counts))
    parts = [_text(width / 2, 18, title, "title", "middle")]
    parts += [_text(left + wide * (c + 0.5), top - 10, name, "tick", "middle") for c, name in enumerate(columns)]
    for r, row in enumerate(counts):
        parts.append(_text(left - 10, top + high * (r + 0.5) + 4, rows[r], "tick", "end"))
        share = max(1, sum(row))
        for c, count in enumerate(row):
            x, y = left + wide * c, top + high * r
            shade = round(0.08 + 0.5 * count / most, 3)
            color = "f2" if r == c else "f1"
            parts.append(
                f'<rect class="{color}" opacity="{shade}" x="{x + 1}" y="{y + 1}" width="{wide - 2}" '
                f'height="{high - 2}" rx="4"/>'
            )
            parts.append(_text(x + wide / 2, y + high / 2, f"{count:,}", "title", "middle"))
            parts.append(_text(x + wide / 2, y + high / 2 + 16, f"{count / share:.1%}", "", "middle"))
    return _svg(width, height, title, parts)


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers within a range.

    Example:
        >>> ticks(0, 1), ticks(92.3, 97.1)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [93.0, 94.0, 95.0, 96.0, 97.0])
    """
    if high <= low:
        return [low]
    rough = (high - low) / 5
    size = 10 ** math.floor(math.log10(rough))
    step = size * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(frame: Frame, y_names: Sequence[str] | None) -> str:
    parts = []
    bottom, right = frame.height - frame.bottom, frame.width - frame.right
    for value, name in _marked(frame.y, y_names):
        _, y = frame.at(frame.x[0], value)
        parts.append(f'<line class="grid" x1="{frame.left}" y1="{y}" x2="{right}" y2="{y}"/>')
        parts.append(_text(frame.left - 6, y + 4, name, "tick", "end"))
    for value, name in _marked(frame.x, None):
        x, _ = frame.at(value, frame.y[0])
        parts.append(f'<line class="axis" x1="{x}" y1="{bottom}" x2="{x}" y2="{bottom + 4}"/>')
        parts.append(_text(x, bottom + 17, name, "tick", "middle"))
    parts.append(f'<line class="axis" x1="{frame.left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    return "".join(parts)


def _marked(limits: tuple[float, float], names: Sequence[str] | None) -> list[tuple[float, str]]:
    """The marks of an axis: the names at 0, 1, 2, ..., or round numbers."""
    if names:
        return [(float(place), name) for place, name in enumerate(names)]
    return [(value, f"{value:g}") for value in ticks(*limits)]


def _legend_rows(names: Sequence[str], width: float) -> list[list[tuple[int, float, str]]]:
    """Colour, place and text of the series' names, in as many rows as they need below the axes."""
    rows: list[list[tuple[int, float, str]]] = [[]]
    x = 16.0
    for color, name in enumerate(names):
        shown = name if len(name) <= 50 else f"…{name[-49:]}"
        room = 34 + 6.4 * len(shown)  # letters are about 6.4 wide at this size
        if rows[-1] and x + room > width:
            rows.append([])
            x = 16.0
        rows[-1].append((color, x, shown))
        x += room
    return rows


def _legend_row(row: list[tuple[int, float, str]], y: float) -> str:
    return "".join(
        f'<line class="line c{color % COLORS}" x1="{round(x, 2)}" y1="{y - 4}" x2="{round(x + 14, 2)}" y2="{y - 4}"/>'
        f"{_text(x + 19, y, name, 'tick')}"
        for color, x, name in row
    )


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{round(x, 2)}" y="{round(y, 2)}" text-anchor="{anchor}">{escape(text)}</text>'


def _stroke(color: int | None) -> str:
    return "neutral" if color is None else f"c{color % COLORS}"


def _share(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    # In this order NaN stays NaN, and a mark that should have been left out shows as what it is.
    return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5
