"""Report on the evaluation of free texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from ftkit.report.document import Card, Figure, Section
from ftkit.report.evaluation import Evaluated, p_text
from ftkit.results.exact_match import ExactReport, Share
from ftkit.results.statistics import is_significant

_TEXT = 80  # letters of a wrong answer that are shown


@dataclass(frozen=True, kw_only=True)
class ExactEvaluation(Evaluated[ExactReport]):
    """Everything that ``ftkit evaluate`` found in files of free texts.

    Attributes:
        why: What the labels are, instead of yes and no.
    """

    why: str

    kind = "exact_match"
    title = opening = "Exact match"
    compared: ClassVar = {"accuracy": "accuracy"}

    def more(self) -> dict[str, Any]:  # noqa: D102
        return {"why": self.why}

    def warnings(self, report: ExactReport) -> list[str]:  # noqa: D102
        return report.answers.warnings

    def lines(self, report: ExactReport) -> list[str]:  # noqa: D102
        share = report.share
        return [f"right={share.right} wrong={share.n - share.right}", f"accuracy: {self._cells(share)[-1]}"]

    def card(self, name: str, report: ExactReport) -> Card:  # noqa: D102
        low, high = report.share.interval
        note = f"of {report.share.n:,} answers are right ({low:.3f} to {high:.3f})"
        return Card(name, _skill(report), note, f"{report.share.accuracy:.3f}")

    def sections(self) -> list[Section]:  # noqa: D102
        why = (
            f"There are {self.why}: an answer is right if it equals the expected text, and wrong otherwise. Precision, "
            "recall and what else needs a positive class do not apply. For a yes/no question, name that class with "
            "--positive."
        )
        head = ["n", "right", "wrong", "accuracy"]
        found = [
            Section(
                "Answers that equal the expected text", table=self.table(head, lambda one: [self._cells(one.share)])
            ),
            Section("Why not precision and recall", [why]),
            Section("Against a model without skill", self.each(lambda report: [_skill(report)])),
        ]
        if any(report.slices for report in self.reports):
            rows = self.table(["slice", *head], lambda one: [[v, *self._cells(s)] for v, s in one.slices.items()])
            found.append(Section("Slices", table=rows))
        if any(report.answers.wrong for report in self.reports):
            rows = self.table(["id", "expected", "answer"], lambda one: [[*map(_short, w)] for w in one.answers.wrong])
            found.append(Section("The first wrong answers", self.each(_empty), rows))
        return found

    def figures(self) -> list[Figure]:  # noqa: D102
        parts = [
            (_short(part if part == name else f"{part}, {name}", 50), name, share)
            for name, report in self.named
            for part, share in [(name, report.share), *report.slices.items()]
        ]
        shown = ((part, file, s.accuracy, s.interval, f"{s.right:,} of {s.n:,} right") for part, file, s in parts)
        return [self.accuracies(shown, "share that is right", "")]

    def about(self, report: ExactReport) -> list[str]:  # noqa: D102
        return [report.answers.columns, *report.answers.notes]

    def _cells(self, share: Share) -> list[str]:
        counts = map(str, (share.n, share.right, share.n - share.right))
        return [*counts, self.text(share.accuracy, share.interval)]


def _empty(report: ExactReport) -> Iterator[str]:
    if report.answers.empty:
        yield f"{report.answers.empty} answers are empty or null."


def _skill(report: ExactReport) -> str:
    verdict = "is not significantly different from that"
    if is_significant(report.p_majority):
        verdict = f"is significantly {'better' if report.better > report.worse else 'worse'} than that"
    return (
        f"Always answering {_short(report.majority)!r}, {_rank(report)}, would be right on "
        f"{report.majority_count} of {report.share.n} ({report.majority_count / report.share.n:.1%}); the model "
        f"{verdict} ({report.better} more right, {report.worse} more wrong, exact McNemar {p_text(report.p_majority)})."
    )


def _rank(report: ExactReport) -> str:
    if report.tied == 1:
        return "the most frequent label"
    return f"the first in alphabetical order of {report.tied:,} labels that are equally frequent"


def _short(text: str, most: int = _TEXT) -> str:
    """A text on one line that can be printed, cut where it is too long to look at."""
    text = text.replace("\n", "\\n").replace("\t", "\\t").encode(errors="backslashreplace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"
