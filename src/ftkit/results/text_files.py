"""Read TSV, CSV and JSON lines row by row in plain Python: the first row of a file, and the line of a fault."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ftkit.errors import InputError

MAX_ROW_BYTES = 1_000_000
SEPARATORS = {"tsv": "\t", "csv": ","}


def delimited_rows(path: Path, form: str) -> Iterator[tuple[int, list[str]]]:
    """Yield ``(line, cells)`` of each row of a TSV or CSV file by the strict rules of CSV; empty lines are passed over.

    Raises:
        InputError: The file cannot be read, is not UTF-8 text, breaks the rules of quotes, or has a row with another
            number of columns than the first one.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    # A lone CR ends a line, too, as it does for Arrow and pandas.
    pieces = (piece for _, text in text_lines(path) for piece in re.split(r"(?<=\r)(?!\n)", text) if piece)
    reader, width = csv.reader(pieces, delimiter=SEPARATORS[form], strict=True), 0
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


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(line, object)`` of each line that holds something.

    Raises:
        InputError: The file cannot be read, is not UTF-8 text, or a line is not a JSON object.
    """
    for line, text in text_lines(path):
        if not text.strip():
            continue
        try:
            record = json.loads(text.rstrip("\n"))
        except (ValueError, RecursionError) as error:  # the first also for a number of thousands of digits
            raise InputError(f"not JSON: {error}", file=path, line=line) from None
        if not isinstance(record, dict):
            raise InputError("not a JSON object", file=path, line=line, got=record, fix='write {"id": ..., ...}')
        yield line, record


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield ``(number, line)`` of a UTF-8 file, which may be gzipped, lines with their ends; without byte order mark.

    Raises:
        InputError: The file cannot be opened, is not UTF-8, holds a NUL byte, or has a line over 1 MB.
    """
    offset = number = 0
    with opened(path) as file:
        try:
            while raw := file.readline(MAX_ROW_BYTES + 1):
                number += 1
                text = _decoded(raw, path, offset, number)
                if text := text.removeprefix("\ufeff") if number == 1 else text:
                    yield number, text
                offset += len(raw)
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


def _decoded(raw: bytes, path: Path, offset: int, line: int) -> str:
    if line == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError("the file is UTF-16 (byte 0)", file=path, got=raw[:2], fix="save as UTF-8")
    if len(raw) > MAX_ROW_BYTES:
        raise InputError("the row is longer than 1 MB", file=path, line=line, fix="is this a table of rows?")
    if (nul := raw.find(b"\0")) >= 0:
        fix = "the file is damaged or UTF-16: save as UTF-8 text"
        raise InputError(f"a NUL byte (byte {offset + nul})", file=path, line=line, fix=fix)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        problem, got = f"not UTF-8 (byte {offset + error.start})", raw[error.start : error.start + 1]
        raise InputError(problem, file=path, line=line, got=got, fix="save as UTF-8") from None
