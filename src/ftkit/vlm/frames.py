"""Choose the frame that stands for an animation: the one with the most varied colors.

The first frame, which most tools take, is often blank. Method: https://github.com/koron/palicnv (entropy of the colors
of each composited frame).
"""

import math
from collections.abc import Iterable

import numpy as np

MAX_FRAMES = 1_000  # composited for one file at most,
FRAME_PIXELS = 200_000_000  # and so many pixels in all: some seconds
_SCORED_PIXELS = 2**20


def color_entropy(frame: np.ndarray) -> float:
    """Return the Shannon entropy of the 24-bit colors of a picture, uint8 ``(height, width, 3)``, in bits.

    It is 0 for a picture of one color and 24 at most. Of more than a million pixels a regular grid of that size counts.

    Example:
        >>> halves = np.zeros((2, 8, 3), np.uint8)
        >>> halves[0] = 255
        >>> color_entropy(halves)
        1.0
    """
    step = math.ceil(math.sqrt(frame.shape[0] * frame.shape[1] / _SCORED_PIXELS))
    channels = frame[::step, ::step].astype(np.uint32)
    colors = np.sort((channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2]).ravel())
    starts = np.flatnonzero(np.diff(colors, prepend=colors[0] + np.uint32(1)))
    counts = np.sort(np.diff(starts, append=len(colors)))  # sorted: equal histograms give equal sums
    share = counts / len(colors)
    return float(-(share * np.log2(share)).sum()) + 0.0


def most_varied(frames: Iterable[np.ndarray]) -> tuple[int, np.ndarray, int]:
    """Find the frame with the highest color entropy; the first of them when several have it.

    Args:
        frames: At least one frame, uint8 ``(height, width, 3)``; the arrays may be reused.

    Returns:
        Its number, counted from 0, a copy of it, and how many frames there were.
    """
    highest, chosen, best, number = -1.0, -1, np.empty(0), -1
    for number, frame in enumerate(frames):
        entropy = color_entropy(frame)
        if entropy > highest:
            highest, chosen, best = entropy, number, frame.copy()
    return chosen, best, number + 1
