"""Words beside points cover neither a point nor each other."""

import itertools
import re

import numpy as np
import pytest

from ftkit.report.plot_labels import Box, labels, place
from ftkit.report.plots import Frame


def _crowd(seed: int, n: int = 19) -> list[tuple[float, float]]:
    """Points that lie as those of an ablation do: most of them close together."""
    rng = np.random.default_rng(seed)
    return [Frame().at(*point) for point in np.clip(rng.normal((0.2, 0.8), (0.12, 0.06), (n, 2)), 0, 1)]


@pytest.mark.parametrize("seed", range(20))
def test_no_word_covers_a_point_or_another_word(seed: int) -> None:
    points = _crowd(seed)
    words = [str(number + 1) for number in range(len(points))]
    boxes = place(Frame(), points, words)
    assert not any(one.meets(other) for one, other in itertools.combinations(boxes, 2))
    dots = [Box(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    assert not any(box.meets(dot) for box in boxes for dot in dots)
    assert all(0 <= box.left < box.right <= Frame().width and box.top >= 0 for box in boxes)


def test_equal_points_get_a_word_each() -> None:
    boxes = place(Frame(), [(200.0, 100.0)] * 19, [f"{k}" for k in range(19)])
    assert not any(one.meets(other) for one, other in itertools.combinations(boxes, 2))


def test_a_lonely_point_has_its_word_beside_it_and_a_crowded_one_at_the_end_of_a_line() -> None:
    assert "<line" not in labels(Frame(), [0.5], [0.5], ["<a>"])
    assert "&lt;a&gt;" in labels(Frame(), [0.5], [0.5], ["<a>"])
    drawn = labels(Frame(), [0.5] * 19, [0.5] * 19, [str(k) for k in range(19)])
    assert re.findall(r">(\d+)<", drawn) == [str(k) for k in range(19)]
    assert drawn.count("<line") > 5
