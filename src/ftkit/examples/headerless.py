"""Tables of images and expected answers without a header, as training data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path

from ftkit.errors import InputError
from ftkit.examples.shapes import Record
from ftkit.results.headerless import are_paths, expected_answer, layout_of_rows
from ftkit.results.layout import Layout

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
    if (layout := _layout(rows)) is None:
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


def _layout(rows: list[list[str]]) -> Layout | None:
    """Return the layout of a table, whose last column may be no model's answer but one that is known; None if none."""
    for behind in (lambda row: [], lambda row: ["yes"], lambda row: row[-1:]):
        try:
            layout = layout_of_rows([row + behind(row) for row in rows], Path())
        except InputError:
            continue
        image = layout.extra.get("image", layout.id)
        if image is not None and image < len(rows[0]) and are_paths([row[image] for row in rows]):
            return layout
    return None
