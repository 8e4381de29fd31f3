"""Exact match: answers that are free texts, right where they equal the expected text."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ftkit.normalize import normalize
from ftkit.results.baselines import AgainstMajority, against_majority
from ftkit.results.intervals import Interval
from ftkit.results.misses import Misses
from ftkit.results.prediction_file import PredictionFile
from ftkit.results.scan import AnswerFile, gather
from ftkit.results.settings import Settings
from ftkit.results.statistics import wilson_interval

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class FreeAnswers(AnswerFile):
    """A prediction file of free texts, in numbers; ``target`` is a hash of each label."""

    majority: str  # the most frequent label; the first in alphabetical order where several are
    is_majority: np.ndarray  # bool (n,): whether the label of each example is that one
    tied: int  # how many labels are equally frequent
    empty: int  # answers that are missing or without a character
    nearly: int  # wrong answers that are right in the spelling of normalize
    wrong: list[tuple[str, str, str]]  # the first wrong answers: id, label and answer


@dataclass(frozen=True)
class Share:
    """How many answers are right."""

    n: int
    right: int  # right answers
    interval: Interval  # Wilson's interval of the accuracy

    @classmethod
    def of(cls, correct: np.ndarray, level: float) -> Share:
        """Count right answers: bool ``(n,)``, at least one."""
        n, right = len(correct), int(np.count_nonzero(correct))
        return cls(n, right, wilson_interval(right, n, level))

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.right / self.n

    def to_dict(self) -> dict[str, Any]:
        """Return the share for JSON."""
        return {"n": self.n, "right": self.right, "accuracy": self.accuracy, "interval": list(self.interval)}


@dataclass(frozen=True)
class RightOrWrong(AgainstMajority):
    """How many answers are right, and how many would be without skill."""

    name: str  # what is reported, for example the file
    share: Share  # how many answers are right
    majority: str  # the most frequent label; the first in alphabetical order where several are
    tied: int  # how many labels are equally frequent
    majority_count: int  # how many examples have it: so many would always answering it get right

    @property
    def majority_dict(self) -> dict[str, Any]:
        """What JSON holds of the most frequent label."""
        return {"answer": self.majority, "right": self.majority_count, "n": self.share.n, "tied": self.tied}


@dataclass(frozen=True)
class ExactReport(RightOrWrong):
    """What is known about one file of free texts."""

    answers: FreeAnswers  # what was read
    slices: dict[str, Share] = field(default_factory=dict)  # the share in each group of examples

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON, unrounded."""
        answers = self.answers
        return {
            "name": self.name,
            **self.share.to_dict(),
            "empty_answers": answers.empty,
            "right_but_for_case_and_blanks": answers.nearly,
            "majority": self.majority_dict,
            "better_than_majority": self.better,
            "worse_than_majority": self.worse,
            "p_majority": self.p_majority,
            "slices": {name: share.to_dict() for name, share in self.slices.items()},
            "first_wrong": [dict(zip(("id", "label", "prediction"), row, strict=True)) for row in answers.wrong],
        }


def read_free_answers(path: str | Path, slice_by: str | None = None, normalize_labels: bool = False) -> FreeAnswers:
    """Read one prediction file block by block.

    Raises:
        InputError: The file cannot be read, an id comes twice, or it cannot be sliced so.
    """
    empty, misses, clean = 0, Misses(), normalize if normalize_labels else str
    wrong: list[tuple[str, str, str]] = []

    def keep(file: PredictionFile, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        nonlocal empty, wrong
        texts = [pc.fill_null(batch[name], "").to_pylist() for name in ("id", "label", "prediction")]
        label, answer = texts[1:]
        if normalize_labels:
            label, answer = (list(map(normalize, cells)) for cells in texts[1:])
        target = np.fromiter(map(hash, label), np.int64, len(label))
        correct = np.fromiter(map(eq, label, answer), bool, len(label))
        missed = [[cells[place] for place in np.flatnonzero(~correct)] for cells in texts]
        empty += answer.count("")
        misses.add(zip(*missed[1:], strict=True))
        wrong += list(zip(*missed, strict=True))[: _SHOWN - len(wrong)]
        return {"target": target, "correct": correct}

    common, kept = gather(path, slice_by, keep)
    labels, counts = np.unique(kept["target"], return_counts=True)
    tied = set(labels[counts == counts.max()].tolist())
    spelled = (batch["label"].unique().to_pylist() for batch in PredictionFile(path).batches())
    majority = min(label for part in spelled for label in part if hash(clean(label)) in tied)
    return FreeAnswers(
        **common | {"warnings": common["warnings"] + misses.warnings(normalize_labels)},
        target=kept["target"],
        correct=kept["correct"],
        majority=majority,
        is_majority=kept["target"] == hash(clean(majority)),
        tied=len(tied),
        empty=empty,
        nearly=0 if normalize_labels else misses.nearly,
        wrong=wrong,
    )


def assess_exact(answers: FreeAnswers, settings: Settings) -> ExactReport:
    """Report on a file of free texts, with its slices."""
    level = settings.level
    better = int(np.count_nonzero(answers.correct & ~answers.is_majority))
    worse = int(np.count_nonzero(answers.is_majority & ~answers.correct))
    return ExactReport(
        name=str(answers.path),
        share=Share.of(answers.correct, level),
        majority=answers.majority,
        tied=answers.tied,
        majority_count=int(np.count_nonzero(answers.is_majority)),
        **against_majority(better, worse),
        answers=answers,
        slices={name: Share.of(answers.correct[rows], level) for name, rows in answers.by_slice().items()},
    )
