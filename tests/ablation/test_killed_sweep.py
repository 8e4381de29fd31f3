"""A sweep that is killed with SIGKILL in the middle of a row and started again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fake_engine
from fake_engine import FakeEngine, make_folder
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.progress import Event
from ftkit.ablation.runner import run
from ftkit.commands.ablation import ablation_table as table
from ftkit.errors import EnvironmentFault

ROWS = {f"{number:02}_row": {"correct": 270 + number} for number in range(1, 6)}


def snapshot(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(directory.glob("0[12]_*/**/*"))
        if path.is_file()
    }


def holds(process: int, out: Path) -> bool:
    holder = out / ".running"
    return holder.exists() and f'"pid": {process},' in holder.read_text()


@pytest.fixture
def hanging(tmp_path: Path):
    """A sweep in another process that hangs in its third row."""
    folder = make_folder(tmp_path / "study", {**ROWS, "03_row": {"correct": 273, "do": "hang"}}, "row,test\n1,90.5\n")
    out, began = tmp_path / "out", time.monotonic()
    with subprocess.Popen([sys.executable, fake_engine.__file__, str(folder), str(out)]) as process:
        while not (out / "hanging").exists():
            assert process.poll() is None
            assert time.monotonic() - began < 120
            time.sleep(0.02)
        yield process, folder, out
        process.kill()


def test_only_the_row_that_was_killed_is_run_again(hanging, tmp_path: Path) -> None:
    process, folder, out = hanging
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (out / "03_row/.seed-123.partial/metrics.csv").exists()  # the kill came in the middle of a row
    assert not (out / "03_row/seed-123").exists()
    finished = snapshot(out)
    assert len(finished) == 2 * 4

    (folder / "rows/03_row.yaml").write_text("correct: 273\n")
    engine, events = FakeEngine(), list[Event]()
    summary = run(AblationFolder.load(folder), engine, out, on_event=events.append)
    assert engine.ran == [("03_row", 123), ("04_row", 123), ("05_row", 123)]
    assert [cell.row.number for cell in summary.reused] == [1, 2]
    assert snapshot(out) == finished
    assert not list(out.glob("*/.*"))
    assert [event.message for event in events if event.kind == "notice" and str(process.pid) in event.message]

    run(AblationFolder.load(folder), FakeEngine(), tmp_path / "unbroken")
    for format in ("markdown", "csv", "text"):
        assert table(out, format, timing=False) == table(tmp_path / "unbroken", format, timing=False)


def test_killed_again_and_again_at_any_moment_it_ends_like_an_unbroken_sweep(tmp_path: Path) -> None:
    rows = {f"{number:02}_row": {"correct": 270 + number, "do": "dawdle"} for number in range(1, 11)}
    folder, out = make_folder(tmp_path / "study", rows), tmp_path / "out"
    moments = random.Random(0)
    command, kills = [sys.executable, fake_engine.__file__, str(folder), str(out)], 0
    while True:
        with subprocess.Popen(command) as process:
            while process.poll() is None and not holds(process.pid, out):  # importing takes longest
                time.sleep(0.005)
            try:
                status = process.wait(timeout=moments.uniform(0, 0.15))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
                continue
        break
    assert status == 0
    assert kills >= 3
    assert not list(out.glob("*/.*"))
    run(AblationFolder.load(folder), FakeEngine(), tmp_path / "unbroken")
    assert table(out, "csv", timing=False) == table(tmp_path / "unbroken", "csv", timing=False)
    for path in (tmp_path / "unbroken").glob("*/seed-123/config.yaml"):
        assert (out / path.relative_to(tmp_path / "unbroken")).read_bytes() == path.read_bytes()


def test_a_second_sweep_in_the_same_folder_is_turned_away_and_the_first_is_unharmed(hanging) -> None:
    process, folder, out = hanging
    ledger = (out / "ledger.jsonl").read_bytes()
    engine = FakeEngine()
    with pytest.raises(EnvironmentFault, match=f"process {process.pid} on ") as caught:
        run(AblationFolder.load(folder), engine, out)
    assert caught.value.exit_code == 3
    assert engine.ran == []
    assert process.poll() is None
    assert (out / "ledger.jsonl").read_bytes() == ledger
    assert (out / "03_row/.seed-123.partial/metrics.csv").exists()
