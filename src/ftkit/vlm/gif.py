"""Animated GIFs, frame by frame as a viewer shows them.

Pillow unpacks the pixels of each frame. The file's structure and the composition are read here, because Pillow's own
composition differs from that of browsers: it paints the "background colour", which they leave transparent, keeps the
disposal of an earlier frame for one that names none, and fills what the first frame leaves open with colour 0.

Source: GIF89a specification, https://www.w3.org/Graphics/GIF/spec-gif89a.txt
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ftkit.vlm.decoding import DamagedImageError, Image, check_size, decoding

MAX_GIF_BYTES = 64 * 2**20  # walking the blocks of 64 MB takes seconds at worst
_BACKGROUND, _PREVIOUS = 2, 3  # disposal methods that undo a frame; 0 and 1 leave it
_ZEROS = re.compile(rb"\0*")


@dataclass(frozen=True)
class GifFrame:
    """One frame as the file describes it.

    Attributes:
        left: The frame's place on the canvas, in pixels.
        top: The frame's place on the canvas, in pixels.
        width: In pixels.
        height: In pixels.
        interlaced: Whether the examples come in four passes.
        palette: uint8 ``(colours, 3)``.
        transparent: The colour number that shows what was there before, or None.
        disposal: What happens to the frame before the next one: 0 or 1 nothing, 2 cleared, 3 undone.
        start: Where the compressed pixels start in the file.
        end: Where they end.
    """

    left: int
    top: int
    width: int
    height: int
    interlaced: bool
    palette: np.ndarray
    transparent: int | None
    disposal: int
    start: int
    end: int


@dataclass(frozen=True)
class Gif:
    """The structure of a GIF.

    Attributes:
        data: The file's bytes.
        width: Of the canvas, in pixels.
        height: Of the canvas, in pixels.
        frames: The first frames, as many as were asked for.
        count: How many frames there are in all.
    """

    data: bytes
    width: int
    height: int
    frames: list[GifFrame]
    count: int


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise DamagedImageError("the picture is cut off: the GIF ends in the middle")
        self.at += size
        return self.data[self.at - size : self.at]

    def skip_zeros(self) -> None:
        match = _ZEROS.match(self.data, self.at)
        assert match is not None
        self.at = match.end()

    def palette(self, flags: int) -> np.ndarray | None:
        if not flags & 0x80:
            return None
        colours = 2 << (flags & 7)
        return np.frombuffer(self.take(3 * colours), np.uint8).reshape(colours, 3)

    def sub_blocks(self) -> bytes:
        """Go behind the sub-blocks and return the first of them."""
        first = self.take(self.take(1)[0])
        size = len(first)
        while size:
            size = self.take(1)[0]
            self.take(size)
        return first


def parse_gif(data: bytes, keep: int) -> Gif:
    """Read the structure of a GIF without unpacking a pixel.

    Args:
        data: The whole file.
        keep: How many frames to return at most; the others are only counted.

    Returns:
        The canvas and the frames.

    Raises:
        DamagedImageError: The file is cut off or damaged, has no frame, or is too large.
    """
    if len(data) > MAX_GIF_BYTES:
        raise DamagedImageError(f"the GIF has more than {MAX_GIF_BYTES:,} bytes: {len(data):,}")
    reader = _Reader(data)
    width, height, flags = struct.unpack("<6xHHB2x", reader.take(13))
    shared = reader.palette(flags)
    frames: list[GifFrame] = []
    count = 0
    control = b""
    while (kind := reader.take(1)) != b";":
        if kind == b"!":
            label, first = reader.take(1), reader.sub_blocks()
            control = first if label == b"\xf9" else control
        elif kind == b",":
            frame = _frame(reader, shared, control, (width, height))
            control = b""
            count += 1
            if count == 1:  # browsers widen a canvas that is too small for the first frame
                width, height = max(width, frame.left + frame.width), max(height, frame.top + frame.height)
                check_size(width, height)
            if count <= keep:
                frames.append(frame)
        elif kind == b"\0":  # some encoders pad between blocks
            reader.skip_zeros()
        else:
            raise DamagedImageError(f"the GIF is damaged behind frame {count}")
    if not frames:
        raise DamagedImageError("the GIF has no picture in it")
    return Gif(data, width, height, frames, count)


def _frame(reader: _Reader, shared: np.ndarray | None, control: bytes, canvas: tuple[int, int]) -> GifFrame:
    left, top, width, height, flags = struct.unpack("<4HB", reader.take(9))
    width, height = width or canvas[0], height or canvas[1]
    check_size(width, height)
    palette = reader.palette(flags)
    if palette is None:
        palette = shared
    if palette is None:  # the specification leaves the choice to the viewer
        palette = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    start = reader.at
    reader.take(1)  # the size of the first codes
    reader.sub_blocks()
    options = control[0] if len(control) >= 4 else 0
    disposal = options >> 2 & 7
    return GifFrame(
        left, top, width, height,
        interlaced=bool(flags & 0x40),
        palette=palette,
        transparent=control[3] if options & 1 else None,
        disposal=_PREVIOUS if disposal == 4 else disposal,  # 4 is an old writer's 3
        start=start,
        end=reader.at,
    )  # fmt: skip


def composites(gif: Gif, background: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """The frames as a viewer shows them one after the other.

    Args:
        gif: What :func:`parse_gif` found.
        background: The colour behind what is transparent.

    Yields:
        uint8 ``(height, width, 3)``: the canvas with a frame on it. It is the same array each time.

    Raises:
        DamagedImageError: The pixels of a frame are damaged or cut off.
    """
    canvas = np.empty((gif.height, gif.width, 3), np.uint8)
    canvas[:] = background
    for frame in gif.frames:
        region = canvas[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width]
        before = region.copy() if frame.disposal == _PREVIOUS else None
        colours = _colour_numbers(gif.data, frame)[: region.shape[0], : region.shape[1]]
        table = np.zeros((256, 3), np.uint8)
        table[: len(frame.palette)] = frame.palette
        drawn = np.arange(256) < len(frame.palette)  # browsers draw no colour that is not in the palette
        if frame.transparent is not None:
            drawn[frame.transparent] = False
        np.copyto(region, table[colours], where=drawn[colours][:, :, None])
        yield canvas
        if frame.disposal == _BACKGROUND:
            region[:] = background
        elif before is not None:
            region[:] = before


def _colour_numbers(data: bytes, frame: GifFrame) -> np.ndarray:
    """The frame's pixels, uint8 ``(height, width)``: Pillow reads them as a grey GIF of this frame only."""
    size = struct.pack("<HH", frame.width, frame.height)
    header = b"GIF89a" + size + b"\0\0\0" + b",\0\0\0\0" + size + (b"\x40" if frame.interlaced else b"\0")
    with decoding(), Image.open(io.BytesIO(header + data[frame.start : frame.end] + b";"), formats=["GIF"]) as image:
        return np.asarray(image)
