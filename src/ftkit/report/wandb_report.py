"""The report of an ablation as one run on Weights & Biases, and online as a W&B Report over its runs."""

import hashlib
import json
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ftkit.ablation.sweep import Choice, only_numbers
from ftkit.errors import EnvironmentFault
from ftkit.report.ablation_report import Report
from ftkit.report.ablation_table import figure_names, record, table
from ftkit.report.document import to_markdown
from ftkit.report.search_charts import spans_decades
from ftkit.report.theme import LIGHT, specification
from ftkit.storage import atomic_write
from ftkit.wandb_settings import mode, start_run

MARKER_FILE = "wandb.json"  # what was logged, so that the same report is logged once


def log_report(report: Report, directory: Path, out: Path) -> str:
    """Log table, plots and files of a report as one run; a report that was logged before is not logged again.

    Without ``WANDB_API_KEY`` the run is kept offline in ``out``; ``wandb sync`` uploads it.

    Raises:
        EnvironmentFault: Weights & Biases is missing or failed; the local report is complete.
    """
    wanted = {"id": report_id(report), "mode": mode(), "project": "ftkit"}
    marker = out / MARKER_FILE
    logged = json.loads(marker.read_text(encoding="utf-8")) if marker.exists() else {}
    if {name: logged.get(name) for name in wanted} != wanted:
        try:
            logged = wanted | _log(report, directory.resolve(), out, wanted)
        except Exception as error:  # whatever goes wrong in there is not ours to sort
            problem = f"Weights & Biases failed: {type(error).__name__}: {error}"
            raise EnvironmentFault(problem, fix=f"the local report is in {out}") from error
        with atomic_write(marker) as file:
            json.dump(logged, file, indent=1)
    published = f"; {logged['report']}" if "report" in logged else ""
    return f"Weights & Biases ({logged['mode']}): {logged['where']}{published}"


def report_id(report: Report) -> str:
    """The id of the report's run: the same for the same figures and words."""
    said = table(report.analysis, "csv") + to_markdown(report.document())
    return f"report-{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def _log(report: Report, directory: Path, out: Path, wanted: dict[str, str]) -> dict[str, Any]:
    import wandb

    name = report.analysis.sweep.name
    with start_run(
        project=wanted["project"],
        id=wanted["id"],
        mode=wanted["mode"],
        resume="allow",
        name=f"{name}: report",
        group=directory.name,
        job_type="report",
        dir=out,
        config={"ablation": name, "rows": len(report.analysis.rows), "reference": report.analysis.reference.number},
    ) as run:
        run.summary.update({"summary": report.summary, "answer": report.answer})
        drawings = {
            f"plots/{file.stem}": wandb.Html(file.read_text()) for file in sorted((out / "plots").glob("*.svg"))
        }
        page = wandb.Html(str(out / "report.html"), inject=False)
        run.log({"table": _table(report, out / "plots"), "report": page, **drawings})
        run.log_artifact(_artifact(report, out))
        if run.offline:
            return {"where": run.dir.removesuffix("/files")}
        return {"where": run.url, "report": _publish(report, directory.name, run)}


def _table(report: Report, plots: Path) -> Any:
    """One line per row, unrounded, with a picture of its answers by label; what is not known is empty."""
    import wandb

    pictures = {row.number: plots / f"{row.number:02}-confusion.png" for row in report.analysis.rows}
    records = [
        record(row)
        | {"answer": report.answers[row.number]}
        | {"answers": wandb.Image(str(picture)) if (picture := pictures[row.number]).exists() else None}
        for row in report.analysis.rows
    ]
    names = figure_names(records)
    data = [[None if line.get(name) == "" else line.get(name) for name in names] for line in records]
    return wandb.Table(columns=names, data=data, allow_mixed_types=True)


def _artifact(report: Report, out: Path) -> Any:
    """The report's files, and the test predictions of every cell."""
    import wandb

    name = re.sub(r"[^A-Za-z0-9_.-]", "-", report.analysis.sweep.name)[:100]  # a folder may be called anything
    artifact = wandb.Artifact(f"{name}-report", type="report")
    for file in [*out.glob("report.*"), *(out / "plots").glob("*.*")]:
        artifact.add_file(str(file), str(file.relative_to(out)))
    for run in report.analysis.sweep.done:
        if (file := run.test_predictions).exists():
            artifact.add_file(str(file), f"{file.parent.parent.name}/{file.parent.name}/{file.name}")
    return artifact


def _publish(report: Report, group: str, run: Any) -> str:
    """Make the W&B Report: the text, the charts, and panels over the runs; without the package say so."""
    try:
        from wandb_workspaces.reports import v2 as wr
    except ImportError:
        return "no W&B Report: pip install 'ftkit[wandb-reports]'"
    import wandb

    charts = _register_charts(wandb.Api(), report, run.entity)
    built = build_workspace_report(wr, report, group, run.project, run.entity, charts)
    built.save()
    return str(built.url)


def _register_charts(api: Any, report: Report, entity: str) -> list[str]:
    """Register the charts of the page, each with its data, as Vega-Lite charts; return their ids."""
    access, made = "private", report_id(report)
    return [
        api.create_custom_chart(
            entity, f"ftkit-{made}-{name}", figure.title, "vega2", access, specification(figure.chart, LIGHT)
        )
        for name, figure in report.plots.items()
    ]


def build_workspace_report(
    wr: Any, report: Report, group: str, project: str, entity: str, charts: Sequence[str] = ()
) -> Any:
    """A W&B Report that is not saved yet; runs are grouped by variant, those of a search drawn one by one as well."""
    filters = f"Metric('Group') = '{group}' and Metric('JobType') != 'report'"
    runs = wr.Runset(project=project, entity=entity, name=group, filters=filters, groupby=["JobType"])
    summary = wr.Runset(project=project, entity=entity, name="report", filters=f"Metric('ID') = '{report_id(report)}'")
    panels = [
        wr.LinePlot(title="Training loss", x="trainer/global_step", y=["train/loss"]),
        wr.LinePlot(title="Validation accuracy", x="trainer/global_step", y=["val/accuracy"]),
        wr.BarPlot(title="Test accuracy", metrics=["final/test/accuracy"], groupby="JobType"),
    ]
    grids = [wr.PanelGrid([runs], panels=panels)]
    if choices := [row.choice for row in report.analysis.rows if row.choice is not None]:
        single = wr.Runset(project=project, entity=entity, name=f"{group}, each run", filters=filters)
        grids.append(wr.PanelGrid([single], panels=[_coordinates(wr, choices)]))
    text = to_markdown(report.document()).splitlines()  # its local pictures are not where it goes
    pages = [wr.WeavePanelSummaryTable(table_name="table"), *(wr.CustomChart(chart_name=chart) for chart in charts)]
    return wr.Report(
        project=project,
        entity=entity,
        title=f"{report.analysis.sweep.name}: report",
        blocks=[
            wr.MarkdownBlock(text="\n".join(line for line in text if not line.startswith("!["))),
            wr.PanelGrid([summary], panels=pages),
            *grids,
        ],
    )


def _coordinates(wr: Any, choices: Sequence[Choice]) -> Any:
    """Draw each run of a search as a line through its settings and what decided."""
    settings = [setting for choice in choices for setting, _ in choice.tries]
    axes = [
        wr.ParallelCoordinatesPlotColumn(
            metric=wr.Config(path),
            display_name=path.rpartition(".")[2],
            log=spans_decades(only_numbers(setting.get(path) for setting in settings)),
        )
        for path in dict.fromkeys(chain.from_iterable(settings))
    ]
    monitor = choices[0].monitor
    logged = wr.SummaryMetric("final/val/accuracy" if monitor == "val/accuracy" else monitor)
    axes.append(wr.ParallelCoordinatesPlotColumn(metric=logged, display_name=monitor))
    return wr.ParallelCoordinatesPlot(title="Search over settings", columns=axes)
