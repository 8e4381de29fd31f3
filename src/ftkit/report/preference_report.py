"""What the evaluation of preferences says, section by section, and as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ftkit.report.comparison_report import compared
from ftkit.report.page import figure, page, section_html
from ftkit.report.plots import COLORS, Frame, line, plot, points
from ftkit.report.sections import Evaluated, Section, as_markdown, as_text, interval_text, number_text, p_text
from ftkit.results.intervals import Interval
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

    def to_json(self) -> str:
        """The evaluation as JSON with all digits."""
        return self.as_json("preference")


def preference_text(evaluation: PreferenceEvaluation) -> str:
    """Return the report for a terminal."""
    heads = []
    for report in evaluation.reports:
        outcomes = report.outcomes
        counts = f"won={outcomes.won} lost={outcomes.lost} tied={outcomes.tied}"
        accuracy = _accuracy(outcomes, evaluation.digits)
        heads.append([f"Preferences: {report.name}", f"  {counts}", f"  preference accuracy: {accuracy}"])
    return as_text(heads, preference_sections(evaluation)[1:])


def preference_markdown(evaluation: PreferenceEvaluation) -> str:
    """Return the same report in Markdown."""
    return as_markdown("Preferences", preference_sections(evaluation))


def preference_page(evaluation: PreferenceEvaluation) -> str:
    """Return the same report as a whole HTML document that needs nothing else."""
    cards = "".join(
        f"<div class='card'><h3>{escape(name)}</h3><div class='big'>{report.outcomes.accuracy:.3f}</div>"
        f"<p>{escape(_against_chance(report.outcomes))}</p></div>"
        for name, report in zip(evaluation.names, evaluation.reports, strict=True)
    )
    caption = f"Dot and line: the accuracy with its {evaluation.level:.0%} interval; the dashed line is chance."
    overview, *rest = [section_html(section) for section in preference_sections(evaluation)]
    body = (
        f"<h1>Preferences</h1><div class='cards'>{cards}</div>{overview}<h2>Plot</h2>"
        f"{figure(_plot(evaluation), caption)}{''.join(rest)}"
    )
    return page("Preferences", body)


def preference_sections(evaluation: PreferenceEvaluation) -> list[Section]:
    """Return the whole report, the table of all files first."""
    reports, names = evaluation.reports, evaluation.names
    label = (lambda name: "") if len(reports) == 1 else (lambda name: f"{name}: ")
    named = list(zip(names, reports, strict=True))
    found = [_overview(evaluation)]
    verdicts = [f"{label(name)}{_against_chance(report.outcomes)}" for name, report in named]
    found.append(Section("Against 50%, which is chance", verdicts))
    if any(report.means for report in reports):
        drifts = [f"{label(name)}{sentence}" for name, report in named for sentence in _drift(report)]
        found.append(
            Section(f"Margins and drift: means, with {evaluation.level:.0%} intervals", drifts, _means(evaluation))
        )
    if evaluation.comparisons:
        full = dict(zip((report.name for report in reports), names, strict=True))
        found.append(compared(evaluation.comparisons, full, NAMES, evaluation.digits, _HEADS))
    if any(report.slices for report in reports):
        found.append(_sliced(evaluation))
    return [*found, _files(evaluation)]


_HEADS = ("shared", "went better", "went worse", "p (sign flips)", "p (Holm)")


def _overview(evaluation: PreferenceEvaluation) -> Section:
    table = [["file", "n", "won", "lost", "tied", "preference accuracy"]]
    for name, report in zip(evaluation.names, evaluation.reports, strict=True):
        table.append([name, *_cells(report.outcomes, evaluation.digits)])
    return Section("Pairs whose chosen answer has the higher reward", [], table)


def _against_chance(outcomes: Outcomes) -> str:
    """Whether the accuracy differs from a coin's, in a sentence."""
    untied = outcomes.won + outcomes.lost
    tied = f" {outcomes.tied} of {outcomes.n} pairs are ties, which count as half." if outcomes.tied else ""
    if not untied:
        return "Every pair is a tie, as for a model that is its own reference: before training it prefers nothing."
    found = f"{outcomes.won} of {untied} pairs are won (exact binomial test against 50%, {p_text(outcomes.p)})"
    if is_significant(outcomes.p):
        verdict = f"{'better' if outcomes.won > outcomes.lost else 'worse'} than chance"
    elif not can_be_significant(untied).possible:
        verdict = f"too few pairs to be told from chance; {can_be_significant(untied).needed} alike are needed"
    else:
        verdict = "not significantly different from chance"
    return f"{found}: {verdict}.{tied}"


def _drift(report: PreferenceReport) -> list[str]:
    """What drift says that margins hide."""
    margin, chosen = (_sign(report, name) for name in ("margin", "drift_chosen"))
    if margin > 0 > chosen:
        return [
            "The margin grew while the chosen answers became less likely than under the reference: the rejected ones "
            "only fell further."
        ]
    return []


def _sign(report: PreferenceReport, name: str) -> int:
    """The sign of a mean whose interval does not hold 0; 0 if there is none."""
    _, interval = report.means.get(name, (0.0, None))
    if interval is None or interval[0] <= 0 <= interval[1]:
        return 0
    return 1 if interval[0] > 0 else -1


def _means(evaluation: PreferenceEvaluation) -> list[list[str]]:
    table = [["mean a pair", *evaluation.names]]
    for name, title in NAMES.items():
        if any(name in report.means for report in evaluation.reports):
            table.append([title, *(_mean(report, name, evaluation.digits) for report in evaluation.reports)])
    return table


def _mean(report: PreferenceReport, name: str, digits: int | None) -> str:
    if name not in report.means:
        return "not in the file"
    mean, interval = report.means[name]
    return number_text(mean, digits) + interval_text(interval, digits)


def _sliced(evaluation: PreferenceEvaluation) -> Section:
    table = [["slice", "file", "n", "won", "lost", "tied", "preference accuracy", "p (Holm)"]]
    for name, report in zip(evaluation.names, evaluation.reports, strict=True):
        for value, outcomes in report.slices.items():
            table.append([value, name, *_cells(outcomes, evaluation.digits), rounded_p(outcomes.p_holm)])
    return Section("Slices", ["Each slice is tested against 50%, all slices of a file together."], table)


def _files(evaluation: PreferenceEvaluation) -> Section:
    sentences = []
    for report in evaluation.reports:
        sentences += [f"{report.name}: {text}" for text in (report.preferences.columns, *report.preferences.notes)]
    return Section("Files", sentences)


def _plot(evaluation: PreferenceEvaluation) -> str:
    """The accuracy of each file, from above."""
    named: Sequence[tuple[str, PreferenceReport]] = list(zip(evaluation.names, evaluation.reports, strict=True))
    left = int(20 + 6.4 * max(len(name) for name, _ in named))
    frame = Frame(y=(-0.6, len(named) - 0.4), width=left + 330, height=76 + 24 * len(named), left=left)
    marks = [line(frame, [0.5, 0.5], [-0.6, len(named) - 0.4], color=None, dashed=True)]
    for place, (name, report) in enumerate(reversed(named)):
        outcomes, color = report.outcomes, (len(named) - 1 - place) % COLORS
        marks.append(line(frame, list(outcomes.interval), [place, place], color))
        told = f"{name}: {outcomes.won} won, {outcomes.lost} lost, {outcomes.tied} tied"
        marks.append(points(frame, [outcomes.accuracy], [place], color, names=[told]))
    names = [name for name, _ in reversed(named)]
    return plot(frame, *marks, title="Preference accuracy", x_label="share of pairs, a tie as half", y_names=names)


def _accuracy(outcomes: Outcomes, digits: int | None) -> str:
    interval: Interval = outcomes.interval
    return number_text(outcomes.accuracy, digits) + interval_text(interval, digits)


def _cells(outcomes: Outcomes, digits: int | None) -> list[str]:
    return [*map(str, (outcomes.n, outcomes.won, outcomes.lost, outcomes.tied)), _accuracy(outcomes, digits)]
