"""What the evaluation of free texts says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ftkit.report.document import Card, Document, Figure, Section
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

    def to_json(self) -> str:
        """Return the evaluation as JSON with all digits."""
        return self.as_json("exact_match", why=self.why)

    def document(self, figures: bool = False) -> Document:
        """Return the report, the table of all files first.

        Args:
            figures: With the chart, which only a page shows.
        """
        why = (
            f"There are {self.why}: an answer is right if it equals the expected text, and wrong otherwise. Precision, "
            "recall and what else needs a positive class do not apply. For a yes/no question, name that class with "
            "--positive."
        )
        head = ["n", "right", "wrong", "accuracy"]
        overview = self.table(head, lambda report: [self._cells(report.share)])
        sections = [
            *self.warned(lambda report: report.answers.warnings),
            *(
                Section(f"Exact match: {one.name}", lines=self._lines(one.share), forms=("text",))
                for one in self.reports
            ),
            Section("Accuracy", cards=[_card(*named) for named in self.named], forms=("html",)),
            *self.compared({"accuracy": "accuracy"}),
            Section("Answers that equal the expected text", table=overview, forms=("markdown", "html")),
            *([Section("Chart", figures=[_figure(self)], forms=("html",))] if figures else []),
            Section("Why not precision and recall", [why]),
            Section("Against a model without skill", self.each(lambda report: [_skill(report)])),
        ]
        if any(report.slices for report in self.reports):
            rows = self.table(["slice", *head], lambda one: [[v, *self._cells(s)] for v, s in one.slices.items()])
            sections.append(Section("Slices", table=rows))
        if any(report.answers.wrong for report in self.reports):
            rows = self.table(["id", "expected", "answer"], lambda one: [[*map(_short, w)] for w in one.answers.wrong])
            sections.append(Section("The first wrong answers", self.each(_empty), rows))
        return Document(
            "Exact match", [*sections, self.files(lambda one: [one.answers.columns, *one.answers.notes])],
                    )  # fmt: skip

    def _cells(self, share: Share) -> list[str]:
        counts = map(str, (share.n, share.right, share.n - share.right))
        return [*counts, self.text(share.accuracy, share.interval)]

    def _lines(self, share: Share) -> list[str]:
        accuracy = self.text(share.accuracy, share.interval)
        return [f"right={share.right} wrong={share.n - share.right}", f"accuracy: {accuracy}"]


def _empty(report: ExactReport) -> Iterator[str]:
    if report.answers.empty:
        yield f"{report.answers.empty} answers are empty or null."


def _card(name: str, report: ExactReport) -> Card:
    low, high = report.share.interval
    note = f"of {report.share.n:,} answers are right ({low:.3f} to {high:.3f})"
    return Card(name, _skill(report), note, f"{report.share.accuracy:.3f}")


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


def _figure(evaluation: ExactEvaluation) -> Figure:
    """The accuracy of each file and of its slices."""
    from ftkit.report import charts  # with Altair, which only pages need

    parts = [
        (name if value is None else f"{value}, {name}", name, share)
        for name, report in evaluation.named
        for value, share in [(None, report.share), *report.slices.items()]
    ]
    records = [
        {
            "name": _short(part, 50),
            "kind": name,
            "value": share.accuracy,
            "low": share.interval[0],
            "high": share.interval[1],
            "right": f"{share.right:,} of {share.n:,}",
            "accuracy": evaluation.text(share.accuracy, share.interval),
        }
        for part, name, share in parts
    ]
    tips = {"name": "answers", "right": "right", "accuracy": "accuracy"}
    chart = charts.intervals(records, "share that is right", tips, domain=(0, 1))
    caption = f"Dot and line: the accuracy with its {evaluation.level:.0%} interval."
    return Figure("accuracy", "Exact-match accuracy", chart, caption, wide=True)


def _short(text: str, most: int = _TEXT) -> str:
    """A text on one line that can be printed, cut where it is too long to look at."""
    text = text.replace("\n", "\\n").replace("\t", "\\t").encode(errors="backslashreplace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"
