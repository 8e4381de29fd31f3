"""Report on the evaluation of preferences."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ftkit.report.document import Card, Figure, Section, Table
from ftkit.report.evaluation import Evaluated
from ftkit.report.words import p_text, significance
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


@dataclass(frozen=True, kw_only=True)
class PreferenceEvaluation(Evaluated[PreferenceReport]):
    """Everything that ``ftkit evaluate`` found in preference files."""

    kind = "preference"
    title = opening = "Preferences"
    compared: ClassVar = NAMES
    heads: ClassVar = ("went better", "went worse", "p (sign flips)")

    def lines(self, report: PreferenceReport) -> list[str]:  # noqa: D102
        outcomes = report.outcomes
        counts = f"won={outcomes.won} lost={outcomes.lost} tied={outcomes.tied}"
        return [counts, f"preference accuracy: {self._cells(outcomes)[-1]}"]

    def card(self, name: str, report: PreferenceReport) -> Card:  # noqa: D102
        return Card(name, _against_chance(report.outcomes), "", f"{report.outcomes.accuracy:.3f}")

    def sections(self) -> list[Section]:  # noqa: D102
        head = ["n", "won", "lost", "tied", "preference accuracy"]
        overview = self.table(head, lambda report: [self._cells(report.outcomes)])
        found = [
            Section("Pairs whose chosen answer has the higher reward", table=overview),
            Section("Against 50%, which is chance", self.each(lambda report: [_against_chance(report.outcomes)])),
        ]
        if any(report.means for report in self.reports):
            title = f"Margins and drift: means, with {self.level:.0%} intervals"
            found.append(Section(title, self.each(_drift), self._means()))
        sentence = "Each slice is tested against 50%, all slices of a file together."
        return found + self.sliced(
            [*head, "p (Holm)"], lambda part: [*self._cells(part), rounded_p(part.p_holm)], sentence
        )

    def figures(self) -> list[Figure]:  # noqa: D102
        parts = (
            (name, name, one.accuracy, one.interval, f"{one.won} won, {one.lost} lost, {one.tied} tied")
            for name, one in ((name, report.outcomes) for name, report in self.named)
        )
        return [self.accuracies(parts, "share of pairs, a tie as half", "; the dashed line is chance", at=0.5)]

    def _cells(self, outcomes: Outcomes) -> list[str]:
        counts = map(str, (outcomes.n, outcomes.won, outcomes.lost, outcomes.tied))
        return [*counts, self.text(outcomes.accuracy, outcomes.interval)]

    def _means(self) -> Table:
        means = [report.means for report in self.reports]
        rows = [
            [title, *(self.text(*one[name]) if name in one else "not in the file" for one in means)]
            for name, title in NAMES.items()
            if any(name in one for one in means)
        ]
        return Table(["mean a pair", *self.names], rows)


def _against_chance(outcomes: Outcomes) -> str:
    """Whether the accuracy differs from a coin's, in a sentence."""
    untied = outcomes.won + outcomes.lost
    tied = f" {outcomes.tied} of {outcomes.n} pairs are ties, which count as half." if outcomes.tied else ""
    if not untied:
        return "Every pair is a tie, as for a model that is its own reference: before training it prefers nothing."
    found = f"{outcomes.won} of {untied} pairs are won (exact binomial test against 50%, {p_text(outcomes.p)})"
    if is_significant(outcomes.p):
        verdict = f"{significance(outcomes.won - outcomes.lost, outcomes.p)} than chance"
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
