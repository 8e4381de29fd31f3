"""Read TSV, CSV, JSON and Parquet files as Arrow batches of text columns."""

import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from ftkit.errors import InputError, first_line
from ftkit.results.layout import NULLABLE, REQUIRED, would_be_lost
from ftkit.results.text_files import (
    MAX_ROW_BYTES,
    delimited_rows,
    is_json_list,
    json_objects,
    opened,
    separator_of,
    text_lines,
)

BLOCK_BYTES = 1 << 21
BLOCK_ROWS = 20_000
_SAMPLE = 1_000  # rows that decide what the columns of a file without a header hold
FORMATS = {".tsv": "tsv", ".csv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class TableFile:
    """A table in a file of any length."""

    path: Path
    form: str  # tsv, csv, json or parquet
    width: int  # the number of columns
    names: list[str] | None = None  # their names; None of TSV and CSV, whose first row may be a header or an example
    sample: list[list[str]] = field(default_factory=list)  # the first rows of TSV and CSV
    first_line: int | None = None  # the line of the first row; None of Parquet
    separator: str = "\t"  # what stands between the cells of TSV and CSV

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read the table in order, in memory that does not grow with the file, or with the text of a JSON list only.

        Yields:
            Some rows; each column is of type string and named by its number. What is missing is null: null in JSON and
            Parquet, an empty cell without quotes in TSV and CSV.

        Raises:
            InputError: The file is damaged or no table; the message names the line.
        """
        return {"parquet": _parquet_batches, "json": _json_batches}.get(self.form, _delimited_batches)(self)

    def line_of(self, row: int) -> int:
        """Return the line on which a row begins, both counted from 1; of Parquet and a JSON list the row itself."""
        if self.form == "parquet":
            return row
        rows = json_objects(self.path) if self.form == "json" else delimited_rows(self.path, self.separator)
        return next(islice(rows, row - 1, None))[0]

    def batch(self, columns: list[pa.Array]) -> pa.RecordBatch:
        """Return a batch of such columns."""
        return pa.record_batch(columns, [str(place) for place in range(self.width)])


def open_table(path: Path) -> TableFile:
    """Find out a table's format and columns, and from its first lines what separates those of CSV.

    Raises:
        InputError: The file cannot be read, is empty or no table.
    """
    form = form_of(path)
    if form == "parquet":
        with opened(path) as file:
            try:
                names = parquet.ParquetFile(file).schema_arrow.names
            except (pa.ArrowInvalid, OSError) as error:
                raise InputError(f"not a Parquet file: {error}", file=path) from None
        return TableFile(path, form, len(names), names)
    if form == "json":
        for line, record in json_objects(path):
            return TableFile(path, form, len(record), list(record), first_line=line)
    else:
        separator = "\t" if form == "tsv" else separator_of(path)
        if sample := list(islice(delimited_rows(path, separator), _SAMPLE)):
            rows = [cells for _, cells in sample]
            return TableFile(path, form, len(rows[0]), None, rows, sample[0][0], separator)
    raise InputError("the file is empty", file=path, fix="give a file with one row per example")


def form_of(path: Path) -> str:
    """Return the format of a table: ``tsv``, ``csv``, ``json`` or ``parquet``.

    Args:
        path: The file. Its ending (.tsv, .csv, .json, .jsonl, .ndjson, .parquet; of text also with .gz behind it) or
            else its first line says the format.

    Raises:
        InputError: It has another ending and cannot be read.
    """
    if form := FORMATS.get(Path(path.name.removesuffix(".gz")).suffix.lower()):
        return form
    with opened(path) as file:
        if file.read(4) == b"PAR1":
            return "parquet"
    first = next((text for _, text in text_lines(path) if text.strip()), "")
    if first.lstrip().startswith("{") or is_json_list(path):
        return "json"
    return "tsv" if "\t" in first else "csv"


def _delimited_batches(table: TableFile) -> Iterator[pa.RecordBatch]:
    names, checked, separator = [str(place) for place in range(table.width)], False, table.separator
    try:
        with csv.open_csv(
            str(table.path),
            read_options=csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES),
            parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[""],
                strings_can_be_null=True, quoted_strings_can_be_null=False,
            ),
        ) as reader:  # fmt: skip
            for batch in reader:
                if any((pc.max(pc.binary_length(column)).as_py() or 0) > MAX_ROW_BYTES for column in batch.columns):
                    raise _fault(table, "a cell is longer than 1 MB")
                if not checked and any(_holds_rows(column, separator) for column in batch.columns):
                    # Arrow takes what follows a closed quote for a part of its cell, and so may swallow rows.
                    _check_rows(table)
                    checked = True
                yield batch
        if not checked and _is_suspicious(table.path):
            _check_rows(table)
    except (pa.ArrowInvalid, OSError) as error:
        raise _fault(table, first_line(error)) from None


def _holds_rows(column: pa.Array, separator: str) -> bool:
    """Return whether a cell holds both a line end and a separator, as one does that has swallowed other cells."""
    data = column.buffers()[2]
    if data is None or not re.search(b"\n", data):
        return False
    return pc.any(pc.match_substring_regex(column, f"(?s)[\r\n].*[{separator}]|[{separator}].*[\r\n]")).as_py() is True


def _is_suspicious(path: Path) -> bool:
    """Return whether a file holds NUL, an open quote, which Arrow ends with the file, or quotes and no line feed."""
    nul, quotes, lines = False, 0, False
    with opened(path) as file:
        for chunk in iter(partial(file.read, BLOCK_BYTES), b""):
            nul, quotes, lines = nul or b"\0" in chunk, quotes + chunk.count(b'"'), lines or b"\n" in chunk
    return nul or quotes % 2 == 1 or (quotes > 0 and not lines)


def _check_rows(table: TableFile) -> None:
    """Read a file once in plain Python, which raises the error for the first fault with its line."""
    deque(delimited_rows(table.path, table.separator), maxlen=0)


def _fault(table: TableFile, problem: str) -> InputError:
    """Return the error for what Arrow found, with the line where it is."""
    try:
        _check_rows(table)
    except InputError as error:
        return error
    return InputError(f"cannot be read: {problem}", file=table.path)


def _parquet_batches(table: TableFile) -> Iterator[pa.RecordBatch]:
    for batch in parquet_batches(table.path, BLOCK_ROWS):
        yield table.batch([_as_text(column) for column in batch.columns])


def parquet_batches(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield a Parquet file in batches of so many rows, with the types that it has.

    Raises:
        InputError: The file is damaged.
    """
    try:
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"cannot be read: {error}", file=path) from None


def _as_text(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_floating(kind):
        text = pc.cast(column, pa.string())
        return pc.if_else(pc.match_substring_regex(text, r"^-?\d+$"), pc.binary_join_element_wise(text, "0", "."), text)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return pc.cast(column, pa.string())
    return pa.array(map(_cell, column.to_pylist()), pa.string())


def _json_batches(table: TableFile) -> Iterator[pa.RecordBatch]:
    """Read JSON lines in plain Python: Arrow's own reader would not keep 7, 1.0 and true as texts."""
    keys, rows = table.names or [], json_objects(table.path)
    while part := list(islice(rows, BLOCK_ROWS)):
        for line, record in part:
            _check_keys(record, keys, table.path, line)
        cells = [[_cell(record.get(key)) for _, record in part] for key in keys]
        try:
            yield table.batch([pa.array(column, pa.string()) for column in cells])
        except UnicodeEncodeError:
            raise _no_text(table, part) from None


def _no_text(table: TableFile, part: list[tuple[int, dict[str, Any]]]) -> InputError:
    cells = ((line, key, str(_cell(record.get(key)))) for line, record in part for key in table.names or [])
    line, key, got = next(cell for cell in cells if re.search("[\ud800-\udfff]", cell[2]))
    problem = "not valid text: half of a surrogate pair"
    return InputError(problem, file=table.path, line=line, field=key, got=got)


def _check_keys(record: dict[str, Any], keys: list[str], path: Path, line: int) -> None:
    """Refuse an object that lacks what the first one has and cannot do without, or has what would be lost.

    Raises:
        InputError: So it is.
    """
    for key in keys:
        if key in NULLABLE and key in record:
            if record[key] != record[key]:
                record[key] = None  # pandas writes what is missing as NaN
        elif key in REQUIRED and record.get(key) is None:
            raise InputError("missing", file=path, line=line, field=key, fix="give it in every object")
    for key in record.keys() - set(keys):
        if would_be_lost(key, keys):
            problem = "not in the first object"
            raise InputError(problem, file=path, line=line, field=key, fix="give it in every object")


def _cell(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    is_json = isinstance(value, int | float | list | dict) and not isinstance(value, bool)
    return json.dumps(value, ensure_ascii=False, default=str) if is_json else str(value)
