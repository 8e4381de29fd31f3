"""Which frame of an animation stands for it: the one with the most varied colours.

The first frame, which most tools take, is often blank. Method: https://github.com/koron/palicnv (entropy of the colours
of each composited frame), here with every disposal method.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

MAX_FRAMES = 1_000
_FRAME_PIXELS = 200_000_000  # composited for one file at most: some seconds
_SCORED_PIXELS = 2**20


def frames_to_look_at(width: int, height: int) -> int:
    """How many frames of an animation are composited at most: 1,000, fewer of large ones.

    Args:
        width: Of the canvas, in pixels.
        height: Of the canvas, in pixels.

    Example:
        >>> frames_to_look_at(300, 250), frames_to_look_at(1920, 1080), frames_to_look_at(30_000, 10_000)
        (1000, 96, 1)
    """
    return max(1, min(MAX_FRAMES, _FRAME_PIXELS // max(1, width * height)))


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


def most_varied(frames: Iterable[np.ndarray]) -> tuple[int, np.ndarray]:
    """The frame with the highest colour entropy; the first of them when several have it.

    Args:
        frames: At least one frame, uint8 ``(height, width, 3)``; the arrays may be reused.

    Returns:
        Its number, counted from 0, and a copy of it.
    """
    highest, chosen, best = -1.0, -1, np.empty(0)
    for number, frame in enumerate(frames):
        entropy = colour_entropy(frame)
        if entropy > highest:
            highest, chosen, best = entropy, number, frame.copy()
    return chosen, best
