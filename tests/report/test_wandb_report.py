import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from fake_engine import FakeEngine, make_folder
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.runner import run
from ftkit.ablation_runs import Ablation
from ftkit.cli import main
from ftkit.errors import EnvironmentFault, ExitCode
from ftkit.report.ablation_report import read_results, write
from ftkit.report.wandb_report import _artifact, _publish, _table, build_workspace_report, log_report, report_id

WANDB = Path(sys.executable).parent / "wandb"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output folder of three rows, one of them skipped."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    rows: dict[str, dict[str, Any]] = {"01_base": {}, "02_first": {"correct": 216}, "03_xl": {"do": "unavailable"}}
    run(AblationFolder.load(make_folder(tmp_path / "study", rows)), FakeEngine(), tmp_path / "demo")
    return tmp_path / "demo"


def runs(study: Path) -> list[Path]:
    return list(study.glob("report/wandb/offline-run-*"))


def test_an_offline_summary_run_holds_table_plots_and_files_and_is_made_once(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablation", "report", str(study), "--wandb"]) == ExitCode.DONE
    (folder,) = runs(study)
    assert f"Weights & Biases (offline): {folder}" in capsys.readouterr().out
    assert folder.name.endswith(report_id(read_results(study)))

    command = [WANDB, "leet", "inspect", "--json", "--summary", folder]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert (found["name"], found["state"]) == ("study: report", "finished")
    assert found["config"] == {"ablation": "study", "rows": 3, "reference": 1}
    for name in ("plots/accuracy", "plots/cost", "plots/02-confusion", "report", "table"):
        assert (folder / "files" / found["summary"][name]["path"]).stat().st_size > 500
    table = json.loads((folder / "files" / found["summary"]["table"]["path"]).read_text())
    rows = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
    assert [(row["row"], row["test"], row["status"]) for row in rows] == [
        (1, 0.95, "done"), (2, 0.72, "done"), (3, None, "skipped"),
    ]  # fmt: skip
    assert "costs 23.0 points" in rows[1]["answer"]
    pictures = _table(read_results(study), study / "report" / "plots").get_column("answers")
    assert [None if one is None else one.format for one in pictures] == ["png", "png", None]
    records = subprocess.run([*command[:4], folder], capture_output=True, check=True, text=True).stdout
    assert '"run_group":"demo"' in records
    assert "02_first/seed-123/predictions-test.tsv" in records

    assert main(["ablation", "report", str(study), "--wandb"]) == ExitCode.DONE
    assert runs(study) == [folder]  # the same figures: nothing new
    run(AblationFolder.load(study.parent / "study"), FakeEngine("v2"), study, "2")
    assert main(["ablation", "report", str(study), "--wandb", "--png", "false"]) == ExitCode.DONE
    assert len(runs(study)) == 2


def test_rows_that_have_not_run_have_fewer_figures(study: Path) -> None:
    columns = _table(read_results(study), study).columns
    results = read_results(study)
    ran, *_, skipped = results.analysis.rows
    ran = replace(ran, macro_f1=0.9)  # known of what ran alone
    assert skipped.macro_f1 is None
    for rows in ([ran, skipped], [skipped, ran]):
        results.analysis.rows[:] = rows
        table = _table(results, study)
        assert set(table.columns) == {*columns, "test_macro_f1"}
        figures = dict(zip(table.get_column("row"), table.get_column("test_macro_f1"), strict=True))
        assert figures == {ran.number: 0.9, skipped.number: None}


def test_a_folder_may_be_called_what_no_artifact_may(study: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "my rows, first: ü", {"01_base": {}})
    run(AblationFolder.load(tmp_path / "my rows, first: ü"), FakeEngine(), tmp_path / "spaced")
    write(report := read_results(tmp_path / "spaced"), tmp_path / "out", png=False)
    artifact = _artifact(report, tmp_path / "out")
    assert artifact.name == "my-rows--first----report"
    assert "report.html" in artifact.manifest.entries


def test_a_report_with_other_words_is_another_one(study: Path) -> None:
    before = report_id(read_results(study))
    assert report_id(read_results(study)) == before
    description = study / "ablation.json"
    description.write_text(description.read_text().replace("What does 02_first do?", "Is the first token enough?"))
    assert report_id(read_results(study)) != before


def test_a_failure_leaves_the_local_report_and_is_tried_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**init: Any) -> None:
        raise ConnectionError("the server is on fire")

    report, out = read_results(study), study / "report"
    write(report, out, png=False)
    with monkeypatch.context() as patch:
        patch.setattr(wandb, "init", fail)
        with pytest.raises(EnvironmentFault, match=r"ConnectionError: the server is on fire.*the local report is in"):
            log_report(report, study, out)
    assert (out / "report.html").exists()
    assert not (out / "wandb.json").exists()


def test_a_synced_sweep_is_published_by_one_command(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a key: the charts of the page are registered as Vega-Lite with colors and data, and the report is saved."""
    registered: dict[str, tuple[Any, ...]] = {}

    class Api:
        def create_custom_chart(self, entity: str, name: str, *rest: Any) -> str:
            registered[name] = rest
            return f"{entity}/{name}"

    class Workspaces(Recorded):
        def made(self, name: str) -> Any:
            return SimpleNamespace(save=lambda: saved.append(name), url="https://wandb.example/report")

    saved: list[str] = []
    report, wr = read_results(study), Workspaces()
    monkeypatch.setitem(sys.modules, "wandb_workspaces", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports", SimpleNamespace(v2=wr))
    monkeypatch.setattr(wandb, "Api", Api)
    run = SimpleNamespace(project="ftkit", entity="me")
    assert _publish(report, "demo", run) == "https://wandb.example/report"
    assert saved == ["Report"]
    assert len(registered) == len(report.plots) == len(wr.calls["CustomChart"])
    assert {one["chart_name"] for one in wr.calls["CustomChart"]} == {f"me/{name}" for name in registered}
    title, kind, access, spec = registered[f"ftkit-{report_id(report)}-accuracy"]
    assert (title, kind, access) == (report.plots["accuracy"].title, "vega2", "private")
    assert "vega-lite" in spec["$schema"]
    assert "base" in json.dumps(spec)  # its data are in it
    assert "var(--" not in json.dumps(spec)  # W&B has no style sheet of ours


class Recorded:
    """Stands for the module wandb_workspaces.reports.v2, and keeps what is made of it, by kind."""

    def __init__(self) -> None:
        self.calls: dict[str, list[dict[str, Any]]] = {}

    def made(self, name: str) -> Any:
        return name

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **options: self.calls.setdefault(name, []).append(options) or self.made(name)


def test_a_workspace_report_shows_the_runs_of_the_group_by_variant(study: Path) -> None:
    wr, report = Recorded(), read_results(study)
    build_workspace_report(wr, report, "demo", "ftkit", "me", ["me/chart"])
    runs, summary = wr.calls["Runset"]
    assert summary["filters"] == f"Metric('ID') = '{report_id(report)}'"
    assert runs["filters"] == "Metric('Group') = 'demo' and Metric('JobType') != 'report'"
    assert runs["groupby"] == ["JobType"]
    assert "costs 23.0 points" in wr.calls["MarkdownBlock"][0]["text"]
    assert "![" not in wr.calls["MarkdownBlock"][0]["text"]
    assert wr.calls["CustomChart"] == [{"chart_name": "me/chart"}]
    assert (wr.calls["Report"][0]["project"], wr.calls["Report"][0]["entity"]) == ("ftkit", "me")


def test_a_workspace_report_passes_the_packages_own_models(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be sent; what the server says of the project is made up."""
    wr = pytest.importorskip("wandb_workspaces.reports.v2", reason="the extra wandb-reports is not installed")
    monkeypatch.setattr(wr.interface, "_get_api", lambda: None)
    monkeypatch.setattr(wr.interface, "execute_graphql", lambda *args: {"project": {"internalId": "UHJvamVjdA=="}})
    built = build_workspace_report(wr, read_results(study), "demo", "ftkit", "me", ["me/chart"])
    spec = json.loads(built._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    pages, curves = (block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid")
    (runs,) = curves["runSets"]
    assert runs["grouping"] == [{"section": "run", "name": "jobType"}]
    told = json.dumps(runs["filters"])
    assert '"demo"' in told
    assert '"group"' in told
    views = [panel["viewType"] for panel in curves["panelBankSectionConfig"]["panels"]]
    assert views == ["Run History Line Plot", "Run History Line Plot", "Bar Chart"]
    assert "me/chart" in json.dumps(pages)


def test_a_search_is_drawn_as_parallel_coordinates_of_single_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wr = pytest.importorskip("wandb_workspaces.reports.v2", reason="the extra wandb-reports is not installed")
    monkeypatch.setattr(wr.interface, "_get_api", lambda: None)
    monkeypatch.setattr(wr.interface, "execute_graphql", lambda *args: {"project": {"internalId": "UHJvamVjdA=="}})
    ablation = Ablation(make_folder(tmp_path / "study", {"01_base": {}}), out=tmp_path / "out")
    ablation.run([1], engine=FakeEngine(), search={"settings": {"model.lr": [0.01, 1.0], "kind": ["a", "b"]}})
    built = build_workspace_report(wr, read_results(tmp_path / "out"), "out", "ftkit", "me")
    spec = json.loads(built._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    searched = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"][-1]
    (plot,) = searched["panelBankSectionConfig"]["panels"]
    assert plot["viewType"] == "Parallel Coordinates Plot"
    assert searched["runSets"][0]["grouping"] == []
    axes = {axis["accessor"]: axis["log"] for axis in plot["config"]["columns"] if "log" in axis}
    assert axes == {"config:model.value.lr": True, "config:kind.value": False}
    assert plot["config"]["columns"][-1]["accessor"] == "summary:final/val/accuracy"
