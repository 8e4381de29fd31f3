"""The prediction file: one row per example, the one thing that evaluation, comparison and reports read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ftkit.errors import InputError
from ftkit.results.headerless import expected_answers, is_headerless, layout_of_rows
from ftkit.results.layout import SCORE_NAME, Scored, layout_of_names, names_columns
from ftkit.results.table_files import FORMATS, open_table
from ftkit.storage import atomic_write

_ROUNDING = 1e-3  # by which the probabilities of a row may miss 1
_NO_DISTRIBUTION = "the probabilities do not sum to 1"
SCORE, ROW = "#score", "#row"  # columns of a batch besides id, label, prediction and those of the file
_NO_TEXT, _QUOTED = re.compile("[\0\ud800-\udfff]"), re.compile('[\t\n\r"]')


@dataclass(frozen=True)
class Predictions(Scored):
    """All rows of a prediction file.

    Attributes:
        ids: One unique id per example.
        labels: The true class names; None where nobody has judged the example.
        predictions: The predicted class names, or free answers; None where there is no answer.
        scores: float64 ``(n,)``, or ``(n, k)`` when the file has probabilities of k classes, or None when it has none.
        score_names: ``probability:CLASS`` or ``log_odds:CLASS`` for each column of scores.
        extra: The columns behind those, by name.
        columns: Which columns were taken for what, in words.
    """

    ids: list[str]
    labels: list[str | None]
    predictions: list[str | None]
    scores: np.ndarray | None = None
    score_names: tuple[str, ...] = ()
    extra: dict[str, list[str | None]] = field(default_factory=dict)
    columns: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction equals the label: bool ``(n,)``."""
        pairs = zip(self.labels, self.predictions, strict=True)
        return np.array([label is not None and label == prediction for label, prediction in pairs], dtype=bool)


def write_predictions(
    path: str | Path,
    ids: Iterable[str],
    labels: Iterable[str | None],
    predictions: Iterable[str | None],
    scores: Iterable[float] | Iterable[Sequence[float]] | None = None,
    score_name: str | Sequence[str] | None = None,
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
        scores: P(positive) in [0, 1], or log P(positive) - log P(negative); or of three and more classes ``(n, k)``:
            the probability of each, which sum to 1.
        score_name: ``probability:CLASS`` or ``log_odds:CLASS``: the scores' kind and positive class; or k names
            ``probability:CLASS``.
        extra: More columns by name, for example to slice by.

    Raises:
        InputError: The file's ending is that of another format, ``score_name`` says no kind and class, a score is not
            of that kind, probabilities do not sum to 1, or a name or an id comes twice.
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
    scored = [score_name] if isinstance(score_name, str) else list(score_name or ())
    wrong = [name for name in scored if not SCORE_NAME.fullmatch(name)]
    if scores is None:
        scored = []
    elif wrong or not scored:
        problem = "the name must say the scores' kind and positive class"
        fix = "use probability:CLASS or log_odds:CLASS"
        raise InputError(problem, field="score_name", got=wrong[0] if wrong else score_name, fix=fix)
    names = ["id", "label", "prediction", *scored, *(extra or ())]
    layout_of_names(names, path)
    columns: list[Iterable[Any]] = [ids, labels, predictions, *(extra or {}).values()]
    columns += [] if scores is None else [_score_cells(scores, scored, path)]
    seen: dict[str, int] = {}
    with atomic_write(path) as file:
        file.write("\t".join(map(tsv_cell, names)) + "\n")
        for number, (identity, label, answer, *rest) in enumerate(zip(*columns, strict=True)):
            probabilities = rest.pop() if scored else ()
            cells = [*map(tsv_cell, (identity, label, answer, *probabilities, *rest))]
            if seen.setdefault(cells[0], number) != number:
                raise _duplicate(path, identity, seen[cells[0]] + 2, number + 2)
            file.write("\t".join(cells) + "\n")


def tsv_cell(text: str | None) -> str:
    """Return a text as a cell of a TSV file."""
    if text is None:
        return ""
    text = _NO_TEXT.sub("\ufffd", text)
    return '"' + text.replace('"', '""') + '"' if not text or _QUOTED.search(text) else text


def read_predictions(path: str | Path) -> Predictions:
    """Read a whole prediction file into memory; for long files see :class:`PredictionFile`.

    Args:
        path: A file that :class:`PredictionFile` reads.

    Returns:
        Its rows in file order.

    Raises:
        InputError: The file is not a prediction file, or an id comes twice; the message names the line.
    """
    file = PredictionFile(path)
    table = pa.Table.from_batches(list(file.batches(labeled=False)))
    file.check_unique(identities(table["id"]), labeled=False)
    columns = {name: table[name].to_pylist() for name in ("id", "label", "prediction", *file.layout.extra)}
    return Predictions(
        columns.pop("id"),
        columns.pop("label"),
        columns.pop("prediction"),
        scores_of(table) if file.layout.scores else None,
        file.layout.score_names,
        columns,
        file.layout.describe(),
    )


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
        """Read the file in order.

        A missing or blank label says that nobody has judged the example yet. A class may be called ``none`` all the
        same.

        Args:
            labeled: Leave out the examples that have no label.

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
        """Refuse a file in which an id comes twice.

        Args:
            identity: int64 ``(n,)``: what :func:`identities` returns for all ids.
            labeled: Whether these are those of the labelled examples only.

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
        raise _duplicate(self.path, first["id"], self.line_of(first[ROW]), self.line_of(second[ROW]))

    def numbers(
        self, cells: pa.Array, rows: pa.Array, problem: str, field: str, low: float = -math.inf, high: float = math.inf
    ) -> np.ndarray:
        """Return texts as numbers: float64 ``(rows,)``, rounded as Python's ``float`` does.

        Args:
            cells: The texts.
            rows: Their rows in the file.
            problem: What to say of one that is missing or no number.
            field: The column's name.
            low: The lowest allowed number.
            high: The highest.

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
            scores.append(self.numbers(cells, rows, _bad_score(name), name, *bounds))
        if len(scores) == 1:
            return pa.array(scores[0])
        table = np.stack(scores, axis=1)  # (rows, k)
        off = np.abs(table.sum(axis=1) - 1) > _ROUNDING
        if off.any():
            first = int(np.argmax(off))
            raise self.error(rows[first].as_py(), _NO_DISTRIBUTION, got=float(table[first].sum()))
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


def _bad_score(name: str) -> str:
    return f"the score is not {'a probability in [0, 1]' if name.startswith('probability:') else 'a number'}"


def _score_cells(scores: Iterable[Any], names: Sequence[str], path: Path) -> Iterator[list[str]]:
    for line, row in enumerate(scores, start=2):
        values = [*map(float, row if len(names) > 1 else (row,))]
        for name, score in zip(names, values, strict=True):
            if math.isnan(score) or (name.startswith("probability:") and not 0 <= score <= 1):
                raise InputError(_bad_score(name), file=path, line=line, field=name, got=score)
        if len(names) > 1 and abs(sum(values) - 1) > _ROUNDING:
            raise InputError(_NO_DISTRIBUTION, file=path, line=line, got=sum(values))
        yield [*map(repr, values)]


def _duplicate(path: Path, identity: str | None, first: int, second: int) -> InputError:
    problem, fix = f"the id comes twice, first in line {first}", "keep one row per example"
    return InputError(problem, file=path, line=second, field="id", got=identity, fix=fix)
