"""Tables of images and expected answers without a header, as training data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path

from ftkit.errors import InputError
from ftkit.examples.shapes import Record
from ftkit.normalize import normalize
from ftkit.results.headerless import are_paths, expected_answer, layout_of_rows
from ftkit.results.layout import Layout
from ftkit.results.pairs import answer_words

_SAMPLE = 1_000  # rows that decide what the columns hold


def headerless_records(
    records: Iterable[tuple[int, Record]], error: Callable[..., InputError]
) -> Iterator[tuple[int, Record]]:
    """Name the columns of a table of images and expected answers that has no header.

    A row is ``path`` and ``yes``; or an id, the expected answer as True or False (yes or no), a category, a path and
    possibly a model's answer behind them, see :mod:`ftkit.results.headerless`. The first thousand rows decide.

    Args:
        records: The place and the cells of each row, at least one.
        error: Makes the error for a place: error(place, problem, field=...).

    Yields:
        The place, and a record of ``image``, ``label`` and ``id``, with ``prediction`` and others where they are there.

    Raises:
        InputError: No column holds expected answers or paths of images; or a row has no expected answer, or two.
    """
    rest = iter(records)
    first = list(islice(rest, _SAMPLE))
    rows = [[cell or "" for cell in record.values()] for _, record in first]
    if (layout := layout_without_header(rows)) is None:
        problem = "no header, and no columns of images and of expected answers (True or False, yes or no)"
        fix = "start the file with a header that names the columns, such as image, question, answer"
        raise error(first[0][0], problem, got="\t".join(rows[0]), fix=fix)
    expected = (layout.label, *layout.agreeing)
    for place, record in chain(first, rest):
        cells = [*record.values()]
        answer = expected_answer(layout, expected, [cells[column] for column in expected], partial(error, place))
        if answer is None:
            raise error(place, "there is no expected answer", field=layout.names[layout.label])
        named = {"id": layout.id, "image": layout.id, **layout.extra, "prediction": layout.prediction}
        held = {name: cells[column] for name, column in named.items() if column is not None and column < len(cells)}
        yield place, {**held, "label": answer}


def layout_without_header(rows: list[list[str]], strict: int = 0) -> Layout | None:
    """Return the layout of such a table, which may have a model's answers in its last column; None if it is none.

    Args:
        rows: The first rows.
        strict: How many of them decide by all their cells, because they may be a header. Of the others a cell that is
            no answer, in a column of answers, does not decide; its row is refused when it is read.
    """
    columns = [(*column[:strict], *_answers(column[strict:])) for column in zip(*rows, strict=True)]
    images = [place for place, column in enumerate(columns) if are_paths(column)]
    rows = [list(row) for row in zip(*columns, strict=True)] if images else []
    for behind in (lambda row: [], lambda row: ["yes"], lambda row: row[-1:]) if images else ():
        try:
            layout = layout_of_rows([row + behind(row) for row in rows], Path())
        except InputError:
            continue
        if layout.extra.get("image", layout.id) in images:
            return layout
    return None


def _answers(column: tuple[str, ...]) -> tuple[str, ...]:
    """Return a column with nothing but answers, such as yes and False, if half of it are some; else as it is."""
    words = {"true", "false", *map(normalize, answer_words(column))}
    answers = tuple(cell if normalize(cell) in words else "" for cell in column)
    return answers if 2 * sum(map(bool, answers)) >= sum(map(bool, column)) else column
