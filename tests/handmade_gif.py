"""GIFs written byte by byte from little text pictures, so that their correct composites are known."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

COLOURS = {
    "K": (0, 0, 0), "R": (255, 0, 0), "G": (0, 255, 0), "B": (0, 0, 255),
    "Y": (255, 255, 0), "W": (255, 255, 255), "C": (0, 255, 255), ".": (1, 2, 3),
}  # fmt: skip
LETTERS = "".join(COLOURS)  # the place of a letter is its colour number; "." is transparent where a frame says so


@dataclass(frozen=True)
class Frame:
    """``rows`` are lines of letters, separated by blanks."""

    rows: str
    at: tuple[int, int] = (0, 0)
    disposal: int = 0
    local: str = ""  # the letters of a palette of its own
    interlaced: bool = False
    control: bool = True


def gif(
    size: tuple[int, int],
    *frames: Frame,
    background: int = 0,
    palette: bool = True,
    trailer: bytes = b";",
    padding: bytes = b"",
) -> bytes:
    """A GIF89a of a canvas of ``size`` and the frames, with ``background`` as its background colour number."""
    screen = struct.pack("<HHBBB", *size, 0x80 | 2 if palette else 0, background, 0)
    table = bytes(channel for letter in LETTERS for channel in COLOURS[letter]) if palette else b""
    return b"GIF89a" + screen + table + padding.join(map(_frame, frames)) + trailer


def picture(rows: str) -> np.ndarray:
    """The pixels of a text picture, uint8 ``(height, width, 3)``."""
    return np.array([[COLOURS[letter] for letter in row] for row in rows.split()], np.uint8)


def _frame(frame: Frame) -> bytes:
    rows = frame.rows.split()
    letters = frame.local or LETTERS
    transparent = "." in frame.rows
    number = letters.index(".") if transparent else 0
    options = frame.disposal << 2 | transparent
    control = struct.pack("<3sBHBx", b"!\xf9\x04", options, 5, number) if frame.control else b""
    bits = (len(frame.local) - 1).bit_length() or 1
    flags = (0x40 if frame.interlaced else 0) | (0x80 | bits - 1 if frame.local else 0)
    place = struct.pack("<4HB", *frame.at, len(rows[0]), len(rows), flags)
    table = bytes(channel for letter in frame.local for channel in COLOURS[letter])
    if frame.interlaced:
        rows = [row for start, step in ((0, 8), (4, 8), (2, 4), (1, 2)) for row in rows[start::step]]
    return control + b"," + place + table + _compressed([letters.index(letter) for row in rows for letter in row])


def _compressed(numbers: list[int]) -> bytes:
    """LZW of 8-bit numbers without any compression: codes of 9 bits, the table cleared before it would grow."""
    codes = [256]
    for place, number in enumerate(numbers):
        if place and place % 200 == 0:
            codes.append(256)
        codes.append(number)
    codes.append(257)
    bits = sum(code << 9 * place for place, code in enumerate(codes))
    packed = bits.to_bytes(-(-9 * len(codes) // 8), "little")
    blocks = [packed[start : start + 255] for start in range(0, len(packed), 255)]
    return b"\x08" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
