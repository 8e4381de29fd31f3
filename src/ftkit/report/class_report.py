"""Report on the evaluation of answers that name one of three and more classes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ftkit.report.document import Card, Figure, Section, Table
from ftkit.report.evaluation import BETTER, TESTED, Evaluated, skill
from ftkit.report.words import short
from ftkit.results.class_assessment import ClassReport

NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "balanced_accuracy": "balanced accuracy (macro recall)",
    "mcc": "Matthews correlation (R_K)",
    "auroc": "AUROC (one against the rest, macro)",
    "log_loss": "log loss",
    "calibration_error": "calibration error (most probable class)",
}
OF_A_CLASS = {"precision": "precision", "recall": "recall", "f1": "F1", "auroc": "AUROC"}
MOST = 12  # classes whose labels and answers are shown as a whole table
_MAIN = ("accuracy", "macro_f1", "balanced_accuracy", "mcc")
_NONE = "no class"
_LETTERS = 40  # of the name of a class


@dataclass(frozen=True, kw_only=True)
class ClassEvaluation(Evaluated[ClassReport]):
    """Everything that ``ftkit evaluate`` found in files whose answers name one of three and more classes."""

    kind = "classes"
    title = "Evaluation"
    opening = "Overall"
    compared: ClassVar = NAMES

    @property
    def classes(self) -> str:
        """How many classes there are, and which, in words."""
        names = self.reports[0].classes
        more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
        return f"{len(names)} classes: {', '.join(short(name, _LETTERS) for name in names[:MOST])}{more}"

    def lines(self, report: ClassReport) -> list[str]:  # noqa: D102
        share = report.share
        counts = f"right={share.right} wrong={share.n - share.right}"
        width = max(len(NAMES[name]) for name in _MAIN) + 1
        figures = [f"{NAMES[name] + ':':<{width}} {self.figure(report, name)}" for name in _MAIN]
        return [self.classes, f"{counts} unparsed={report.none}" if report.none else counts, *figures]

    def card(self, name: str, report: ClassReport) -> Card:  # noqa: D102
        low, high = report.share.interval
        note = (
            f"accuracy on {report.share.n:,} examples of {len(report.classes)} classes ({low:.3f} to {high:.3f}); "
            f"macro F1 {report.figures['macro_f1'].text(3)}"
        )
        return Card(name, skill(report), note, f"{report.share.accuracy:.3f}")

    def sections(self) -> list[Section]:  # noqa: D102
        head = ["n", "right", "wrong", "unparsed", "accuracy"]
        usual = self.table(head, lambda one: [self._row(one)])
        counts = [report.share.n for report in self.reports]
        figures = self.every_figure(counts, self.reports, self._names())
        found = [
            Section("Answers", [f"{self.classes}."], usual),
            Section(f"All figures, with {self.level:.0%} intervals", self.each(self._explained), figures),
            Section("Against a model without skill", self.each(lambda report: [skill(report)])),
            Section("Classes", table=self._classes()),
        ]
        if len(self.reports[0].classes) <= MOST:
            found.append(Section("Labels in rows, answers in columns", table=self._confusion()))
        if any(report.errors for report in self.reports):
            found.append(Section("The most frequent errors", table=self._errors()))
        return found + self.sliced(["n", "accuracy", "macro F1", BETTER], self._slice, TESTED)

    def figures(self) -> Iterator[Figure]:  # noqa: D102
        from ftkit.report import charts  # with Altair, which only pages need

        for name, report in self.named:
            records = [
                {"name": short(one.name, _LETTERS), "kind": "recall", "value": one.figures["recall"].value}
                | dict(zip(("low", "high"), one.intervals["recall"], strict=True))
                | {title: self.figure(one, figure) for figure, title in OF_A_CLASS.items()}
                | {"n": f"{one.n:,}"}
                for one in report.by_class
                if one.n
            ]
            tips = {field: field for field in ("name", "n", *OF_A_CLASS.values())}
            chart = charts.intervals(records, "recall", tips, report.figures["balanced_accuracy"].value, (0, 1))
            caption = f"Dot and line: the recall with its {self.level:.0%} interval; dashed: the mean of the classes."
            yield Figure("recall", f"Recall of each class: {name}", chart, caption)
            if len(report.classes) <= MOST:
                names = [short(one, _LETTERS) for one in report.classes]
                rows = report.table[:, : len(names) + bool(report.none)].tolist()
                height = max(charts.HEIGHT, 44 * len(names))
                chart = charts.confusion(rows, names, [*names, _NONE], height)
                caption = "Rows are the labels, columns the answers; the share is of the row."
                yield Figure("confusion", f"Answers: {name}", chart, caption, wide=len(names) > 5)

    def _names(self) -> dict[str, str]:
        """The figures to show: micro F1 is the accuracy where every answer is a class."""
        return {name: title for name, title in NAMES.items() if name != "micro_f1" or any(r.none for r in self.reports)}

    def _row(self, report: ClassReport) -> list[str]:
        n, right, wrong, accuracy = self.share(report.share)
        return [n, right, wrong, str(report.none), accuracy]

    def _explained(self, report: ClassReport) -> Iterator[str]:
        if not report.none:
            yield "Every answer is one of the classes, so micro F1 is the accuracy."
        if missing := [one.name for one in report.by_class if not one.n]:
            yield f"No example is {' or '.join(missing)}: macro recall and AUROC are those of the other classes."
        if report.none:
            shown = ", ".join(f"{short(text)!r} x {count}" for text, count in report.unparsed.items())
            share = report.none / report.share.n
            yield f"{report.none} answers ({share:.1%}) name none of the classes and count as errors: {shown}."

    def _classes(self) -> Table:
        shown = {
            name: title
            for name, title in OF_A_CLASS.items()
            if any(name in report.by_class[0].figures for report in self.reports)
        }
        return self.table(
            ["class", "n", "answered", *shown.values()],
            lambda report: [
                [one.name, str(one.n), str(one.answered), *(self.figure(one, name) for name in shown)]
                for one in report.by_class
            ],
        )

    def _confusion(self) -> Table:
        names = self.reports[0].classes
        none = any(report.none for report in self.reports)
        return self.table(
            ["label", *names, *([_NONE] if none else [])],
            lambda report: [
                [name, *map(str, row[: len(names) + none].tolist())]
                for name, row in zip(names, report.table, strict=True)
            ],
        )

    def _errors(self) -> Table:
        def rows(report: ClassReport) -> Iterator[list[str]]:
            n = {one.name: one.n for one in report.by_class}
            for error in report.errors:
                share = f"{error.count / n[error.label]:.1%}"
                yield [error.label, error.answer or f"({_NONE})", str(error.count), share, short(error.example)]

        return self.table(["label", "answer", "count", "of the label", "example"], rows)

    def _slice(self, part: ClassReport) -> list[str]:
        figures = [self.figure(part, name) for name in ("accuracy", "macro_f1")]
        return [str(part.share.n), *figures, "yes" if part.beats_majority() else "no"]
