"""What the evaluation of yes/no answers says, section by section."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ftkit.report.comparison_report import compared
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
from ftkit.results.assessment import BinaryReport
from ftkit.results.figures import Figure
from ftkit.results.prevalence import at_prevalence, prevalence_intervals
from ftkit.results.statistics import is_significant
from ftkit.results.threshold import Threshold

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


@dataclass(frozen=True, kw_only=True)
class Evaluation(Evaluated[BinaryReport]):
    """Everything that ``ftkit evaluate`` found in files of yes/no answers.

    Attributes:
        threshold: The frozen threshold, if one was given or chosen.
        at_threshold: The files' reports when answered at that threshold.
    """

    threshold: Threshold | None = None
    at_threshold: list[BinaryReport] = field(default_factory=list)

    def to_json(self) -> str:
        """The evaluation as JSON with all digits."""
        threshold = None if self.threshold is None else self.threshold.to_dict()
        at_threshold = [report.to_dict() for report in self.at_threshold]
        return self.as_json("binary", threshold=threshold, at_threshold=at_threshold)


def to_text(evaluation: Evaluation) -> str:
    """The report for a terminal: the practitioner's figures first, then the honest part."""
    heads = [practitioner_lines(report, evaluation.digits) for report in evaluation.reports]
    return as_text(heads, sections(evaluation)[1:], warned(evaluation))


def to_markdown(evaluation: Evaluation) -> str:
    """The same report in Markdown."""
    return as_markdown("Evaluation", [*warned(evaluation), *sections(evaluation)])


def practitioner_lines(report: BinaryReport, digits: int | None) -> list[str]:
    """Counts and the four usual figures of one file.

    Args:
        report: The file's report.
        digits: Decimals, None for all.
    """
    width = max(map(len, FOUR.values())) + 1
    lines = [f"Aggregate: {report.name}", f"  {report.counts}"]
    return lines + [f"  {title + ':':<{width}} {report.figures[name].text(digits)}" for name, title in FOUR.items()]


def warned(evaluation: Evaluation) -> list[Section]:
    """What a reader has to know before any figure."""
    return warning_sections(evaluation.names, [report.warnings for report in evaluation.reports])


def sections(evaluation: Evaluation) -> list[Section]:
    """The whole report, the practitioner's table first."""
    found = [_usual(evaluation), _honest(evaluation), _skill(evaluation)]
    if evaluation.comparisons:
        names = dict(zip((report.name for report in evaluation.reports), evaluation.names, strict=True))
        found.append(compared(evaluation.comparisons, names, NAMES, evaluation.digits))
    found += [_sliced(evaluation)] if any(report.slices for report in evaluation.reports) else []
    found += [_thresholded(evaluation)] if evaluation.threshold else []
    found += [_shifted(evaluation), _files(evaluation)]
    return found


def verdicts(report: BinaryReport) -> list[str]:
    """What the figures of one file mean, in sentences."""
    counts, baselines = report.counts, report.baselines
    sentences = []
    verdict = "does not differ from that baseline beyond chance"
    if is_significant(baselines.p_majority):
        verdict = f"{'beats' if baselines.better > baselines.worse else 'is worse than'} that baseline beyond chance"
    always = baselines.majority
    tie = ", which is as frequent as the other class," if counts.positives == counts.negatives else ""
    sentences.append(
        f"Always answering {report.always}{tie} scores accuracy {always['accuracy'].text()}, F-measure "
        f"{always['f_measure'].text()}. Against it the model has {baselines.better} more right and "
        f"{baselines.worse} more wrong (exact McNemar {p_text(baselines.p_majority)}): it {verdict}."
    )
    sentences.append(
        f"Guessing {report.positive} at the rate of the labels gets {baselines.prior['accuracy'].text()} right on "
        f"average; it does as well as the model with {p_text(baselines.p_prior)}."
    )
    if not math.isnan(baselines.p_related):
        sentences.append(_relation(report))
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


def _relation(report: BinaryReport) -> str:
    p, counts = report.baselines.p_related, report.counts
    if counts.tp + counts.fp in (0, counts.n):
        return "Its answers say nothing about the labels: every answer falls on the same side."
    if not is_significant(p):
        return f"There is no evidence that its answers go with the labels (Fisher {p_text(p)})."
    hidden = "" if report.baselines.beats_majority() else "; accuracy alone hides it"
    return f"Its answers do go with the labels (Fisher {p_text(p)}){hidden}."


def _usual(evaluation: Evaluation) -> Section:
    reports = evaluation.reports
    table = [["file", "Tp", "Tn", "Fp", "Fn", "unparsed", *FOUR.values()]]
    for name, report in zip(evaluation.names, reports, strict=True):
        c = report.counts
        figures = [report.figures[figure].text(evaluation.digits) for figure in FOUR]
        table.append([name, *map(str, (c.tp, c.tn, c.fp, c.fn, c.unparsed)), *figures])
    return Section(f"Answers, {reports[0].positive} being positive", [], table)


def _honest(evaluation: Evaluation) -> Section:
    reports, digits = evaluation.reports, evaluation.digits
    table = [["figure", *evaluation.names], ["n", *(str(report.counts.n) for report in reports)]]
    for name, title in NAMES.items():
        if any(name in report.figures for report in reports):
            table.append([title, *(_with_interval(report, name, digits) for report in reports)])
    return Section(f"All figures, with {evaluation.level:.0%} intervals", [], table)


def _skill(evaluation: Evaluation) -> Section:
    reports = evaluation.reports
    names = evaluation.names
    label = (lambda name: "") if len(reports) == 1 else (lambda name: f"{name}: ")
    sentences = [
        f"{label(name)}{sentence}" for name, report in zip(names, reports, strict=True) for sentence in verdicts(report)
    ]
    return Section("Against models without skill", sentences)


def _sliced(evaluation: Evaluation) -> Section:
    table = [["slice", "file", "n", "counts", "accuracy", "recall", "specificity", "beats the majority"]]
    for name, report in zip(evaluation.names, evaluation.reports, strict=True):
        for value, part in report.slices.items():
            cells = [
                _with_interval(part, figure, evaluation.digits) for figure in ("accuracy", "recall", "specificity")
            ]
            beats = "yes" if part.baselines.beats_majority() else "no"
            table.append([value, name, str(part.counts.n), str(part.counts), *cells, beats])
    sentence = "Whether a slice beats its majority is tested for all slices of a file together (exact McNemar, Holm)."
    return Section("Slices", [sentence], table)


def _thresholded(evaluation: Evaluation) -> Section:
    threshold = evaluation.threshold
    assert threshold is not None
    scores, criterion = threshold.kind.replace("_", " "), threshold.criterion.replace("_", " ")
    achieved = number_text(threshold.achieved, evaluation.digits)
    sentence = (
        f"{threshold.positive} if {scores} >= {threshold.value!r}: best {criterion} ({achieved}) on {threshold.source} "
        f"(n = {threshold.n}), applied unchanged."
    )
    names = ("accuracy", "precision", "recall", "specificity", "balanced_accuracy", "mcc")
    table = [["file", "answers", "counts", *(NAMES[name] for name in names)]]
    for name, own, frozen in zip(evaluation.names, evaluation.reports, evaluation.at_threshold, strict=True):
        for kind, report in (("its own", own), ("at the threshold", frozen)):
            table.append(
                [name, kind, str(report.counts), *(_with_interval(report, f, evaluation.digits) for f in names)]
            )
    return Section("At the frozen threshold", [sentence], table)


def _shifted(evaluation: Evaluation) -> Section:
    table = [["file", "figure", *(f"{share:.0%} {evaluation.reports[0].positive}" for share in PREVALENCES)]]
    reports = evaluation.at_threshold or evaluation.reports
    for name, report in zip(evaluation.names, reports, strict=True):
        expected = at_prevalence(report.counts, PREVALENCES)
        intervals = prevalence_intervals(report.counts, PREVALENCES, evaluation.level, evaluation.seed)
        points = list(zip(expected, intervals, strict=True))
        for figure in ("accuracy", "precision", "npv"):
            cells = (
                point[figure].text(evaluation.digits) + interval_text(interval.get(figure), evaluation.digits)
                for point, interval in points
            )
            table.append([name, NAMES[figure], *cells])
    which = " at the frozen threshold" if evaluation.at_threshold else ""
    sentence = (
        f"What to expect where positives are rarer or more frequent, if recall and specificity stay as they are{which}."
    )
    return Section("At another prevalence", [sentence], table)


def _files(evaluation: Evaluation) -> Section:
    sentences = []
    for report in evaluation.reports:
        sentences.append(f"{report.name}: {report.columns}")
        sentences += [f"{report.name}: {note}" for note in report.notes]
    return Section("Files", sentences)


def _with_interval(report: BinaryReport, name: str, digits: int | None) -> str:
    figure = report.figures.get(name, Figure(None, "no scores"))
    return figure.text(digits) + interval_text(report.intervals.get(name), digits)
