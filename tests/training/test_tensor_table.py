"""Rows come back bit by bit, whoever appends, dies or damages the file meanwhile."""

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from ftkit.training.feature_store import FeatureStore
from ftkit.training.tensor_table import TensorTable
from mutations import mutations

MADE_OF = {"weights": "5f"}


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def rows(*numbers: int) -> torch.Tensor:
    """(N, 2, 3), different for every number and element."""
    return torch.arange(6.0).reshape(2, 3) / 7 + torch.tensor(numbers, dtype=torch.float32)[:, None, None]


def table(folder: Path, **made_of: str) -> TensorTable:
    return TensorTable(MADE_OF | made_of, FeatureStore(folder))


def data(folder: Path) -> Path:
    (path,) = folder.glob("*.sqlite")
    return path


def count(folder: Path) -> int:
    with closing(sqlite3.connect(data(folder))) as connection:
        return connection.execute("SELECT count(*) FROM tensors").fetchone()[0]


def bytes_of(folder: Path, number: int) -> bytes:
    with closing(sqlite3.connect(data(folder))) as connection:
        return connection.execute("SELECT value FROM tensors WHERE key = ?", (key(number),)).fetchone()[0]


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
    assert count(tmp_path) == 3
    assert table(tmp_path, weights="60").get([key(1)]) == [None]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_type_is_kept_bit_by_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    table(tmp_path).add([key(1)], rows(1).to(dtype))
    assert torch.equal(table(tmp_path).get([key(1)])[0], rows(1)[0].to(dtype))


@pytest.mark.parametrize("column", ["key", "value", "checksum"])
def test_a_damaged_tensor_is_computed_again(tmp_path: Path, column: str) -> None:
    table(tmp_path).add([key(1), key(2)], rows(1, 2))
    if column == "checksum":
        with closing(sqlite3.connect(data(tmp_path))) as connection, connection:
            connection.execute("UPDATE tensors SET checksum = checksum + 1 WHERE key = ?", (key(2),))
    else:
        content = data(tmp_path).read_bytes()
        part = key(2) if column == "key" else bytes_of(tmp_path, 2)
        changed = part[:-1] + bytes([part[-1] ^ 1])
        data(tmp_path).write_bytes(content.replace(part, changed))
    kept = table(tmp_path)
    if column == "key":
        assert kept.get([key(2)]) == [None]
    else:
        with pytest.warns(UserWarning, match="computed again") as told:
            assert kept.get([key(2)]) == [None]
        assert len(told) == 1
    kept.add([key(2)], rows(2))
    assert torch.equal(torch.stack(table(tmp_path).get([key(1), key(2)])), rows(1, 2))


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "no database", "another table"])
@pytest.mark.parametrize("known", [False, True], ids=["new", "in use"])
def test_a_damaged_entry_is_begun_anew(tmp_path: Path, damage: str, known: bool) -> None:
    kept = table(tmp_path)
    kept.add([key(1), key(2)], rows(1, 2))
    if not known:
        kept = table(tmp_path)
    file = data(tmp_path)
    content = {"empty": b"", "cut": file.read_bytes()[:5000], "no database": b"x" * 5000}.get(damage)
    file.unlink()
    if damage == "another table":
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE tensors (name TEXT)")
    elif content is not None:
        file.write_bytes(content)
    silent = damage == "empty" or (damage == "gone" and not known)  # then there is no entry
    with warnings.catch_warnings() if silent else pytest.warns(UserWarning, match="computed again") as told:
        if silent:
            warnings.simplefilter("error")
        assert kept.get([key(2)]) == [None]
    assert silent or len(told) == 1
    assert key(2) not in kept
    kept.add([key(2)], rows(2))
    assert key(2) in kept
    for reader in (kept, table(tmp_path)):
        (row, nothing) = reader.get([key(2), key(1)])
        assert torch.equal(row, rows(2)[0])
        assert nothing is None


def test_whatever_damage_a_file_has_no_other_rows_are_read(tmp_path: Path) -> None:
    table(tmp_path).add([key(1), key(2)], rows(1, 2))
    file = data(tmp_path)
    content, refused = file.read_bytes(), 0
    used = [at for at, byte in enumerate(content) if byte]  # most of a page is empty
    flips = (content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in used)
    for damaged in (*flips, *(damaged for _, damaged in mutations(content, 200))):
        file.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = table(tmp_path).get([key(1), key(2)])
        refused += None in found
        for row, wanted in zip(found, rows(1, 2), strict=True):
            assert row is None or torch.equal(row, wanted)
    assert refused > len(used) / 2


def test_rows_of_another_entry_are_not_used(tmp_path: Path) -> None:
    table(tmp_path / "one").add([key(1)], rows(1))
    table(tmp_path / "other", weights="60").add([key(1)], rows(2))
    shutil.copy(data(tmp_path / "other"), data(tmp_path / "one"))
    with pytest.warns(UserWarning, match="not what was written"):
        assert table(tmp_path / "one").get([key(1)]) == [None]


def test_an_entry_that_others_began_anew_is_read_as_it_is_now(tmp_path: Path) -> None:
    reader = table(tmp_path)
    reader.add([key(1), key(2), key(3)], rows(1, 2, 3))
    data(tmp_path).unlink()
    table(tmp_path).add([key(3), key(4)], rows(3, 4))
    (nothing, *found) = reader.get([key(1), key(3), key(4)])
    assert nothing is None
    assert torch.equal(torch.stack(found), rows(3, 4))
    reader.add([key(1)], rows(1))
    assert count(tmp_path) == 3


def test_the_room_is_seldom_looked_at_and_filled_to_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    check_room = FeatureStore.check_room
    monkeypatch.setattr(
        FeatureStore, "check_room", lambda self, needed: looks.append(needed) or check_room(self, needed)
    )
    kept = TensorTable(MADE_OF, FeatureStore(tmp_path, max_gb=200_000 / 1e9))
    with warnings.catch_warnings(record=True) as told:
        for number in range(2_000):
            kept.add([key(number)], rows(number))
    assert ["FTKIT_FEATURES_GB" in str(one.message) for one in told] == [True]
    assert len(looks) < count(tmp_path) / 4
    assert 100_000 < data(tmp_path).stat().st_size < 240_000  # pages and index come on top of what is granted


def test_over_the_bound_what_is_kept_stays_readable(tmp_path: Path) -> None:
    TensorTable(MADE_OF, FeatureStore(tmp_path)).add([key(1), key(2)], rows(1, 2))
    kept = TensorTable(MADE_OF, FeatureStore(tmp_path, max_gb=data(tmp_path).stat().st_size / 1e9))
    with pytest.warns(UserWarning, match="FTKIT_FEATURES_GB"):
        kept.add([key(3)], rows(3))
    kept.add([key(4)], rows(4))  # no second warning, no error
    assert torch.equal(torch.stack(kept.get([key(1), key(2)])), rows(1, 2))
    assert kept.get([key(3)]) == [None]


def test_a_full_disk_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, connect = table(tmp_path), sqlite3.connect
    kept.add([key(1)], rows(1))

    def limited(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 1")  # SQLite's own limit, met as a full disk is
        return connection

    monkeypatch.setattr(sqlite3, "connect", limited)
    with pytest.warns(UserWarning, match="not kept for later: database or disk is full"):
        kept.add(list(map(key, range(2, 500))), rows(*range(2, 500)))
    kept.add([key(500)], rows(500))
    assert torch.equal(torch.stack(kept.get([key(1)])), rows(1))
    assert kept.get([key(2)]) == [None]


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
    assert torch.equal(torch.stack(table(tmp_path).get([key(-1)])), rows(-1))
