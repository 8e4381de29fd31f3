"""Records of training data from any source: tables and JSON in files, ``datasets`` data sets, frames and lists."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from ftkit.errors import InputError
from ftkit.examples.data_sets import datasets_package, is_a, loaded, source_of
from ftkit.examples.image_files import MAX_BYTES
from ftkit.examples.records import Records, RecordSource
from ftkit.results.table_files import form_of, parquet_batches
from ftkit.results.text_files import delimited_rows, is_json_list, json_objects, separator_of

# What columns of training data are usually called; a table whose first line has one of these names has a header.
KNOWN_NAMES = frozenset({
    "id", "text", "sentence", "message", "messages", "content", "review", "tweet", "title", "label", "labels",
    "category", "class", "sentiment", "target", "rating", "prompt", "completion", "chosen", "rejected", "prefix",
    "suffix", "question", "query", "answer", "response", "conversations", "instruction", "input", "output", "image",
    "images", "tools",
})  # fmt: skip
_SAMPLE = 1_000  # records that tell the columns
_BATCH = 1_000
_LIMIT = 2 * MAX_BYTES  # bytes of a record, which may hold an image in base64
# Cells of an example, and those that are one if no usual name stands beside them.
_DATA = re.compile(r"true|false|.*\.(png|jpe?g|gif|webp|bmp|tiff?|avif)", re.IGNORECASE | re.DOTALL)
_LIKE_DATA = re.compile(r"yes|no|[+-]?\d+([.,]\d+)?|.{60,}", re.IGNORECASE | re.DOTALL)


def open_source(given: Any, columns: Mapping[str, str | int] | None = None) -> RecordSource:
    r"""Find out what a source of training data is, and which columns it has; nothing is looked up in the network.

    Values of TSV and CSV are text, and None where a cell is empty; those of other sources are Python's. Classes of a
    ``datasets`` data set are their names, and images of one are :class:`StoredImage`, or paths where it holds paths.

    Args:
        given: A file of TSV, CSV (separated by commas, semicolons, tabs or bars), JSON lines, a JSON list (text also
            with .gz behind the ending) or Parquet; a folder that ``Dataset.save_to_disk`` wrote; a
            ``datasets.Dataset``; a pandas frame; or a list of dicts.
        columns: Our name of a column and the one in the source. A table without a header has the names 0, 1, ...

    Raises:
        InputError: There is no such source, it is damaged, or it has no such column.
        EnvironmentFault: The package ``datasets`` is missing.

    Example:
        >>> source = open_source([{"sentence": "fine", "stars": 5}], columns={"text": "sentence"})
        >>> source.columns, list(source)
        (['text', 'stars'], [(1, {'text': 'fine', 'stars': 5})])
    """
    chosen = {ours: str(theirs) for ours, theirs in (columns or {}).items()}
    if isinstance(given, RecordSource):
        source = given
    elif isinstance(given, str | Path):
        path = Path(given).expanduser()
        is_folder = path.is_dir()
        source = source_of(loaded(str(given)), str(given), path) if is_folder else _of_file(path, str(given), chosen)
    elif is_a(given, "pandas", "DataFrame"):
        source = RecordSource("a data frame", partial(_of_frame, given), list(map(str, given.columns)))
    elif isinstance(given, list):
        source = _of_json("a list", partial(_of_list, given))
    elif is_a(given, "datasets", "Dataset", "DatasetDict"):
        source = source_of(given, "a data set")
    else:
        fix = "give a path, a list of dicts, a pandas frame, or a datasets.Dataset"
        raise InputError("is not a data source", got=type(given).__name__, fix=fix)
    for ours, theirs in chosen.items():
        _check_column(source, ours, theirs)
    for name in () if chosen and source.file else KNOWN_NAMES.intersection(source.names).difference(chosen):
        if source.names.count(name) > 1:  # of a table in text such columns are left out
            raise source.error(
                1 if source.file else None, "two columns have the same name", got=name, fix="rename one of them"
            )
    return replace(source, chosen=chosen)


def _check_column(source: RecordSource, ours: str, theirs: str) -> None:
    if source.names.count(theirs) > 1:
        raise source.error(None, "two columns have the same name", field=f"columns.{ours}", got=theirs)
    if theirs not in source.names:
        near = difflib.get_close_matches(theirs, source.names, n=1)
        fix = f"the columns are {', '.join(filter(None, source.names))}{f'; use {near[0]}' if near else ''}"
        if ours == "label":
            fix += "; texts without labels are for `ftkit predict --data.predict SOURCE`"
        raise source.error(None, "no such column", field=f"columns.{ours}", got=theirs, fix=fix)


def _of_file(path: Path, title: str, chosen: Mapping[str, str]) -> RecordSource:
    form = form_of(path)
    if form == "parquet":
        return _of_parquet(path, title)
    if form == "json":
        read = partial(json_objects, path, _LIMIT)
        return _of_json(title, read, path.parent, None if is_json_list(path) else path)
    separator = "\t" if form == "tsv" else separator_of(path, _LIMIT)
    sample = [cells for _, cells in islice(delimited_rows(path, separator, _LIMIT), _SAMPLE)]
    if not sample:
        raise InputError("contains no examples", file=path, fix="give a table with one example a line")
    sample[0] = [name.strip() for name in sample[0]]
    header = _has_header(sample, chosen)
    names = sample[0] if header else [str(place) for place in range(len(sample[0]))]
    return RecordSource(title, partial(_rows, path, separator, names, header), names, path.parent, path)


def _has_header(sample: list[list[str]], chosen: Mapping[str, str]) -> bool:
    """Return whether the first row of a table names its columns: none of its cells looks like, or is seen as, data."""
    first, *others = sample
    if chosen:
        return set(chosen.values()) <= {*first} or not all(map(str.isdecimal, chosen.values()))
    if any(map(_DATA.fullmatch, first)):
        return False
    if KNOWN_NAMES.intersection(first) or first == [str(place) for place in range(len(first))]:
        return True
    below = [set(column) - {""} for column in zip(*others, strict=True)] or [set[str]()] * len(first)
    return not any(_LIKE_DATA.fullmatch(cell) or cell in cells for cell, cells in zip(first, below, strict=True))


def _rows(path: Path, separator: str, names: list[str], header: bool) -> Records:
    kept = [(place, name) for place, name in enumerate(names) if name and names.count(name) == 1]
    for line, cells in islice(delimited_rows(path, separator, _LIMIT), int(header), None):
        yield line, {name: cells[place] or None for place, name in kept}


def _of_json(
    title: str, read: Callable[[], Records], folder: Path | None = None, file: Path | None = None
) -> RecordSource:
    names = dict.fromkeys(name for _, record in islice(read(), _SAMPLE) for name in record)
    return RecordSource(title, read, list(names), folder, file)


def _of_list(records: list[Any]) -> Records:
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise InputError("must be a dict", file=f"a list, example {number}", got=record)
        yield number, {str(name): _plain(value) for name, value in record.items()}


def _of_frame(frame: Any) -> Records:
    names = list(map(str, frame.columns))
    for start in range(0, len(frame), _BATCH):
        part = frame.iloc[start : start + _BATCH].astype(object)
        for number, values in enumerate(part.itertuples(index=False, name=None), start=start + 1):
            yield number, {name: _plain(value) for name, value in zip(names, values, strict=True)}


def _plain(value: Any) -> Any:
    """Return a value of a frame or a list as Python's own, with None for what is missing."""
    value = value.tolist() if hasattr(value, "tolist") else value  # of NumPy
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    missing = type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    return None if missing else value


def _of_parquet(path: Path, title: str) -> RecordSource:
    try:
        schema = parquet.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"not a Parquet file: {error}", file=path) from None
    if any("bytes: " in str(kind) for kind in schema.types):  # images, which stay on disk
        return source_of(datasets_package(path).Dataset.from_parquet(str(path)), title, path.parent)
    return RecordSource(title, partial(_rows_of_parquet, path), schema.names, path.parent)


def _rows_of_parquet(path: Path) -> Records:
    yield from enumerate((row for batch in parquet_batches(path, _BATCH) for row in batch.to_pylist()), start=1)
