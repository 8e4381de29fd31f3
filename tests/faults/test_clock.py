"""The clock is set back: order and durations do not depend on it."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

import ftkit
from ftkit import folder_choice
from ftkit.ablation import ledger
from ftkit.ablation.ledger import Entry, Ledger
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


def test_a_new_run_never_gets_the_folder_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTKIT_RUN_FOLDER", "")
    monkeypatch.setattr(folder_choice, "datetime", Backwards)
    made = []
    for day in (28, 27, 28, 27):
        monkeypatch.setattr(Backwards, "day", day)
        made.append(folder_choice.make_new_folder("mine").name)
    assert made == ["2026-02-27-1200-mine", "2026-02-26-1200-mine", "2026-02-27-1200-mine-2", "2026-02-26-1200-mine-2"]
