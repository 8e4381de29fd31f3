"""Labelled messages from a two-column file, read without losing or changing one.

Two readings of a tab-separated file exist, and on the public SMS file they differ by two messages.
``literal`` takes every line as one message. ``published`` takes a quote at the start of a text as the start
of a quoted field, as spreadsheet programs and pandas do by default; a message that opens a quote then
swallows the lines up to the next quote.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftkit.errors import InputError
from ftkit.normalize import normalize

ROW_LIMIT = 1_000_000  # bytes; a longer row is a damaged file, not a message
_BOM = "\ufeff"
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
    data = read_bytes(file)
    text = _decoded(data, file)
    if not text.strip():
        raise InputError("is empty", file=file, fix="give a file with one label and one text a row")
    if file.suffix.lower() == ".csv":
        numbered = _quoted_rows(text, ",", file)
    elif quoting == "published":
        numbered = _quoted_rows(text, "\t", file)
    else:
        numbered = _literal_rows(text)
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
    return Messages.from_rows(rows, content_sha256(data))


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file that the user named.

    Raises:
        InputError: There is no such file, or it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror or error}",
            file=path,
            fix="give the path of a file with one label and one text a row",
        ) from error


def content_sha256(data: bytes) -> str:
    r"""The SHA-256 of a text file's content: its bytes without a byte order mark, with ``\n`` line ends.

    A copy that an editor saved with other line ends holds the same messages and has the same hash. Of a file
    that has neither, it is the plain SHA-256.

    Example:
        >>> content_sha256(b"ham\tOk\r\n") == hashlib.sha256(b"ham\tOk\n").hexdigest()
        True
    """
    return hashlib.sha256(data.removeprefix(_BOM.encode()).replace(b"\r\n", b"\n")).hexdigest()


def _decoded(data: bytes, file: Path) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"is not UTF-8 at byte offset {error.start}",
            file=file,
            line=data.count(b"\n", 0, error.start) + 1,
            got=data[error.start : error.start + 1],
            fix="save as UTF-8",
        ) from error
    for line, row in enumerate(data.split(b"\n"), start=1):
        if b"\0" in row:
            raise InputError("NUL byte", file=file, line=line, fix="save as UTF-8 text without NUL bytes")
        if len(row) > ROW_LIMIT:
            raise _too_long(file, line)
    return text.removeprefix(_BOM).replace("\r\n", "\n")


def _literal_rows(text: str) -> list[tuple[int, list[str]]]:
    # str.splitlines would also split at U+2028, U+0085 and others, which occur inside messages.
    return [(line, row.split("\t", 1)) for line, row in enumerate(text.rstrip("\n").split("\n"), start=1)]


def _quoted_rows(text: str, delimiter: str, file: Path) -> list[tuple[int, list[str]]]:
    """Rows and the line each starts at, blank lines left out, as pandas does."""
    # An empty row is added at the end: when it does not come back as one, an open quote has swallowed it.
    reader = csv.reader(io.StringIO(text.rstrip("\n") + "\n\n", newline=""), delimiter=delimiter)
    previous_limit = csv.field_size_limit(ROW_LIMIT)
    rows, line = [], 1
    try:
        for cells in reader:
            rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:  # the reader's one complaint in this mode is a field over the limit
        raise _too_long(file, line) from error
    finally:
        csv.field_size_limit(previous_limit)
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


def _too_long(file: Path, line: int) -> InputError:
    return InputError(
        f"the row is longer than {ROW_LIMIT:,} bytes",
        file=file,
        line=line,
        fix="check that the file is a list of messages and that its quotes are closed",
    )


def _listed(labels: tuple[str, str]) -> str:
    return " or ".join(map(repr, labels))
