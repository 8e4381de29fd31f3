"""What the evaluation of preferences says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ftkit.report.document import Card, Document, Figure, Section, Table
from ftkit.report.evaluation import Evaluated, p_text
from ftkit.results.preferences import Outcomes, PreferenceReport
from ftkit.results.statistics import can_be_significant, is_significant, rounded_p

NAMES = {
    "accuracy": "preference accuracy",
    "margin": "margin",
    "logps_chosen": "log-probability, chosen",
    "logps_rejected": "log-probability, rejected",
    "drift_chosen": "drift, chosen",
    "drift_rejected": "drift, rejected",
}
_HEADS = ("shared", "went better", "went worse", "p (sign flips)", "p (Holm)")


@dataclass(frozen=True, kw_only=True)
class PreferenceEvaluation(Evaluated[PreferenceReport]):
    """Everything that ``ftkit evaluate`` found in preference files."""

    def to_json(self) -> str:
        """Return the evaluation as JSON with all digits."""
        return self.as_json("preference")

    def document(self, figures: bool = False) -> Document:
        """Return the report, the table of all files first.

        Args:
            figures: With the chart, which only a page shows.
        """
        head = ["n", "won", "lost", "tied", "preference accuracy"]
        overview = self.table(head, lambda report: [self._cells(report.outcomes)])
        cards = [
            Card(name, _against_chance(one.outcomes), "", f"{one.outcomes.accuracy:.3f}") for name, one in self.named
        ]
        sections = [
            *(
                Section(f"Preferences: {one.name}", lines=self._lines(one.outcomes), forms=("text",))
                for one in self.reports
            ),
            Section("Preference accuracy", cards=cards, forms=("html",)),
            *self.compared(NAMES, _HEADS),
            Section("Pairs whose chosen answer has the higher reward", table=overview, forms=("markdown", "html")),
            *([Section("Chart", figures=[_figure(self)], forms=("html",))] if figures else []),
            Section("Against 50%, which is chance", self.each(lambda report: [_against_chance(report.outcomes)])),
        ]
        if any(report.means for report in self.reports):
            title = f"Margins and drift: means, with {self.level:.0%} intervals"
            sections.append(Section(title, self.each(_drift), self._means()))
        if any(report.slices for report in self.reports):
            sentence = "Each slice is tested against 50%, all slices of a file together."
            table = self.table(
                ["slice", *head, "p (Holm)"],
                lambda one: [[v, *self._cells(part), rounded_p(part.p_holm)] for v, part in one.slices.items()],
            )
            sections.append(Section("Slices", [sentence], table))
        files = self.files(lambda one: [one.preferences.columns, *one.preferences.notes])
        return Document("Preferences", [*sections, files])

    def _cells(self, outcomes: Outcomes) -> list[str]:
        counts = map(str, (outcomes.n, outcomes.won, outcomes.lost, outcomes.tied))
        return [*counts, self.text(outcomes.accuracy, outcomes.interval)]

    def _lines(self, outcomes: Outcomes) -> list[str]:
        accuracy = self.text(outcomes.accuracy, outcomes.interval)
        return [
            f"won={outcomes.won} lost={outcomes.lost} tied={outcomes.tied}",
            f"preference accuracy: {accuracy}",
        ]

    def _means(self) -> Table:
        rows = [
            [title, *(self._mean(report, name) for report in self.reports)]
            for name, title in NAMES.items()
            if any(name in report.means for report in self.reports)
        ]
        return Table(["mean a pair", *self.names], rows)

    def _mean(self, report: PreferenceReport, name: str) -> str:
        return self.text(*report.means[name]) if name in report.means else "not in the file"


def _against_chance(outcomes: Outcomes) -> str:
    """Whether the accuracy differs from a coin's, in a sentence."""
    untied = outcomes.won + outcomes.lost
    tied = f" {outcomes.tied} of {outcomes.n} pairs are ties, which count as half." if outcomes.tied else ""
    if not untied:
        return "Every pair is a tie, as for a model that is its own reference: before training it prefers nothing."
    found = f"{outcomes.won} of {untied} pairs are won (exact binomial test against 50%, {p_text(outcomes.p)})"
    if is_significant(outcomes.p):
        verdict = f"significantly {'better' if outcomes.won > outcomes.lost else 'worse'} than chance"
    elif not can_be_significant(untied).possible:
        verdict = f"too few pairs to be told from chance; {can_be_significant(untied).needed} alike are needed"
    else:
        verdict = "not significantly different from chance"
    return f"{found}: {verdict}.{tied}"


def _drift(report: PreferenceReport) -> Iterator[str]:
    """What drift says that margins hide."""
    margin, chosen = (_sign(report, name) for name in ("margin", "drift_chosen"))
    if margin > 0 > chosen:
        yield (
            "The margin grew while the chosen answers became less likely than under the reference: the rejected ones "
            "only fell further."
        )


def _sign(report: PreferenceReport, name: str) -> int:
    """The sign of a mean whose interval does not hold 0; 0 if there is none."""
    _, interval = report.means.get(name, (0.0, None))
    if interval is None or interval[0] <= 0 <= interval[1]:
        return 0
    return 1 if interval[0] > 0 else -1


def _figure(evaluation: PreferenceEvaluation) -> Figure:
    """The accuracy of each file."""
    from ftkit.report import charts  # with Altair, which only pages need

    records = [
        {
            "name": name,
            "kind": name,
            "value": report.outcomes.accuracy,
            "low": report.outcomes.interval[0],
            "high": report.outcomes.interval[1],
            "pairs": f"{report.outcomes.won} won, {report.outcomes.lost} lost, {report.outcomes.tied} tied",
            "accuracy": evaluation.text(report.outcomes.accuracy, report.outcomes.interval),
        }
        for name, report in evaluation.named
    ]
    tips = {"name": "file", "pairs": "pairs", "accuracy": "preference accuracy"}
    chart = charts.intervals(records, "share of pairs, a tie as half", tips, at=0.5, domain=(0, 1))
    caption = f"Dot and line: the accuracy with its {evaluation.level:.0%} interval; the dashed line is chance."
    return Figure("accuracy", "Preference accuracy", chart, caption, wide=True)
