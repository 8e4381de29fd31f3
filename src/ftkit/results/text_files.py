"""Read TSV, CSV and JSON row by row in plain Python: training data, the first row of a file, the line of a fault."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from ftkit.errors import InputError

MAX_ROW_BYTES = 1_000_000
SEPARATORS = (",", ";", "\t", "|")
_SAMPLE = 50  # lines that tell the separator
_CHUNK = 1 << 16  # bytes of a JSON list at a time
# What stands before the first item of such a list, before a later one, behind the last one, and where there is none.
_BEGIN, _GAP, _END, _NOTHING = (re.compile(rf"\s*{mark}\s*") for mark in (r"\[", ",", r"\]", r"\[\s*\]"))


def separator_of(path: Path) -> str:
    """Return the separator that cuts the first rows of a table into the most columns, equally many in each.

    Raises:
        InputError: The file cannot be read as text.
    """
    lines = [text for _, text in islice(text_lines(path), _SAMPLE)]
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

    Args:
        path: The file.
        limit: The largest number of bytes of an object.

    Raises:
        InputError: The file cannot be read, is not UTF-8 text, or holds something else than JSON objects.
    """
    listed = is_json_list(path)
    for place, record in _list_items(path, limit) if listed else _line_items(path, limit):
        if not isinstance(record, dict):
            problem, line = (f"item {place} is not a JSON object", None) if listed else ("not a JSON object", place)
            raise InputError(problem, file=path, line=line, got=record, fix='write {"id": ..., ...}')
        yield place, record


def is_json_list(path: Path) -> bool:
    """Return whether a text begins as a JSON list of objects, on one line or several."""
    start = next(_pieces(path, lambda file: file.read(_CHUNK)), b"").removeprefix(b"\xef\xbb\xbf")
    return re.match(rb"\s*\[\s*(\{|\]|\Z)", start) is not None


def _line_items(path: Path, limit: int) -> Iterator[tuple[int, Any]]:
    for line, text in text_lines(path, limit):
        if text.strip():
            try:
                yield line, json.loads(text.rstrip("\n"))
            except (ValueError, RecursionError) as error:  # the first also for a number of thousands of digits
                raise InputError(f"not JSON: {error}", file=path, line=line) from None


def _list_items(path: Path, limit: int) -> Iterator[tuple[int, Any]]:
    """Yield the items of a list with their numbers, in memory that does not grow with the list."""
    decode, chunks, text, place, number = json.JSONDecoder().raw_decode, _text_chunks(path), "", 0, 1
    while True:
        problem = "the list does not go on" if text else ""
        if gap := (_GAP if number > 1 else _BEGIN).match(text, place):
            try:
                value, place = decode(text, gap.end())
            except (ValueError, RecursionError) as error:  # or only the rest of the item is still to be read
                problem = getattr(error, "msg", str(error))
            else:
                yield number, value
                number += 1
                continue
        # As much again as there is, so that a long item is not tried too often.
        more = "".join(islice(chunks, 1 + len(text[place:]) // _CHUNK))
        if not more and (_END if number > 1 else _NOTHING).fullmatch(text, place):
            return
        if not more or len(text) - place > limit:
            raise InputError(f"not JSON: {problem} (item {number} of the list)", file=path)
        text, place = text[place:] + more, 0


def _text_chunks(path: Path) -> Iterator[str]:
    decoder, offset = codecs.getincrementaldecoder("utf-8-sig")(), 0
    for raw in chain(_pieces(path, lambda file: file.read(_CHUNK)), [b""]):
        begun = len(decoder.getstate()[0])
        try:
            yield decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            problem = f"not UTF-8 (byte {offset - begun + error.start})"
            raise InputError(problem, file=path, got=error.object[error.start :][:1], fix="save as UTF-8") from None
        offset += len(raw)


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
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    return cast("BinaryIO", gzip.open(file)) if path.suffix.lower() == ".gz" else file


def _decoded(raw: bytes, path: Path, offset: int, line: int, limit: int) -> str:
    if line == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError("the file is UTF-16 (byte 0)", file=path, got=raw[:2], fix="save as UTF-8")
    if len(raw) > limit:
        raise InputError(
            f"the row is longer than {limit // 1_000_000} MB", file=path, line=line, fix="is this a table of rows?"
        )
    if (nul := raw.find(b"\0")) >= 0:
        fix = "the file is damaged or UTF-16: save as UTF-8 text"
        raise InputError(f"a NUL byte (byte {offset + nul})", file=path, line=line, fix=fix)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        problem, got = f"not UTF-8 (byte {offset + error.start})", raw[error.start : error.start + 1]
        fix = "save as UTF-8, or convert it by `iconv -f latin1 -t utf-8`"
        raise InputError(problem, file=path, line=line, got=got, fix=fix) from None
