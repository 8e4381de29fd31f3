"""Cells spread by Ray: the same ledger and results, and a worker that dies loses nothing."""

import json
import signal
import sys
from pathlib import Path

import pytest

from fake_engine import FakeEngine, make_folder
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.ray_executor import ATTEMPTS, on_ray
from ftkit.ablation.runner import Event, run
from ftkit.ablation.sweep import read_sweep
from ftkit.errors import EnvironmentFault, ExitCode

ROWS = {
    "01_first": {"correct": 280},
    "02_dies_once": {"correct": 270, "do": "die_once"},
    "03_raises": {"do": "raise"},
    "04_cannot_be_had": {"do": "unavailable"},
    "05_always_dies": {"do": "die"},
}


@pytest.fixture(scope="module")
def local_cluster(tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.mark.usefixtures("local_cluster")
def test_ray_leaves_what_one_process_leaves_and_redoes_the_cell_of_a_dead_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # the workers import the engine from here
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


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ablation = AblationFolder.load(make_folder(tmp_path / "rows", {"01_first": {}}))
    with pytest.raises(EnvironmentFault, match=r"Ray is not installed .*pip install 'ftkit\[ray\]'"):
        run(ablation, FakeEngine(), tmp_path / "out", executor=on_ray)
