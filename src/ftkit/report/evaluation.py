"""What the reports on all kinds of prediction files have in common: names of files, comparisons, words for figures."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from ftkit.report.changes import changes_sections
from ftkit.report.document import Card, Document, Figure, Section, Table, to_markdown, to_text
from ftkit.report.duplicates import duplicates_section
from ftkit.report.words import interval_text, majority_verdict, number_text, p_text, short, short_names, significance
from ftkit.results.changes import Changes
from ftkit.results.comparison import Comparison
from ftkit.results.exact_match import RightOrWrong, Share
from ftkit.results.intervals import Interval
from ftkit.results.known_examples import DuplicatesEffect
from ftkit.results.metrics import Figure as Value
from ftkit.results.scan import AnswerFile
from ftkit.results.statistics import is_significant, rounded_p

BETTER = "better than the majority"  # the column of slices that the next sentence is about
TESTED = (
    "Whether a slice is better than its majority is tested for all slices of a file together (exact McNemar, Holm)."
)


class Reported(Protocol):
    """A report about one file."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def slices(self) -> Mapping[str, Any]: ...  # noqa: D102

    def to_dict(self) -> dict[str, Any]: ...  # noqa: D102


class Measured(Protocol):
    """Figures with their intervals."""

    @property
    def figures(self) -> Mapping[str, Value]: ...  # noqa: D102

    @property
    def intervals(self) -> Mapping[str, Interval]: ...  # noqa: D102


R = TypeVar("R", bound=Reported)
Part = tuple[str, str, float, Interval, str]  # its name, its file, the accuracy with its interval, and counts in words


@dataclass(frozen=True, kw_only=True)
class Evaluated(ABC, Generic[R]):
    """What ``ftkit evaluate`` finds in files of one kind of answers; the kinds say what follows from them."""

    reports: list[R]  # one per file
    comparisons: list[Comparison] = field(default_factory=list)  # each file against the reference
    models: Sequence[AnswerFile] = field(repr=False)  # the answers of each file
    # What each file answers otherwise than the reference, example by example.
    changes: Sequence[Changes] = field(default=(), repr=False)
    digits: int | None = 4  # decimals in texts, None for all
    level: float = 0.95  # confidence of the intervals
    seed: int = 0  # seed of the draws that some of them are made of

    kind: ClassVar[str]  # in JSON
    title: ClassVar[str]
    opening: ClassVar[str]  # stands before a file's name and main figures, in text
    compared: ClassVar[Mapping[str, str]]  # the figures of comparisons, and how the report calls them
    heads: ClassVar[Sequence[str]] = ("right alone", "reference right alone", "p (McNemar)")

    @property
    def names(self) -> list[str]:
        """The files' names, as short as they can be told apart."""
        return short_names([report.name for report in self.reports])

    @property
    def named(self) -> list[tuple[str, R]]:
        """The reports with those names."""
        return list(zip(self.names, self.reports, strict=True))

    def __str__(self) -> str:
        return to_text(self.document())

    def _repr_markdown_(self) -> str:
        return to_markdown(self.document())

    def to_json(self) -> str:
        """Return the evaluation as JSON with all digits."""
        record = {
            "kind": self.kind,
            "level": self.level,
            "files": [
                report.to_dict() | {"columns": model.columns, "notes": model.notes, "warnings": model.warnings}
                for report, model in zip(self.reports, self.models, strict=True)
            ],
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            **({"duplicates": [vars(one) for one in effects]} if (effects := self._effects()) else {}),
            **self.more(),
        }
        return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)

    def document(self, figures: bool = False) -> Document:
        """Return the report: the main figures first, then the comparisons, then the rest; charts are for a page."""
        overview, *rest = self.sections()
        read, several = list(zip(self.named, self.models, strict=True)), len(self.reports) > 1
        warnings = [f"{name}: {said}" if several else said for (name, _), model in read for said in model.warnings]
        columns = [f"{one.name}: {said}" for (_, one), model in read for said in (model.columns, *model.notes)]
        names = {report.name: name for name, report in self.named}
        sections = [
            *([Section("Warnings", warnings)] if warnings else []),
            *(Section(f"{self.opening}: {one.name}", lines=self.lines(one), forms=("text",)) for one in self.reports),
            Section("Accuracy", cards=[self.card(*named) for named in self.named], forms=("html",)),
            *([self._compared()] if self.comparisons else []),
            *self._duplicates(),
            replace(overview, forms=("markdown", "html")),
            *([Section("Charts", figures=list(self.figures()), forms=("html",))] if figures else []),
            *rest,
            *changes_sections([(names[str(one.after.path)], one) for one in self.changes] if figures else []),
            Section("Files", columns),
        ]
        return Document(self.title, sections)

    def _duplicates(self) -> list[Section]:
        compared = {one.name: one for one in self.comparisons}
        parts = [
            (name, effect, compared.get(str(model.path)))
            for name, effect, model in zip(self.names, self._effects(), self.models, strict=False)
        ]
        return duplicates_section(parts, self.comparisons[0].against if self.comparisons else "")

    def _effects(self) -> list[DuplicatesEffect]:
        return [effect for model in self.models if (effect := DuplicatesEffect.of(model)) is not None]

    def more(self) -> dict[str, Any]:
        """Return what else JSON holds."""
        return {}

    @abstractmethod
    def lines(self, report: R) -> list[str]:
        """Return the main figures of a file, for a terminal."""

    @abstractmethod
    def card(self, name: str, report: R) -> Card:
        """Return the main figure of a file, for a page."""

    @abstractmethod
    def sections(self) -> list[Section]:
        """Return what there is to say besides: first the main figures of all files."""

    @abstractmethod
    def figures(self) -> Iterable[Figure]:
        """Draw the charts."""

    def text(self, value: float, interval: Interval | None = None) -> str:
        """Return a figure, with its interval if it has one."""
        return number_text(value, self.digits) + interval_text(interval, self.digits)

    def figure(self, report: Measured, name: str) -> str:
        """Return a figure of a report by name, with its interval, or why there is none."""
        figure = report.figures.get(name, Value(None, "no scores"))
        return figure.text(self.digits) + interval_text(report.intervals.get(name), self.digits)

    def every_figure(self, counts: Sequence[int], reports: Sequence[Measured], names: Mapping[str, str]) -> Table:
        """Return a table of the number of examples and of all figures, with a column for each file."""
        rows = [["n", *map(str, counts)]]
        for name, title in names.items():
            if any(name in report.figures for report in reports):
                rows.append([title, *(self.figure(report, name) for report in reports)])
        return Table(["figure", *self.names], rows)

    def share(self, share: Share) -> list[str]:
        """Return how many answers are right, as cells: n, right, wrong and the accuracy."""
        counts = map(str, (share.n, share.right, share.n - share.right))
        return [*counts, self.text(share.accuracy, share.interval)]

    def each(self, say: Callable[[R], Iterable[str]]) -> list[str]:
        """Return what is to be said of every file, with its name where there are several."""
        several = len(self.reports) > 1
        return [f"{name}: {said}" if several else said for name, report in self.named for said in say(report)]

    def table(self, head: Sequence[str], rows: Callable[[R], Iterable[Sequence[str]]]) -> Table:
        """Return a table of what there is to say of every file; the first column names it."""
        return Table(["file", *head], [[name, *row] for name, report in self.named for row in rows(report)])

    def sliced(self, head: Sequence[str], cells: Callable[[Any], Sequence[str]], *sentences: str) -> list[Section]:
        """Return the section on slices, with ``cells`` of each behind its name; none without any."""
        table = self.table(
            ["slice", *head], lambda report: [[value, *cells(part)] for value, part in report.slices.items()]
        )
        return [Section("Slices", sentences, table)] if table.rows else []

    def accuracies(self, parts: Iterable[Part], axis: str, caption: str, at: float | None = None) -> Figure:
        """Draw the accuracy of files and of parts of them, each with its interval, and a dashed line at one."""
        from ftkit.report import charts  # with Altair, which only pages need

        records = [
            {
                "name": name,
                "kind": file,
                "value": accuracy,
                "low": interval[0],
                "high": interval[1],
                "counts": counts,
                "shown": self.text(accuracy, interval),
            }
            for name, file, accuracy, interval, counts in parts
        ]
        chart = charts.intervals(
            records, axis, {"name": "answers", "counts": "counts", "shown": "accuracy"}, at, (0, 1)
        )
        caption = f"Dot and line: the accuracy with its {self.level:.0%} interval{caption}."
        return Figure("accuracy", f"{self.title}: accuracy", chart, caption, wide=True)

    def _compared(self) -> Section:
        """The table of all comparisons with one reference, and each verdict in a sentence."""
        names = {report.name: name for name, report in self.named}
        figures = [name for name in self.compared if any(name in one.differences for one in self.comparisons)]
        rows = [
            [
                names[one.name],
                *map(str, (one.n, one.only_model, one.only_reference)),
                *(self._difference(one, figure) for figure in figures),
                rounded_p(one.p),
                rounded_p(one.p_holm),
            ]
            for one in self.comparisons
        ]
        better, worse, p = self.heads
        differences = [f"{self.compared[name]} difference" for name in figures]
        table = Table(["file", "shared", better, worse, *differences, p, "p (Holm)"], rows)
        sentences = [f"{names[one.name]}: {said}" for one in self.comparisons for said in _verdicts(one)]
        return Section(f"Compared with {self.comparisons[0].against}, on the same examples", sentences, table)

    def _difference(self, one: Comparison, name: str) -> str:
        value = one.differences.get(name)
        if value is None:
            return "not in both"
        if not math.isnan(value):
            shown = repr(value) if self.digits is None else f"{value:+.{self.digits}f}"
            return shown + interval_text(one.intervals.get(name), self.digits)
        found = {
            file: getattr(report, "figures", {}).get(name)
            for file, report in self.named
            if report.name in (one.name, one.against)
        }
        why = [f"{figure.reason} in {file}" for file, figure in found.items() if figure and figure.value is None]
        return f"undefined ({why[0] if why else 'in one of them, on these examples'})"


def _verdicts(one: Comparison) -> Iterable[str]:
    if is_significant(one.p_holm):
        yield f"{significance(one.only_model - one.only_reference, one.p_holm)} ({p_text(one.p_holm)})."
    elif one.hopeless:
        shown = f"the two differ on {one.disagreements} of {one.n} examples"
        yield f"{shown}; fewer than {one.reach.needed} can never be significant."
    else:
        found = f" A difference of {one.detectable:.1%} or more would be found with 80% power."
        yield f"no significant difference ({p_text(one.p_holm)}).{'' if math.isnan(one.detectable) else found}"
    for (count, first), where in ((one.missing, "in it"), (one.missing_in_model, f"in {one.against}")):
        if count:
            yield f"{count} ids are only {where}, for example {', '.join(first)}; left out."


def skill(report: RightOrWrong) -> str:
    """Compare a model with always answering the most frequent label, in a sentence."""
    n, rank = report.share.n, "the most frequent label"
    if report.tied > 1:
        rank = f"the first in alphabetical order of {report.tied:,} labels that are equally frequent"
    return (
        f"Always answering {short(report.majority)!r}, {rank}, would be right on {report.majority_count} of {n} "
        f"({report.majority_count / n:.1%}); the model {majority_verdict(report)} ({report.better} more right, "
        f"{report.worse} more wrong, exact McNemar {p_text(report.p_majority)})."
    )
