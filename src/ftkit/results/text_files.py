"""Read TSV, CSV and JSON row by row in plain Python: training data, the first row of a file, the line of a fault."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from ftkit.errors import InputError

MAX_ROW_BYTES = 1_000_000
MAX_LIST_BYTES = 2_000_000_000  # of a JSON list, which is one row of text mostly
SEPARATORS = (",", ";", "\t", "|")
_SAMPLE = 50  # lines that tell the separator
# What stands before the first item of a list, before a later one, behind the last one, and where there is none.
_BEGIN, _GAP, _END, _NOTHING = (re.compile(rf"\s*{mark}\s*") for mark in (r"\[(?!\s*\])", ",", r"\]", r"\[\s*\]"))


def separator_of(path: Path, limit: int = MAX_ROW_BYTES) -> str:
    """Return the separator that cuts the first rows of a table into the most columns, equally many in each.

    Raises:
        InputError: The file cannot be read as text.
    """
    lines = [text for _, text in islice(text_lines(path, limit), _SAMPLE)]
    found = {separator: _widths(lines, separator) for separator in SEPARATORS}
    even = [separator for separator, widths in found.items() if len(set(widths)) == 1 and widths[0] > 1]
    return max(even or SEPARATORS, key=lambda separator: max(found[separator][:1], default=0))


def _widths(lines: list[str], separator: str) -> list[int]:
    """Return the number of cells in each row, as far as the rules of CSV hold."""
    widths = []
    try:
        for row in csv.reader(lines, delimiter=separator, strict=True):
            widths += [len(row)] * bool(row)
    except csv.Error as error:
        return widths if "end of data" in str(error) else []
    return widths


def delimited_rows(path: Path, separator: str, limit: int = MAX_ROW_BYTES) -> Iterator[tuple[int, list[str]]]:
    """Yield ``(line, cells)`` of each row of a TSV or CSV file by the strict rules of CSV; empty lines are passed over.

    Raises:
        InputError: The file cannot be read, is not UTF-8 text, breaks the rules of quotes, or has a row with another
            number of columns than the first one.
    """
    csv.field_size_limit(max(csv.field_size_limit(), limit))
    # A lone CR ends a line, too, as it does for Arrow and pandas.
    pieces = (piece for _, text in text_lines(path, limit) for piece in re.split(r"(?<=\r)(?!\n)", text) if piece)
    reader, width = csv.reader(pieces, delimiter=separator, strict=True), 0
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"not readable as CSV: {error}", file=path, line=line) from None
        width = width or len(row)
        if row and len(row) != width:
            fix = "every row needs as many columns as the first line"
            raise InputError(f"expected {width} columns, found {len(row)}", file=path, line=line, fix=fix)
        if row:
            yield line, row


def json_objects(path: Path, limit: int = MAX_ROW_BYTES) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(line, object)`` of JSON lines, of which blank ones are passed over, or ``(number, object)`` of a list.

    Raises:
        InputError: The file cannot be read, is not UTF-8 text, or holds something else than JSON objects.
    """
    listed = is_json_list(path)
    for place, record in _list_items(path) if listed else _line_items(path, limit):
        if not isinstance(record, dict):
            problem, line = (f"item {place} is not a JSON object", None) if listed else ("not a JSON object", place)
            raise InputError(problem, file=path, line=line, got=record, fix='write {"id": ..., ...}')
        yield place, record


def is_json_list(path: Path) -> bool:
    """Return whether a text begins as a JSON list of objects, on one line or several."""
    start = next(_pieces(path, lambda file: file.read(1 << 16)), b"").removeprefix(b"\xef\xbb\xbf")
    return re.match(rb"\s*\[\s*(\{|\]|\Z)", start) is not None


def _line_items(path: Path, limit: int) -> Iterator[tuple[int, Any]]:
    for line, text in text_lines(path, limit):
        if text.strip():
            try:
                yield line, json.loads(text.rstrip("\n"))
            except (ValueError, RecursionError) as error:  # the first also for a number of thousands of digits
                raise InputError(f"not JSON: {error}", file=path, line=line) from None


def _list_items(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the items of a list with their numbers; its text is in memory, and one item at a time."""
    raw = next(_pieces(path, lambda file: file.read(MAX_LIST_BYTES + 1)))
    text = _decoded(raw, path, 0, 1, MAX_LIST_BYTES, "write JSON lines: one object a line").removeprefix("\ufeff")
    decode, number = json.JSONDecoder().raw_decode, 0
    gap = _BEGIN.match(text)
    while gap:
        try:
            value, place = decode(text, gap.end())
        except (ValueError, RecursionError) as error:
            problem, line = getattr(error, "msg", str(error)), getattr(error, "lineno", None)
            raise InputError(f"not JSON: {problem} (item {number + 1} of the list)", file=path, line=line) from None
        number += 1
        yield number, value
        gap = _GAP.match(text, place)
    if not (_END.fullmatch(text, place) if number else _NOTHING.fullmatch(text)):
        problem = f"not JSON: the list does not go on (item {number + 1} of the list)"
        raise InputError(problem, file=path, line=text.count("\n", 0, place) + 1 if number else 1)


def text_lines(path: Path, limit: int = MAX_ROW_BYTES) -> Iterator[tuple[int, str]]:
    """Yield ``(number, line)`` of a UTF-8 file, which may be gzipped, lines with their ends; without byte order mark.

    Raises:
        InputError: The file cannot be opened, is not UTF-8, holds a NUL byte, or has a line over ``limit`` bytes.
    """
    offset = 0
    for number, raw in enumerate(_pieces(path, lambda file: file.readline(limit + 1)), start=1):
        text = _decoded(raw, path, offset, number, limit)
        if text := text.removeprefix("\ufeff") if number == 1 else text:
            yield number, text
        offset += len(raw)


def _pieces(path: Path, read: Callable[[BinaryIO], bytes]) -> Iterator[bytes]:
    """Yield what ``read`` returns of a file, time after time, up to its end."""
    with opened(path) as file:
        try:
            while raw := read(file):
                yield raw
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"cannot be read: {error}", file=path) from None


def opened(path: Path) -> BinaryIO:
    """Open a file to read its bytes, unpacked where its name ends in .gz.

    Raises:
        InputError: It is missing, a folder, or not ours to read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path, fix=_another(path, error)) from error
    return cast("BinaryIO", gzip.open(file)) if path.suffix.lower() == ".gz" else file


def _another(path: Path, error: OSError) -> str | None:
    """Return what to name in the place of a path that cannot be opened, where that is known."""
    if isinstance(error, IsADirectoryError):
        return "name a file in it"
    relative = isinstance(error, FileNotFoundError) and not path.is_absolute()
    return f"relative paths start in the current folder, {Path.cwd()}" if relative else None


def _decoded(raw: bytes, path: Path, offset: int, line: int, limit: int, fix: str = "is this a table of rows?") -> str:
    if line == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError("the file is UTF-16 (byte 0)", file=path, got=raw[:2], fix="save as UTF-8")
    if len(raw) > limit:
        raise InputError(f"the row is longer than {limit // 1_000_000} MB", file=path, line=line, fix=fix)
    if (nul := raw.find(b"\0")) >= 0:
        fix = "the file is damaged or UTF-16: save as UTF-8 text"
        raise InputError(f"a NUL byte (byte {offset + nul})", file=path, line=line, fix=fix)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        problem, got = f"not UTF-8 (byte {offset + error.start})", raw[error.start : error.start + 1]
        fix = "save as UTF-8, or convert it by `iconv -f latin1 -t utf-8`"
        line += raw.count(b"\n", 0, error.start)
        raise InputError(problem, file=path, line=line, got=got, fix=fix) from None
