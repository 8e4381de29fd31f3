"""Cells spread by Ray: the same ledger and results, and a worker that dies loses nothing."""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fake_engine import FakeEngine, make_folder
from ftkit.ablation.executor import one_by_one
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.ledger import Ledger
from ftkit.ablation.progress import Event
from ftkit.ablation.ray_executor import ATTEMPTS, on_ray
from ftkit.ablation.runner import run
from ftkit.ablation.search import Search
from ftkit.ablation.sweep import read_sweep
from ftkit.ablation.tuning import tune
from ftkit.commands.ablation import ablation_table
from ftkit.errors import EnvironmentFault, ExitCode

ROWS = {
    "01_first": {"correct": 280},
    "02_dies_once": {"correct": 270, "do": "die_once"},
    "03_raises": {"do": "raise"},
    "04_cannot_be_had": {"do": "unavailable"},
    "05_always_dies": {"do": "die"},
}

MEDIAN = {"class_path": "optuna.pruners.MedianPruner", "init_args": {"n_startup_trials": 2}}


@pytest.fixture(scope="module")
def local_cluster(tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.mark.usefixtures("local_cluster")
def test_ray_leaves_what_one_process_leaves_and_redoes_the_cell_of_a_dead_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep
    )  # the workers import the engine from here
    ablation = AblationFolder.load(make_folder(tmp_path / "rows", ROWS))
    events: list[Event] = []
    handlers: list[object] = []

    def watch(event: Event) -> None:
        events.append(event)
        handlers.append(signal.getsignal(signal.SIGTERM))

    summary = run(ablation, FakeEngine(), tmp_path / "ray", on_event=watch, executor=on_ray)
    assert len(set(handlers)) == 1  # a termination ends the sweep as it would without Ray
    assert (tmp_path / "ray" / "died").exists()
    assert sorted(str(cell.row.number) for cell in summary.done) == ["1", "2"]
    assert {cell.row.number: reason for cell, reason in summary.failed.items()} == {
        3: "ValueError: the loss went away",
        5: f"its worker died {ATTEMPTS} times",
    }
    assert [cell.row.number for cell in summary.skipped] == [4]
    assert summary.exit_code == ExitCode.TRAINING
    assert events[-1].index == events[-1].total == 5
    assert "the loss went away" in (tmp_path / "ray/03_raises/seed-123/error.txt").read_text()

    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "died").touch()  # here it would take the test along
    run(ablation, FakeEngine(), tmp_path / "here", rows="1-2")
    for name in ("01_first", "02_dies_once"):
        there, here = (tmp_path / place / name / "seed-123" for place in ("ray", "here"))
        assert (there / "predictions-test.tsv").read_bytes() == (here / "predictions-test.tsv").read_bytes()
        assert json.loads((there / "result.json").read_text())["splits"]["test"]["correct"] == ROWS[name]["correct"]

    again = run(ablation, FakeEngine(), tmp_path / "ray", rows="1-2")  # in one process, over the same ledger
    assert len(again.reused) == 2
    assert not again.done
    statuses = [cell.status for row in read_sweep(tmp_path / "ray").rows for cell in row.runs]
    assert statuses == ["done", "done", "failed", "skipped", "failed"]


@pytest.mark.usefixtures("local_cluster")
@pytest.mark.slow
@pytest.mark.parametrize("pruner", [None, MEDIAN])
def test_a_search_on_ray_leaves_the_table_that_one_process_leaves(
    pruner: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    curves = {"curves": {0.1: [0.6, 0.8], 0.2: [0.7, 0.9], 0.3: [0.3, 0.99], 0.4: [0.8, 0.95]}}
    rates = {"by_lr": {0.1: [800, 240], 0.2: [900, 270], 0.3: [990, 299], 0.4: [950, 285]}}
    ablation = AblationFolder.load(make_folder(tmp_path / "rows", {"01_one": rates | curves, "02_two": rates}))
    search = Search.read({"settings": {"model.lr": [0.1, 0.2, 0.3, 0.4]}, "pruner": pruner})
    for place, executor in (("ray", on_ray), ("here", one_by_one)):
        options = {"executor": executor, "tune": partial(tune, search), "seeds": (123, 124)}
        assert run(ablation, FakeEngine(), tmp_path / place, **options).exit_code == 0
    ray, here = (tmp_path / place for place in ("ray", "here"))
    assert ablation_table(ray, "json", timing=False) == ablation_table(here, "json", timing=False)
    known = [{cell: (e.status, e.key, e.reason) for cell, e in Ledger(out).entries.items()} for out in (ray, here)]
    assert known[0] == known[1]
    assert [status for status, _, _ in known[0].values()].count("pruned") == (0 if pruner is None else 2)
    again = run(ablation, FakeEngine(), ray, tune=partial(tune, search), seeds=(123, 124))
    assert not again.done


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ablation = AblationFolder.load(make_folder(tmp_path / "rows", {"01_first": {}}))
    with pytest.raises(EnvironmentFault, match=r"Ray is not installed .*pip install 'ftkit\[ray\]'"):
        run(ablation, FakeEngine(), tmp_path / "out", executor=on_ray)
