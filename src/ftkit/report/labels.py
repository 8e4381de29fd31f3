"""Labels that may be wrong, and whether the order of an ablation's variants depends on them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ftkit.ablation.analysis import Analysis
from ftkit.report.document import Section, Table, excerpt
from ftkit.results.label_check import NEARLY_ALL, LabelCheck, check_labels
from ftkit.results.paired import sign_flip_test
from ftkit.results.predictions import read_predictions
from ftkit.results.statistics import holm, is_significant


@dataclass(frozen=True)
class Labels:
    """The labels of the test examples of an ablation, as its runs see them."""

    check: LabelCheck
    rows: np.ndarray  # the row of each run, its name by number: in the order of the check's answers
    seeds: np.ndarray
    reference: int  # the number of the reference row
    names: Mapping[int, str]  # the names of the rows

    def outcome(self, label: np.ndarray) -> list[tuple[int, float, int, str]]:
        """Return of each row number, accuracy, rank and how it differs from the reference, with such labels."""
        right = self.check.answers == label
        numbers = list(self.names)
        accuracy = [float(right[self.rows == number].mean()) for number in numbers]
        others = [number for number in numbers if number != self.reference]
        gains = [self._gained(right, number) for number in others]
        p = dict(zip(others, holm([sign_flip_test(gain) for gain in gains]), strict=True))
        signs = {
            number: np.sign(gain.sum()) * is_significant(p[number]) for number, gain in zip(others, gains, strict=True)
        }
        words = {0: "not significant", 1: "significantly better", -1: "significantly worse"}
        return [
            (number, one, 1 + sum(other > one for other in accuracy), words[signs[number]] if number in signs else "")
            for number, one in zip(numbers, accuracy, strict=True)
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
    check, n = found.check, int(found.check.suspicious.sum())
    before, after = (
        found.outcome(label) for label in (check.label, np.where(check.suspicious, check.likely, check.label))
    )
    head = [
        "row",
        "variant",
        "test accuracy, %",
        "if they are wrong, %",
        "rank",
        "rank then",
        "difference",
        "difference then",
    ]
    rows = [
        [
            str(number),
            found.names[number],
            f"{100 * one:.2f}",
            f"{100 * two:.2f}",
            str(rank),
            str(then),
            said,
            said_then,
        ]
        for (number, one, rank, said), (_, two, then, said_then) in zip(before, after, strict=True)
    ]
    best = [[found.names[number] for number, _, rank, _ in outcome if rank == 1] for outcome in (before, after)]
    moved = [row for row in rows if row[4] != row[5]]
    turned = [row for row in rows if row[6] != row[7]]
    order = (
        f"{len(moved)} of {len(rows)} variants would change their rank" if moved else "no variant would change its rank"
    )
    first = (
        f"the best would be {', '.join(best[1])}, not {', '.join(best[0])}"
        if best[0] != best[1]
        else "the best would stay the best"
    )
    verdicts = (
        ", ".join(f"row {row[0]} {row[7]} instead of {row[6]}" for row in turned)
        or "no difference from the reference would become or cease to be significant"
    )
    sentences = [
        f"{n:,} of {len(check.ids):,} test labels may be wrong: at least {NEARLY_ALL:.0%} of {len(check.answers):,} "
        "runs answer otherwise, and are together confident of another class (confident learning). labels.tsv ranks "
        "all examples.",
        f"If all of them were wrong, {order}; {first}; {verdicts}.",
    ]
    listed = check.rows(texts, suspicious=True)
    cells = [
        [
            str(place),
            one["id"],
            one["label"],
            one["likely"],
            f"{one['wrong_runs']:.0%}",
            f"{one['label_confidence']:.3f}",
            excerpt(one["text"]),
        ]
        for place, one in enumerate(listed, start=1)
    ]
    details = [Section(one["id"], [one["text"] or "The text is not known."]) for one in listed]
    titles = ["rank", "example", "label", "likely label", "runs that are wrong", "confidence in the label", "text"]
    return [
        Section(
            "Labels that may be wrong",
            sentences,
            Table(titles, cells, frozenset({0, 4, 5}), details=details),
            forms=("html",),
        ),
        Section("Labels that may be wrong", sentences, forms=("markdown",)),
        Section("Variants if these labels were wrong", table=Table(head, rows, frozenset({0, 2, 3, 4, 5}))),
    ]
