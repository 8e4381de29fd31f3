"""The prediction file: one row per example, the one thing that evaluation, comparison and reports read."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ftkit.errors import InputError
from ftkit.results.layout import SCORE_NAME, Scored, layout_of_names
from ftkit.results.prediction_file import (
    NO_DISTRIBUTION,
    ROUNDING,
    PredictionFile,
    bad_score,
    comes_twice,
    identities,
    scores_of,
)
from ftkit.results.table_files import FORMATS
from ftkit.results.tsv import tsv_cell, tsv_line
from ftkit.storage import atomic_write


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
        file.write(tsv_line(names))
        for number, (identity, label, answer, *rest) in enumerate(zip(*columns, strict=True)):
            probabilities = rest.pop() if scored else ()
            cells = [*map(tsv_cell, (identity, label, answer, *probabilities, *rest))]
            if seen.setdefault(cells[0], number) != number:
                raise comes_twice(path, identity, seen[cells[0]] + 2, number + 2)
            file.write("\t".join(cells) + "\n")


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


def _score_cells(scores: Iterable[Any], names: Sequence[str], path: Path) -> Iterator[list[str]]:
    for line, row in enumerate(scores, start=2):
        values = [*map(float, row if len(names) > 1 else (row,))]
        for name, score in zip(names, values, strict=True):
            if math.isnan(score) or (name.startswith("probability:") and not 0 <= score <= 1):
                raise InputError(bad_score(name), file=path, line=line, field=name, got=score)
        if len(names) > 1 and abs(sum(values) - 1) > ROUNDING:
            raise InputError(NO_DISTRIBUTION, file=path, line=line, got=sum(values))
        yield [*map(repr, values)]
