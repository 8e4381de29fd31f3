"""What the evaluation of free texts says, section by section, and as one self-contained page."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from ftkit.report.comparison_report import compared
from ftkit.report.page import figure, page, section_html
from ftkit.report.plots import COLORS, Frame, line, plot, points
from ftkit.report.sections import (
    Evaluated,
    Section,
    as_markdown,
    as_text,
    interval_text,
    number_text,
    p_text,
    warning_sections,
)
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
        """The evaluation as JSON with all digits."""
        return self.as_json("exact_match", why=self.why)


def exact_text(evaluation: ExactEvaluation) -> str:
    """The report for a terminal."""
    digits = evaluation.digits
    heads = [
        [
            f"Exact match: {report.name}",
            f"  right={report.share.right} wrong={report.share.n - report.share.right}",
            f"  accuracy: {number_text(report.share.accuracy, digits)}{interval_text(report.share.interval, digits)}",
        ]
        for report in evaluation.reports
    ]
    return as_text(heads, exact_sections(evaluation)[1:], _warned(evaluation))


def exact_markdown(evaluation: ExactEvaluation) -> str:
    """The same report in Markdown."""
    return as_markdown("Exact match", [*_warned(evaluation), *exact_sections(evaluation)])


def exact_page(evaluation: ExactEvaluation) -> str:
    """The same report as a whole HTML document that needs nothing else."""
    cards = "".join(
        f"<div class='card'><h3>{escape(name)}</h3><div class='big'>{report.share.accuracy:.3f}</div><div class='soft'>"
        f"of {report.share.n:,} answers are right ({report.share.interval[0]:.3f} to {report.share.interval[1]:.3f})"
        f"</div><p>{escape(_skill(report))}</p></div>"
        for name, report in zip(evaluation.names, evaluation.reports, strict=True)
    )
    drawn = figure(_plot(evaluation), f"Dot and line: the accuracy with its {evaluation.level:.0%} interval.")
    overview, *rest = [section_html(section) for section in exact_sections(evaluation)]
    warned = "".join(map(section_html, _warned(evaluation)))
    body = f"<h1>Exact match</h1>{warned}<div class='cards'>{cards}</div>{overview}<h2>Plot</h2>{drawn}{''.join(rest)}"
    return page("Exact match", body)


def exact_sections(evaluation: ExactEvaluation) -> list[Section]:
    """The whole report, the table of all files first."""
    reports, names = evaluation.reports, evaluation.names
    found = [_overview(evaluation), _not_binary(evaluation)]
    label = (lambda name: "") if len(reports) == 1 else (lambda name: f"{name}: ")
    skill = [f"{label(name)}{_skill(report)}" for name, report in zip(names, reports, strict=True)]
    found.append(Section("Against a model without skill", skill))
    if evaluation.comparisons:
        full = dict(zip((report.name for report in reports), names, strict=True))
        found.append(compared(evaluation.comparisons, full, {"accuracy": "accuracy"}, evaluation.digits))
    if any(report.slices for report in reports):
        found.append(_sliced(evaluation))
    found += [_wrong(evaluation)] if any(report.answers.wrong for report in reports) else []
    return [*found, _files(evaluation)]


def _warned(evaluation: ExactEvaluation) -> list[Section]:
    return warning_sections(evaluation.names, [report.answers.warnings for report in evaluation.reports])


def _overview(evaluation: ExactEvaluation) -> Section:
    table = [["file", "n", "right", "wrong", "accuracy"]]
    for name, report in zip(evaluation.names, evaluation.reports, strict=True):
        table.append([name, *_cells(report.share, evaluation.digits)])
    return Section("Answers that equal the expected text", [], table)


def _not_binary(evaluation: ExactEvaluation) -> Section:
    return Section(
        "Why not precision and recall",
        [
            f"There are {evaluation.why}: an answer is right if it equals the expected text, and wrong otherwise. "
            "Precision, recall and what else needs a positive class do not apply. For a yes/no question, name that "
            "class with --positive."
        ],
    )


def _skill(report: ExactReport) -> str:
    verdict = "does not differ from that beyond chance"
    if is_significant(report.p_majority):
        verdict = f"is {'better' if report.better > report.worse else 'worse'} than that beyond chance"
    return (
        f"Always answering {_short(report.majority)!r}, {_rank(report)}, would be right on "
        f"{report.majority_count} of {report.share.n} ({report.majority_count / report.share.n:.1%}); the model "
        f"{verdict} ({report.better} more right, {report.worse} more wrong, exact McNemar {p_text(report.p_majority)})."
    )


def _rank(report: ExactReport) -> str:
    if report.tied == 1:
        return "the most frequent label"
    return f"the first in alphabetical order of {report.tied:,} labels that are equally frequent"


def _sliced(evaluation: ExactEvaluation) -> Section:
    table = [["slice", "file", "n", "right", "wrong", "accuracy"]]
    for name, report in zip(evaluation.names, evaluation.reports, strict=True):
        table += [[value, name, *_cells(share, evaluation.digits)] for value, share in report.slices.items()]
    return Section("Slices", [], table)


def _wrong(evaluation: ExactEvaluation) -> Section:
    table = [["file", "id", "expected", "answer"]]
    sentences = []
    for name, report in zip(evaluation.names, evaluation.reports, strict=True):
        answers = report.answers
        table += [[name, *map(_short, row)] for row in answers.wrong]
        if answers.empty:
            sentences.append(f"{name}: {answers.empty} answers are empty or null.")
    return Section("The first wrong answers", sentences, table)


def _files(evaluation: ExactEvaluation) -> Section:
    sentences = []
    for report in evaluation.reports:
        sentences += [f"{report.name}: {text}" for text in (report.answers.columns, *report.answers.notes)]
    return Section("Files", sentences)


def _plot(evaluation: ExactEvaluation) -> str:
    """Accuracy of each file and of its slices, from above."""
    rows: list[tuple[str, Share, int]] = []
    for color, (name, report) in enumerate(zip(evaluation.names, evaluation.reports, strict=True)):
        rows.append((_short(name, 40), report.share, color))
        rows += [(f"{_short(value, 30)}, {_short(name, 20)}", share, color) for value, share in report.slices.items()]
    left = int(20 + 6.4 * max(len(name) for name, _, _ in rows))
    frame = Frame(y=(-0.6, len(rows) - 0.4), width=left + 330, height=76 + 24 * len(rows), left=left)
    marks = []
    for place, (name, share, color) in enumerate(reversed(rows)):
        marks.append(line(frame, list(share.interval), [place, place], color % COLORS))
        marks.append(points(frame, [share.accuracy], [place], color, names=[f"{name}: {share.right} of {share.n}"]))
    labels = [name for name, _, _ in reversed(rows)]
    return plot(frame, *marks, title="Exact-match accuracy", x_label="share that is right", y_names=labels)


def _cells(share: Share, digits: int | None) -> list[str]:
    accuracy = number_text(share.accuracy, digits) + interval_text(share.interval, digits)
    return [str(share.n), str(share.right), str(share.n - share.right), accuracy]


def _short(text: str, most: int = _TEXT) -> str:
    """A text on one line that can be printed, cut where it is too long to look at."""
    text = text.replace("\n", "\\n").replace("\t", "\\t").encode(errors="backslashreplace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"
