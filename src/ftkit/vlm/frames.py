"""Which frame of an animation stands for it: the one with the most varied colours.

The first frame, which most tools take, is often blank. Method: https://github.com/koron/palicnv (entropy of the colours
of each composited frame), here with every disposal method.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate, islice

import numpy as np

MAX_FRAMES = 1_000
_FRAME_PIXELS = 200_000_000  # composited for one file at most: some seconds
_SCORED_PIXELS = 2**20


def frames_to_look_at(pixels: Iterable[int]) -> int:
    """How many frames of an animation are composited: the first always, 1,000 at most, fewer of large ones.

    Args:
        pixels: What each frame takes to composite, one after the other: its own pixels or the canvas's.

    Example:
        >>> frames_to_look_at([300 * 250] * 4_000), frames_to_look_at([1920 * 1080] * 4_000)
        (1000, 96)
        >>> frames_to_look_at([10, 10]), frames_to_look_at([300_000_000] * 2), frames_to_look_at([1, 300_000_000, 1])
        (2, 1, 1)
    """
    sums = accumulate(islice(pixels, MAX_FRAMES))
    return max(1, sum(total <= _FRAME_PIXELS for total in sums))


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
