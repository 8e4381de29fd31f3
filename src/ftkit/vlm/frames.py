"""Which frame of an animation stands for it: the one with the most varied colours.

The first frame, which most tools take, is often blank. Method: https://github.com/koron/palicnv (entropy of the colours
of each composited frame).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

MAX_FRAMES = 1_000  # composited for one file at most,
FRAME_PIXELS = 200_000_000  # and so many pixels in all: some seconds
_SCORED_PIXELS = 2**20


def colour_entropy(frame: np.ndarray) -> float:
    """Shannon entropy of the histogram of a picture's 24-bit colours.

    Of pictures with more than a million pixels a regular grid of that size counts.

    Args:
        frame: uint8 ``(height, width, 3)``.

    Returns:
        Bits: 0 for a picture of one colour, 24 at most.

    Example:
        >>> halves = np.zeros((2, 8, 3), np.uint8)
        >>> halves[0] = 255
        >>> colour_entropy(halves)
        1.0
    """
    step = math.ceil(math.sqrt(frame.shape[0] * frame.shape[1] / _SCORED_PIXELS))
    channels = frame[::step, ::step].astype(np.uint32)
    colours = np.sort((channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2]).ravel())
    starts = np.flatnonzero(np.diff(colours, prepend=colours[0] + np.uint32(1)))
    counts = np.sort(np.diff(starts, append=len(colours)))  # sorted: equal histograms give equal sums
    share = counts / len(colours)
    return float(-(share * np.log2(share)).sum()) + 0.0


def most_varied(frames: Iterable[np.ndarray]) -> tuple[int, np.ndarray, int]:
    """Find the frame with the highest colour entropy; the first of them when several have it.

    Args:
        frames: At least one frame, uint8 ``(height, width, 3)``; the arrays may be reused.

    Returns:
        Its number, counted from 0, a copy of it, and how many frames there were.
    """
    highest, chosen, best, number = -1.0, -1, np.empty(0), -1
    for number, frame in enumerate(frames):
        entropy = colour_entropy(frame)
        if entropy > highest:
            highest, chosen, best = entropy, number, frame.copy()
    return chosen, best, number + 1
