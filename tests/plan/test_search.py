"""Plans of searches and of sweeps: each shape once, and beside what is measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import ftkit.plan.plan as planning
from ftkit.ablation.planned import PLAN_FILE, Planned, read_plan
from ftkit.ablation.search import Search
from ftkit.cli import main
from ftkit.errors import InputError

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
    plan = next(place for place, line in enumerate(lines) if "every row fits; not planned: 04_words" in line)
    assert "minutes on NVIDIA H100" in lines[plan]
    assert any(line.startswith("start") for line in lines[plan:])
    assert not any(line.startswith("start") for line in lines[:plan])
    kept = json.loads((out / PLAN_FILE).read_text())["rows"][0]
    found = read_plan(out)
    assert found == {1: Planned(60 * (kept["minutes"] - kept["shared_minutes"]), 1e3 * (kept["peak_gb"] - 0.8))}
    assert main(["ablation", "table", str(out), "--format", "json"]) == 0
    first, words = json.loads(capsys.readouterr().out)
    assert first["planned_seconds"] == found[1].seconds
    assert "planned_seconds" not in words
    assert main(["ablation", "table", str(out)]) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert "plan. s" in head
    assert "plan. MB" in head
    (out / PLAN_FILE).write_text("{}")
    with pytest.raises(InputError, match=r"plan\.json: damaged"):
        read_plan(out)
