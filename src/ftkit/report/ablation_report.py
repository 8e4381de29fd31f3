"""The report of an ablation, rebuilt from its run folders alone, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.ablation.analysis import Analysis, analyse
from ftkit.ablation.answers import answers
from ftkit.ablation.evidence import Confusion, read_confusion, read_curves
from ftkit.ablation.folder import format_numbers
from ftkit.ablation.ledger import key_of
from ftkit.ablation.summary import RowSummary
from ftkit.report.ablation_plots import Curves, accuracy_plot, confusion_plot, cost_plot, curve_plots
from ftkit.report.ablation_table import render


@dataclass(frozen=True)
class Report:
    """All that a report says, before it is written in some form.

    Args:
        analysis: The rows, compared.
        answers: The answer to each row's question, by row number.
        plots: Drawings by name, such as ``accuracy``, ``cost``, ``02-loss``, ``02-validation`` and ``02-confusion``.
        made_with: What the runs were made with: a name, then the values that occur.
    """

    analysis: Analysis
    answers: Mapping[int, str]
    plots: Mapping[str, str]
    made_with: Mapping[str, str]

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
        for status in dict.fromkeys(row.status for row in missing):
            sentence += _list(status, [row.number for row in missing if row.status == status])
        sentence += _list("without predictions", [row.number for row in rows if row.test is None and row.metrics])
        return sentence + _list("not converged", [row.number for row in self.done if not row.converged])


def _list(status: str, numbers: Sequence[int]) -> str:
    """A sentence that names the rows of a status; nothing without any."""
    if not numbers:
        return ""
    rows_are = "rows" if len(numbers) > 1 else "row"
    return f" {status.capitalize()}: {rows_are} {format_numbers(numbers).replace(',', ', ')}."


def build(directory: str | Path, reference: int | None = None) -> Report:
    """Read an output folder and work its report out.

    Args:
        directory: The output folder of ``ftkit ablation run``.
        reference: The number of the row to compare with; the first row if not given.

    Raises:
        InputError: ``directory`` is not such a folder, a file in it is damaged, or there is no such row.
    """
    analysis = analyse(directory, reference)
    cells = {row.number: row.done for row in analysis.sweep.rows if row.done}
    confusions = {number: found for number, done in cells.items() if (found := read_confusion(done)) is not None}
    curves = {number: [read_curves(cell.directory) for cell in done] for number, done in cells.items()}
    return Report(analysis, answers(analysis, confusions), _plots(analysis, confusions, curves), _made_with(analysis))


def to_markdown(report: Report) -> str:
    """The report as Markdown; its pictures lie beside it."""
    analysis = report.analysis
    lines = [f"# {analysis.sweep.name}", "", report.summary, "", "## What was found", ""]
    for row in report.done:
        lines += [f"**Row {row.number} ({row.name}).** {row.question}  ", report.answers[row.number], ""]
    if "accuracy" in report.plots:
        lines += ["![Test accuracy by row](plots/accuracy.svg)", ""]
    if "cost" in report.plots:
        lines += ["![Accuracy against time](plots/cost.svg)", ""]
    lines += ["## Table", "", render(analysis, "markdown"), "## Made with", ""]
    lines += [f"- {name}: {values}" for name, values in report.made_with.items()]
    return "\n".join(lines) + "\n"


def _plots(analysis: Analysis, confusions: Mapping[int, Confusion], curves: Mapping[int, Curves]) -> Mapping[str, str]:
    drawn: dict[str, str] = {}
    if any(row.test is not None for row in analysis.rows):
        drawn["accuracy"] = accuracy_plot(analysis)
    if (cost := cost_plot(analysis)) is not None:
        drawn["cost"] = cost
    reference = analysis.reference.number
    for row in analysis.rows:
        if row.number in curves:
            others = () if row.number == reference else curves.get(reference, ())
            found = curve_plots(row.name, curves[row.number], others, list(curves.values()))
            drawn.update({f"{row.number:02}-{name}": svg for name, svg in found.items()})
        if row.number in confusions:
            drawn[f"{row.number:02}-confusion"] = confusion_plot(row.name, confusions[row.number])
    return drawn


def _made_with(analysis: Analysis) -> Mapping[str, str]:
    """Data, base models, machines and versions, each with all the values that occur in the runs."""
    found: dict[str, dict[str, None]] = {}
    for row in analysis.sweep.rows:
        for cell in row.done:
            assert cell.result is not None
            for name, value in _origin(cell.result.raw, cell.result.machine).items():
                found.setdefault(name, {})[value] = None
    return {name: "; ".join(values) for name, values in found.items()}


def _origin(raw: Mapping[str, Any], machine: str) -> dict[str, str]:
    data = raw.get("data") or {}
    sizes = ", ".join(f"{count:,} {split}" for split, count in (data.get("sizes") or {}).items())
    origin = {
        "data": " ".join(filter(None, [str(data.get("source", "unnamed")), f"({sizes})" if sizes else ""])),
        "data sha256": str(data.get("sha256") or "unknown"),
        "base model": _base_model(raw.get("base") or {}),
        "machine": machine,
    }
    return origin | {str(name): str(version) for name, version in (raw.get("versions") or {}).items()}


def _base_model(base: Mapping[str, Any]) -> str:
    """Its name, and a short hash of what its files hold, so that two under one name show."""
    fingerprint = base.get("fingerprint") or {}
    short = fingerprint.get("commit") or (key_of(fingerprint) if fingerprint else None)
    named = {name: value for name, value in base.items() if name != "fingerprint"} | {"contents": short and short[:12]}
    return ", ".join(f"{name} {value}" for name, value in named.items() if value is not None) or "unknown"
