"""Rows come back bit by bit, whoever appends, dies or damages the file meanwhile."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from ftkit.training.feature_store import FeatureStore
from ftkit.training.tensor_table import KEY_BYTES, TensorTable
from mutations import mutations

MADE_OF = {"weights": "5f"}
RECORD = KEY_BYTES + 2 * 3 * 4 + 4


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def rows(*numbers: int) -> torch.Tensor:
    """(N, 2, 3), different for every number and element."""
    return torch.arange(6.0).reshape(2, 3) / 7 + torch.tensor(numbers, dtype=torch.float32)[:, None, None]


def table(folder: Path, **made_of: str) -> TensorTable:
    return TensorTable(MADE_OF | made_of, FeatureStore(folder))


def data(folder: Path) -> Path:
    (path,) = folder.glob("*/rows.bin")
    return path


def test_rows_come_back_in_this_process_and_the_next(tmp_path: Path) -> None:
    first, second = table(tmp_path), table(tmp_path)
    assert first.get([key(1)]) == [None]
    first.add([key(1), key(2)], rows(1, 2))
    for reader in (first, second, table(tmp_path)):
        got = reader.get([key(2), key(3), key(1), key(2)])
        assert got[1] is None
        assert torch.equal(torch.stack([got[0], got[2], got[3]]), rows(2, 1, 2))
    second.add([key(2), key(3)], rows(9, 3))  # 2 is there: it stays as it was
    assert torch.equal(torch.stack(first.get([key(3), key(2)])), rows(3, 2))
    assert data(tmp_path).stat().st_size == 3 * RECORD
    assert table(tmp_path, weights="60").get([key(1)]) == [None]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_type_is_kept_bit_by_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    table(tmp_path).add([key(1)], rows(1).to(dtype))
    assert torch.equal(table(tmp_path).get([key(1)])[0], rows(1)[0].to(dtype))


def test_one_shape_and_type(tmp_path: Path) -> None:
    kept = table(tmp_path)
    kept.add([key(1)], rows(1))
    for other in (rows(2).double(), rows(2)[:, :1]):
        with pytest.raises(ValueError, match="rows of"):
            table(tmp_path).add([key(2)], other)


def test_the_rest_of_a_record_is_cut_off(tmp_path: Path) -> None:
    table(tmp_path).add([key(1), key(2)], rows(1, 2))
    with data(tmp_path).open("r+b") as file:
        file.truncate(2 * RECORD - 5)
    kept = table(tmp_path)
    assert kept.get([key(2)]) == [None]
    kept.add([key(2), key(3)], rows(2, 3))
    assert torch.equal(torch.stack(table(tmp_path).get([key(1), key(2), key(3)])), rows(1, 2, 3))


@pytest.mark.parametrize("at", [3, KEY_BYTES + 3, RECORD - 1], ids=["key", "row", "checksum"])
def test_a_damaged_record_is_computed_again(tmp_path: Path, at: int) -> None:
    table(tmp_path).add([key(1), key(2)], rows(1, 2))
    content = bytearray(data(tmp_path).read_bytes())
    content[RECORD + at] ^= 1
    data(tmp_path).write_bytes(content)
    kept = table(tmp_path)
    if at == 3:
        assert kept.get([key(2)]) == [None]
    else:
        with pytest.warns(UserWarning, match="computed again"):
            assert kept.get([key(2)]) == [None]
    kept.add([key(2)], rows(2))
    assert torch.equal(torch.stack(table(tmp_path).get([key(1), key(2)])), rows(1, 2))


@pytest.mark.parametrize("damage", ["no data", "no description", "torn description", "other description", "no folder"])
@pytest.mark.parametrize("known", [False, True], ids=["new", "in use"])
def test_a_damaged_entry_is_begun_anew(tmp_path: Path, damage: str, known: bool) -> None:
    kept = table(tmp_path)
    kept.add([key(1), key(2)], rows(1, 2))
    if not known:
        kept = table(tmp_path)
    about = next(tmp_path.glob("*/about.json"))
    if damage == "no folder":
        shutil.rmtree(about.parent)
    elif damage == "torn description":
        about.write_text(about.read_text()[:30])
    elif damage == "other description":
        about.write_text('{"row": {"shape": 3}}')
    else:
        (data(tmp_path) if damage == "no data" else about).unlink()
    silent = not known and damage in ("no folder", "no description")  # then there is no entry
    with warnings.catch_warnings() if silent else pytest.warns(UserWarning, match="computed again"):
        if silent:
            warnings.simplefilter("error")
        assert kept.get([key(2)]) == [None]
    kept.add([key(2)], rows(2))
    for reader in (kept, table(tmp_path)):
        (row, nothing) = reader.get([key(2), key(1)])
        assert torch.equal(row, rows(2)[0])
        assert nothing is None


@pytest.mark.parametrize("name", ["about.json", "rows.bin"])
def test_whatever_damage_a_file_has_no_other_rows_are_read(tmp_path: Path, name: str) -> None:
    table(tmp_path).add([key(1), key(2)], rows(1, 2))
    file = data(tmp_path).with_name(name)
    content, refused = file.read_bytes(), 0
    flips = (content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(len(content)))
    for damaged in (*flips, *(damaged for _, damaged in mutations(content, 200))):
        file.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = table(tmp_path).get([key(1), key(2)])
        refused += None in found
        for row, wanted in zip(found, rows(1, 2), strict=True):
            assert row is None or torch.equal(row, wanted)
    assert refused > len(content)


def test_a_shape_that_was_edited_is_not_used(tmp_path: Path) -> None:
    table(tmp_path).add([key(1)], rows(1))
    about = next(tmp_path.glob("*/about.json"))
    about.write_text(about.read_text().replace("[2, 3]", "[3, 2]"))
    with pytest.warns(UserWarning, match="the checksum of about.json does not match; its rows are computed again"):
        assert table(tmp_path).get([key(1)]) == [None]


def test_rows_of_another_entry_are_not_used(tmp_path: Path) -> None:
    table(tmp_path / "one").add([key(1)], rows(1))
    table(tmp_path / "other", weights="60").add([key(1)], rows(2))
    shutil.copy(data(tmp_path / "other"), data(tmp_path / "one"))
    with pytest.warns(UserWarning, match="not what was written"):
        assert table(tmp_path / "one").get([key(1)]) == [None]


def test_an_entry_that_others_began_anew_is_read_as_it_is_now(tmp_path: Path) -> None:
    reader = table(tmp_path)
    reader.add([key(1), key(2), key(3)], rows(1, 2, 3))
    shutil.rmtree(data(tmp_path).parent)
    table(tmp_path).add([key(3), key(4)], rows(3, 4))
    (nothing, *found) = reader.get([key(1), key(3), key(4)])
    assert nothing is None
    assert torch.equal(torch.stack(found), rows(3, 4))
    reader.add([key(1)], rows(1))
    assert data(tmp_path).stat().st_size == 3 * RECORD
    data(tmp_path).write_bytes(data(tmp_path).read_bytes()[:RECORD])
    reader.add([key(5)], rows(5))
    assert data(tmp_path).stat().st_size == 2 * RECORD
    assert torch.equal(torch.stack(table(tmp_path).get([key(3), key(5)])), rows(3, 5))


def test_the_room_is_seldom_looked_at_and_filled_to_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    check_room = FeatureStore.check_room
    monkeypatch.setattr(
        FeatureStore, "check_room", lambda self, needed: looks.append(needed) or check_room(self, needed)
    )
    kept = TensorTable(MADE_OF, FeatureStore(tmp_path, max_gb=200.5 * RECORD / 1e9))
    for number in range(200):
        kept.add([key(number)], rows(number))
    assert len(looks) < 50
    with pytest.warns(UserWarning, match="FTKIT_FEATURES_GB"):
        kept.add([key(-1)], rows(-1))
    assert data(tmp_path).stat().st_size == 200 * RECORD


def test_over_the_bound_what_is_kept_stays_readable(tmp_path: Path) -> None:
    kept = TensorTable(MADE_OF, FeatureStore(tmp_path, max_gb=2.5 * RECORD / 1e9))
    kept.add([key(1), key(2)], rows(1, 2))
    with pytest.warns(UserWarning, match="FTKIT_FEATURES_GB"):
        kept.add([key(3)], rows(3))
    kept.add([key(4)], rows(4))  # no second warning, no error
    assert torch.equal(torch.stack(kept.get([key(1), key(2)])), rows(1, 2))
    assert kept.get([key(3)]) == [None]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = table(tmp_path / "file" / "features")
    with pytest.warns(UserWarning, match="not kept"):
        kept.add([key(1)], rows(1))
    assert kept.get([key(1)]) == [None]


SCRIPT = """
import hashlib, sys
from pathlib import Path
import torch
from ftkit.training.feature_store import FeatureStore
from ftkit.training.tensor_table import TensorTable

table = TensorTable({"weights": "5f"}, FeatureStore(Path(sys.argv[1])))
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    row = torch.arange(6.0).reshape(1, 2, 3) / 7 + number
    table.add([hashlib.sha256(str(number).encode()).digest()], row)
    print(number, flush=True)
"""


def start(folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", SCRIPT, str(folder), str(first), str(last)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_two_processes_append_to_one_file_and_one_is_killed(tmp_path: Path) -> None:
    short, endless = start(tmp_path, 0, 300), start(tmp_path, 200, 10**9)
    assert endless.stdout is not None
    while int(endless.stdout.readline()) < 299:
        pass
    endless.send_signal(signal.SIGKILL)
    endless.communicate(timeout=60)
    short.communicate(timeout=60)
    kept = table(tmp_path)
    assert torch.equal(torch.stack(kept.get([key(number) for number in range(300)])), rows(*range(300)))
    kept.add([key(-1)], rows(-1))  # the killed process holds no lock
    assert data(tmp_path).stat().st_size % RECORD == 0
    assert len({data(tmp_path).read_bytes()[at : at + KEY_BYTES] for at in range(0, 300 * RECORD, RECORD)}) == 300
