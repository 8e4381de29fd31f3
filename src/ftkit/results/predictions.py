"""The prediction file: one row per example, the one thing that evaluation, comparison and reports read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ftkit.errors import InputError
from ftkit.results.headerless import expected_answers, is_headerless, layout_of_rows
from ftkit.results.layout import SCORE_NAME, Layout, RowError, layout_of_names
from ftkit.results.table_files import FORMATS, TableFile, open_table
from ftkit.storage import atomic_write

_SAMPLE = 1_000  # rows that decide what the columns of a file without a header hold
_NO_TEXT, _QUOTED = re.compile("[\0\ud800-\udfff]"), re.compile('[\t\n\r"]')


@dataclass(frozen=True)
class Predictions:
    """All rows of a prediction file.

    Attributes:
        ids: One unique id per example.
        labels: The true class names; None where nobody has judged the example.
        predictions: The predicted class names, or free answers; None where there is no answer.
        scores: float64 ``(n,)``, or None when the file has none.
        score_name: ``probability:CLASS`` or ``log_odds:CLASS``, or None.
        extra: The columns behind those, by name.
        columns: Which columns were taken for what, in words.
    """

    ids: list[str]
    labels: list[str | None]
    predictions: list[str | None]
    scores: np.ndarray | None = None
    score_name: str | None = None
    extra: dict[str, list[str | None]] = field(default_factory=dict)
    columns: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction equals the label: bool ``(n,)``."""
        pairs = zip(self.labels, self.predictions, strict=True)
        return np.array([label is not None and label == prediction for label, prediction in pairs], dtype=bool)


@dataclass(frozen=True)
class PredictionBatch:
    """Some rows of a prediction file, column by column.

    Attributes:
        ids: string ``(rows,)``: the examples' ids; their numbers in a file without ids.
        labels: string ``(rows,)``: the true class names; null where nobody has judged the example.
        predictions: string ``(rows,)``: the predicted class names, or free answers; null where there is none.
        scores: float64 ``(rows,)``, or None when the file has none.
        extra: The other columns by name.
        rows: int64 ``(rows,)``: the row of each in the file, from 1, a header counted.
        layout: Which column holds what.
        table: The file.
        unlabeled: How many rows were left out because they have no label, see :func:`stream_labeled`.
    """

    ids: pa.Array
    labels: pa.Array
    predictions: pa.Array
    scores: np.ndarray | None
    extra: dict[str, pa.Array]
    rows: np.ndarray
    layout: Layout
    table: TableFile
    unlabeled: int = 0

    def error(self, row: int, problem: str, **details: Any) -> InputError:
        """Return the error for one of the rows, counted from 0, with its line in the file."""
        return InputError(problem, file=self.table.path, line=self.table.line_of(int(self.rows[row])), **details)


def write_predictions(
    path: str | Path,
    ids: Iterable[str],
    labels: Iterable[str | None],
    predictions: Iterable[str | None],
    scores: Iterable[float] | None = None,
    score_name: str | None = None,
    extra: Mapping[str, Iterable[str | None]] | None = None,
) -> None:
    r"""Write a prediction file: a whole one or none at all.

    The file is plain TSV: a cell that holds a tab, a line end or a quote stands in quotes, as in CSV, and so does an
    empty one; one without quotes is missing. NUL and halves of surrogate pairs, which no text file holds, are written
    as U+FFFD.

    Args:
        path: The TSV file. Its folder is created.
        ids: One unique id per example.
        labels: The true class names, or None.
        predictions: The predicted class names, or free answers, or None.
        scores: P(positive) in [0, 1], or log P(positive) - log P(negative).
        score_name: ``probability:CLASS`` or ``log_odds:CLASS``: the scores' kind and positive class.
        extra: More columns by name, for example to slice by.

    Raises:
        InputError: The file's ending is that of another format, ``score_name`` says no kind and class, a score is not
            of that kind, or a name or an id comes twice.
        ValueError: The columns differ in length.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "predictions-test.tsv"
        >>> write_predictions(path, ["a", "b"], ["ham", "spam"], ["ham", "ham"], [0.1, 0.4], "probability:spam")
        >>> path.read_text().splitlines()[1]
        'a\tham\tham\t0.1'
        >>> read_predictions(path).correct.tolist()
        [True, False]
    """
    path = Path(path)
    if FORMATS.get(path.suffix.lower(), "tsv") != "tsv":
        raise InputError("predictions are written as TSV", file=path, fix="call the file .tsv, or it cannot be read")
    names = ["id", "label", "prediction"]
    columns: list[Iterable[str | None]] = [ids, labels, predictions]
    if scores is not None:
        names.append(_checked_score_name(score_name))
        columns.append(_score_cells(scores, names[-1], path))
    names += extra or ()
    columns += (extra or {}).values()
    layout_of_names(names, path)
    seen: dict[str, int] = {}
    with atomic_write(path) as file:
        file.write("\t".join(map(_cell, names)) + "\n")
        for number, row in enumerate(zip(*columns, strict=True)):
            cells = [*map(_cell, row)]
            if seen.setdefault(cells[0], number) != number:
                raise _duplicate(path, row[0], seen[cells[0]] + 2, number + 2)
            file.write("\t".join(cells) + "\n")


def _cell(text: str | None) -> str:
    """Return a text as a cell of a TSV file."""
    if text is None:
        return ""
    text = _NO_TEXT.sub("\ufffd", text)
    return '"' + text.replace('"', '""') + '"' if not text or _QUOTED.search(text) else text


def read_predictions(path: str | Path) -> Predictions:
    """Read a whole prediction file into memory; for long files see :func:`stream_predictions`.

    Args:
        path: A file that :func:`stream_predictions` reads.

    Returns:
        Its rows in file order.

    Raises:
        InputError: The file is not a prediction file, or an id comes twice; the message names the line.
    """
    batches = list(stream_predictions(path))
    layout = batches[0].layout
    check_unique(batches)
    return Predictions(
        ids=_joined(batch.ids for batch in batches),
        labels=_joined(batch.labels for batch in batches),
        predictions=_joined(batch.predictions for batch in batches),
        scores=None if layout.score is None else np.concatenate([batch.scores for batch in batches]),
        score_name=layout.score_name,
        extra={name: _joined(batch.extra[name] for batch in batches) for name in layout.extra},
        columns=layout.describe(),
    )


def stream_predictions(path: str | Path) -> Iterator[PredictionBatch]:
    r"""Read a prediction file batch by batch, in memory that does not grow with the file.

    Read are TSV and CSV with a header that names ``id`` (or ``image``), ``label`` and ``prediction`` in any order and
    possibly a score column ``probability:CLASS`` or ``log_odds:CLASS``; tables without a header whose last column is
    the answer, with the expected one before it, True or False for yes or no or in the words of the answers; and
    JSON lines and Parquet with ``label`` (or ``suffix``) and ``prediction`` (or ``answer``).

    Args:
        path: The file. Its ending (.tsv, .csv, .jsonl, .parquet; of text also with .gz behind it) or else its first
            line says the format.

    Yields:
        Its rows in file order.

    Raises:
        InputError: The file is not a prediction file; the message names the line.
    """
    table = open_table(Path(path))
    layout, row, header = None, 1, 0
    for batch in table.batches():
        if layout is None:
            layout = _layout(table, batch)
            if table.names is None and layout.words is None:
                header, batch = 1, batch.slice(1)
                row += header
        if len(batch):
            yield _prediction_batch(table, layout, batch, row, header)
        row += len(batch)
    if row == 1 + header:
        raise InputError("the file has a header but no rows", file=path, fix="give one row per example")


def stream_labeled(path: str | Path) -> Iterator[PredictionBatch]:
    """Read a prediction file as :func:`stream_predictions` does, without the examples that have no label.

    A missing or blank label says that nobody has judged the example yet. A class may be called ``none`` all the same.

    Raises:
        InputError: The file is not a prediction file, or no example has a label.
    """
    labeled = 0
    for batch in stream_predictions(path):
        blank = pc.or_(pc.equal(batch.labels, ""), pc.utf8_is_space(batch.labels))
        mask = pc.invert(pc.fill_null(blank, True))
        labeled += (count := pc.sum(mask).as_py())
        yield batch if count == len(mask) else _labeled(batch, mask)
    if not labeled:
        raise InputError(
            "no example has a label", file=path, field="label", fix="evaluate examples whose class is known"
        )


def identities(ids: pa.Array) -> np.ndarray:
    """Return a 64-bit hash of each id or other text: int64 ``(n,)``, the same within one run of Python."""
    return np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids))


def check_unique(batches: Iterable[PredictionBatch], identity: np.ndarray | None = None) -> None:
    """Refuse a file in which an id comes twice.

    Args:
        batches: The file; it is read only if there is no ``identity``, or two are the same.
        identity: int64 ``(n,)``: what :func:`identities` returns for all ids.

    Raises:
        InputError: Two rows share an id; both lines are named.
    """
    if identity is None:
        batches = list(batches)
        identity = np.concatenate([identities(batch.ids) for batch in batches])
    ordered = np.sort(identity)
    if not (ordered[1:] == ordered[:-1]).any():
        return
    order = np.argsort(identity, kind="stable")
    pairs = np.flatnonzero(identity[order][1:] == identity[order][:-1])
    pair = min(zip(order[pairs].tolist(), order[pairs + 1].tolist(), strict=True), key=lambda pair: pair[1])
    (text, first, table), (_, second, _) = examples_at(batches, pair)
    raise _duplicate(table.path, text, table.line_of(first), table.line_of(second))


def examples_at(batches: Iterable[PredictionBatch], numbers: Sequence[int]) -> list[tuple[str, int, TableFile]]:
    """Return id, row and file of some examples, counted from 0."""
    found: dict[int, tuple[str, int, TableFile]] = {}
    before = 0
    for batch in batches:
        here = [number for number in numbers if before <= number < before + len(batch.rows)]
        for number in here:
            place = number - before
            found[number] = (batch.ids[place].as_py(), int(batch.rows[place]), batch.table)
        before += len(batch.rows)
        if len(found) == len(set(numbers)):
            break
    return [found[number] for number in numbers]


def numbers_of(cells: pa.Array, problem: str, error: RowError, field: str, within: float = math.inf) -> np.ndarray:
    """Return texts as numbers: float64 ``(rows,)``, rounded as Python's ``float`` does.

    Args:
        cells: The texts.
        problem: What to say of one that is missing or no number.
        error: Makes the error for a row.
        field: The column's name.
        within: 1 if the numbers have to lie in [0, 1].

    Raises:
        InputError: A text is no number, or not within the bounds; the first such row is named.
    """
    try:
        values = pc.cast(cells, pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:  # a text is no number, or one that only Python reads
        values = np.array([_number(cell) for cell in cells.to_pylist()])
    fine = (values >= (0 if within == 1 else -within)) & (values <= within)
    if not fine.all():
        row = int(np.argmin(fine))
        raise error(row, problem, field=field, got=cells[row].as_py() or "")
    return values


def _number(cell: str | None) -> float:
    try:
        return math.nan if cell is None else float(cell)
    except ValueError:
        return math.nan


def _layout(table: TableFile, batch: pa.RecordBatch) -> Layout:
    """Find out which column of a file holds what, from its first rows."""
    if table.names is not None:
        return layout_of_names(table.names, table.path, table.line_of(1) if table.form == "json" else None)
    columns = [column.to_pylist() for column in batch.slice(0, _SAMPLE).columns]
    sample = [[cell or "" for cell in row] for row in zip(*columns, strict=True)]
    if is_headerless(sample):
        return layout_of_rows(sample, table.path)
    return layout_of_names(sample[0], table.path, table.line_of(1))


def _prediction_batch(
    table: TableFile, layout: Layout, batch: pa.RecordBatch, row: int, header: int
) -> PredictionBatch:
    rows = row + np.arange(len(batch))
    found = PredictionBatch(
        ids=pc.cast(pa.array(rows - header), pa.string()) if layout.id is None else batch.column(layout.id),
        labels=batch.column(layout.label),
        predictions=batch.column(layout.prediction),
        scores=None,
        extra={name: batch.column(place) for name, place in layout.extra.items()},
        rows=rows,
        layout=layout,
        table=table,
    )
    if found.ids.null_count:
        row = int(np.argmax(found.ids.is_null()))
        raise found.error(row, "missing", field="id", fix="give each example an id")
    if layout.words is not None:
        found = replace(found, labels=expected_answers(layout, batch, found.error))
    if layout.score is not None and layout.score_name is not None:
        probability = layout.score_name.startswith("probability:")
        problem, within = _bad_score(layout.score_name), 1.0 if probability else math.inf
        cells = batch.column(layout.score)
        found = replace(found, scores=numbers_of(cells, problem, found.error, layout.score_name, within))
    return found


def _labeled(batch: PredictionBatch, mask: pa.Array) -> PredictionBatch:
    rows = np.flatnonzero(mask)
    return replace(
        batch,
        ids=batch.ids.take(rows),
        labels=batch.labels.take(rows),
        predictions=batch.predictions.take(rows),
        scores=None if batch.scores is None else batch.scores[rows],
        extra={name: column.take(rows) for name, column in batch.extra.items()},
        rows=batch.rows[rows],
        unlabeled=len(batch.rows) - len(rows),
    )


def _bad_score(name: str) -> str:
    return f"the score is not {'a probability in [0, 1]' if name.startswith('probability:') else 'a number'}"


def _checked_score_name(name: str | None) -> str:
    if name is None or not SCORE_NAME.fullmatch(name):
        raise InputError(
            "the name must say the scores' kind and positive class",
            field="score_name",
            got=name,
            fix="use probability:CLASS or log_odds:CLASS",
        )
    return name


def _score_cells(scores: Iterable[float], name: str, path: Path) -> Iterator[str]:
    probability = name.startswith("probability:")
    for line, score in enumerate(map(float, scores), start=2):
        if math.isnan(score) or (probability and not 0 <= score <= 1):
            raise InputError(_bad_score(name), file=path, line=line, field=name, got=score)
        yield repr(score)


def _duplicate(path: Path, identity: str | None, first: int, second: int) -> InputError:
    return InputError(
        f"the id comes twice, first in line {first}", file=path, line=second, field="id", got=identity,
        fix="keep one row per example",
    )  # fmt: skip


def _joined(columns: Iterable[pa.Array]) -> list[Any]:
    return [cell for column in columns for cell in column.to_pylist()]
