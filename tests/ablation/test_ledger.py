import json
from pathlib import Path

import pytest

from ftkit.ablation.ledger import Entry, Ledger
from ftkit.errors import EnvironmentFault, InputError
from ftkit.storage import sha256_of


def done(directory: Path, cell: str) -> Entry:
    (directory / cell).mkdir(parents=True)
    (directory / cell / "result.json").write_text("{}")
    return Entry(cell, 1, 123, "done", result=sha256_of(directory / cell / "result.json"))


def test_what_was_appended_is_read_back_and_the_last_line_of_a_cell_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(Entry("01_a/seed-123", 1, 123, "started"))
    ledger.append(Entry("02_b/seed-123", 2, 123, "failed", reason="odd \ud800 text\nin two lines"))
    ledger.append(done(tmp_path, "01_a/seed-123"))
    again = Ledger(tmp_path)
    assert again.entries == ledger.entries
    assert again.notices == []
    assert list(again.entries) == ["02_b/seed-123", "01_a/seed-123"]  # the latest last
    assert again.entries["01_a/seed-123"].status == "done"
    assert again.entries["02_b/seed-123"].reason == "odd \ud800 text\nin two lines"


@pytest.mark.parametrize("cut", [1, 2, 30, 200])
def test_a_cut_last_line_makes_its_cell_unfinished_and_is_named(tmp_path: Path, cut: int) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(done(tmp_path, "01_a/seed-123"))
    ledger.append(Entry("02_b/seed-123", 2, 123, "started"))
    whole = ledger.path.read_bytes()
    ledger.append(done(tmp_path, "02_b/seed-123"))
    ledger.path.write_bytes(ledger.path.read_bytes()[:-cut])

    torn = Ledger(tmp_path)
    assert torn.is_done("01_a/seed-123")
    assert not torn.is_done("02_b/seed-123")
    assert len(torn.notices) == 1
    assert "ledger.jsonl:3:" in torn.notices[0]

    torn.append(Entry("03_c/seed-123", 3, 123, "started"))  # the torn end is gone, the rest unchanged
    assert torn.path.read_bytes().startswith(whole)
    assert Ledger(tmp_path).notices == []
    assert len(Ledger(tmp_path).entries) == 3


def test_a_damaged_line_in_the_middle_spares_the_others(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in (1, 2, 3):
        ledger.append(done(tmp_path, f"0{number}_x/seed-123"))
    lines = ledger.path.read_bytes().split(b"\n")
    lines[1] = b"\x00\xff garbage"
    ledger.path.write_bytes(b"\n".join(lines))
    damaged = Ledger(tmp_path)
    assert [damaged.is_done(f"0{number}_x/seed-123") for number in (1, 2, 3)] == [True, False, True]
    assert "ledger.jsonl:2:" in damaged.notices[0]


def test_a_cell_is_done_only_with_the_result_that_was_recorded(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(done(tmp_path, "01_a/seed-123"))
    assert ledger.is_done("01_a/seed-123")
    result = tmp_path / "01_a/seed-123/result.json"
    result.write_text("{ }")
    assert not ledger.is_done("01_a/seed-123")
    result.unlink()
    assert not ledger.is_done("01_a/seed-123")
    assert not ledger.is_done("02_b/seed-123")


def test_a_ledger_that_cannot_be_written_is_the_environments_fault(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.path.mkdir()
    with pytest.raises(EnvironmentFault, match=r"ledger\.jsonl: cannot be written"):
        ledger.append(Entry("01_a/seed-123", 1, 123, "started"))
    with pytest.raises(EnvironmentFault, match=r"ledger\.jsonl: cannot be read"):
        Ledger(tmp_path)


@pytest.mark.parametrize("said", [{}, {"format": 1}], ids=["none", "1"])
def test_a_ledger_of_another_format_is_refused_by_name(tmp_path: Path, said: dict[str, int]) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(Entry("01_a/seed-123", 1, 123, "started"))
    entry = json.loads(ledger.path.read_text())
    del entry["format"]
    ledger.path.write_text(ledger.path.read_text() + json.dumps({**entry, **said}) + "\n")
    expected = r"ledger.jsonl:2: was written in .*format.*, and this ftkit reads format 2; fix: use a new output folder"
    with pytest.raises(InputError, match=expected):
        Ledger(tmp_path)
