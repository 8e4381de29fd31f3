"""Plots as files that stand alone: SVG with its own style, and PNG through the optional package resvg_py.

resvg_py is one self-contained wheel of 3 MB; it draws the very SVG that the page shows, so no plot is written twice.
"""

from __future__ import annotations

import re

from ftkit.errors import EnvironmentFault
from ftkit.report.plots import LIGHT, RULES

# Not every program that reads SVG knows a font by its kind alone.
FONTS = "system-ui, 'DejaVu Sans', 'Liberation Sans', 'Noto Sans', Arial, Helvetica, sans-serif"
_COLORS = dict(re.findall(r"--(\w+): (#\w+);", LIGHT))


def standalone(svg: str, zoom: float = 1.6) -> str:
    """A plot as the content of an ``.svg`` file, in light colours on white.

    Args:
        svg: What :func:`ftkit.report.plots.plot` drew.
        zoom: How large a unit of the drawing is shown, in pixels.

    Example:
        >>> standalone('<svg class="plot" viewBox="0 0 100 50"><g/></svg>', zoom=2)[:68]
        '<svg class="plot" width="200" height="100" viewBox="0 0 100 50"><sty'
    """
    opening, content = svg.split(">", 1)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)
    if size is None:
        raise ValueError("the drawing has no viewBox")
    width, height = (f"{float(length) * zoom:g}" for length in size.groups())
    rules = re.sub(r"var\(--(\w+)\)", lambda match: _COLORS[match[1]], RULES).replace("system-ui, sans-serif", FONTS)
    # What fits the drawing into a page has no place in a file of its own.
    rules = "\n".join(rule for rule in rules.splitlines() if not rule.startswith("svg.plot {"))
    opening = opening.replace('class="plot"', f'class="plot" width="{width}" height="{height}"')
    return f'{opening}><style>{rules}</style><rect width="100%" height="100%" fill="#ffffff"/>{content}\n'


def to_png(svg: str) -> bytes:
    """A plot as a PNG.

    Args:
        svg: What :func:`standalone` returned.

    Raises:
        EnvironmentFault: The package is not installed, or there is no font to write with.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise EnvironmentFault(
            "PNGs need the package resvg_py, which is not installed", fix="pip install 'ftkit[reports]'"
        ) from None
    letter = f'<text x="10" y="30" style="font: 20px {FONTS}">M</text>'
    blank, written = (
        svg_to_bytes(svg_string=f'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40">{inside}</svg>')
        for inside in ("", letter)
    )
    if blank == written:
        raise EnvironmentFault("PNGs need a font, and none was found", fix="apt-get install fonts-dejavu-core")
    return bytes(svg_to_bytes(svg_string=svg))
