"""Words beside the points of a plot, where they cover neither a point nor each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from ftkit.report.plots import Frame

_LETTER, _HEIGHT, _POINT = 6.8, 11.0, 5.5  # sizes on the drawing: a letter's width, a line's height, half a point
_GAP = 3.0  # between two words
_NEAR = 9.0  # from a point to the nearest edge of its word; farther ones get a line


@dataclass(frozen=True)
class Box:
    """A rectangle on a drawing: its left, top, right and lower edge."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether the two have any area in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box that is nearest to another point."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)

    def within(self, other: Box) -> bool:
        """Whether the other one holds all of it."""
        across = self.left >= other.left and self.right <= other.right
        return across and self.top >= other.top and self.bottom <= other.bottom


def labels(frame: Frame, xs: Sequence[float], ys: Sequence[float], words: Sequence[str]) -> str:
    """Words at points; one that finds no room near its point stands farther away, at the end of a thin line.

    Args:
        frame: The coordinates.
        xs: Horizontal values.
        ys: Vertical values.
        words: What to write at each point.
    """
    drawn = []
    places = [frame.at(x, y) for x, y in zip(xs, ys, strict=True)]
    for (x, y), box, word in zip(places, place(frame, places, words), words, strict=True):
        near_x, near_y = box.nearest(x, y)
        if math.hypot(near_x - x, near_y - y) > _NEAR + 1:
            drawn.append(
                f'<line class="neutral" x1="{x:.1f}" y1="{y:.1f}" x2="{near_x:.1f}" y2="{near_y:.1f}" '
                'style="stroke-width: 0.7"/>'
            )
        drawn.append(f'<text class="tick" x="{box.left:.1f}" y="{box.bottom - 2:.1f}">{escape(word)}</text>')
    return "".join(drawn)


def place(frame: Frame, points: Sequence[tuple[float, float]], words: Sequence[str]) -> list[Box]:
    """Where to write each word.

    Args:
        frame: The drawing.
        points: Places on the drawing, not values.
        words: One word per point.

    Returns:
        One box per word. They meet no point and no other box as long as the drawing has room.

    Example:
        Two points on top of each other get their words on two sides:

        >>> one, other = place(Frame(), [(200, 100), (200, 100)], ["1", "12"])
        >>> one.meets(other)
        False
    """
    taken = dots = [Box(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in points]
    paper = Box(frame.left, frame.top - 8, frame.width, frame.height - frame.bottom)
    boxes: list[Box] = []
    for point, dot, word in zip(points, dots, words, strict=True):
        tries = [box for box in _around(point, _LETTER * len(word)) if box.within(paper)]
        free = [box for box in tries if not any(box.meets(other) for other in taken)]
        # Best of all, nothing stands between the word and its point either.
        clear = (box for box in free if not _between(point, box, [other for other in taken if other != dot]))
        box = next(clear, (free or tries)[0])
        boxes.append(box)
        taken = [*taken, Box(box.left - _GAP, box.top, box.right + _GAP, box.bottom)]
    return boxes


def _between(point: tuple[float, float], box: Box, others: Sequence[Box]) -> bool:
    """Whether something stands between a point and its word."""
    (x, y), (to_x, to_y) = point, box.nearest(*point)
    steps = [(x + (to_x - x) * k / 8, y + (to_y - y) * k / 8) for k in range(1, 8)]
    return any(Box(a, b, a, b).within(other) for a, b in steps for other in others)


def _around(point: tuple[float, float], width: float) -> Iterator[Box]:
    """Boxes of a word around a point, the usual place first, then all sides, then farther away."""
    x, y = point
    for distance in (_NEAR, 16.0, 24.0, 34.0, 46.0, 60.0):
        for angle in (40, 0, -40, 140, 180, 220, 90, 270, 65, 115, 245, 295):
            away_x, away_y = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
            # The box touches the circle with the edge that faces the point.
            left = x + distance * away_x + width * (away_x - 1) / 2
            top = y + distance * away_y + _HEIGHT * (away_y - 1) / 2
            yield Box(left, top, left + width, top + _HEIGHT)
