"""The clock is set back: order and durations do not depend on it."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser

import ftkit
from fake_engine import make_folder
from ftkit import folder_choice, lock
from ftkit.ablation import ledger
from ftkit.ablation.description import write_description
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.ledger import Entry, Ledger
from ftkit.ablation.sweep import read_sweep
from ftkit.lock import exclusive
from ftkit.run_config import RunConfig
from ftkit.run_folder import newest_run
from ftkit.training.resume import resumable

SRC = Path(ftkit.__file__).parent


class Backwards(datetime):
    """Each time that is asked for is a day before the last one."""

    day = 28

    @classmethod
    def now(cls, zone: Any = None) -> "Backwards":
        cls.day -= 1
        return cls(2026, 2, cls.day, 12, tzinfo=zone)


def test_no_duration_is_taken_from_the_clock_of_the_wall() -> None:
    taken = {
        f"{file.relative_to(SRC)}: {line.strip()}"
        for file in SRC.rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if re.search(r"\btime\.time\(", line) and '"created"' not in line
    }
    assert not taken


@pytest.mark.parametrize("later", ["interrupted", "last"])
def test_training_goes_on_from_the_most_steps(later: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("interrupted", "last", "best"):
        steps = {later: 5, "best": 9}.get(name, 3)
        torch.save({"state_dict": {}, "optimizer_states": [], "global_step": steps}, folder / f"{name}.ckpt")
        os.utime(folder / f"{name}.ckpt", (0, 10 - steps))  # the most steps have the oldest time
    assert resumable(tmp_path) == (folder / f"{later}.ckpt", [])


def test_a_checkpoint_that_cannot_be_read_is_named_whatever_its_time(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save({"state_dict": {}, "optimizer_states": [], "global_step": 3}, folder / "last.ckpt")
    (folder / "interrupted.ckpt").write_bytes(b"half")
    os.utime(folder / "interrupted.ckpt", (0, 0))
    found, notices = resumable(tmp_path)
    assert found == folder / "last.ckpt"
    assert "interrupted.ckpt" in notices[0]


def test_the_last_line_of_a_ledger_decides_whatever_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "datetime", Backwards)
    for status in ("started", "failed", "started", "done"):
        Ledger(tmp_path).append(Entry("01_a/seed-1", 1, 1, status))
    found = Ledger(tmp_path).entries["01_a/seed-1"]
    assert (found.status, datetime.fromisoformat(found.time) < datetime(2026, 2, 25, tzinfo=UTC)) == ("done", True)


@pytest.mark.parametrize("clock", [datetime, Backwards])
def test_a_run_is_running_if_the_process_at_work_began_it_whatever_the_time(
    clock: type[datetime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_description(tmp_path, AblationFolder.load(make_folder(tmp_path / "study", {"01_a": {}, "02_b": {}})))

    def statuses() -> list[str]:
        return [run.status for row in read_sweep(tmp_path).rows for run in row.runs]

    with exclusive(tmp_path):  # it is killed
        Ledger(tmp_path).append(Entry("01_a/seed-1", 1, 1, "started"))
        assert statuses() == ["running"]
    assert statuses() == ["unfinished"]
    monkeypatch.setattr(ledger, "datetime", clock)
    monkeypatch.setattr(lock, "datetime", clock)
    with exclusive(tmp_path):
        assert statuses() == ["unfinished"]
        Ledger(tmp_path).append(Entry("02_b/seed-1", 2, 1, "started"))
        assert statuses() == ["unfinished", "running"]


def test_the_newest_run_is_the_one_that_was_begun_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parser = ArgumentParser()
    parser.add_argument("--trainer.default_root_dir")
    config = RunConfig(parser, parser.parse_args([]), overwrite=True)

    def train(folder: str, stage: str = "fit") -> None:
        config.save_config(SimpleNamespace(default_root_dir=folder, loggers=[]), None, stage)  # type: ignore[arg-type]
        file = Path(folder) / "checkpoints" / "last.ckpt"
        file.parent.mkdir(exist_ok=True)
        file.touch()

    for age, name in enumerate(("copied", "a", "b", "c")):
        train(f"runs/{name}", "test" if name == "copied" else "fit")
        os.utime(f"runs/{name}/checkpoints/last.ckpt", (0, 100 - age))  # what is newer is older by its time
        assert newest_run() == Path("runs") / name
    train(str(tmp_path / "runs" / "a"))  # it is gone on with, under its full name
    os.utime("runs/a/checkpoints/last.ckpt", (0, 0))
    assert newest_run() == Path("runs/a")
    train("elsewhere/d")
    assert (tmp_path / "runs" / ".order").read_text() == "a\nb\nc\na\n"


def test_a_new_run_never_gets_the_folder_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTKIT_RUN_FOLDER", "")
    monkeypatch.setattr(folder_choice, "datetime", Backwards)
    made = []
    for day in (28, 27, 28, 27):
        monkeypatch.setattr(Backwards, "day", day)
        made.append(folder_choice.make_new_folder("mine").name)
    assert made == ["2026-02-27-1200-mine", "2026-02-26-1200-mine", "2026-02-27-1200-mine-2", "2026-02-26-1200-mine-2"]
