"""Tables of images and expected answers without a header, as training data."""

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
    """Name the columns of a table of images and expected answers that has no header: image, label, id and others.

    A row is ``path`` and ``yes``; or an id, the expected answer as True or False (yes or no), a category, a path and
    possibly a model's answer behind them, see :mod:`ftkit.results.headerless`. The first thousand rows decide.

    Raises:
        InputError: No column holds expected answers or paths of images; or a row has no expected answer, or two.
    """
    rest = ((place, ["" if cell is None else str(cell) for cell in record.values()]) for place, record in records)
    first = list(islice(rest, _SAMPLE))
    rows = [cells for _, cells in first]
    if (layout := _layout(rows)) is None:
        problem = "no header, and no columns of images and of expected answers (True or False, yes or no)"
        fix = "start the file with a header that names the columns, such as image, question, answer"
        raise error(first[0][0], problem, got="\t".join(rows[0]), fix=fix)
    expected = (layout.label, *layout.agreeing)
    for place, cells in chain(first, rest):
        answer = expected_answer(layout, expected, [cells[column] for column in expected], partial(error, place))
        if answer is None:
            raise error(place, "there is no expected answer", field=layout.names[layout.label])
        named = {"id": layout.id, "image": layout.id, **layout.extra, "prediction": layout.prediction}
        there = {name: column for name, column in named.items() if column is not None and column < len(cells)}
        yield place, {**{name: cells[column] or None for name, column in there.items()}, "label": answer}


def _layout(rows: list[list[str]]) -> Layout | None:
    """Return the layout of such a table, which may have a model's answers in its last column; None if it is none."""
    columns = [_answers(column) for column in zip(*rows, strict=True)]
    rows = [list(row) for row in zip(*columns, strict=True)]
    for behind in (lambda row: [], lambda row: ["yes"], lambda row: row[-1:]):
        try:
            layout = layout_of_rows([row + behind(row) for row in rows], Path())
        except InputError:
            continue
        image = layout.extra.get("image", layout.id)
        if image is not None and are_paths(columns[image]):
            return layout
    return None


def _answers(column: tuple[str, ...]) -> tuple[str, ...]:
    """Return a column without what is no answer, if half of it are answers: such a row is refused when it is read."""
    words = {"true", "false", *map(normalize, answer_words(column))}
    answers = tuple(cell if normalize(cell) in words else "" for cell in column)
    return answers if 2 * sum(map(bool, answers)) >= sum(map(bool, column)) else column
