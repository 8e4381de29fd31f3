"""``published.csv``: the figures that an ablation is compared with.

Columns ``row, train, val, test`` (percent), ``minutes`` and, if wanted, ``note``, in any order; a figure
may be left empty. Lines that start with ``#`` say where the figures come from; the table repeats them. Two of them say
what the figures were measured with: ``# data sha256: HASH`` names the data, ``# base: source=hub`` the base model, by
what ``result.json`` calls ``base``. Only figures of the same data and base model are judged by the published ones.
"""

import csv
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ftkit.ablation.result import Result
from ftkit.errors import InputError
from ftkit.results.text_files import text_lines

_FIGURES = ("train", "val", "test", "minutes")
_COLUMNS = ("row", *_FIGURES, "note")
_DATA_HASH = re.compile(r"#\s*data sha256:\s*([0-9a-f]{64})\s*")
_BASE = re.compile(r"#\s*base:((?:\s*[\w.]+=\S+)+)\s*")


@dataclass(frozen=True)
class Published:
    """A row's published accuracies in percent and training time in minutes; None where there is none."""

    train: float | None
    val: float | None
    test: float | None
    minutes: float | None
    note: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """Content of ``published.csv``."""

    rows: Mapping[int, Published] = field(default_factory=dict)  # the figures by row number
    source: str = ""  # where they come from, in words
    data_sha256: str | None = None  # the hash of the data they were measured on, if it is known
    # What their base models have in common, by the names that result.json uses; empty if it is not known.
    base: Mapping[str, str] = field(default_factory=dict)

    def other_origin(self, results: Iterable[Result]) -> str:
        """Return why ours cannot be compared with the published figures, such as other data; empty if they can."""
        reasons = []
        for one in results:
            if not self.data_sha256:
                reasons.append("published.csv does not say its data (# data sha256: HASH)")
            elif one.data_sha256 != self.data_sha256:
                reasons.append(f"other data ({one.data_source})")
            ours = {name: str(one.base.get(name, "unknown")) for name in self.base}
            if not self.base:
                reasons.append("published.csv does not say its base model (# base: NAME=VALUE)")
            elif ours != self.base:
                reasons.append(f"another base model ({' '.join(f'{name}={value}' for name, value in ours.items())})")
        return "; ".join(dict.fromkeys(reasons))


def read_published(path: Path, rows: Collection[int]) -> PublishedTable:
    """Read ``published.csv``; a missing file means that nothing was published.

    Raises:
        InputError: A column, row number or figure is wrong; the message names the line.
    """
    if not path.exists():
        return PublishedTable()
    lines = [(number, line.rstrip("\r\n")) for number, line in text_lines(path)]
    comments = [line for _, line in lines if line.startswith("#")]
    hashes, bases = ([match[1] for match in map(one.fullmatch, comments) if match] for one in (_DATA_HASH, _BASE))
    said = [line for line in comments if not (_DATA_HASH.fullmatch(line) or _BASE.fullmatch(line))]
    records = [
        (number, _cells(path, number, line)) for number, line in lines if line.strip() and not line.startswith("#")
    ]
    if not records:
        raise InputError("the file is empty", file=path, fix=f"write a header: {','.join(_COLUMNS)}")
    (first, header), *body = records
    _check_header(path, first, header)
    published: dict[int, Published] = {}
    given: dict[int, int] = {}
    for line, cells in body:
        if len(cells) != len(header):
            raise InputError(f"{len(cells)} columns where the header has {len(header)}", file=path, line=line)
        record = dict(zip(header, cells, strict=True))
        row = _row_number(path, line, record["row"], rows)
        if given.setdefault(row, line) != line:
            raise InputError(f"row {row} was already given on line {given[row]}", file=path, line=line)
        figures = {name: _figure(path, line, name, record.get(name, "")) for name in _FIGURES}
        published[row] = Published(**figures, note=record.get("note", ""))
    return PublishedTable(
        rows=published,
        source=" ".join(line.lstrip("# ").rstrip() for line in said),
        data_sha256=hashes[-1] if hashes else None,
        base=dict(part.split("=", 1) for part in bases[-1].split()) if bases else {},
    )


def _cells(path: Path, number: int, line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line]))]
    except csv.Error as error:
        raise InputError(str(error), file=path, line=number, fix="end lines in a line feed") from None


def _check_header(path: Path, line: int, header: list[str]) -> None:
    problems = {
        "missing": [name for name in ("row", "test") if name not in header],
        "unknown": [name for name in header if name not in _COLUMNS],
        "repeated": sorted({name for name in header if header.count(name) > 1}),
    }
    for problem, names in problems.items():
        if names:
            said = f"{problem} column {', '.join(map(repr, names))}"
            raise InputError(said, file=path, line=line, fix=f"the columns are {', '.join(_COLUMNS)}")


def _row_number(path: Path, line: int, text: str, rows: Collection[int]) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InputError("not a row number", file=path, line=line, field="row", got=text)
    if int(text) not in rows:
        fix = "delete the line, or add the row to rows/"
        raise InputError(f"the ablation has no row {int(text)}", file=path, line=line, field="row", fix=fix)
    return int(text)


def _figure(path: Path, line: int, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise InputError("not a number", file=path, line=line, field=name, got=text) from None
    highest = float("inf") if name == "minutes" else 100.0
    if not 0 <= value <= highest or value == float("inf"):
        wanted = "a time in minutes" if name == "minutes" else "a percentage from 0 to 100"
        raise InputError(f"not {wanted}", file=path, line=line, field=name, got=text)
    return value
