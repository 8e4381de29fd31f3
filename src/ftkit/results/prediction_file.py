"""A prediction file of any length, read batch by batch, in memory that does not grow with it."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ftkit.errors import InputError
from ftkit.results.headerless import expected_answers, is_headerless, layout_of_rows
from ftkit.results.layout import layout_of_names, names_columns
from ftkit.results.table_files import open_table

ROUNDING = 1e-3  # by which the probabilities of a row may miss 1
NO_DISTRIBUTION = "the probabilities do not sum to 1"
SCORE, ROW = "#score", "#row"  # columns of a batch besides id, label, prediction and those of the file


class PredictionFile:
    """A prediction file that is read batch by batch, in memory that does not grow with the file.

    Read are TSV and CSV with a header that names ``id`` (or ``image``), ``label`` and ``prediction`` in any order and
    possibly a score column ``probability:CLASS`` or ``log_odds:CLASS``, or a probability for each of three and more
    classes; tables without a header whose last column is
    the answer, with the expected one before it, True or False for yes or no or in the words of the answers; and
    JSON lines and Parquet with ``label`` (or ``suffix``) and ``prediction`` (or ``answer``).

    Args:
        path: The file. Its ending (.tsv, .csv, .jsonl, .parquet; of text also with .gz behind it) or else its first
            line says the format.

    Attributes:
        path: The file.
        layout: Which column holds what.
        unlabeled: How many examples have been left out so far because they have no label.

    Raises:
        InputError: The file is not a prediction file; the message names the line.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.unlabeled = Path(path), 0
        self._table = open_table(self.path)
        names, sample = self._table.names, self._table.sample
        if headerless := names is None and not names_columns(sample[0]) and is_headerless(sample):
            self.layout = layout_of_rows(sample, self.path)
        else:
            self.layout = layout_of_names(names or sample[0], self.path, self._table.first_line)
        self._header = int(names is None and not headerless)

    def batches(self, labeled: bool = True) -> Iterator[pa.RecordBatch]:
        """Read the file in order, without the examples that have no label if ``labeled``.

        A missing or blank label says that nobody has judged the example yet. A class may be called ``none`` all the
        same.

        Yields:
            Some rows: ``id`` (the examples' numbers in a file without ids), ``label`` and ``prediction``, string, null
            where missing; ``#score``, float64, if the file has scores (see :func:`scores_of`); ``#row``, int64, the row
            in the file from 1, a header counted; and the other columns by name, string.

        Raises:
            InputError: The file is damaged, or no example has a label; the message names the line.
        """
        row, found, self.unlabeled = 1, 0, 0
        for batch in self._table.batches():
            skipped = self._header if row == 1 else 0
            if len(batch) > skipped:
                named = every = self._named(batch.slice(skipped), row + skipped)
                if labeled:
                    named = every.filter(_has_label(every["label"]))
                found, self.unlabeled = found + len(named), self.unlabeled + len(every) - len(named)
                yield named
            row += len(batch)
        if row == 1 + self._header:
            raise InputError("the file has a header but no rows", file=self.path, fix="give one row per example")
        if not found:
            fix = "evaluate examples whose class is known"
            raise InputError("no example has a label", file=self.path, field="label", fix=fix)

    def error(self, row: int, problem: str, **details: Any) -> InputError:
        """Return the error for a row, from 1 as in ``#row``, with its line in the file."""
        return InputError(problem, file=self.path, line=self.line_of(row), **details)

    def line_of(self, row: int) -> int:
        """Return the line on which a row begins, both counted from 1; of Parquet the row itself."""
        return self._table.line_of(row)

    def examples(self, numbers: Sequence[int], labeled: bool = True) -> list[dict[str, Any]]:
        """Return id, label, prediction, ``#row`` and the other columns of some examples, counted from 0."""
        wanted, before = np.unique(np.array(numbers, np.int64)), 0
        found: dict[int, dict[str, Any]] = {}
        for batch in self.batches(labeled):
            inside = wanted[(before <= wanted) & (wanted < before + len(batch))]
            kept = batch.select(["id", "label", "prediction", ROW, *self.layout.extra]).take(pa.array(inside - before))
            found.update(zip(inside.tolist(), kept.to_pylist(), strict=True))
            before += len(batch)
            if len(found) == len(wanted):
                break
        return [found[number] for number in numbers]

    def check_unique(self, identity: np.ndarray, labeled: bool = True) -> None:
        """Refuse a file in which an id comes twice, by the :func:`identities` of all or of all labelled examples.

        Raises:
            InputError: Two rows share an id; both lines are named.
        """
        ordered = np.sort(identity)
        if not (ordered[1:] == ordered[:-1]).any():
            return
        order = np.argsort(identity, kind="stable")
        pairs = np.flatnonzero(identity[order][1:] == identity[order][:-1])
        pair = min(zip(order[pairs].tolist(), order[pairs + 1].tolist(), strict=True), key=lambda pair: pair[1])
        first, second = self.examples(pair, labeled)
        raise comes_twice(self.path, first["id"], self.line_of(first[ROW]), self.line_of(second[ROW]))

    def numbers(
        self, cells: pa.Array, rows: pa.Array, problem: str, field: str, low: float = -math.inf, high: float = math.inf
    ) -> np.ndarray:
        """Return texts of a column as numbers: float64 ``(rows,)``, rounded as Python's ``float`` does.

        Raises:
            InputError: A text is no number, or not within the bounds; the first such row is named.
        """
        try:
            values = pc.cast(cells, pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:  # a text is no number, or one that only Python reads
            values = np.array([_number(cell) for cell in cells.to_pylist()])
        fine = (values >= low) & (values <= high)
        if not fine.all():
            place = int(np.argmin(fine))
            raise self.error(rows[place].as_py(), problem, field=field, got=cells[place].as_py() or "")
        return values

    def _named(self, batch: pa.RecordBatch, row: int) -> pa.RecordBatch:
        """Return rows of the table from ``row`` on under the names of :meth:`batches`."""
        layout, rows = self.layout, pa.array(row + np.arange(len(batch)))
        ids = pc.cast(pc.subtract(rows, self._header), pa.string()) if layout.id is None else batch[layout.id]
        if ids.null_count:
            first = row + int(np.argmax(ids.is_null()))
            raise self.error(first, "missing", field="id", fix="give each example an id")
        labels = batch[layout.label]
        if layout.words is not None:
            labels = expected_answers(
                layout, batch, lambda place, *said, **more: self.error(row + place, *said, **more)
            )
        columns = {name: batch[place] for name, place in layout.extra.items()}
        columns |= {"id": ids, "label": labels, "prediction": batch[layout.prediction], ROW: rows}
        if layout.scores:
            columns[SCORE] = self._scores(batch, rows)
        return pa.RecordBatch.from_pydict(columns)

    def _scores(self, batch: pa.RecordBatch, rows: pa.Array) -> pa.Array:
        scores = []
        for place, name in zip(self.layout.scores, self.layout.score_names, strict=True):
            bounds = (0, 1) if name.startswith("probability:") else ()
            cells = batch[place]
            if self._table.separator == ";":  # where spreadsheets write decimal commas
                cells = pc.replace_substring(cells, ",", ".")
            scores.append(self.numbers(cells, rows, bad_score(name), name, *bounds))
        if len(scores) == 1:
            return pa.array(scores[0])
        table = np.stack(scores, axis=1)  # (rows, k)
        off = np.abs(table.sum(axis=1) - 1) > ROUNDING
        if off.any():
            first = int(np.argmax(off))
            raise self.error(rows[first].as_py(), NO_DISTRIBUTION, got=float(table[first].sum()))
        return pa.FixedSizeListArray.from_arrays(table.ravel(), table.shape[1])


def scores_of(batch: pa.RecordBatch | pa.Table) -> np.ndarray:
    """Return the scores of rows of a file that has some: float64 ``(rows,)``, or ``(rows, k)`` of several columns."""
    column = batch[SCORE]
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy()
    parts = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return np.concatenate([part.flatten().to_numpy() for part in parts]).reshape(len(column), -1)


def identities(ids: pa.Array) -> np.ndarray:
    """Return a 64-bit hash of each id or other text: int64 ``(n,)``, the same within one run of Python."""
    return np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids))


def _has_label(labels: pa.Array) -> pa.Array:
    blank = pc.or_(pc.equal(labels, ""), pc.utf8_is_space(labels))
    return pc.invert(pc.fill_null(blank, True))


def _number(cell: str | None) -> float:
    try:
        return math.nan if cell is None else float(cell)
    except ValueError:
        return math.nan


def bad_score(name: str) -> str:
    """Say what a score of a column with such a name is not."""
    return f"the score is not {'a probability in [0, 1]' if name.startswith('probability:') else 'a number'}"


def comes_twice(path: Path, identity: str | None, first: int, second: int) -> InputError:
    """Return the error of an id that stands in two lines."""
    problem, fix = f"the id occurs twice, first in line {first}", "keep one row per example"
    return InputError(problem, file=path, line=second, field="id", got=identity, fix=fix)
