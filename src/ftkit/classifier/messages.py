"""Read the two columns of a file of messages without losing or changing one.

Two readings of a tab-separated file exist, and on the public SMS file they differ by two messages.
``literal`` takes every line as one message. ``published`` takes a quote at the start of a text as the start
of a quoted field, as spreadsheet programs and pandas do by default; a message that opens a quote then
swallows the lines up to the next quote.
"""

import csv
import hashlib
import io
from codecs import BOM_UTF8
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Literal

from ftkit.errors import InputError
from ftkit.examples.records import RecordSource
from ftkit.results.text_files import MAX_ROW_BYTES, opened, text_lines

Quoting = Literal["published", "literal"]

# What the two columns are usually called.
KNOWN_COLUMNS = {
    "label": ("label", "labels", "category", "class", "sentiment", "target", "rating"),
    "text": ("text", "sentence", "message", "content", "review", "tweet", "comment"),
}


def named_columns(columns: Iterable[str]) -> dict[str, str]:
    """Return which column is the label and which the text, where its name says so and no other's does.

    Example:
        >>> named_columns(["Id", "Sentence", "sentiment"])
        {'label': 'sentiment', 'text': 'Sentence'}
    """
    found = {}
    for ours, known in KNOWN_COLUMNS.items():
        fitting = [name for name in columns if name.strip().casefold() in known]
        exact = [name for name in fitting if name == ours]
        if len(exact or fitting) == 1:
            found[ours] = (exact or fitting)[0]
    return found


def read_messages(path: str | Path, quoting: Quoting = "literal") -> RecordSource:
    r"""Read a tab-separated file with one label and one text a row.

    The file is ``label<TAB>text`` without a header, as ``SMSSpamCollection`` is; or it starts with a header
    that names the two columns in any order. It is UTF-8, with or without a byte order mark; a line ends at ``\n`` or
    ``\r\n``; a lone ``\r`` is a character like any other, except outside quotes where quotes count.

    Args:
        path: The file.
        quoting: ``"literal"`` keeps quotes as characters; ``"published"`` reads the rows that
            ``pandas.read_csv(path, sep="\t", header=None)`` reads.

    Returns:
        Records with ``label`` and ``text``, in the order of the file.

    Raises:
        InputError: The file cannot be read or decoded, or a row has a wrong column count, a NUL byte or more than 1 MB.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "sms.tsv"
        >>> _ = file.write_text('ham\tOk lar "wif u"\nspam\tWINNER!!\n')
        >>> [record["text"] for _, record in read_messages(file)]
        ['Ok lar "wif u"', 'WINNER!!']
    """
    file = Path(path)
    at = partial(InputError, file=file)
    rows = _literal_rows(file) if quoting == "literal" else _quoted_rows(file)
    if not any(cell.strip() for _, cells in rows for cell in cells):
        raise at("is empty", fix="give a file with one label and one text a row")
    first, names = rows[0][1], ["label", "text"]
    if len(named := named_columns(first)) == len(first) == 2:
        names, rows = sorted(named, key=lambda ours: first.index(named[ours])), rows[1:]
    if not rows:
        raise at("holds a header and no message", fix="give a file with one label and one text a row")
    for line, cells in rows:
        if len(cells) != 2:
            fix = "write a label, one separator and a text in each row"
            raise at(f"expected 2 columns (label and text), found {len(cells)}", line=line, fix=fix)
    records = [(line, dict(zip(names, cells, strict=True))) for line, cells in rows]
    return RecordSource(str(file), partial(iter, records), names, file.parent, file)


def content_sha256(path: Path) -> str:
    r"""Return the SHA-256 of a text file's content: its bytes without a byte order mark, with ``\n`` line ends.

    A copy that an editor saved with other line ends holds the same messages and has the same hash.
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


def _quoted_rows(file: Path) -> list[tuple[int, list[str]]]:
    """Return rows and the line each starts at, blank lines left out, as pandas does."""
    text = "".join(text for _, text in text_lines(file)).replace("\r\n", "\n")
    limit = csv.field_size_limit(MAX_ROW_BYTES)  # of the process, so it is put back
    # An empty row is added at the end: when it does not come back as one, an open quote has swallowed it.
    reader = csv.reader(io.StringIO(text.rstrip("\n") + "\n\n", newline=""), delimiter="\t")
    rows, line = [], 1
    try:
        for cells in reader:
            rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:  # the reader's one complaint in this mode is a field over the limit
        fix = "check that the file is a list of messages and that its quotes are closed"
        raise InputError("the row is longer than 1 MB", file=file, line=line, fix=fix) from error
    finally:
        csv.field_size_limit(limit)
    start, last = rows[-1]
    if last:
        raise InputError(
            "a quote is opened here and never closed",
            file=file,
            line=start,
            fix="close or double the quote, or read with literal quotes",
        )
    return [(line, cells) for line, cells in rows if cells]
