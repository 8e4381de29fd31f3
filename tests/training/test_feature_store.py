"""Entries are whole or not there, whoever computes, dies or fills the disk meanwhile."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ftkit.errors import InputError
from ftkit.storage import key_of
from ftkit.training.feature_file import Features
from ftkit.training.feature_store import FeatureStore, pinned_for
from memory_held import Held
from mutations import mutations

LENGTHS = [3, 1, 2, 3, 2]
MADE_OF = {"weights": "5f", "depth": 2}


def vectors(examples: list[int]) -> Tensor:
    """(B, 3, 4), different for every example, position and element."""
    base = torch.arange(12.0).reshape(1, 3, 4)
    return base + 100 * torch.tensor(examples, dtype=torch.float32)[:, None, None]


def build(store: FeatureStore, made_of: dict[str, Any] = MADE_OF, compute: Any = vectors) -> Features | None:
    return store.build(made_of, LENGTHS, batch_size=2, compute=compute)


def entries(path: Path) -> list[Path]:
    """What is there of entries, whole or half built."""
    return [entry for entry in path.iterdir() if entry.suffix != ".lock"]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path)


def test_rows_come_back_padded_with_zeros(store: FeatureStore) -> None:
    build(store)
    features = store.find(MADE_OF)
    assert features is not None
    assert len(features) == 5
    got = features.read([4, 1, 0])
    wanted = vectors([4, 1, 0])
    wanted[0, 2:], wanted[1, 1:] = 0, 0
    torch.testing.assert_close(got, wanted, atol=0, rtol=0)
    torch.testing.assert_close(features.read([3, 2], [1, 2])[1], vectors([2])[0, :2], atol=0, rtol=0)
    got.add_(1)  # a copy: the file stays
    torch.testing.assert_close(features.read([3]), vectors([3]), atol=0, rtol=0)


def test_batches_are_of_similar_length_and_streamed(store: FeatureStore) -> None:
    asked: list[list[int]] = []
    build(store, compute=lambda examples: asked.append(examples) or vectors(examples))
    assert asked == [[1, 2], [4, 0], [3]]


def test_however_many_examples_few_batches_are_in_memory(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = torch.frombuffer

    def held(examples: int) -> tuple[Held, Held]:
        built, read = Held(), Held()
        features = store.build({"of": examples}, [3] * examples, 2, lambda numbers: built.watch(vectors(numbers)))
        assert features is not None
        with monkeypatch.context() as patch:
            patch.setattr(torch, "frombuffer", lambda *given, **options: read.watch(mapped(*given, **options)))
            for start in range(0, examples, 2):
                features.read([start, start + 1])
        return built, read

    for examples in (8, 80):
        built, read = held(examples)
        assert built.given == read.given == examples / 2
        assert (built.most, read.most) == (2, 1)  # while a batch is computed, the one before it is still at hand
        assert built.now == read.now == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_type_is_kept_bit_by_bit(store: FeatureStore, dtype: torch.dtype) -> None:
    build(store, compute=lambda examples: (vectors(examples) / 3).to(dtype))
    got = store.find(MADE_OF)
    assert got is not None
    assert torch.equal(got.read([0, 3]), (vectors([0, 3]) / 3).to(dtype))


def test_only_what_goes_to_a_gpu_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor, pinned = torch.zeros(1), torch.zeros(1)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: pinned)
    assert pinned_for(tensor, torch.device("cpu")) is tensor
    assert pinned_for(tensor, torch.device("cuda", 1)) is pinned


def test_the_key_is_every_value(store: FeatureStore) -> None:
    build(store)
    assert key_of({"depth": 2, "weights": "5f"}) == key_of(MADE_OF)
    for other in ({**MADE_OF, "depth": 3}, {**MADE_OF, "mask": None}, {"weights": "5f"}, {**MADE_OF, "depth": "2"}):
        assert store.find(other) is None


@pytest.mark.parametrize("damage", ["cut", "longer", "flipped", "empty"])
def test_a_damaged_entry_is_never_used(store: FeatureStore, damage: str) -> None:
    build(store)
    (file,) = entries(store.folder)
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-1])
    elif damage == "longer":
        file.write_bytes(content + b"\0")
    elif damage == "flipped":
        file.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    else:
        file.write_bytes(b"")
    with pytest.warns(UserWarning, match="computed again"):
        assert store.find(MADE_OF) is None
    with pytest.warns(UserWarning, match="computed again"):
        mended = build(store)
    assert mended is not None
    torch.testing.assert_close(mended.read([0]), vectors([0]), atol=0, rtol=0)


def test_an_entry_is_a_safetensors_file(store: FeatureStore) -> None:
    build(store)
    tensors = load_file(entries(store.folder)[0])
    assert tensors["lengths"].tolist() == LENGTHS
    assert torch.equal(tensors["rows"][:3], torch.cat([vectors([1])[0, :1], vectors([2])[0, :2]]))


def test_an_entry_that_is_deleted_meanwhile_is_still_read(store: FeatureStore) -> None:
    features = build(store)
    assert features is not None
    entries(store.folder)[0].unlink()
    assert torch.equal(features.read([0, 1, 2, 3, 4]), expected())


def damages(content: bytes) -> Iterator[bytes]:
    """Each byte with another value, each cut, and damage of many bytes."""
    for place in range(len(content)):
        for flip in (1, 2, 128):
            yield content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :]
        yield content[:place]
    yield from (damaged for _, damaged in mutations(content, 200))


def test_whatever_damage_a_file_has_no_other_numbers_are_read(store: FeatureStore) -> None:
    build(store)
    (file,) = entries(store.folder)
    for damaged in damages(file.read_bytes()):
        file.write_bytes(damaged)
        with pytest.warns(UserWarning, match="computed again"):
            assert store.find(MADE_OF) is None


def expected() -> Tensor:
    wanted = vectors(list(range(5)))
    for example, length in enumerate(LENGTHS):
        wanted[example, length:] = 0
    return wanted


EDITS: dict[str, tuple[bytes, bytes]] = {
    "two lengths swapped": (b"\3" + bytes(7) + b"\1", b"\1" + bytes(7) + b"\3"),
    "type": (b'"F32"', b'"I32"'),
    "shape": (b"[11, 4]", b"[22, 2]"),
    "what made it": (b"5f", b"60"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_entry_that_was_edited_is_not_used(store: FeatureStore, edit: str) -> None:
    build(store)
    (file,) = entries(store.folder)
    before, after = EDITS[edit]
    assert before in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(before, after, 1))
    with pytest.warns(UserWarning, match="it is not what was written; it is computed again"):
        assert store.find(MADE_OF) is None
    with pytest.warns(UserWarning, match="computed again"):
        mended = build(store)
    assert mended is not None
    assert torch.equal(mended.read([0, 1, 2, 3, 4]), expected())


def test_an_entry_under_the_name_of_another_is_not_used(store: FeatureStore) -> None:
    build(store)
    build(store, {"weights": "60", "depth": 2}, lambda examples: vectors(examples) + 1)
    one, other = entries(store.folder)
    one.rename(store.folder / "aside")
    other.rename(one)
    with pytest.warns(UserWarning, match="is another entry; it is computed again"):
        assert store.find(MADE_OF if one.stem == key_of(MADE_OF) else {"weights": "60", "depth": 2}) is None


def size_of_one(folder: Path) -> int:
    build(FeatureStore(folder / "other"))
    size = entries(folder / "other")[0].stat().st_size
    shutil.rmtree(folder / "other")
    return size


def test_over_the_bound_nothing_is_kept(tmp_path: Path) -> None:
    one = size_of_one(tmp_path)
    store = FeatureStore(tmp_path, max_gb=1.5 * one / 1e9)
    assert build(store) is not None
    with pytest.warns(UserWarning, match=rf"{one / 1e9:.3g} GB.*FTKIT_FEATURES_GB"):
        assert build(store, {"weights": "6f", "depth": 2}) is None
    assert len(entries(tmp_path)) == 1
    assert build(FeatureStore(tmp_path, max_gb=2.5 * one / 1e9), {"weights": "other"}) is not None


def test_a_bound_that_is_no_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("20 GB", "nan", "-1"):
        monkeypatch.setenv("FTKIT_FEATURES_GB", given)
        with pytest.raises(InputError, match=f"FTKIT_FEATURES_GB: must be a number.*{given}"):
            FeatureStore(tmp_path)


def test_room_is_what_the_bound_or_the_disk_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = size_of_one(tmp_path)
    store = FeatureStore(tmp_path, max_gb=1000 / 1e9)
    build(store)
    assert store.check_room(24) == 1000 - one
    (tmp_path / "removed meanwhile").symlink_to(tmp_path / "nowhere")
    assert store.check_room(24) == 1000 - one
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000, 700, 300))
    assert store.check_room(24) == 150


def test_half_of_a_nearly_full_disk_stays_free(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000, 700, 300))
    with pytest.warns(UserWarning, match="the disk has"):
        assert build(store) is None
    assert entries(store.folder) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="computed again in every step"):
        assert build(FeatureStore(tmp_path / "file" / "features")) is None


def test_an_error_of_the_computation_leaves_nothing(store: FeatureStore) -> None:
    def fails(examples: list[int]) -> Tensor:
        if 0 in examples:
            raise ZeroDivisionError
        return vectors(examples)

    with pytest.raises(ZeroDivisionError):
        build(store, compute=fails)
    assert entries(store.folder) == []


SCRIPT = """
import sys, time
from pathlib import Path
import torch
from ftkit.training.feature_store import FeatureStore

def compute(examples):
    print("computing", flush=True)
    time.sleep(float(sys.argv[2]))
    return torch.full((len(examples), 1, 4), 7.0)

features = FeatureStore(Path(sys.argv[1])).build({"from": "script"}, [1] * 8, 2, compute)
print(features.read([0]).sum().item(), flush=True)
"""


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", SCRIPT, str(folder), str(seconds)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_of_two_processes_one_computes(tmp_path: Path) -> None:
    processes = [start(tmp_path, seconds=0.5) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    assert sorted(map(len, said)) == [1, 5]  # one of them computed four batches
    assert [words[-1] for words in said] == ["28.0", "28.0"]


def test_a_killed_process_leaves_no_entry_and_its_rest_is_removed(tmp_path: Path) -> None:
    process = start(tmp_path, seconds=60)
    assert process.stdout is not None
    assert process.stdout.readline() == "computing\n"
    (partial,) = entries(tmp_path)
    assert partial.name.endswith(".partial")
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    store = FeatureStore(tmp_path)
    assert store.find({"from": "script"}) is None
    build(store)  # another entry: it clears up all the same
    assert [path.stem for path in entries(tmp_path)] == [key_of(MADE_OF)]


def test_what_another_process_is_building_is_left_alone(tmp_path: Path) -> None:
    process = start(tmp_path, seconds=1)
    assert process.stdout is not None
    assert process.stdout.readline() == "computing\n"
    build(FeatureStore(tmp_path))
    time.sleep(0.1)
    assert process.communicate(timeout=120)[0].split()[-1] == "28.0"
    assert len(entries(tmp_path)) == 2
