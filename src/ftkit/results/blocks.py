"""Text files of any length as blocks of whole lines: checked, numbered, and cut into columns."""

from __future__ import annotations

import csv
import json
import mmap
import os
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ftkit.errors import InputError
from ftkit.results.fields import Fields, padded

BLOCK_BYTES = 1 << 22
MAX_ROW_BYTES = 1_000_000
_ROWS_PER_BLOCK = 20_000
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """Some rows of a table.

    Attributes:
        columns: One per column of the table.
        lines: int64 ``(rows,)``: the line in the file where each row begins, from 1.
    """

    columns: list[Fields]
    lines: np.ndarray

    def rows(self) -> list[list[str]]:
        """The cells row by row."""
        return [list(row) for row in zip(*(column.texts() for column in self.columns), strict=True)]


def text_chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield ``(line number of the first line, whole lines)`` of a UTF-8 file, without its byte order mark.

    Raises:
        InputError: The file cannot be opened, is empty, is not UTF-8, holds a NUL byte, or has a line over 1 MB.
    """
    with _opened(path) as file:
        start = file.read(4)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError("the file is UTF-16 (byte 0)", file=path, got=start[:2], fix="save as UTF-8")
        rest = b"" if start.startswith(_BOM) else start[:3]
        rest, offset, line = rest + start[3:], 3 * start.startswith(_BOM), 1
        while block := file.read(BLOCK_BYTES):
            rest += block
            cut = rest.rfind(b"\n") + 1
            if cut == 0:
                _check_row_bytes(len(rest), path, line)
                continue
            yield line, _checked(rest[:cut], path, offset, line)
            line, offset, rest = line + rest.count(b"\n", 0, cut), offset + cut, rest[cut:]
        if rest:
            yield line, _checked(rest, path, offset, line)
        elif line == 1:
            raise empty_file(path)


def empty_file(path: Path) -> InputError:
    """The error for a file without a line that says anything."""
    return InputError("the file is empty", file=path, fix="give a file with one row per example")


def delimited_blocks(path: Path, delimiter: bytes) -> Iterator[Block]:
    r"""Blocks of a table whose rows are lines and whose cells are split at ``delimiter``; quotes have no meaning.

    Lines end in ``\n`` or ``\r\n``; a lone ``\r`` is part of its cell. Empty lines are passed over.

    Raises:
        InputError: A row has another number of columns than the first one.
    """
    width = 0
    for first_line, chunk in text_chunks(path):
        text = chunk if chunk.endswith(b"\n") else chunk + b"\n"
        data = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(data == ord("\n"))
        starts = np.concatenate(([0], ends[:-1] + 1))
        lines = first_line + np.arange(len(ends))
        _check_row_bytes(int((ends - starts).max()), path, int(lines[np.argmax(ends - starts)]))
        ends = ends - ((ends > starts) & (data[ends - 1] == ord("\r")))
        filled = ends > starts
        if not filled.all():
            starts, ends, lines = starts[filled], ends[filled], lines[filled]
        if not len(starts):
            continue
        cuts = np.flatnonzero(data == delimiter[0])
        width = width or 1 + int(np.searchsorted(cuts, ends[0]))
        yield Block(_columns(padded(text), starts, ends, _cuts_by_row(cuts, starts, ends, lines, width, path)), lines)


def csv_blocks(path: Path) -> Iterator[Block]:
    """Blocks of a comma-separated table, with or without quoted cells; a cell holds up to 1 MB.

    Raises:
        InputError: A row has another number of columns than the first one, or a quote is not closed.
    """
    if not _has_any(path, b'"', b"\t"):
        yield from delimited_blocks(path, b",")
        return
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    texts = (line for _, chunk in text_chunks(path) for line in chunk.decode().removesuffix("\n").split("\n"))
    reader = csv.reader((f"{line}\n" for line in texts), strict=True)
    width = None
    while batch := _csv_batch(reader, path):
        for line, row in batch:
            width = width or len(row)
            if len(row) != width:
                raise _wrong_width(path, line, width, len(row))
        yield _block(batch)


def json_line_blocks(
    path: Path,
    required: Container[str],
    belongs_first: Callable[[str, list[str]], bool] = lambda key, keys: False,
    nullable: Container[str] = (),
) -> Iterator[tuple[list[str], Block]]:
    """Yield ``(keys, block)`` of a file with one JSON object per line; the first object's keys are the columns.

    Args:
        path: The file.
        required: Keys that an object may not lack if the first one has them; a missing other one is an empty cell.
        nullable: Those of them that may be null (or NaN) all the same, which is an empty cell.
        belongs_first: Whether a key that the first object lacks, given that one's keys, may not come up later; any
            other one is passed over.

    Raises:
        InputError: A line is not a JSON object, lacks a required key, or has one that belongs into the first object.
    """
    keys: list[str] = []
    batch: list[tuple[int, list[str]]] = []
    for first_line, chunk in text_chunks(path):
        for line, text in enumerate(chunk.decode().split("\n"), start=first_line):
            if not text.strip():
                continue
            _check_row_bytes(len(text), path, line)
            record = _json_object(text, path, line)
            keys = keys or list(record)
            for key in keys:
                if key in nullable and key in record and record[key] != record[key]:
                    record[key] = None  # pandas writes what is missing as NaN
                if key in required and record.get(key) is None and not (key in nullable and key in record):
                    raise InputError("missing", file=path, line=line, field=key, fix="give it in every object")
            for key in record.keys() - set(keys):
                if belongs_first(key, keys):
                    raise InputError(
                        "not in the first object", file=path, line=line, field=key, fix="give it in every object"
                    )
            batch.append((line, [_json_cell(record.get(key), key, path, line) for key in keys]))
            if len(batch) == _ROWS_PER_BLOCK:
                yield keys, _block(batch)
                batch = []
    if batch:
        yield keys, _block(batch)


def _checked(chunk: bytes, path: Path, offset: int, line: int) -> bytes:
    if (nul := chunk.find(b"\0")) >= 0:
        raise InputError(
            f"a NUL byte (byte {offset + nul})",
            file=path,
            line=line + chunk.count(b"\n", 0, nul),
            fix="the file is damaged or UTF-16: save as UTF-8 text",
        )
    try:
        if not chunk.isascii():
            chunk.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 (byte {offset + error.start})",
            file=path,
            line=line + chunk.count(b"\n", 0, error.start),
            got=chunk[error.start : error.start + 1],
            fix="save as UTF-8",
        ) from None
    return chunk


def _check_row_bytes(count: int, path: Path, line: int) -> None:
    if count > MAX_ROW_BYTES:
        raise InputError("the row is longer than 1 MB", file=path, line=line, fix="is this a prediction file?")


def _cuts_by_row(
    cuts: np.ndarray, starts: np.ndarray, ends: np.ndarray, lines: np.ndarray, width: int, path: Path
) -> np.ndarray:
    """The positions of the delimiters, int64 ``(rows, width - 1)``."""
    if len(cuts) == len(starts) * (width - 1):
        by_row = cuts.reshape(len(starts), width - 1)
        if width == 1 or ((by_row[:, 0] >= starts) & (by_row[:, -1] < ends)).all():
            return by_row
    found = 1 + np.searchsorted(cuts, ends) - np.searchsorted(cuts, starts)
    row = int(np.argmax(found != width))
    raise _wrong_width(path, int(lines[row]), width, int(found[row]))


def _columns(data: bytes, starts: np.ndarray, ends: np.ndarray, cuts: np.ndarray) -> list[Fields]:
    width = cuts.shape[1] + 1
    columns = []
    for column in range(width):
        start = starts if column == 0 else cuts[:, column - 1] + 1
        end = ends if column == width - 1 else cuts[:, column]
        columns.append(Fields(data, start, end - start))
    return columns


def _wrong_width(path: Path, line: int, expected: int, found: int) -> InputError:
    return InputError(
        f"expected {expected} columns, found {found}",
        file=path,
        line=line,
        fix="every row needs as many columns as the first line",
    )


def _opened(path: Path) -> BinaryIO:
    """The file, open for reading.

    Raises:
        InputError: It is missing, a folder, or not ours to read.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error


def _has_any(path: Path, *symbols: bytes) -> bool:
    with _opened(path) as file:
        if not file.seek(0, os.SEEK_END):
            return False  # an empty file cannot be mapped
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return any(view.find(symbol) >= 0 for symbol in symbols)


def _csv_batch(reader: Any, path: Path) -> list[tuple[int, list[str]]]:
    batch: list[tuple[int, list[str]]] = []
    while len(batch) < _ROWS_PER_BLOCK:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise InputError(f"not readable as CSV: {error}", file=path, line=line) from None
        if row:
            batch.append((line, row))
    return batch


def _block(batch: list[tuple[int, list[str]]]) -> Block:
    lines, rows = zip(*batch, strict=True)
    return Block([Fields.of(column) for column in zip(*rows, strict=True)], np.array(lines))


def _json_object(text: str, path: Path, line: int) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:  # the first also for a number of thousands of digits
        raise InputError(f"not JSON: {error}", file=path, line=line) from None
    if not isinstance(record, dict):
        raise InputError("not a JSON object", file=path, line=line, got=record, fix='write {"id": ..., ...}')
    return record


def _json_cell(value: Any, key: str, path: Path, line: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError("not valid text: half of a surrogate pair", file=path, line=line, field=key, got=value)
    return value
