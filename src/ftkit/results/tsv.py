"""Write plain TSV, which any program reads."""

import re
from collections.abc import Iterable

_NO_TEXT, _QUOTED = re.compile("[\0\ud800-\udfff]"), re.compile('[\t\n\r"]')


def tsv_line(cells: Iterable[str | None]) -> str:
    """Return texts as a line of a TSV file."""
    return "\t".join(map(tsv_cell, cells)) + "\n"


def tsv_cell(text: str | None) -> str:
    """Return a text as a cell: what is missing is empty; what is empty, or has tabs, line ends or quotes, is quoted."""
    if text is None:
        return ""
    text = _NO_TEXT.sub("\ufffd", text)
    return '"' + text.replace('"', '""') + '"' if not text or _QUOTED.search(text) else text
