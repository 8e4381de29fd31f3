"""Preference files: which of two answers a model prefers, pair by pair, by how much, and how far it moved.

A pair is one row of a prediction file, which pandas reads as any other: its ``label`` is ``chosen``, its ``prediction``
is ``chosen``, ``rejected`` or ``tie``; ``log_odds:chosen`` is the margin, the chosen answer's reward minus the rejected
one's; ``logps_chosen`` and ``logps_rejected`` are the answers' log-probabilities, ``drift_chosen`` and
``drift_rejected`` how far these moved from the reference. Only label and prediction are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ftkit.errors import InputError
from ftkit.results.fields import NotANumberError, Vocabulary
from ftkit.results.predictions import PredictionBlock, stream_predictions
from ftkit.results.scan import MAX_SLICES, check_unique, slice_codes

CHOSEN, REJECTED, TIE = "chosen", "rejected", "tie"
LOST, TIED, WON = 0, 1, 2  # pairs in halves: a tie is as good as a coin
MEASURES = ("logps_chosen", "logps_rejected", "drift_chosen", "drift_rejected")
_OUTCOMES = {CHOSEN: WON, TIE: TIED, REJECTED: LOST}


@dataclass(frozen=True)
class Preferences:
    """A preference file in numbers.

    Attributes:
        path: The file.
        identity: uint64 ``(n,)``: a hash of each id.
        correct: int8 ``(n,)``: 2 where the chosen answer is preferred, 1 for a tie, 0 where the rejected one is.
        measures: float64 ``(n,)`` by name: ``margin`` and the columns of the file that are in ``MEASURES``.
        slices: The values of the slice column.
        slice: int16 ``(n,)``: codes into ``slices``, or None.
        columns: Which columns were taken for what.
        notes: What a reader should know about the file.
    """

    path: Path
    identity: np.ndarray
    correct: np.ndarray
    measures: dict[str, np.ndarray]
    slices: list[str] = field(default_factory=list)
    slice: np.ndarray | None = None
    columns: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def target(self) -> np.ndarray:
        """The labels as numbers, all the same: uint8 ``(n,)``."""
        return np.zeros(len(self.identity), np.uint8)


def is_preference(labels: Iterable[str], predictions: Iterable[str]) -> bool:
    """Return whether rows of a prediction file are pairs: every label is ``chosen``, every prediction an outcome."""
    return set(labels) == {CHOSEN} and set(predictions) <= _OUTCOMES.keys()


def is_preference_file(path: str | Path) -> bool:
    """Return whether a prediction file begins with pairs, see :func:`is_preference`.

    Raises:
        InputError: The file is no prediction file.
    """
    block = next(stream_predictions(path))
    return is_preference(block.labels.texts(), block.predictions.texts())


def half_points(
    labels: Sequence[str],
    predictions: Sequence[str],
    scores: np.ndarray | None = None,
    score_name: str | None = None,
) -> np.ndarray:
    """Return how right each answer is, in halves: 2 if it is right, 0 if it is wrong, 1 for a tie of a pair.

    Args:
        labels: The labels of a prediction file.
        predictions: Its predictions.
        scores: float64 ``(n,)``: its scores; a pair whose margin is 0 is a tie, whatever the prediction says.
        score_name: What the scores are.
    """
    pairs = is_preference(labels, predictions)
    same = zip(labels, predictions, strict=True)
    points = np.array([_OUTCOMES[prediction] if pairs else WON * (label == prediction) for label, prediction in same])
    if pairs and scores is not None and score_name == f"log_odds:{CHOSEN}":
        points[scores == 0] = TIED
    return points.astype(np.int8)


def read_preferences(path: str | Path, slice_by: str | None = None) -> Preferences:
    """Read a preference file block by block.

    Args:
        path: The file.
        slice_by: A column that tells groups of pairs apart.

    Raises:
        InputError: The file cannot be read, holds other rows than pairs, contradicts itself, or cannot be sliced so.
    """
    path = Path(path)
    slices = Vocabulary(limit=MAX_SLICES)
    identity, correct, groups = [], [], []
    measures: dict[str, list[np.ndarray]] = {}
    for block in stream_predictions(path):
        identity.append(block.ids.hashes())
        found = _measures(block, path)
        correct.append(_outcomes(block, found.get("margin"), path))
        for name, values in found.items():
            measures.setdefault(name, []).append(values)
        if slice_by is not None:
            groups.append(slice_codes(path, block, slice_by, slices))
    everyone = np.concatenate(identity)
    check_unique(path, everyone)
    return Preferences(
        path,
        everyone,
        np.concatenate(correct),
        {name: np.concatenate(values) for name, values in measures.items()},
        slices.texts,
        np.concatenate(groups) if groups else None,
        block.layout.describe(),
        block.layout.notes,
    )


def _outcomes(block: PredictionBlock, margin: np.ndarray | None, path: Path) -> np.ndarray:
    """How the pairs of a block went: int8 ``(rows,)``."""
    labels, predictions, lines = block.labels.texts(), block.predictions.texts(), block.lines.tolist()
    for name, texts, allowed in (("label", labels, (CHOSEN,)), ("prediction", predictions, tuple(_OUTCOMES))):
        for text, line in zip(texts, lines, strict=True):
            if text not in allowed:
                raise InputError(
                    "not a pair as the others of the file are", file=path, line=line, field=name, got=text,
                    fix=f"a preference file has {' or '.join(allowed)} here; keep other examples in another file",
                )  # fmt: skip
    points = half_points(labels, predictions, margin, f"log_odds:{CHOSEN}")
    if margin is not None and (against := points != np.sign(margin) + 1).any():
        row = int(np.argmax(against))
        raise InputError(
            f"the prediction is {predictions[row]}, but the margin {margin[row]:g} says otherwise",
            file=path,
            line=lines[row],
            field=block.layout.score_name,
            fix=f"a margin above 0 is {CHOSEN}, below 0 {REJECTED}, of 0 {TIE}",
        )
    return points


def _measures(block: PredictionBlock, path: Path) -> dict[str, np.ndarray]:
    """Margin and other measures of the pairs of a block, those that the file has."""
    found = {name: _numbers(block, name, path) for name in MEASURES if name in block.extra}
    if block.scores is None:
        return found
    kind, _, of = (block.layout.score_name or "").partition(":")
    if of != CHOSEN:
        raise InputError(
            "the score of a pair is that of the chosen answer", file=path, field=block.layout.score_name,
            fix=f"turn its sign and name it log_odds:{CHOSEN}",
        )  # fmt: skip
    margin = block.scores
    if kind == "probability":
        with np.errstate(divide="ignore"):
            margin = np.log(margin) - np.log1p(-margin)
    return {"margin": margin, **found}


def _numbers(block: PredictionBlock, name: str, path: Path) -> np.ndarray:
    cells = block.extra[name]
    try:
        values = cells.numbers()
        if not np.isnan(values).any():
            return values
        row = int(np.argmax(np.isnan(values)))
    except NotANumberError as error:
        row = error.row
    raise InputError("is not a number", file=path, line=int(block.lines[row]), field=name, got=cells.text(row))
