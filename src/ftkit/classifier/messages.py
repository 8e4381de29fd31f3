"""Read labelled messages from a two-column file without losing or changing one.

Two readings of a tab-separated file exist, and on the public SMS file they differ by two messages.
``literal`` takes every line as one message. ``published`` takes a quote at the start of a text as the start
of a quoted field, as spreadsheet programs and pandas do by default; a message that opens a quote then
swallows the lines up to the next quote.
"""

from __future__ import annotations

import csv
import hashlib
import io
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.text_files import MAX_ROW_BYTES, opened, text_lines

_COLUMNS = ("label", "text")


@dataclass(frozen=True)
class Messages:
    """Labelled texts with stable names.

    Args:
        ids: One unique name each: its row in the source as it was read, counted from 1, e.g. ``r00017``.
        labels: One class name each.
        texts: One text each.
        sha256: The hash of the source, see :func:`content_sha256`.
    """

    ids: list[str]
    labels: list[str]
    texts: list[str]
    sha256: str

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[str, str]], sha256: str) -> Messages:
        """Name ``(label, text)`` rows by their place.

        Example:
            >>> Messages.from_rows([("ham", "Ok lar"), ("spam", "WINNER!!")], sha256="").ids
            ['r00001', 'r00002']
        """
        pairs = list(rows)
        ids = [f"r{number:05d}" for number in range(1, len(pairs) + 1)]
        return cls(ids, [label for label, _ in pairs], [text for _, text in pairs], sha256)

    def __len__(self) -> int:
        return len(self.texts)


def read_messages(
    path: str | Path,
    quoting: Literal["published", "literal"] = "literal",
    labels: tuple[str, str] = ("ham", "spam"),
    normalize_labels: bool = False,
) -> Messages:
    r"""Read a file with one label and one text a row.

    The file is ``label<TAB>text`` without a header, as ``SMSSpamCollection`` is; or it starts with a header
    that names the columns ``label`` and ``text`` in any order. A name ending in ``.csv`` means commas and
    quotes as in RFC 4180. The file is UTF-8, with or without a byte order mark; a line ends at ``\n`` or
    ``\r\n``; a lone ``\r`` is a character like any other, except outside quotes where quotes count.

    Args:
        path: The file.
        quoting: Reading of a tab-separated file: ``"literal"`` keeps quotes as characters; ``"published"``
            reads the rows that ``pandas.read_csv(path, sep="\t", header=None)`` reads.
        labels: The two class names, negative and positive.
        normalize_labels: Read labels in any spelling, see :func:`ftkit.normalize.normalize`.

    Returns:
        The messages, in the order of the file, with labels spelt as in ``labels``.

    Raises:
        InputError: The file cannot be read or decoded, a row has a wrong column count, an unknown label, a
            NUL byte or more than 1 MB, or a class has no message.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "sms.tsv"
        >>> _ = file.write_text('ham\tOk lar "wif u"\nspam\tWINNER!!\n')
        >>> read_messages(file).texts
        ['Ok lar "wif u"', 'WINNER!!']
    """
    file = Path(path)
    separator = "," if file.suffix.lower() == ".csv" else "\t"
    literal = quoting == "literal" and separator == "\t"
    numbered = _literal_rows(file) if literal else _quoted_rows(file, separator)
    if not any(cell.strip() for _, cells in numbered for cell in cells):
        raise InputError("is empty", file=file, fix="give a file with one label and one text a row")
    rows = list(_labelled(numbered, labels, normalize_labels, file))
    if not rows:
        raise InputError(
            "holds a header and no message", file=file, fix="give a file with one label and one text a row"
        )
    if len(present := {label for label, _ in rows}) == 1:
        raise InputError(
            f"only one class: all {len(rows)} messages are labelled {present.pop()!r}",
            file=file,
            fix=f"give messages of both classes, {_listed(labels)}",
        )
    return Messages.from_rows(rows, content_sha256(file))


def content_sha256(path: Path) -> str:
    r"""Return the SHA-256 of a text file's content: its bytes without a byte order mark, with ``\n`` line ends.

    A copy that an editor saved with other line ends holds the same messages and has the same hash. Of a file
    that has neither, it is the plain SHA-256.

    Raises:
        InputError: There is no such file, or it cannot be read.
    """
    with opened(path) as file:
        data = file.read()
    return hashlib.sha256(data.removeprefix(BOM_UTF8).replace(b"\r\n", b"\n")).hexdigest()


def _literal_rows(file: Path) -> list[tuple[int, list[str]]]:
    """Return rows and their lines, without blank lines at the end."""
    rows = [(line, text.replace("\r\n", "\n").removesuffix("\n").split("\t", 1)) for line, text in text_lines(file)]
    while rows and rows[-1][1] == [""]:
        rows.pop()
    return rows


def _quoted_rows(file: Path, delimiter: str) -> list[tuple[int, list[str]]]:
    """Return rows and the line each starts at, blank lines left out, as pandas does."""
    text = "".join(text for _, text in text_lines(file)).replace("\r\n", "\n")
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    # An empty row is added at the end: when it does not come back as one, an open quote has swallowed it.
    reader = csv.reader(io.StringIO(text.rstrip("\n") + "\n\n", newline=""), delimiter=delimiter)
    rows, line = [], 1
    try:
        for cells in reader:
            rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:  # the reader's one complaint in this mode is a field over the limit
        fix = "check that the file is a list of messages and that its quotes are closed"
        raise InputError("the row is longer than 1 MB", file=file, line=line, fix=fix) from error
    start, last = rows[-1]
    if last:
        raise InputError(
            "a quote is opened here and never closed",
            file=file,
            line=start,
            fix="close or double the quote, or read with literal quotes",
        )
    return [(line, cells) for line, cells in rows if cells]


def _labelled(
    numbered: list[tuple[int, list[str]]], labels: tuple[str, str], normalize_labels: bool, file: Path
) -> Iterator[tuple[str, str]]:
    """Check each row and put the label first."""
    known = {normalize(label) if normalize_labels else label: label for label in labels}
    text_column = 1
    for number, (line, cells) in enumerate(numbered):
        if number == 0 and (normalize(cells[0]) if normalize_labels else cells[0]) not in known:
            names = [normalize(cell) for cell in cells]
            if set(names) == set(_COLUMNS):
                text_column = names.index("text")
                continue
            if missing := set(_COLUMNS) - set(names) if set(_COLUMNS) & set(names) else set():
                raise InputError(
                    f"the header lacks the column {missing.pop()!r}",
                    file=file,
                    line=line,
                    got=cells,
                    fix="name the two columns label and text",
                )
        if len(cells) != 2:
            raise InputError(
                f"expected 2 columns (label and text), found {len(cells)}",
                file=file,
                line=line,
                fix="write a label, one separator and a text in each row",
            )
        label = cells[1 - text_column]
        if (key := normalize(label) if normalize_labels else label) not in known:
            raise _unknown_label(label, labels, file, line)
        yield known[key], cells[text_column]


def _unknown_label(label: str, labels: tuple[str, str], file: Path, line: int) -> InputError:
    fix = f"use {_listed(labels)}"
    if normalize(label) in map(normalize, labels):
        fix += ", or set normalize_labels: true"
    return InputError("unknown label", file=file, line=line, field="label", got=label, fix=fix)


def _listed(labels: tuple[str, str]) -> str:
    return " or ".join(map(repr, labels))
