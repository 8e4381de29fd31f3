"""Tables without a header, whose last column is the answer: which column is the expected answer, and how it is read."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.layout import Layout, RowError
from ftkit.results.pairs import answer_words

_TRUTH = {"true": 0, "false": 1}  # places in a pair of words, as :func:`answer_words` gives them
_PATH = re.compile(r"[\\/]|\.\w+\Z")
_ADDRESS = re.compile(r"\w+://")
_NUMBER = re.compile(r"[+-]?\d*\.?\d+(?:[eE][+-]?\d+)?")
_MOSTLY = 0.5


def is_headerless(rows: list[list[str]]) -> bool:
    """Return whether the first row of a table, which names no columns that every file has, is an example."""
    columns, words = _columns(rows)
    return bool(_expected(columns, words)) or any(normalize(cell) in _meanings(words) for cell in rows[0])


def layout_of_rows(rows: list[list[str]], path: Path) -> Layout:
    """Find the layout of a table without a header from its first rows.

    A column of True and False is the expected answer: yes where it is True. So is a column of yes and no before the
    last one; several such columns have to agree.

    Raises:
        InputError: No column holds expected answers, or the last one holds scores.
    """
    columns, words = _columns(rows)
    last = len(columns) - 1
    expected = _expected(columns, words)
    if not expected:
        problem = f"no header, and no column before the last one is True/False or {words[0]}/{words[1]} throughout"
        fix = "start the file with a header that names id, label and prediction"
        raise InputError(problem, file=path, line=1, got="\t".join(rows[0]), fix=fix)
    if _holds_no_answers(columns[last], words):
        problem = "no header, and the last column holds no answers"
        fix = "put the answer last, or start with a header that names id, label, prediction and probability:CLASS"
        raise InputError(problem, file=path, line=1, got=rows[0][last], fix=fix)
    free = [place for place in range(last) if place not in expected]
    paths = [place for place in free if _mostly(columns[place], _is_path)]
    identity = _identity(columns, free, paths)
    names = [f"column {place + 1}" if place < last else f"column {place + 1} (the last)" for place in range(last + 1)]
    extra = {"image" if place in paths[:1] else names[place]: place for place in free if place != identity}
    label, *others = expected
    return Layout(
        prediction=last,
        label=label,
        id=identity,
        words=words,
        truth={normalize(cell) for cell in columns[label]} <= _TRUTH.keys() | {""},
        agreeing=tuple(others),
        extra=extra,
        names=names,
    )


def expected_answers(layout: Layout, batch: pa.RecordBatch, error: RowError) -> pa.Array:
    """Read the expected answers of some rows of such a table, in the words of the answers.

    Returns:
        One of the two words per row; null where the row has no expected answer.

    Raises:
        InputError: A cell is neither, or a row contradicts itself.
    """
    places = (layout.label, *layout.agreeing)
    known: dict[tuple[str | None, ...], str | None] = {}
    labels = []
    for row, cells in enumerate(zip(*(batch.column(place).to_pylist() for place in places), strict=True)):
        if cells not in known:
            known[cells] = expected_answer(layout, places, cells, partial(error, row))
        labels.append(known[cells])
    return pa.array(labels, pa.string())


def expected_answer(
    layout: Layout, places: Sequence[int], cells: Sequence[str | None], error: Callable[..., InputError]
) -> str | None:
    """Return the expected answer of a row, of which ``cells`` stand at ``places``; None if it has none."""
    assert layout.words is not None
    meanings = _meanings(layout.words)
    given = [(layout.names[place], cell) for place, cell in zip(places, cells, strict=True) if cell and cell.strip()]
    for name, cell in given:
        if normalize(cell) not in meanings:
            fix = f"write True or False, {layout.words[0]} or {layout.words[1]}, or name the columns in a header"
            raise error("this is no expected answer", field=name, got=cell, fix=fix)
    found = {meanings[normalize(cell)] for _, cell in given}
    if len(found) > 1:
        said = " and ".join(f"{name} says {cell}" for name, cell in given)
        fix = "correct the row, or name the columns in a header if others are meant"
        raise error(f"two expected answers: {said}", fix=fix)
    # A cell in the words of the answers stays as it is written, so that no other spelling goes unnoticed.
    spoken = set(map(normalize, layout.words)) - _TRUTH.keys()
    own = next((cell for _, cell in given if normalize(cell) in spoken), None)
    return own or (layout.words[found.pop()] if found else None)


def are_paths(column: Sequence[str]) -> bool:
    """Return whether a column holds paths of files, mostly."""
    return _mostly(column, _is_path)


def _columns(rows: list[list[str]]) -> tuple[list[tuple[str, ...]], tuple[str, str]]:
    columns = list(zip(*rows, strict=True))
    return columns, answer_words(columns[-1])


def _meanings(words: tuple[str, str]) -> dict[str, int]:
    return _TRUTH | {"yes": 0, "no": 1} | {normalize(word): place for place, word in enumerate(words)}


def _expected(columns: list[tuple[str, ...]], words: tuple[str, str]) -> list[int]:
    """Return the columns of expected answers: those of True and False first, of the others the last one first."""
    meanings = _meanings(words)
    found = {}
    for place, column in enumerate(columns[:-1]):
        cells = {normalize(cell) for cell in column} - {""}
        if cells and cells <= meanings.keys():
            found[place] = cells <= _TRUTH.keys()
    return sorted(found, key=lambda place: (not found[place], place if found[place] else -place))


def _holds_no_answers(column: tuple[str, ...], words: tuple[str, str]) -> bool:
    """Return whether a column holds scores or images and not one of the two words, nor 1 and 0."""
    if {normalize(cell) for cell in column} & (_meanings(words).keys() | {"0", "1"}):
        return False
    return _mostly(column, lambda cell: _NUMBER.fullmatch(cell) is not None or _is_path(cell))


def _is_path(cell: str) -> bool:
    return _PATH.search(cell) is not None and not _ADDRESS.match(cell)


def _is_code(cell: str) -> bool:
    return _is_path(cell) or (any(map(str.isdecimal, cell)) and not _ADDRESS.match(cell))


def _mostly(column: Sequence[str], test: Callable[[str], bool]) -> bool:
    return sum(map(test, column)) >= _MOSTLY * len(column)


def _differs(column: tuple[str, ...]) -> bool:
    return len(set(column)) >= _MOSTLY * len(column)


def _identity(columns: list[tuple[str, ...]], free: list[int], paths: list[int]) -> int | None:
    """Return the first column of numbers, codes or paths that hardly ever come twice, or else the best guess."""
    codes = (place for place in free if _differs(columns[place]) and _mostly(columns[place], _is_code))
    others = (place for place in free if _differs(columns[place]))
    return next(iter((*codes, *paths, *others)), None)
