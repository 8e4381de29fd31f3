"""Report on the evaluation of yes/no answers, section by section."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ftkit.report.document import Card, Figure, Section, Table
from ftkit.report.evaluation import BETTER, TESTED, Evaluated
from ftkit.report.words import interval_text, majority_verdict, number_text, p_text
from ftkit.results.assessment import BinaryReport
from ftkit.results.intervals import at_prevalence, prevalence_intervals
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
_CURVES = ("accuracy", "f_measure", "balanced_accuracy", "specificity", "recall")  # against the threshold
_AT_THRESHOLD = ("accuracy", "precision", "recall", "specificity", "balanced_accuracy", "mcc")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Evaluated[BinaryReport]):
    """Everything that ``ftkit evaluate`` found in files of yes/no answers."""

    threshold: Threshold | None = None  # the frozen threshold, if one was given or chosen
    at_threshold: list[BinaryReport] = field(default_factory=list)  # the files' reports when answered at that threshold

    kind = "binary"
    title = "Evaluation"
    opening = "Overall"
    compared: ClassVar = NAMES

    def more(self) -> dict[str, Any]:  # noqa: D102
        return {
            "threshold": None if self.threshold is None else self.threshold.to_dict(),
            "at_threshold": [report.to_dict() for report in self.at_threshold],
        }

    def lines(self, report: BinaryReport) -> list[str]:  # noqa: D102
        width = max(map(len, FOUR.values())) + 1
        values = report.figures
        figures = [f"{title + ':':<{width}} {values[name].text(self.digits)}" for name, title in FOUR.items()]
        return [str(report.counts), *figures]

    def card(self, name: str, report: BinaryReport) -> Card:  # noqa: D102
        low, high = report.intervals.get("accuracy", (math.nan, math.nan))
        note = (
            f"accuracy on {report.counts.n:,} examples ({low:.3f} to {high:.3f}); balanced accuracy "
            f"{report.figures['balanced_accuracy'].text(3)}"
        )
        return Card(name, next(verdicts(report)), note, report.figures["accuracy"].text(3))

    def sections(self) -> list[Section]:  # noqa: D102
        figures = self.every_figure([report.counts.n for report in self.reports], self.reports, NAMES)
        found = [
            Section(f"Answers, {self.reports[0].positive} being positive", table=self._usual()),
            Section(f"All figures, with {self.level:.0%} intervals", table=figures),
            Section("Against models without skill", self.each(verdicts)),
        ]
        found += self.sliced(["n", "counts", "accuracy", "recall", "specificity", BETTER], self._slice, TESTED)
        if self.threshold is not None:
            found.append(self._thresholded(self.threshold))
        return [*found, self._shifted()]

    def figures(self) -> Iterator[Figure]:  # noqa: D102
        # With Altair, which only pages need.
        from ftkit.report.binary_charts import calibration, precision_recall, prevalence, roc, thresholds
        from ftkit.report.charts import HEIGHT, confusion

        named, level, shaded = self.named, self.level, f"shaded: {self.level:.0%}"
        for name, report in named:
            rows, columns = _outcomes(report)
            chart = confusion(rows, [f"is {report.positive}", f"is {report.negative}"], columns, HEIGHT)
            yield Figure("confusion", f"Answers: {name}", chart, "Rows are the labels; the share is of the row.")
        complete = [(name, one) for name, one in named if one.counts.positives and one.counts.negatives]
        scored, both = ([(name, one) for name, one in some if one.curve is not None] for some in (named, complete))
        if both:
            caption = f"The dot is what the file answers, the dashed line guessing; {shaded} for each threshold."
            yield Figure("roc", "ROC", roc(both, level), caption)
            caption = f"The dashed line is the prevalence: precision without skill; {shaded} for each threshold."
            yield Figure("precision-recall", "Precision and recall", precision_recall(both, level), caption)
        if scored:
            caption = "Above the dashed line the probability is too low, below too high; larger dots are more examples."
            yield Figure("calibration", "Calibration", calibration(scored), caption)
        for name, report in both:
            chart = thresholds(report, {name: NAMES[name] for name in _CURVES}, self.threshold)
            yield Figure("thresholds", f"Thresholds: {name}", chart, "What every threshold would give.")
        if complete:
            caption = (
                f"If recall and specificity of the file's answers stay and only the mix changes; {shaded} interval."
            )
            yield Figure("prevalence", "Precision at another prevalence", prevalence(complete, level), caption)

    def _usual(self) -> Table:
        def row(report: BinaryReport) -> list[list[str]]:
            c = report.counts
            figures = [report.figures[figure].text(self.digits) for figure in FOUR]
            return [[*map(str, (c.tp, c.tn, c.fp, c.fn, c.unparsed)), *figures]]

        return self.table(["Tp", "Tn", "Fp", "Fn", "unparsed", *FOUR.values()], row)

    def _slice(self, part: BinaryReport) -> list[str]:
        figures = [self.figure(part, figure) for figure in ("accuracy", "recall", "specificity")]
        better = "yes" if part.baselines.beats_majority() else "no"
        return [str(part.counts.n), str(part.counts), *figures, better]

    def _thresholded(self, threshold: Threshold) -> Section:
        scores, criterion = threshold.kind.replace("_", " "), threshold.criterion.replace("_", " ")
        achieved = number_text(threshold.achieved, self.digits)
        sentence = (
            f"{threshold.positive} if {scores} >= {threshold.value!r}: best {criterion} ({achieved}) on "
            f"{threshold.source} (n = {threshold.n}), applied unchanged."
        )
        rows = [
            [name, kind, str(report.counts), *(self.figure(report, figure) for figure in _AT_THRESHOLD)]
            for name, own, frozen in zip(self.names, self.reports, self.at_threshold, strict=True)
            for kind, report in (("its own", own), ("at the threshold", frozen))
        ]
        head = ["file", "answers", "counts", *(NAMES[name] for name in _AT_THRESHOLD)]
        return Section("At the fixed threshold", [sentence], Table(head, rows))

    def _shifted(self) -> Section:
        rows = []
        for name, report in zip(self.names, self.at_threshold or self.reports, strict=True):
            expected = at_prevalence(report.counts, PREVALENCES)
            intervals = prevalence_intervals(report.counts, PREVALENCES, self.level, self.seed)
            for figure in ("accuracy", "precision", "npv"):
                cells = (
                    point[figure].text(self.digits) + interval_text(interval.get(figure), self.digits)
                    for point, interval in zip(expected, intervals, strict=True)
                )
                rows.append([name, NAMES[figure], *cells])
        which = " at the fixed threshold" if self.at_threshold else ""
        sentence = (
            "What to expect where positives are rarer or more frequent, if recall and specificity stay as they are"
            f"{which}."
        )
        head = ["file", "figure", *(f"{share:.0%} {self.reports[0].positive}" for share in PREVALENCES)]
        return Section("At another prevalence", [sentence], Table(head, rows))


def verdicts(report: BinaryReport) -> Iterator[str]:
    """Say what the figures of one file mean."""
    counts, baselines = report.counts, report.baselines
    always = baselines.majority
    tie = ", which is as frequent as the other class," if counts.positives == counts.negatives else ""
    yield (
        f"Always answering {report.always}{tie} scores accuracy {always['accuracy'].text()}, F-measure "
        f"{always['f_measure'].text()}. The model is right on {baselines.better} examples that "
        f"this baseline gets wrong, and wrong on {baselines.worse} that it gets right (exact McNemar "
        f"{p_text(baselines.p_majority)}): it {majority_verdict(baselines)} baseline."
    )
    yield (
        f"Guessing {report.positive} at the rate of the labels gets {baselines.prior['accuracy'].text()} right on "
        f"average; it does as well as the model with {p_text(baselines.p_prior)}."
    )
    if not math.isnan(baselines.p_related):
        yield _relation(report)
    rate, prevalence = report.figures["predicted_positive_rate"], report.figures["prevalence"]
    if rate.value is not None and prevalence.value is not None:
        yield f"It answers {report.positive} to {rate.value:.1%}; {prevalence.value:.1%} are {report.positive}."
    if counts.unparsed:
        shown = ", ".join(f"{text!r} x {count}" for text, count in report.unparsed.items())
        yield (
            f"{counts.unparsed} answers ({counts.unparsed / counts.n:.1%}) are neither {report.positive} nor "
            f"{report.negative} and count as errors{': ' + shown if shown else ''}."
        )


def _relation(report: BinaryReport) -> str:
    p, counts = report.baselines.p_related, report.counts
    if counts.tp + counts.fp in (0, counts.n):
        return "It gives every example the same answer, whatever the label."
    if not is_significant(p):
        return f"Its answers are not significantly associated with the labels (Fisher {p_text(p)})."
    hidden = "" if report.baselines.beats_majority() else "; accuracy alone hides it"
    return f"Its answers are significantly associated with the labels (Fisher {p_text(p)}){hidden}."


def _outcomes(report: BinaryReport) -> tuple[list[list[int]], list[str]]:
    c = report.counts
    rows, columns = [[c.tp, c.fn], [c.fp, c.tn]], [f"answered {report.positive}", f"answered {report.negative}"]
    if not c.unparsed:
        return rows, columns
    return [[*rows[0], c.unparsed_positive], [*rows[1], c.unparsed_negative]], [*columns, "neither"]
