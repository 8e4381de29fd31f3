"""Labels that may be wrong, and whether the order of an ablation's variants depends on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ftkit.ablation.analysis import Analysis
from ftkit.report.document import Section, Table, excerpt
from ftkit.report.words import significance
from ftkit.results.label_check import NEARLY_ALL, LabelCheck, check_labels
from ftkit.results.paired import sign_flip_test
from ftkit.results.predictions import read_predictions
from ftkit.results.statistics import holm


class Standing(NamedTuple):
    """How a row comes out with some labels."""

    row: int  # its number
    accuracy: float
    rank: int
    verdict: str  # how it differs from the reference


@dataclass(frozen=True)
class Labels:
    """The labels of the test examples of an ablation, as its runs see them."""

    check: LabelCheck
    rows: np.ndarray  # the row of each run, its name by number: in the order of the check's answers
    seeds: np.ndarray
    reference: int  # the number of the reference row
    names: Mapping[int, str]  # the names of the rows

    def outcome(self, label: np.ndarray) -> list[Standing]:
        """Return how the rows come out with such labels."""
        right = self.check.answers == label
        accuracy = {row: float(right[self.rows == row].mean()) for row in self.names}
        gains = {row: self._gained(right, row) for row in self.names if row != self.reference}
        p_values = holm([sign_flip_test(gain) for gain in gains.values()])
        verdicts = {row: significance(gain.sum(), p) for (row, gain), p in zip(gains.items(), p_values, strict=True)}
        return [
            Standing(row, one, 1 + sum(other > one for other in accuracy.values()), verdicts.get(row, ""))
            for row, one in accuracy.items()
        ]

    def _gained(self, right: np.ndarray, number: int) -> np.ndarray:
        """Right answers of a row minus those of the reference by example, over the seeds that both have."""
        of = [
            dict(zip(self.seeds[self.rows == row], right[self.rows == row], strict=True))
            for row in (number, self.reference)
        ]
        common = of[0].keys() & of[1].keys()
        return sum((of[0][seed].astype(int) - of[1][seed] for seed in common), np.zeros(right.shape[1], int))


def labels_of(analysis: Analysis) -> Labels | None:
    """Check the test labels of an ablation against the answers of all its runs; None where that cannot be said."""
    runs = [(row, run) for row in analysis.sweep.rows for run in row.done if run.test_predictions.exists()]
    check = check_labels([read_predictions(run.test_predictions) for _, run in runs])
    if check is None or analysis.reference.number not in {row.number for row, _ in runs}:
        return None
    rows, seeds = (np.array(values) for values in ([row.number for row, _ in runs], [run.seed for _, run in runs]))
    return Labels(check, rows, seeds, analysis.reference.number, {row.number: row.name for row, _ in runs})


def label_sections(found: Labels | None, texts: Mapping[str, str]) -> list[Section]:
    """Return the sections on labels that may be wrong; none where nothing is known, or no label is suspicious."""
    if found is None or not found.check.suspicious.any():
        return []
    check = found.check
    before, after = map(found.outcome, (check.label, np.where(check.suspicious, check.likely, check.label)))
    sentences = [
        f"{int(check.suspicious.sum()):,} of {len(check.ids):,} test labels may be wrong: at least {NEARLY_ALL:.0%} of "
        f"{len(check.answers):,} runs answer otherwise, and are together confident of another class (confident "
        "learning). labels.tsv ranks all examples.",
        f"If all of them were wrong, {'; '.join(_consequences(found.names, before, after))}.",
    ]
    return [
        Section("Labels that may be wrong", sentences, _suspicious(check, texts), forms=("html",)),
        Section("Labels that may be wrong", sentences, forms=("markdown",)),
        Section("Variants if these labels were wrong", table=_standings(found.names, before, after)),
    ]


def _consequences(names: Mapping[int, str], before: Sequence[Standing], after: Sequence[Standing]) -> list[str]:
    """Say what becomes of the order of the rows, of the best one and of the differences from the reference."""
    pairs = list(zip(before, after, strict=True))
    moved = sum(one.rank != two.rank for one, two in pairs)
    best, then = (", ".join(names[one.row] for one in found if one.rank == 1) for found in (before, after))
    turned = [f"row {a.row} {b.verdict} instead of {a.verdict}" for a, b in pairs if a.verdict != b.verdict]
    return [
        f"{moved} of {len(pairs)} variants would change their rank" if moved else "no variant would change its rank",
        "the best would stay the best" if best == then else f"the best would be {then}, not {best}",
        ", ".join(turned) or "no difference from the reference would become or cease to be significant",
    ]


def _standings(names: Mapping[int, str], before: Sequence[Standing], after: Sequence[Standing]) -> Table:
    head = [
        "row", "variant", "test accuracy, %", "if they are wrong, %", "rank", "rank then", "difference",
        "difference then",
    ]  # fmt: skip
    rows = [
        [
            str(one.row), names[one.row], f"{100 * one.accuracy:.2f}", f"{100 * two.accuracy:.2f}",
            str(one.rank), str(two.rank), one.verdict, two.verdict,
        ]
        for one, two in zip(before, after, strict=True)
    ]  # fmt: skip
    return Table(head, rows, frozenset({0, 2, 3, 4, 5}))


def _suspicious(check: LabelCheck, texts: Mapping[str, str]) -> Table:
    """Return the examples whose labels may be wrong; each opens its text."""
    found = check.rows(texts, suspicious=True)
    head = ["rank", "example", "label", "likely label", "runs that are wrong", "confidence in the label", "text"]
    rows = [
        [
            str(place), one["id"], one["label"], one["likely"], f"{one['wrong_runs']:.0%}",
            f"{one['label_confidence']:.3f}", excerpt(one["text"]),
        ]
        for place, one in enumerate(found, start=1)
    ]  # fmt: skip
    details = [Section(one["id"], [one["text"] or "The text is not known."]) for one in found]
    return Table(head, rows, frozenset({0, 4, 5}), details=details)
