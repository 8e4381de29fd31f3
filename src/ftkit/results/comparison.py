"""Compare two models on the same examples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ftkit.errors import InputError
from ftkit.results.clusters import cluster_interval, cluster_sign_flip_test
from ftkit.results.paired import paired_interval, sign_flip_test
from ftkit.results.planning import minimum_detectable_difference
from ftkit.results.prediction_file import ROW, PredictionFile
from ftkit.results.scan import AnswerFile
from ftkit.results.statistics import Interval, Reach, can_be_significant, holm, is_significant

_SHOWN = 5


@dataclass(frozen=True)
class DuplicatesCheck:
    """A comparison where examples have duplicates: without those of train, and with duplicates as clusters."""

    n: int  # shared examples without a duplicate in train
    difference: float  # model minus reference in accuracy on these; NaN without any
    interval: Interval  # of that difference, see paired_interval
    p: float  # of the exact test on these
    p_holm: float  # after Holm's correction over all comparisons made together
    clusters: int  # how many clusters all shared examples make
    clusters_interval: Interval  # of the difference on all, see cluster_interval
    clusters_p: float  # of the exact test on all, see cluster_sign_flip_test
    clusters_p_holm: float  # after Holm's correction


@dataclass(frozen=True)
class Comparison:
    """A model minus a reference, on the examples that both answered, with one answer an example or one of each seed.

    Attributes:
        name: The model's file.
        against: The reference's file.
        n: Shared examples.
        only_model: Examples of which the model gets more right.
        only_reference: Examples of which the reference gets more right.
        p: Exact test, two-sided (:func:`ftkit.results.paired.sign_flip_test`); with one answer an example McNemar's.
        p_holm: The same after Holm's correction over all comparisons made together.
        differences: Model minus reference, by figure; NaN where one is undefined.
        intervals: Intervals of the differences; that of the accuracy says the same as the test
            (:func:`ftkit.results.paired.paired_interval`).
        reach: Whether so few disagreements can be significant at all, even tested alone.
        missing: How many ids are only in the model's file, and the first of them.
        missing_in_model: The same for the reference's file.
        answers: How many answers an example has: that of one seed or of several, in halves where there are ties.
        comparisons: How many comparisons were made together.
        seeds: The seeds of an ablation that both have, sorted.
        converged: Whether the training of both did; if not, a difference says little about what was varied.
        duplicates: What is left without the examples' duplicates, where they are known.
        ahead: How probable it is that another run is ahead (:func:`ftkit.results.noise.probability_ahead`); None if
            that is not known.
    """

    name: str
    against: str
    n: int
    only_model: int
    only_reference: int
    p: float
    p_holm: float
    differences: dict[str, float]
    intervals: dict[str, Interval]
    reach: Reach
    missing: tuple[int, list[str]]
    missing_in_model: tuple[int, list[str]]
    answers: int = 1
    comparisons: int = 1
    seeds: Sequence[int] = ()
    converged: bool = True
    duplicates: DuplicatesCheck | None = None
    ahead: float | None = None

    @property
    def difference(self) -> float:
        """The difference in accuracy."""
        return self.differences["accuracy"]

    @property
    def interval(self) -> Interval:
        """The interval of the difference in accuracy."""
        return self.intervals["accuracy"]

    @property
    def disagreements(self) -> int:
        """Examples of which one of the two gets more right."""
        return self.only_model + self.only_reference

    @property
    def significant(self) -> bool:
        """Whether the difference is significant after correction, between runs that converged."""
        return self.converged and is_significant(self.p_holm)

    @property
    def depends_on_duplicates(self) -> bool:
        """Return whether significance, or its direction, changes without duplicates or with duplicates as clusters."""
        if (check := self.duplicates) is None or not self.converged:
            return False
        signs = {np.sign(self.difference) * is_significant(p) for p in (self.p_holm, check.clusters_p_holm)}
        return len(signs | {np.sign(check.difference) if is_significant(check.p_holm) else 0}) > 1

    @property
    def hopeless(self) -> bool:
        """Whether so few disagreements could never be significant, even all in one direction and tested alone."""
        return not self.reach.possible

    @property
    def detectable(self) -> float:
        """The smallest difference in accuracy that such comparisons find with 80% power.

        NaN if there is none, or if an example has several answers or half a one.
        """
        if self.answers > 1 or not self.disagreements:
            return math.nan
        return minimum_detectable_difference(self.n, self.disagreements / self.n, comparisons=self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON, ``null`` for what is undefined."""
        own = ("reach", "answers", "comparisons", "seeds", "converged", "duplicates", "ahead")
        plain = {name: value for name, value in vars(self).items() if name not in own}
        if self.duplicates is not None:
            plain["duplicates"] = vars(self.duplicates) | {"difference": _or_none(self.duplicates.difference)}
            plain["depends_on_duplicates"] = self.depends_on_duplicates
        plain["differences"] = {name: _or_none(value) for name, value in self.differences.items()}
        return plain | {"detectable": _or_none(self.detectable), "reach": vars(self.reach)}


def compare(a: AnswerFile, b: AnswerFile, level: float = 0.95, seed: int = 0) -> Comparison:
    """Compare two files of the same kind on the examples that both answer: a minus b.

    Raises:
        InputError: The files share no id, or an id has different labels.
    """
    mine, theirs = shared_examples(a, b)
    n = len(mine)
    gained = a.correct[mine].astype(np.int16) - b.correct[theirs]
    only_a, only_b = int(np.count_nonzero(gained > 0)), int(np.count_nonzero(gained < 0))
    differences, intervals = a.differences(b, mine, theirs, level, seed)
    p = sign_flip_test(gained)
    return Comparison(
        name=str(a.path),
        against=str(b.path),
        n=n,
        only_model=only_a,
        only_reference=only_b,
        p=p,
        p_holm=p,
        differences={"accuracy": int(gained.sum(dtype=np.int64)) / (n * a.answers), **differences},
        intervals={"accuracy": paired_interval(gained, a.answers, level), **intervals},
        reach=can_be_significant(n, only_a + only_b),
        missing=left_over(a, mine),
        missing_in_model=left_over(b, theirs),
        answers=a.answers,
        duplicates=_without_duplicates(gained, a, mine, level),
    )


def _without_duplicates(gained: np.ndarray, a: AnswerFile, mine: np.ndarray, level: float) -> DuplicatesCheck | None:
    if a.in_train is None or a.cluster is None:
        return None
    rest, cluster = gained[~a.in_train[mine]], a.cluster[mine]
    p, clusters_p = sign_flip_test(rest), cluster_sign_flip_test(gained, cluster)
    return DuplicatesCheck(
        n=len(rest),
        difference=int(rest.sum(dtype=np.int64)) / (len(rest) * a.answers) if len(rest) else math.nan,
        interval=paired_interval(rest, a.answers, level) if len(rest) else (-1.0, 1.0),
        p=p,
        p_holm=p,
        clusters=len(np.unique(cluster)),
        clusters_interval=cluster_interval(gained, cluster, a.answers, level),
        clusters_p=clusters_p,
        clusters_p_holm=clusters_p,
    )


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct comparisons that were made together for their number, by Holm's method, those without duplicates too."""
    adjusted = holm([one.p for one in comparisons])
    found = [replace(one, p_holm=p, comparisons=len(comparisons)) for one, p in zip(comparisons, adjusted, strict=True)]
    checks = [one.duplicates for one in found if one.duplicates is not None]
    rest, clusters = (holm([getattr(check, name) for check in checks]) for name in ("p", "clusters_p"))
    again = iter(map(lambda check, p, q: replace(check, p_holm=p, clusters_p_holm=q), checks, rest, clusters))
    return [one if one.duplicates is None else replace(one, duplicates=next(again)) for one in found]


def shared_examples(a: AnswerFile, b: AnswerFile) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the shared ids in both files, int64 ``(shared,)`` each, in the order of the first.

    Raises:
        InputError: The files share no id, or an id has different labels.
    """
    _, mine, theirs = np.intersect1d(a.identity, b.identity, assume_unique=True, return_indices=True)
    if not len(mine):
        problem, got = f"no id in common with {b.path}", PredictionFile(a.path).examples([0])[0]["id"]
        fix = "compare predictions for the same examples; runs that draw a split of their own cannot be paired"
        raise InputError(problem, file=a.path, field="id", got=got, fix=fix)
    order = np.argsort(mine)  # that of the hashes is another one in each run
    mine, theirs = mine[order], theirs[order]
    if (differing := a.target[mine] != b.target[theirs]).any():
        file, examples = PredictionFile(a.path), mine[differing]
        (first,) = file.examples([int(examples[0])])
        problem = f"{len(examples)} labels differ from those in {b.path}"
        fix = "compare predictions for the same labels"
        raise file.error(first[ROW], problem, field="label", got=first["id"], fix=fix)
    return mine, theirs


def left_over(answers: AnswerFile, shared: np.ndarray) -> tuple[int, list[str]]:
    """Return how many ids of a file are not among the shared ones, and the first of them."""
    left = np.ones(len(answers), bool)
    left[shared] = False
    rows = np.flatnonzero(left)
    if not len(rows):
        return 0, []
    return len(rows), [one["id"] for one in PredictionFile(answers.path).examples(rows[:_SHOWN].tolist())]


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
