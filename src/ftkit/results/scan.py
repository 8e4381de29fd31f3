"""What is kept of a prediction file of any kind: numbers, about 20 bytes per example, whatever the text."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.layout import Scored
from ftkit.results.pairs import MEANING
from ftkit.results.prediction_file import PredictionFile, identities, scores_of
from ftkit.results.statistics import Interval

MAX_LABELS = 50
MAX_SLICES = 50
# By figure: differences between two files, and their intervals.
Differences = tuple[dict[str, float], dict[str, Interval]]


@dataclass(frozen=True, kw_only=True)
class AnswerFile:
    """A prediction file in numbers, whatever kind of answers it holds."""

    path: Path
    identity: np.ndarray  # int64 (n,): a hash of each id
    target: np.ndarray  # (n,): the label of each example as a number, the same in all files
    correct: np.ndarray  # (n,): whether each answer is right, bool, or how many of answers, int
    slices: list[str] = field(default_factory=list)  # the values of the slice column
    slice: np.ndarray | None = None  # int16 (n,): codes into slices, or None
    columns: str = ""  # which columns were taken for what
    notes: list[str] = field(default_factory=list)  # what a reader should know about the file
    warnings: list[str] = field(default_factory=list)  # what a reader has to know before any figure
    answers: int = 1  # what correct counts for a right answer: 1, or 2 where an answer can be half right
    # bool (n,): whether each example has a duplicate in train; None where nobody knows.
    in_train: np.ndarray | None = None
    cluster: np.ndarray | None = None  # int64 (n,): what duplicates connect has one number; None where nobody knows

    def __len__(self) -> int:
        return len(self.identity)

    def by_slice(self) -> dict[str, np.ndarray]:
        """Return whether the examples are in each group: bool ``(n,)`` by the group's name."""
        return {name: np.asarray(self.slice == code) for code, name in enumerate(self.slices)}

    def differences(self, other: Any, mine: np.ndarray, theirs: np.ndarray, level: float, seed: int) -> Differences:
        """Return this file's figures besides the accuracy minus those of another file of its kind.

        The shared examples are ``mine`` in this file and ``theirs`` in the other one, int64 ``(shared,)``.
        """
        return {}, {}


class NotBinaryError(InputError):
    """Nothing says which label is positive, and ``labels`` says in words what they are instead of yes and no."""

    def __init__(self, labels: str, path: Path) -> None:
        fix = "a yes/no evaluation needs two: is this the right column?"
        super().__init__(labels, file=path, field="label", fix=fix)
        self.labels = labels


class Vocabulary:
    """Numbers the distinct texts of a column in the order in which they appear, those that are known before all others.

    Of more than ``limit`` the rest share the code -1; then it is ``overflowed``.

    Example:
        >>> vocabulary = Vocabulary()
        >>> vocabulary.encode(pa.array(["no", "yes", "no"])).tolist(), vocabulary.texts
        ([0, 1, 0], ['no', 'yes'])
    """

    def __init__(self, known: Iterable[str] = (), limit: int = 1_000) -> None:
        self.limit = limit
        self.overflowed = False
        self._codes = {text: code for code, text in enumerate(known)}

    @property
    def texts(self) -> list[str]:
        """The distinct texts by code."""
        return list(self._codes)

    def encode(self, cells: pa.Array, clean: Callable[[str], str] = str) -> np.ndarray:
        """Return the codes of texts, int16 ``(rows,)``; what is missing counts as empty."""
        encoded = pc.fill_null(cells, "").dictionary_encode()
        codes = [self._code(clean(text)) for text in encoded.dictionary.to_pylist()]
        return np.array(codes, np.int16)[encoded.indices.to_numpy()]

    def _code(self, text: str) -> int:
        if text not in self._codes and len(self._codes) >= self.limit:
            self.overflowed = True
            return -1
        return self._codes.setdefault(text, len(self._codes))


def gather(
    path: str | Path, slice_by: str | None, keep: Callable[[PredictionFile, pa.RecordBatch], Mapping[str, np.ndarray]]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read the labelled examples of one prediction file, of which ``keep`` says by name what is kept of each batch.

    Returns:
        The attributes of :class:`AnswerFile` that need no look at the answers, and what was kept, ``(n,)`` each.

    Raises:
        InputError: The file cannot be read, an id comes twice, there is no such column, or it has too many values.
    """
    file = PredictionFile(path)
    slices = Vocabulary(limit=MAX_SLICES)
    parts: dict[str, list[np.ndarray]] = {"identity": []}
    for batch in file.batches():
        kept = {"identity": identities(batch["id"]), **keep(file, batch)}
        if slice_by is not None:
            kept["slice"] = slices.encode(_slice_column(file, batch, slice_by))
            if slices.overflowed:
                problem = f"more than {MAX_SLICES} different values to slice by"
                raise InputError(problem, file=path, field=slice_by, fix="slice by a column with few values")
        for name, part in kept.items():
            parts.setdefault(name, []).append(part)
    # One column at a time, so that only one is held twice.
    columns = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
    identity = columns.pop("identity")
    file.check_unique(identity)
    n, unlabeled = len(identity), file.unlabeled
    left_out = f"{unlabeled:,} of {n + unlabeled:,} examples have no label and are left out of all figures."
    common = {
        "path": file.path,
        "identity": identity,
        "slices": slices.texts,
        "slice": columns.pop("slice", None),
        "columns": file.layout.describe(),
        "notes": file.layout.notes,
        "warnings": [left_out] if unlabeled else [],
    }
    return common, columns


def _slice_column(file: PredictionFile, batch: pa.RecordBatch, name: str) -> pa.Array:
    extra = file.layout.extra
    if name not in extra:
        fix = f"use one of: {', '.join(extra)}" if extra else "add a column behind the others"
        raise InputError("no such column to slice by", file=file.path, field=name, fix=fix)
    return batch[name]


@dataclass(frozen=True)
class Scan(Scored):
    """A prediction file whose labels are few classes."""

    path: Path
    common: dict[str, Any]  # what gather returned
    labels: list[str]  # the distinct labels
    predictions: list[str]  # the distinct predictions
    label: np.ndarray  # int16 (n,): codes into labels
    prediction: np.ndarray  # int16 (n,): codes into predictions; -1 for what got no code
    score: np.ndarray | None = None  # float64 (n,), or (n, k) of several score columns, or None
    score_names: tuple[str, ...] = ()  # the names of the score columns

    def counted(self, clean: Callable[[str], str] = str) -> tuple[Counter[str], Counter[str]]:
        """Return how often each label and each prediction that has a code comes, as ``clean`` spells them."""
        return _counted(self.labels, self.label, clean), _counted(self.predictions, self.prediction, clean)


def _counted(texts: list[str], codes: np.ndarray, clean: Callable[[str], str]) -> Counter[str]:
    counts = Counter[str]()
    for text, count in zip(texts, np.bincount(codes[codes >= 0], minlength=len(texts)).tolist(), strict=True):
        counts[clean(text)] += count
    return +counts  # without those of no example


def scan(
    path: str | Path, slice_by: str | None = None, normalize_labels: bool = False, known: Iterable[str] = ()
) -> Scan:
    """Read one prediction file with few different labels.

    Raises:
        InputError: The file cannot be read, an id comes twice, there is no such column, or it or the label has too
            many values.
    """
    labels, predictions = Vocabulary(limit=MAX_LABELS), Vocabulary(known)
    score_names: tuple[str, ...] = ()

    def keep(file: PredictionFile, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        nonlocal score_names
        score_names = file.layout.score_names
        kept = {
            "label": labels.encode(batch["label"]),
            "prediction": predictions.encode(batch["prediction"], normalize if normalize_labels else str),
        }
        if labels.overflowed or len(score_names) > MAX_LABELS:
            # One score column says that there is a positive class; without one, free texts may be meant.
            error = NotBinaryError(f"more than {MAX_LABELS} different labels", file.path)
            raise error if len(score_names) != 1 else InputError(str(error))
        return {**kept, "score": scores_of(batch)} if score_names else kept

    common, kept = gather(path, slice_by, keep)
    wanted = {*map(normalize, labels.texts), *MEANING} if normalize_labels else set(labels.texts)
    if predictions.overflowed and not wanted <= set(predictions.texts):
        # A class may have come up only after the answers that took all codes: once more, with the classes first.
        return scan(path, slice_by, normalize_labels, known=sorted(wanted))
    return Scan(Path(path), common, labels.texts, predictions.texts, **kept, score_names=score_names)
