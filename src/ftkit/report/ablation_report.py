"""The report of an ablation, rebuilt from its run folders alone."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.ablation.analysis import Analysis, analyse
from ftkit.ablation.run_answers import Confusion, confusion_of
from ftkit.ablation.summary import RowSummary, rows_text, seeds_text
from ftkit.report.ablation_answers import answers, recalls
from ftkit.report.ablation_baselines import baseline_lines
from ftkit.report.ablation_charts import Plots, figures
from ftkit.report.ablation_columns import STATUS, Column, columns, status
from ftkit.report.ablation_examples import examples
from ftkit.report.ablation_notes import changed_settings, changes, notes
from ftkit.report.ablation_origin import collected, made_with
from ftkit.report.ablation_table import compact, record, table
from ftkit.report.changes import changes_sections
from ftkit.report.claims import claim_lines
from ftkit.report.document import Card, Document, Figure, Section, Table, to_markdown
from ftkit.report.duplicates import duplicates_section
from ftkit.report.labels import Labels, label_sections, labels_of
from ftkit.report.page import fragment, to_html
from ftkit.report.search_charts import budget_sentences
from ftkit.report.theme import image
from ftkit.report.words import plural
from ftkit.results.changes import Changes, write_rows
from ftkit.storage import atomic_write

if TYPE_CHECKING:
    import pandas as pd

_PLOT = re.compile(
    r"(accuracy|cost|budget|search-.+|forgetting-.+|loss|validation|\d{2,}-(loss|validation|confusion))\.(svg|png)"
)


@dataclass(frozen=True)
class Report:
    """The results of an ablation: ``print`` shows the table, a notebook too.

    Attributes:
        analysis: The rows, compared.
        answers: The answer to each row's question, by row number.
        plots: Charts by name: ``accuracy``, ``cost``, ``loss``, ``validation``, and such as ``02-confusion``.
        made_with: What the runs were made with: a name, then the values that occur.
        examples: Some test examples of each row and how it answered them, the wrong ones first.
        confusions: The answers of each row by class, where there are few.
    """

    analysis: Analysis
    answers: Mapping[int, str]
    plots: Mapping[str, Figure]
    made_with: Mapping[str, str]
    examples: Mapping[int, Section]
    confusions: Mapping[int, Confusion] = field(default_factory=dict)

    def __str__(self) -> str:
        return table(self.analysis, "text")

    def _repr_html_(self) -> str:
        variants = Section("", table=compact(self.analysis))
        return fragment(Document(self.analysis.sweep.name, [variants], self._facts(), self.answer))

    def to_pandas(self) -> pd.DataFrame:
        """Return the figures as a data frame, one row per variant, unrounded: the columns of ``report.csv``."""
        import pandas as pd

        return pd.DataFrame([record(row, claim=self.analysis.claim) for row in self.analysis.rows])

    @cached_property
    def changes(self) -> list[tuple[str, Changes]]:
        """Return by row and seed the examples that it answers differently from the reference with that seed."""
        analysis = self.analysis
        runs = {row.number: {run.seed: run.answers for run in row.done} for row in analysis.sweep.rows}
        before, found = runs[analysis.reference.number], []
        for row, comparison in analysis.compared:
            for seed in comparison.seeds:
                name = f"{row.number} {row.name}" + (f", seed {seed}" if len(before) > 1 else "")
                ours, theirs = runs[row.number][seed], before[seed]
                assert ours is not None
                assert theirs is not None
                found.append((name, Changes(ours, theirs, analysis.known, labeled=False)))
        return found

    @cached_property
    def labels(self) -> Labels | None:
        """Return the test labels beside the answers of all runs; None with fewer than 3 runs or without classes."""
        return labels_of(self.analysis)

    @property
    def plot(self) -> Plots:
        """The charts."""
        return Plots(self.plots)

    @property
    def done(self) -> list[RowSummary]:
        """The rows that have figures."""
        return [row for row in self.analysis.rows if row.test is not None or row.metrics]

    @property
    def summary(self) -> str:
        """How much of the ablation there is, in a sentence."""
        rows = self.analysis.rows
        sentence = f"{len(self.done)} of {len(rows)} rows have figures."
        missing = [row for row in rows if row.test is None and not row.metrics]
        for kind in dict.fromkeys(row.status for row in missing):
            sentence += _list(kind, [row for row in missing if row.status == kind])
        sentence += _list("without predictions", [row for row in rows if row.test is None and row.metrics])
        return sentence + _list("not converged", [row for row in self.done if not row.converged])

    @property
    def answer(self) -> str:
        """Which variants differ significantly from the reference, in a sentence; empty if none was compared."""
        reference = self.analysis.reference
        compared = self.analysis.compared
        if not compared:
            return ""
        found = [(row, 100 * one.difference) for row, one in compared if one.significant]
        found.sort(key=lambda pair: -abs(pair[1]))
        parts = []
        for word, sign in (("better", 1), ("worse", -1)):
            rows = [
                f"row {row.number} ({row.name}, {points:+.1f} points)" for row, points in found if sign * points > 0
            ]
            parts += [f"{word}: {', '.join(rows)}"] if rows else []
        return (
            f"{len(found) or 'None'} of {plural(len(compared), 'variant')} "
            f"{'differs' if len(found) == 1 else 'differ'} significantly from row {reference.number} "
            f"({reference.name}){': ' + '; '.join(parts) if parts else ''}."
        )

    def document(self) -> Document:
        """Return the report as a document."""
        analysis = self.analysis
        cards = [Card(f"Row {row.number} ({row.name})", self.answers[row.number], row.question) for row in self.done]
        searched = [name for name in self.plots if name == "budget" or name.startswith("search-")]
        forgotten = [name for name in self.plots if name.startswith("forgetting-")]
        made_with = [f"{name}: {values}" for name, values in self.made_with.items()]
        apart = "Cost is not drawn: the rows ran on different machines, so their times do not compare."
        no_cost = [apart] if len(analysis.machines) > 1 else []
        sections = [
            Section("Accuracy and cost", no_cost, figures=self._figures("accuracy", "cost", *forgotten)),
            Section("Is fine-tuning worth it?", [*baseline_lines(analysis)]),
            Section("Variants", table=self._variants(), forms=("html",)),
            Section("Search over settings", budget_sentences(analysis.rows), figures=self._figures(*searched)),
            Section("Learning curves", figures=self._figures("loss", "validation")),
            *duplicates_section(
                [(row.label, row.duplicates, row.comparison) for row in self.done if row.duplicates is not None],
                f"row {analysis.reference.number}",
            ),
            Section("Recall of each class", table=recalls(self._of_classes())),
            Section("What was asked, and found", cards=cards),
            *label_sections(self.labels, {} if analysis.known is None else analysis.known.text_of),
            *changes_sections(self.changes, "changes.tsv"),
            Section("Table", table=compact(analysis), forms=("markdown",)),
            Section("Notes", [*notes(analysis), *changes(analysis)], forms=("markdown",)),
            Section("Notes", self._spelled_out(), forms=("html",)),
            Section("Made with", made_with),
            Section("Claim", [*claim_lines(analysis)]),
        ]
        shown = [section for section in sections if any(vars(section)[part] for part in _PARTS)]
        return Document(analysis.sweep.name, shown, self._facts(), self.answer)

    def _figures(self, *names: str) -> list[Figure]:
        return [self.plots[name] for name in names if name in self.plots]

    def _facts(self) -> list[tuple[str, str]]:
        rows = [row for row in self.analysis.rows if row.test is not None]
        times = sorted(run.time[:10] for run in self.analysis.sweep.done if run.time)
        facts = {
            "data": self.made_with.get("data", ""),
            "base models": collected([result.base for result in self.analysis.sweep.results]),
            "test examples": ", ".join(f"{n:,}" for n in sorted({row.n for row in rows if row.n})),
            "classes": "; ".join(
                dict.fromkeys(f"{len(one.labels)}: {', '.join(one.labels)}" for _, one in self._of_classes())
            ),
            "seeds": seeds_text(sorted({seed for row in rows for seed in row.seeds})).partition(" ")[2],
            "date": " to ".join(dict.fromkeys(times[:1] + times[-1:])),
            "machine": self.made_with.get("machine", ""),
            "status": self.summary,
        }
        return [(name, value) for name, value in facts.items() if value]

    def _of_classes(self) -> list[tuple[RowSummary, Confusion]]:
        """The rows that answer with one of three and more classes."""
        rows = (row for row in self.analysis.rows if row.macro_f1 is not None and row.number in self.confusions)
        return [(row, self.confusions[row.number]) for row in rows]

    def _variants(self) -> Table:
        """The table of the page: what matters most first, with the changed settings and what a row opens.

        Rows that were not run are left out, as in the text.
        """
        every = self.analysis.ran
        differs = Column(
            "", f"differs from row {self.analysis.reference.number} in", changed_settings, left=True, main=True
        )
        shown = sorted([*columns(replace(self.analysis, rows=every)), differs], key=lambda column: not column.main)
        shown = [column for column in shown if any(column.show(row).strip() for row in every)]
        rows = [[status(row) if one.header == STATUS else one.show(row).strip() for one in shown] for row in every]
        right = frozenset(place for place, column in enumerate(shown) if not column.left)
        return Table([column.title for column in shown], rows, right, details=[self._detail(row) for row in every])

    def _spelled_out(self) -> list[str]:
        """The notes, with the headings of the page in place of those of the terminal."""
        titles = {column.header: column.title for column in columns(self.analysis)} | {"publ.": "published"}
        lines = (line.partition(": ") for line in notes(self.analysis))
        return [f"{titles.get(head, head)}{colon}{rest}" for head, colon, rest in lines]

    def _detail(self, row: RowSummary) -> Section:
        examples = self.examples.get(row.number, Section(""))
        figures = self._figures(f"{row.number:02}-confusion")
        sentences = [row.question, self.answers[row.number], *examples.sentences]
        return Section(row.label, list(filter(None, sentences)), examples.table, figures)


_PARTS = ("sentences", "table", "figures", "cards")


def read_results(directory: str | Path, reference: int | None = None) -> Report:
    """Read the results of an ablation from its output folder.

    Args:
        directory: The output folder of ``ftkit ablation run``.
        reference: The number of the row to compare with; the first row if not given.

    Raises:
        InputError: ``directory`` is not such a folder, a file in it is damaged, or there is no such row.
    """
    analysis = analyse(directory, reference)
    runs = {row.number: confusion_of([cell.answers for cell in row.done]) for row in analysis.sweep.rows if row.done}
    confusions = {number: found for number, found in runs.items() if found is not None}
    plots = {figure.name: figure for figure in figures(analysis, confusions)}
    return Report(analysis, answers(analysis, confusions), plots, made_with(analysis), examples(analysis), confusions)


def write(report: Report, out: Path, png: bool = True) -> list[Path]:
    """Write ``report.md``, ``report.csv``, ``report.html``, ``plots/*.svg`` and perhaps ``plots/*.png`` into a folder.

    ``changes.tsv`` has a row for each test example that a row gets right and the reference wrong, or the reverse;
    ``labels.tsv`` has the test examples, those whose label may be wrong first. Those of an earlier report are replaced.

    Raises:
        EnvironmentFault: A file cannot be written.
    """
    document = report.document()
    files = {
        "report.md": to_markdown(document).encode(),
        "report.csv": table(report.analysis, "csv").encode(),
        "changes.tsv": _tsv([{"variant": name, **row} for name, one in report.changes for row in one.rows()]),
        "report.html": to_html(document).encode(),
    }
    if report.labels is not None:
        known = report.analysis.known
        files["labels.tsv"] = _tsv(report.labels.check.rows({} if known is None else known.text_of))
    for name, figure in report.plots.items():
        files[f"plots/{name}.svg"] = image(figure.chart, "svg", figure.title)
        if png:
            files[f"plots/{name}.png"] = image(figure.chart, "png", figure.title)
    for name, content in files.items():
        with atomic_write(out / name, "wb") as file:
            file.write(content)
    # Other files may lie there too, if the report goes into a folder of one's own.
    for old in (out / "plots").glob("*.*"):
        if _PLOT.fullmatch(old.name) and f"plots/{old.name}" not in files:
            old.unlink()
    return [out / name for name in files]


def _tsv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    buffer = io.StringIO()
    write_rows(buffer, rows)
    return buffer.getvalue().encode()


def _list(status: str, rows: Sequence[RowSummary]) -> str:
    """A sentence that names the rows of a status; nothing without any."""
    return f" {status.capitalize()}: {rows_text(rows).replace(',', ', ')}." if rows else ""
