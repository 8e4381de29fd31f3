"""Plans of searches and of sweeps: each shape once, and beside what is measured."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import ftkit.plan.plan as planning
from ftkit.ablation.planned import PLAN_FILE, Planned, read_plan, write_plan
from ftkit.ablation.search import Search
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.plan.device import Device

LR = "model.init_args.optimizer.init_args.lr"
TRAINABLE = "model.init_args.trainable"


@pytest.fixture(scope="module")
def study(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A row of the tiny model, and a baseline."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "rows").mkdir()
    base = yaml.safe_load(tiny_config.read_text())
    base["model"]["init_args"]["optimizer"] = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    (folder / "rows/01_last.yaml").write_text("# Any good?\nmodel: {init_args: {pooling: last_real}}\n")
    baseline = {"class_path": "ftkit.BaselineClassifier", "init_args": {}}
    (folder / "rows/04_words.yaml").write_text(yaml.safe_dump({"model": baseline}))
    return folder


def test_settings_of_one_shape_are_traced_once(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[Any] = []
    real = planning.plan_classifier
    monkeypatch.setattr(planning, "plan_classifier", lambda *given: traced.append(given) or real(*given))
    search = tmp_path / "search.yaml"
    ranges = {LR: {"low": 1e-6, "high": 1e-2, "log": True}, TRAINABLE: ["last_block", "all"]}
    search.write_text(yaml.safe_dump({"settings": ranges, "tries": 2000, "untuned": False}))
    options = ["--search", str(search), "--seeds", "1,2,3,4,5", "--rows", "1", "--device", "t4"]
    assert main(["plan", str(study), *options, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["runs"], row["shapes"], len(traced)) == (10_000, 2, 2)
    assert main(["plan", str(study), "--rows", "1", "--device", "t4", "--json"]) == 0
    once = json.loads(capsys.readouterr().out)["rows"][0]
    assert row["total_minutes"] > 10_000 * (once["minutes"] - once["shared_minutes"])  # "all" takes longer
    assert main(["plan", str(study), *options[2:]]) == 0
    assert capsys.readouterr().out.rstrip().endswith("1 of 1 rows, 5 runs")


def test_figures_are_of_the_setting_that_needs_the_most_memory_and_sums_of_the_runs_that_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, large = ((TRAINABLE, "last_block"),), ((TRAINABLE, "all"),)
    found = {
        small: {"peak_gb": 1.0, "minutes": 6.0, "shared_minutes": 2.0},
        large: {"peak_gb": 3.0, "minutes": 7.0, "shared_minutes": 0.0},
    }
    monkeypatch.setattr(planning, "_planned", lambda *given: found[given[3]])
    given: Any = {"01_row": []}, Device.load("t4"), "ftkit", {"01_row": [small, large]}
    (row,) = planning.plan_rows(*given)
    assert row == {"row": "01_row", **found[large], "runs": 2, "shapes": 2, "total_minutes": 13.0}
    (row,) = planning.plan_rows(*given, {"01_row": [3, 0]})
    assert (row["runs"], row["total_minutes"]) == (3, 2 + 3 * 4)


def test_a_row_that_cannot_be_planned_computes_nothing_for_those_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def planned(configs: Any, device: Any, procedure: Any, setting: Any, known: set[str]) -> dict[str, Any]:
        seen.append(set(known))
        known.add("frozen layers")
        return {"not_planned": "no"} if setting else {"peak_gb": 1.0, "minutes": 6.0, "shared_minutes": 2.0}

    monkeypatch.setattr(planning, "_planned", planned)
    tries = {"01_row": [(), ((TRAINABLE, "all"),)], "02_row": [()]}
    planning.plan_rows({"01_row": [], "02_row": []}, Device.load("t4"), "ftkit", tries)
    assert seen == [set(), {"frozen layers"}, set()]


def test_all_settings_are_planned_as_tries_and_the_row_itself_besides() -> None:
    grid = Search.read({"settings": {LR: [0.1, 0.2], TRAINABLE: ["all", 1]}})
    assert len(grid.planned(1)) == 5
    assert grid.planned(1)[-1] == ()
    assert len(Search.read({"settings": {LR: [0.1]}, "untuned": False}).planned(1)) == 1
    sequential = Search.read({"settings": {LR: {"low": 1e-5, "high": 1e-2}}, "sampler": "tpe", "tries": 7})
    assert len(sequential.planned(1)) == 8
    assert Search.read({"settings": {LR: [1]}, "rows": {4: {LR: None}}}).planned(4) == [()]


def test_a_sweep_says_its_plan_first_and_keeps_it_beside_what_is_measured(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["ablation", "run", str(study), "--rows", "1,4", "--out", str(out), "--plan", "h100"]) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    plan = next(
        place
        for place, line in enumerate(lines)
        if "for 1 run that is not finished; every row fits; not planned: 04_words" in line
    )
    assert "minutes on NVIDIA H100" in lines[plan]
    assert any(line.startswith("start") for line in lines[plan:])
    assert not any(line.startswith("start") for line in lines[:plan])
    plan_file = json.loads((out / PLAN_FILE).read_text())
    kept, kept_on = plan_file["rows"][0], plan_file["device"]
    found = read_plan(out)
    seconds, peak = 60 * (kept["minutes"] - kept["shared_minutes"]), 1e3 * (kept["peak_gb"] - 0.8)
    assert found == {1: Planned(seconds, peak, kept_on)}
    assert main(["ablation", "table", str(out), "--format", "json"]) == 0
    first, words = json.loads(capsys.readouterr().out)
    assert first["planned_seconds"] == found[1].seconds
    assert "planned_seconds" not in words
    assert main(["ablation", "table", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "planned s" in printed.splitlines()[0]
    assert "planned MB" in printed.splitlines()[0]
    assert printed.count(f"planned s, planned MB: what a run was planned to take on {kept_on}") == 1
    # Later rows join those that were planned for the same device; what is finished is not counted again.
    assert main(["ablation", "run", str(study), "--rows", "1", "--out", str(out), "--plan", "h100"]) == 0
    assert "for 0 runs that are not finished" in capsys.readouterr().err
    assert [row["row"] for row in json.loads((out / PLAN_FILE).read_text())["rows"]] == ["01_last", "04_words"]
    write_plan(out, "NVIDIA T4", [kept])
    assert [row["row"] for row in json.loads((out / PLAN_FILE).read_text())["rows"]] == ["01_last"]
    write_plan(out, "NVIDIA T4", [{**kept, "shapes": 2}])  # the setting that is chosen may be of another shape
    assert read_plan(out) == {}
    (out / PLAN_FILE).write_text("{}")
    with pytest.raises(InputError, match=r"plan\.json: damaged"):
        read_plan(out)


def test_a_search_is_of_a_folder_and_of_its_rows(
    study: Path, tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "searched"
    shutil.copytree(study, folder)
    own = folder / "search.yaml"
    own.write_text(yaml.safe_dump({"settings": {LR: [0.1, 0.2]}}))
    options = ["--rows", "1", "--device", "t4"]
    assert main(["plan", str(folder), *options]) == 0
    assert capsys.readouterr().out.rstrip().endswith("3 runs")  # as `ablation run`, which takes it as well
    assert main(["plan", str(tiny_config), "--search", str(own), "--device", "t4"]) == 2
    assert "search: a config file is not searched" in capsys.readouterr().err
    own.write_text(yaml.safe_dump({"settings": {LR: [0.1, 0.2]}, "rows": {7: {LR: [1]}}}))
    for command in (["plan", str(folder), *options], ["ablation", "run", str(folder), "--out", str(tmp_path / "out")]):
        assert main(command) == 2
        assert "search.yaml: rows: there is no such row (got 7)" in capsys.readouterr().err


def test_an_output_folder_that_is_a_file_and_an_unknown_device_are_refused_first(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.write_text("")
    options = ["ablation", "run", str(study), "--rows", "1", "--out", str(out), "--plan"]
    assert main([*options, "t4"]) == 3
    assert f"error: {out}: cannot be written" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ftkit.lightning_engine", None)  # importing it fails
    assert main([*options, "tpu"]) == 2
    assert "device: no such device (got 'tpu')" in capsys.readouterr().err
