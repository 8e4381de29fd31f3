"""The prediction file: one row per example, the one thing that evaluation, comparison and reports read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ftkit.errors import InputError
from ftkit.results.blocks import Block, csv_blocks, delimited_blocks, empty_file, json_line_blocks, text_chunks
from ftkit.results.fields import Fields, NotANumberError, quote
from ftkit.results.headerless import expected_answers, is_headerless, layout_of_rows
from ftkit.results.layout import (
    NAMES,
    NULLABLE,
    REQUIRED,
    SCORE_NAME,
    Layout,
    layout_of_names,
)
from ftkit.storage import atomic_write

_SAMPLE = 1_000  # rows that decide what the columns of a file without a header hold
_FORMATS = {".tsv": "tsv", ".csv": "csv", ".jsonl": "json", ".ndjson": "json"}


@dataclass(frozen=True)
class Predictions:
    """All rows of a prediction file.

    Attributes:
        ids: One unique id per example.
        labels: The true class names.
        predictions: The predicted class names, or free answers.
        scores: float64 ``(n,)``, or None when the file has none.
        score_name: ``probability:CLASS`` or ``log_odds:CLASS``, or None.
        extra: The columns behind those, by name.
        columns: Which columns were taken for what, in words.
    """

    ids: list[str]
    labels: list[str]
    predictions: list[str]
    scores: np.ndarray | None = None
    score_name: str | None = None
    extra: dict[str, list[str]] = field(default_factory=dict)
    columns: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction equals the label: bool ``(n,)``."""
        pairs = zip(self.labels, self.predictions, strict=True)
        return np.array([label == prediction for label, prediction in pairs], dtype=bool)


@dataclass(frozen=True)
class PredictionBlock:
    """Some rows of a prediction file, column by column.

    Attributes:
        ids: The examples' ids; the line numbers in a file without ids.
        labels: The true class names.
        predictions: The predicted class names, or free answers.
        scores: float64 ``(rows,)``, or None when the file has none.
        extra: The other columns by name.
        lines: int64 ``(rows,)``: the line of each row.
        layout: Which column holds what.
        unlabeled: How many rows were left out because they have no label, see :func:`stream_labeled`.
    """

    ids: Fields
    labels: Fields
    predictions: Fields
    scores: np.ndarray | None
    extra: dict[str, Fields]
    lines: np.ndarray
    layout: Layout
    unlabeled: int = 0


def write_predictions(
    path: str | Path,
    ids: Iterable[str],
    labels: Iterable[str],
    predictions: Iterable[str],
    scores: Iterable[float] | None = None,
    score_name: str | None = None,
    extra: Mapping[str, Iterable[str]] | None = None,
) -> None:
    r"""Write a prediction file: a whole one or none at all.

    A cell that holds a tab, a line end or a NUL is written as ``json:"..."``, so that reading gives back what was
    written.

    Args:
        path: The TSV file. Its folder is created.
        ids: One unique id per example.
        labels: The true class names.
        predictions: The predicted class names, or free answers.
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
    if _FORMATS.get(path.suffix.lower(), "tsv") != "tsv":
        raise InputError("predictions are written as TSV", file=path, fix="call the file .tsv, or it cannot be read")
    names = ["id", "label", "prediction"]
    columns = [ids, labels, predictions]
    if scores is not None:
        names.append(_checked_score_name(score_name))
        columns.append(_score_cells(scores, names[-1], path))
    names += extra or ()
    columns += (extra or {}).values()
    layout_of_names(names, path)
    seen: dict[str, int] = {}
    with atomic_write(path) as file:
        file.write("\t".join(map(quote, names)) + "\n")
        for line, row in enumerate(zip(*columns, strict=True), start=2):
            if seen.setdefault(row[0], line) != line:
                raise duplicate_id(path, row[0], seen[row[0]], line)
            file.write("\t".join(map(quote, row)) + "\n")


def read_predictions(path: str | Path) -> Predictions:
    """Read a whole prediction file into memory; for long files see :func:`stream_predictions`.

    Args:
        path: A file that :func:`stream_predictions` reads.

    Returns:
        Its rows in file order.

    Raises:
        InputError: The file is not a prediction file, or an id comes twice; the message names the line.
    """
    path = Path(path)
    blocks = list(stream_predictions(path))
    layout = blocks[0].layout
    result = Predictions(
        ids=_joined(block.ids for block in blocks),
        labels=_joined(block.labels for block in blocks),
        predictions=_joined(block.predictions for block in blocks),
        scores=None if layout.score is None else np.concatenate([block.scores for block in blocks]),
        score_name=layout.score_name,
        extra={name: _joined(block.extra[name] for block in blocks) for name in layout.extra},
        columns=layout.describe(),
    )
    if len(set(result.ids)) < len(result):
        lines = np.concatenate([block.lines for block in blocks]).tolist()
        seen: dict[str, int] = {}
        for identity, line in zip(result.ids, lines, strict=True):
            if seen.setdefault(identity, line) != line:
                raise duplicate_id(path, identity, seen[identity], line)
    return result


def stream_predictions(path: str | Path) -> Iterator[PredictionBlock]:
    r"""Read a prediction file block by block, in memory that does not grow with the file.

    Read are TSV and CSV with a header that names ``id`` (or ``image``), ``label`` and ``prediction`` in any order and
    possibly a score column ``probability:CLASS`` or ``log_odds:CLASS``; tables without a header whose last column is
    the answer, with the expected one before it, True or False for yes or no or in the words of the answers; and
    JSON lines with ``label`` (or ``suffix``) and ``prediction`` (or ``answer``).

    Args:
        path: The file. Its ending (.tsv, .csv, .jsonl) or else its first line says the format.

    Yields:
        Its rows in file order.

    Raises:
        InputError: The file is not a prediction file; the message names the line.
    """
    path = Path(path)
    rows, layout = 0, None
    for layout, block in _tables(path):
        rows += len(block.lines)
        if len(block.lines):
            yield _prediction_block(layout, block, path)
    if layout is None:
        raise empty_file(path)
    if rows == 0:
        raise InputError("the file has a header but no rows", file=path, fix="give one row per example")


def stream_labeled(path: str | Path) -> Iterator[PredictionBlock]:
    """Read a prediction file as :func:`stream_predictions` does, without the examples that have no label.

    An empty label says that nobody has judged the example yet. A class may be called ``none`` all the same.

    Raises:
        InputError: The file is not a prediction file, or no example has a label.
    """
    labeled = 0
    for block in stream_predictions(path):
        rows = np.flatnonzero(~block.labels.blank())
        labeled += len(rows)
        yield block if len(rows) == len(block.lines) else _labeled(block, rows)
    if not labeled:
        raise InputError(
            "no example has a label", file=path, field="label", fix="evaluate examples whose class is known"
        )


def duplicate_id(path: Path, identity: str, first: int, second: int) -> InputError:
    """The error for an id that two lines of a file share."""
    return InputError(
        f"the id comes twice, first in line {first}", file=path, line=second, field="id", got=identity,
        fix="keep one row per example",
    )  # fmt: skip


def _tables(path: Path) -> Iterator[tuple[Layout, Block]]:
    layout = None
    form = _FORMATS.get(path.suffix.lower()) or _sniffed(path)
    if form == "json":
        for keys, block in json_line_blocks(path, REQUIRED, _belongs_first, NULLABLE):
            layout = layout or layout_of_names(keys, path, int(block.lines[0]))
            yield layout, block
        return
    for block in csv_blocks(path) if form == "csv" else delimited_blocks(path, b"\t"):
        if layout is None:
            sample = _part(block, slice(_SAMPLE)).rows()
            if is_headerless(sample):
                layout = layout_of_rows(sample, path)
            else:
                layout = layout_of_names(sample[0], path, int(block.lines[0]))
                block = _part(block, slice(1, None))
        yield layout, block


def _belongs_first(key: str, keys: list[str]) -> bool:
    """Whether an id or a score would be lost because the first object of the file has none."""
    return (key in NAMES["id"] and not set(NAMES["id"]) & set(keys)) or (
        SCORE_NAME.fullmatch(key) is not None and not any(map(SCORE_NAME.fullmatch, keys))
    )


def _sniffed(path: Path) -> str:
    first = next(iter(text_chunks(path)))[1].lstrip().split(b"\n", 1)[0]
    if first.startswith(b"[{") or first.rstrip() == b"[":
        raise InputError("a JSON list", file=path, fix="write one object per line, without brackets and commas around")
    return "json" if first.startswith(b"{") else "csv" if b"," in first and b"\t" not in first else "tsv"


def _part(block: Block, rows: slice) -> Block:
    return Block([column.take(rows) for column in block.columns], block.lines[rows])


def _prediction_block(layout: Layout, block: Block, path: Path) -> PredictionBlock:
    return PredictionBlock(
        ids=Fields.of(map(str, block.lines.tolist())) if layout.id is None else block.columns[layout.id],
        labels=expected_answers(layout, block, path) if layout.words else block.columns[layout.label],
        predictions=block.columns[layout.prediction],
        scores=None if layout.score is None else _scores(layout, block, path),
        extra={name: block.columns[column] for name, column in layout.extra.items()},
        lines=block.lines,
        layout=layout,
    )


def _labeled(block: PredictionBlock, rows: np.ndarray) -> PredictionBlock:
    return replace(
        block,
        ids=block.ids.take(rows),
        labels=block.labels.take(rows),
        predictions=block.predictions.take(rows),
        scores=None if block.scores is None else block.scores[rows],
        extra={name: column.take(rows) for name, column in block.extra.items()},
        lines=block.lines[rows],
        unlabeled=len(block.lines) - len(rows),
    )


def _scores(layout: Layout, block: Block, path: Path) -> np.ndarray:
    assert layout.score is not None
    assert layout.score_name is not None
    cells = block.columns[layout.score]
    try:
        scores = cells.numbers()
        bad = np.isnan(scores)
        if layout.score_name.startswith("probability:"):
            bad |= (scores < 0) | (scores > 1)
        if not bad.any():
            return scores
        row = int(np.argmax(bad))
    except NotANumberError as error:
        row = error.row
    raise _bad_score(layout.score_name, cells.text(row), path, int(block.lines[row]))


def _bad_score(name: str, got: str | float, path: Path, line: int) -> InputError:
    wanted = "a probability in [0, 1]" if name.startswith("probability:") else "a number"
    return InputError(f"the score is not {wanted}", file=path, line=line, field=name, got=got)


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
            raise _bad_score(name, score, path, line)
        yield repr(score)


def _joined(columns: Iterable[Fields]) -> list[str]:
    return [cell for column in columns for cell in column.texts()]
