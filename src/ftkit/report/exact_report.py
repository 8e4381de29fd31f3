"""Report on the evaluation of free texts."""

from dataclasses import dataclass
from typing import Any, ClassVar

from ftkit.report.document import Card, Figure, Section
from ftkit.report.evaluation import Evaluated, skill
from ftkit.report.words import short
from ftkit.results.exact_match import ExactReport


@dataclass(frozen=True, kw_only=True)
class ExactEvaluation(Evaluated[ExactReport]):
    """Everything that ``ftkit evaluate`` found in files of free texts."""

    why: str  # what the labels are, instead of yes and no

    kind = "exact_match"
    title = opening = "Exact match"
    compared: ClassVar = {"accuracy": "accuracy"}

    def more(self) -> dict[str, Any]:  # noqa: D102
        return {"why": self.why}

    def lines(self, report: ExactReport) -> list[str]:  # noqa: D102
        share = report.share
        return [f"right={share.right} wrong={share.n - share.right}", f"accuracy: {self.share(share)[-1]}"]

    def card(self, name: str, report: ExactReport) -> Card:  # noqa: D102
        low, high = report.share.interval
        note = f"of {report.share.n:,} answers are right ({low:.3f} to {high:.3f})"
        return Card(name, skill(report), note, f"{report.share.accuracy:.3f}")

    def sections(self) -> list[Section]:  # noqa: D102
        why = (
            f"Free texts, by exact match: there are {self.why}. An answer is right if it equals the expected text, and "
            "wrong otherwise. Precision, recall and what else needs a positive class do not apply. For a yes/no "
            "question, name that class with --positive."
        )
        head = ["n", "right", "wrong", "accuracy"]
        found = [
            Section(
                "Answers that equal the expected text", table=self.table(head, lambda one: [self.share(one.share)])
            ),
            Section("Why not precision and recall", [why]),
            Section("Against a model without skill", self.each(lambda report: [skill(report)])),
        ]
        found += self.sliced(head, self.share)
        if any(report.answers.wrong for report in self.reports):
            rows = self.table(["id", "expected", "answer"], lambda one: [[*map(short, w)] for w in one.answers.wrong])
            empty = self.each(lambda one: [f"{n} answers are empty or null."] if (n := one.answers.empty) else [])
            found.append(Section("The first wrong answers", empty, rows))
        return found

    def figures(self) -> list[Figure]:  # noqa: D102
        parts = [
            (short(part if part == name else f"{part}, {name}", 50), name, share)
            for name, report in self.named
            for part, share in [(name, report.share), *report.slices.items()]
        ]
        shown = ((part, file, s.accuracy, s.interval, f"{s.right:,} of {s.n:,} right") for part, file, s in parts)
        return [self.accuracies(shown, "share that is right", "")]
