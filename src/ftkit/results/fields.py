"""One column of a block of text, as positions in the block's bytes: whole columns at a time, no loop over rows."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

QUOTED = 'json:"'
_SPECIAL = re.compile('[\t\n\0\ud800-\udfff]|\r\\Z|\\Ajson:"')
_SURROGATE = re.compile("[\ud800-\udfff]")
_PADDING = 8  # so that eight bytes may be read from any cell
_MASKS = np.array([(1 << (8 * length)) - 1 for length in range(9)], dtype=np.uint64)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)


class NotANumberError(ValueError):
    """A cell that should hold a number does not.

    Args:
        row: The cell's row within its block.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} is not a number")
        self.row = row


@dataclass(frozen=True)
class Fields:
    """The cells of one column of one block: in order, with at least one byte between two of them.

    Attributes:
        data: The block's bytes, followed by eight zero bytes.
        start: int64 ``(rows,)``: where each cell begins in ``data``.
        length: int64 ``(rows,)``: bytes in each cell.

    Example:
        >>> cells = Fields.of(["ham", "spam", "ham"])
        >>> cells.texts(), cells.text(1)
        (['ham', 'spam', 'ham'], 'spam')
        >>> hashes = cells.hashes()
        >>> bool(hashes[0] == hashes[2]), bool(hashes[0] == hashes[1])
        (True, False)
    """

    data: bytes
    start: np.ndarray
    length: np.ndarray

    @classmethod
    def of(cls, cells: Iterable[str]) -> Fields:
        """Lay out texts that were read one by one, as :func:`quote` does: a text has the same hash in every format."""
        encoded = [quote(cell).encode() for cell in cells]
        length = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(padded(b"\n".join(encoded)), np.cumsum(length + 1) - length - 1, length)

    def __len__(self) -> int:
        return len(self.start)

    def text(self, row: int) -> str:
        """The cell of one row."""
        return unquote(self.data[self.start[row] : self.start[row] + self.length[row]].decode())

    def texts(self) -> list[str]:
        """The cells of all rows."""
        pairs = zip(self.start.tolist(), (self.start + self.length).tolist(), strict=True)
        return [unquote(self.data[start:end].decode()) for start, end in pairs]

    def take(self, rows: np.ndarray | slice) -> Fields:
        """The cells of some rows only."""
        return Fields(self.data, self.start[rows], self.length[rows])

    def blank(self) -> np.ndarray:
        """Whether each cell holds nothing but white space: bool ``(rows,)``.

        Example:
            >>> Fields.of(["no", "", "  ", " no"]).blank().tolist()
            [False, True, True, False]
        """
        blank = self.length == 0
        first = np.frombuffer(self.data, np.uint8)[self.start]
        for row in np.flatnonzero(~blank & (first <= ord(" "))).tolist():
            blank[row] = not self.text(row).strip()
        return blank

    def hashes(self) -> np.ndarray:
        """A 64-bit hash of each cell's bytes: uint64 ``(rows,)``; the same bytes give the same hash in every file."""
        words = np.ndarray((len(self.data) - 7,), "<u8", self.data, strides=(1,))
        result = self.length.astype(np.uint64) * _FACTOR
        for offset in range(0, int(self.length.max(initial=0)), 8):
            rows = np.flatnonzero(self.length > offset)
            # A cell's last word is cut where the cell ends.
            mask = _MASKS[np.minimum(self.length[rows] - offset, 8)]
            result[rows] = _mixed(result[rows] ^ (words[self.start[rows] + offset] & mask))
        return result

    def numbers(self) -> np.ndarray:
        """The cells as numbers: float64 ``(rows,)``, rounded as Python's ``float`` does.

        Raises:
            NotANumberError: A cell is empty or holds something else; the first such row is named.
        """
        if len(self) == 0:
            return np.empty(0)
        # Copy the cells and one byte behind each, which becomes a line end.
        ends = self.start + self.length
        edge = np.zeros(len(self.data) + 1, np.int8)
        edge[self.start] = 1
        edge[ends + 1] -= 1
        text = np.frombuffer(self.data, np.uint8)[np.cumsum(edge[:-1], dtype=np.int8).view(bool)]
        text[np.cumsum(self.length + 1) - 1] = ord("\n")
        return _parsed(text.tobytes(), self)


class Vocabulary:
    """Numbers the distinct cells of a column in the order in which they appear.

    Args:
        known: Texts that get the first codes.
        limit: No more than so many distinct cells get a code of their own; the others share the code -1.

    Attributes:
        texts: The distinct cells by code.
        lines: The line where each was first seen, 0 for one that was not seen yet.
        overflowed: Whether some cell has the code -1.

    Example:
        >>> vocabulary = Vocabulary()
        >>> vocabulary.encode(Fields.of(["no", "yes", "no"]), np.array([2, 3, 4])).tolist(), vocabulary.texts
        ([0, 1, 0], ['no', 'yes'])
    """

    def __init__(self, known: Iterable[str] = (), limit: int = 1_000) -> None:
        self.limit = limit
        self.texts: list[str] = []
        self.lines: list[int] = []
        self.overflowed = False
        self._codes: dict[int, int] = {}
        cells = Fields.of(known)
        for row, value in enumerate(cells.hashes().tolist()):
            self._register(value, cells.text(row), 0)

    def encode(self, cells: Fields, lines: np.ndarray) -> np.ndarray:
        """Codes of a block's cells: int16 ``(rows,)``.

        Args:
            cells: The column.
            lines: int ``(rows,)``: the line of each row.
        """
        hashes = cells.hashes()
        codes = np.full(len(hashes), -1, np.int16)
        # The usual column has two values: compare with those seen first, and sort only what is left.
        for value, code in list(self._codes.items())[:8]:
            codes[hashes == np.uint64(value)] = code
            if code < len(self.lines) and self.lines[code] == 0 and (codes == code).any():
                self.lines[code] = int(lines[np.argmax(codes == code)])
        left = np.flatnonzero(codes < 0)
        if left.size:
            distinct, first, inverse = np.unique(hashes[left], return_index=True, return_inverse=True)
            found = np.full(len(distinct), -1, np.int16)
            for position in np.argsort(first):
                row = left[first[position]]
                found[position] = self._code(int(distinct[position]), cells, int(row), int(lines[row]))
            codes[left] = found[inverse]
        return codes

    def _code(self, value: int, cells: Fields, row: int, line: int) -> int:
        if value not in self._codes:
            if len(self.texts) >= self.limit:
                self.overflowed = True
                return -1
            self._register(value, cells.text(row), line)
        code = self._codes[value]
        self.lines[code] = self.lines[code] or line
        return code

    def _register(self, value: int, text: str, line: int) -> None:
        if value not in self._codes:
            self._codes[value] = len(self.texts)
            self.texts.append(text)
            self.lines.append(line)


def padded(block: bytes) -> bytes:
    """The bytes of a block in the form that :class:`Fields` wants."""
    return block + bytes(_PADDING)


def quote(text: str) -> str:
    r"""A cell for ``text``: itself, or a JSON string behind ``json:`` where a plain cell could not hold it.

    Example:
        >>> quote("I can't say.\nSorry"), quote('"quoted"')
        ('json:"I can\'t say.\\nSorry"', '"quoted"')
    """
    # A cell that ends in CR would make the line end look like CRLF.
    if _SPECIAL.search(text):
        return f"json:{json.dumps(text, ensure_ascii=_SURROGATE.search(text) is not None)}"
    return text


def unquote(cell: str) -> str:
    """The text of a cell that :func:`quote` wrote; any other cell is its own text."""
    if cell.startswith(QUOTED):
        try:
            return json.loads(cell.removeprefix("json:"))
        except json.JSONDecodeError:
            return cell
    return cell


def _mixed(value: np.ndarray) -> np.ndarray:
    value = value * _FACTOR
    value ^= value >> np.uint64(32)
    value *= _MIX
    value ^= value >> np.uint64(29)
    return value * _FACTOR ^ (value >> np.uint64(31))


def _parsed(text: bytes, cells: Fields) -> np.ndarray:
    if cells.length.min() > 0 and not any(blank in text for blank in (b" ", b"\r", b"\v", b"\f")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)
                numbers = np.fromstring(text, np.float64, sep="\n")
            assert len(numbers) == len(cells)
            return numbers
        except (DeprecationWarning, ValueError):
            pass  # some cell is not a number: find it below
    return _parsed_one_by_one(cells)


def _parsed_one_by_one(cells: Fields) -> np.ndarray:
    numbers = np.empty(len(cells))
    for row, cell in enumerate(cells.texts()):
        try:
            numbers[row] = float(cell)
        except ValueError:
            raise NotANumberError(row) from None
    return numbers
