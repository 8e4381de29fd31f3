"""What an evaluation says, as sections of sentences and tables; as text and Markdown here, as HTML in page.py."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from ftkit.evaluation.assessment import BinaryReport
from ftkit.evaluation.comparison import FIGURES, Comparison
from ftkit.evaluation.figures import Figure
from ftkit.evaluation.intervals import Interval
from ftkit.evaluation.threshold import Threshold, at_prevalence

FOUR = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f_measure": "F-measure"}
NAMES = {
    **FOUR,
    "f_beta": "F-beta",
    "specificity": "specificity",
    "npv": "negative predictive value",
    "balanced_accuracy": "balanced accuracy",
    "mcc": "Matthews correlation (MCC)",
    "prevalence": "prevalence",
    "predicted_positive_rate": "predicted-positive rate",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_error": "calibration error",
}
PREVALENCES = (0.01, 0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Evaluation:
    """Everything that ``ftkit evaluate`` found.

    Attributes:
        reports: One per file.
        comparisons: Each file against the reference.
        threshold: The frozen threshold, if one was given or chosen.
        at_threshold: The files' reports when answered at that threshold.
        digits: Decimals in texts, None for all.
        level: Confidence of the intervals.
    """

    reports: list[BinaryReport]
    comparisons: list[Comparison] = field(default_factory=list)
    threshold: Threshold | None = None
    at_threshold: list[BinaryReport] = field(default_factory=list)
    digits: int | None = 4
    level: float = 0.95

    def to_json(self) -> str:
        """The evaluation as JSON with all digits."""
        record: dict[str, Any] = {
            "level": self.level,
            "files": [report.to_dict() for report in self.reports],
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "threshold": None if self.threshold is None else vars(self.threshold),
            "at_threshold": [report.to_dict() for report in self.at_threshold],
        }
        return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and a table (its first row names the columns)."""

    title: str
    sentences: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)


def to_text(evaluation: Evaluation) -> str:
    """The report for a terminal: the practitioner's figures first, then the honest part."""
    blocks = ["\n".join(practitioner_lines(report, evaluation.digits)) for report in evaluation.reports]
    for section in sections(evaluation)[1:]:
        lines = [section.title]
        for sentence in section.sentences:
            lines += textwrap.wrap(sentence, 110, initial_indent="  - ", subsequent_indent="    ")
        blocks.append("\n".join(lines + _aligned(section.table)))
    return "\n\n".join(blocks)


def to_markdown(evaluation: Evaluation) -> str:
    """The same report in Markdown."""
    blocks = ["# Evaluation"]
    for section in sections(evaluation):
        blocks.append(f"## {section.title}")
        blocks += [f"- {_escaped(sentence)}" for sentence in section.sentences]
        if section.table:
            head, *rows = [[_escaped(cell) for cell in row] for row in section.table]
            lines = [head, ["---"] * len(head), *rows]
            blocks.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(blocks)


def practitioner_lines(report: BinaryReport, digits: int | None) -> list[str]:
    """Counts and the four usual figures of one file.

    Args:
        report: The file's report.
        digits: Decimals, None for all.
    """
    width = max(map(len, FOUR.values())) + 1
    lines = [f"Aggregate: {report.name}", f"  {report.counts}"]
    return lines + [f"  {title + ':':<{width}} {report.figures[name].text(digits)}" for name, title in FOUR.items()]


def sections(evaluation: Evaluation) -> list[Section]:
    """The whole report, the practitioner's table first."""
    found = [_usual(evaluation), _honest(evaluation), _skill(evaluation)]
    found += [_compared(evaluation)] if evaluation.comparisons else []
    found += [_sliced(evaluation)] if any(report.slices for report in evaluation.reports) else []
    found += [_thresholded(evaluation)] if evaluation.threshold else []
    found += [_shifted(evaluation), _files(evaluation)]
    return found


def verdicts(report: BinaryReport, alpha: float = 0.05) -> list[str]:
    """What the figures mean, in sentences.

    Args:
        report: One file's report.
        alpha: Level of significance.
    """
    counts, baselines = report.counts, report.baselines
    sentences = []
    verdict = "does not differ from that baseline beyond chance"
    if baselines.p_majority <= alpha:
        verdict = f"{'beats' if baselines.better > baselines.worse else 'is worse than'} that baseline beyond chance"
    always = baselines.majority
    sentences.append(
        f"Always answering {report.always} scores accuracy {always['accuracy'].text()}, F-measure "
        f"{always['f_measure'].text()}. Against it the model has {baselines.better} more right and "
        f"{baselines.worse} more wrong (exact McNemar {p_text(baselines.p_majority)}): it {verdict}."
    )
    sentences.append(
        f"Guessing {report.positive} at the rate of the labels gets {baselines.prior['accuracy'].text()} right on "
        f"average; it does as well as the model with {p_text(baselines.p_prior)}."
    )
    if not math.isnan(baselines.p_related):
        sentences.append(_relation(report, alpha))
    rate, prevalence = report.figures["predicted_positive_rate"], report.figures["prevalence"]
    if rate.value is not None and prevalence.value is not None:
        sentences.append(
            f"It answers {report.positive} to {rate.value:.1%}; {prevalence.value:.1%} are {report.positive}."
        )
    if counts.unparsed:
        shown = ", ".join(f"{text!r} x {count}" for text, count in report.unparsed.items())
        sentences.append(
            f"{counts.unparsed} answers ({counts.unparsed / counts.n:.1%}) are neither {report.positive} nor "
            f"{report.negative} and count as errors{': ' + shown if shown else ''}."
        )
    return sentences


def p_text(p: float) -> str:
    """A p-value in words.

    Example:
        >>> p_text(0.5847), p_text(0.0), p_text(1.0)
        ('p = 0.58', 'p < 1e-300', 'p = 1')
    """
    return "p < 1e-300" if p < 1e-300 else f"p = {p:.2g}"


def short_names(reports: Sequence[BinaryReport]) -> list[str]:
    """File names without the folders, and without the file's own name, that all of them share."""
    paths = [Path(report.name).parts for report in reports]
    if len(set(paths)) < 2:
        return [path[-1] for path in paths]
    start = _shared(paths)
    end = _shared([path[start:][::-1] for path in paths])
    return [str(Path(*path[start : len(path) - end])) for path in paths]


def _shared(paths: Sequence[tuple[str, ...]]) -> int:
    """How many of the first parts all paths have in common."""
    return sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))


def _relation(report: BinaryReport, alpha: float) -> str:
    p, counts = report.baselines.p_related, report.counts
    if counts.tp + counts.fp in (0, counts.n):
        return "Its answers say nothing about the labels: every answer falls on the same side."
    if p > alpha:
        return f"There is no evidence that its answers go with the labels (Fisher {p_text(p)})."
    hidden = "" if report.baselines.beats_majority(alpha) else "; accuracy alone hides it"
    return f"Its answers do go with the labels (Fisher {p_text(p)}){hidden}."


def _usual(evaluation: Evaluation) -> Section:
    reports = evaluation.reports
    table = [["file", "Tp", "Tn", "Fp", "Fn", "unparsed", *FOUR.values()]]
    for name, report in zip(short_names(reports), reports, strict=True):
        c = report.counts
        figures = [report.figures[figure].text(evaluation.digits) for figure in FOUR]
        table.append([name, *map(str, (c.tp, c.tn, c.fp, c.fn, c.unparsed)), *figures])
    return Section(f"Answers, {reports[0].positive} being positive", [], table)


def _honest(evaluation: Evaluation) -> Section:
    reports, digits = evaluation.reports, evaluation.digits
    table = [["figure", *short_names(reports)], ["n", *(str(report.counts.n) for report in reports)]]
    for name, title in NAMES.items():
        if any(name in report.figures for report in reports):
            table.append([title, *(_with_interval(report, name, digits) for report in reports)])
    return Section(f"All figures, with {evaluation.level:.0%} intervals", [], table)


def _skill(evaluation: Evaluation) -> Section:
    reports = evaluation.reports
    names = short_names(reports)
    label = (lambda name: "") if len(reports) == 1 else (lambda name: f"{name}: ")
    sentences = [
        f"{label(name)}{sentence}" for name, report in zip(names, reports, strict=True) for sentence in verdicts(report)
    ]
    return Section("Against models without skill", sentences)


def _compared(evaluation: Evaluation) -> Section:
    against = evaluation.comparisons[0].against
    head = [
        "file",
        "shared",
        "only it right",
        "only the other right",
        *(f"{NAMES[name]} difference" for name in FIGURES),
    ]
    table = [[*head, "p (McNemar)", "p (Holm)"]]
    sentences = []
    names = dict(zip((report.name for report in evaluation.reports), short_names(evaluation.reports), strict=True))
    for one in evaluation.comparisons:
        name = names[one.name]
        cells = [_difference(one, figure, evaluation.digits) for figure in FIGURES]
        table.append(
            [
                name,
                str(one.n),
                str(one.only_model),
                str(one.only_reference),
                *cells,
                f"{one.p:.2g}",
                f"{one.p_holm:.2g}",
            ]
        )
        sentences.append(f"{name}: {_paired_verdict(one)}")
        for (count, first), where in ((one.missing, "in it"), (one.missing_in_model, f"in {against}")):
            if count:
                sentences.append(f"{name}: {count} ids are only {where}, for example {', '.join(first)}; left out.")
    return Section(f"Compared with {against}, on the same examples", sentences, table)


def _paired_verdict(one: Comparison, alpha: float = 0.05) -> str:
    if one.p_holm <= alpha:
        return f"{'better' if one.only_model > one.only_reference else 'worse'} beyond chance ({p_text(one.p_holm)})."
    if not one.reach.possible:
        total = one.only_model + one.only_reference
        return (
            f"only one of the two is right on {total} of {one.n} examples; fewer than {one.reach.needed} "
            "can never be significant."
        )
    detectable = "" if math.isnan(one.detectable) else (
        f" A difference of {one.detectable:.1%} or more would be found with 80% power."
    )  # fmt: skip
    return f"no difference beyond chance ({p_text(one.p_holm)}).{detectable}"


def _sliced(evaluation: Evaluation) -> Section:
    table = [["slice", "file", "n", "counts", "accuracy", "recall", "specificity", "beats the majority"]]
    for name, report in zip(short_names(evaluation.reports), evaluation.reports, strict=True):
        for value, part in report.slices.items():
            cells = [
                _with_interval(part, figure, evaluation.digits) for figure in ("accuracy", "recall", "specificity")
            ]
            beats = "yes" if part.baselines.beats_majority() else "no"
            table.append([value, name, str(part.counts.n), str(part.counts), *cells, beats])
    return Section("Slices", [], table)


def _thresholded(evaluation: Evaluation) -> Section:
    threshold = evaluation.threshold
    assert threshold is not None
    sentence = (
        f"{threshold.positive} if {threshold.kind.replace('_', ' ')} >= {threshold.value!r}: best "
        f"{threshold.criterion.replace('_', ' ')} ({threshold.achieved:.4f}) on {threshold.source} "
        f"(n = {threshold.n}), applied unchanged."
    )
    names = ("accuracy", "precision", "recall", "specificity", "balanced_accuracy", "mcc")
    table = [["file", "answers", "counts", *(NAMES[name] for name in names)]]
    for name, own, frozen in zip(
        short_names(evaluation.reports), evaluation.reports, evaluation.at_threshold, strict=True
    ):
        for kind, report in (("its own", own), ("at the threshold", frozen)):
            table.append(
                [name, kind, str(report.counts), *(_with_interval(report, f, evaluation.digits) for f in names)]
            )
    return Section("At the frozen threshold", [sentence], table)


def _shifted(evaluation: Evaluation) -> Section:
    table = [["file", "figure", *(f"{share:.0%} {evaluation.reports[0].positive}" for share in PREVALENCES)]]
    reports = evaluation.at_threshold or evaluation.reports
    for name, report in zip(short_names(reports), reports, strict=True):
        expected = at_prevalence(report.counts, PREVALENCES)
        for figure in ("accuracy", "precision", "npv"):
            table.append([name, NAMES[figure], *(point[figure].text(evaluation.digits) for point in expected)])
    sentence = "What to expect where positives are rarer or more frequent, if recall and specificity stay as they are."
    return Section("At another prevalence", [sentence], table)


def _files(evaluation: Evaluation) -> Section:
    sentences = []
    for report in evaluation.reports:
        sentences.append(f"{report.name}: {report.columns}")
        sentences += [f"{report.name}: {note}" for note in report.notes]
    return Section("Files", sentences)


def _with_interval(report: BinaryReport, name: str, digits: int | None) -> str:
    figure = report.figures.get(name, Figure(None, "no scores"))
    return figure.text(digits) + _interval_text(report.intervals.get(name))


def _difference(one: Comparison, name: str, digits: int | None) -> str:
    value = one.differences[name]
    if math.isnan(value):
        return "undefined"
    shown = repr(value) if digits is None else f"{value:+.{digits}f}"
    return shown + _interval_text(one.intervals.get(name))


def _interval_text(interval: Interval | None) -> str:
    return "" if interval is None else f" ({interval[0]:.4f} to {interval[1]:.4f})"


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in table]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
