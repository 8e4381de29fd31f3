"""The disk is full at each write in turn: the file is named, the former one is whole, and nothing half is left."""

import hashlib
import io
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from disk_writers import ANEW, SPARED, WRITERS
from small_disk import SmallDisk

import ftkit
from ftkit.cli import main
from ftkit.commands import audit, evaluate
from ftkit.errors import EnvironmentFault
from ftkit.models import file_hash
from ftkit.report import ablation_report
from ftkit.training.checkpoint import read_checkpoint
from ftkit.training.feature_store import FeatureStore


def contents(folder: Path) -> dict[str, bytes]:
    held = (".lock", ".running")
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name not in held}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_is_full_at_any_write(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation_report, "to_markdown", str)
    monkeypatch.setattr(ablation_report, "to_html", str)
    monkeypatch.setattr(ablation_report, "table", lambda *_: "variant\n")
    for page in (audit, evaluate):
        monkeypatch.setattr(page, "to_html", lambda document: str(document)[:9999])
    write = WRITERS[kind]
    whole = tmp_path / "whole" / "out"
    whole.mkdir(parents=True)
    first = {} if kind in ANEW else (write(whole, 1), contents(whole))[1]
    disk = SmallDisk(whole, float("inf"))
    with disk.mounted():
        write(whole, 2)
    second = contents(whole)
    assert disk.writes >= 1
    refused = 0
    for room in range(disk.writes):
        out = tmp_path / f"{room}" / "out"
        out.mkdir(parents=True)
        if kind not in ANEW:
            write(out, 1)
        with SmallDisk(out, room).mounted(), suppress(_Refused), _named(out):
            write(out, 2)
        left = contents(out)
        assert kind == "added run" or not [name for name in left if "partial" in name]
        if kind in ANEW:
            assert left in ({}, second)
            assert left or not [place for place in out.iterdir() if place.name != "sms"]
        for name, content in left.items():
            assert kind in SPARED or name.endswith(".sha256") or content in (first.get(name), second.get(name)), name
        for file in out.glob("*.ckpt"):
            read_checkpoint(file)  # whose checksum is beside it
        refused += 1
        write(out, 2)  # there is room again
        assert contents(out).keys() == second.keys()
    assert refused == disk.writes


@pytest.mark.filterwarnings("always::UserWarning")
def test_a_cache_on_a_full_disk_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hash, "_LARGE", 0)
    (large := tmp_path / "large").write_bytes(b"large")
    made_of, ones = {"weights": "5f3a"}, lambda examples: torch.ones(len(examples), 2, 2)

    def use() -> None:
        built = FeatureStore().build(made_of, [1, 2], 1, ones)
        assert built is None or built.read([0, 1]).sum() == 6
        assert file_hash.file_sha256(large) == hashlib.sha256(b"large").hexdigest()

    for room in range(30):
        disk = SmallDisk(tmp_path / "cache", room)
        with disk.mounted(), warnings.catch_warnings(record=True) as told:
            use()
        assert bool(told) == (disk.writes > room)
        assert all("full" in str(one.message) or "No space left" in str(one.message) for one in told)
        assert not [file for file in (tmp_path / "cache").rglob("*") if "partial" in file.name]
        if not told:
            break
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert 10 < room < 29


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")
@pytest.mark.parametrize("room", [1, 1 << 20])  # what is printed is written at once, or at the end
def test_what_is_printed_does_not_fit(room: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with io.TextIOWrapper(io.BufferedWriter(io.FileIO("/dev/full", "w"), room)) as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["completion", "bash"]) == 3
        full.flush()  # as Python does when it ends: what is left has no place to go, and that is no news
    said = capsys.readouterr().err
    assert said.startswith("error: the output, or a temporary file: the disk is full; fix: ")
    assert said.count("\n") == 1


# Ways to write a file, and the files of the package that use one: each is tried here, or in the test that is named.
WAYS = re.compile(
    r"\b(atomic_write|new_folder|disk_faults)\(|\.write_(text|bytes)\(|\b(torch|np|picture|figure)\.save\("
    r"|\bopen\([^)]*[\"'](w|a|x|ab|wb)[\"']|\.save_pretrained\(|\.to_(csv|parquet)\("
)
PUSHED = "tests/faults/test_full_disk.py::test_a_push"
TRIED = {
    "ablation/description.py": "description of a sweep",
    "ablation/external.py": "added run",
    "ablation/ledger.py": "ledger",
    "ablation/peft_experiments.py": "import",
    "ablation/planned.py": "plan",
    "ablation/runner.py": "setting",
    "baselines/estimator_state.py": "into memory",
    "classifier/download.py": "download",
    "commands/audit.py": "audit",
    "commands/evaluate.py": "evaluation",
    "commands/exports.py": PUSHED,
    "commands/images.py": "manifest of images",
    "commands/init.py": "init",
    "commands/push.py": PUSHED,
    "examples/image_files.py": "into memory",
    "folder_choice.py": "tests/lightning_cli/test_run_folder.py",
    "lock.py": "lock",
    "models/base_files.py": "fingerprint",
    "models/file_hash.py": "test_a_cache_on_a_full_disk_is_done_without",
    "report/ablation_report.py": "report",
    "report/document.py": "figure",
    "report/thumbnails.py": "into memory",
    "report/wandb_report.py": "W&B's marker",
    "results/forgetting.py": "forgetting",
    "results/known_examples.py": "audit",
    "results/predictions.py": "predictions",
    "results/threshold.py": "threshold",
    "run_config.py": "config",
    "storage.py": "tests/test_storage.py",
    "training/checkpoint.py": "checkpoint",
    "training/curves_logger.py": "curves",
    "training/export.py": "export",
    "training/feature_file.py": "test_a_cache_on_a_full_disk_is_done_without",
    "training/generative.py": PUSHED,
    "training/peak_memory.py": "a file of the kernel",
    "training/recorder.py": "result",
    "vlm/preparing.py": "prepared image",
}


def test_every_file_that_writes_is_tried() -> None:
    src = Path(ftkit.__file__).parent
    lines = {file: re.sub(r"(?m)^ *(>>>|\.\.\.) .*", "", file.read_text()) for file in src.rglob("*.py")}
    assert {str(file.relative_to(src)) for file, text in lines.items() if WAYS.search(text)} == TRIED.keys()
    assert WRITERS.keys() - set(TRIED.values()) == set()


class _Refused(Exception):
    """As it should be."""


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Check that what is raised is the environment's fault, and names a file in a folder."""
    try:
        yield
    except EnvironmentFault as error:
        if error.exit_code != 3 or str(folder) not in str(error) or "full" not in str(error):
            raise AssertionError(f"exit code {error.exit_code}: {error}") from error
        raise _Refused from error
    raise AssertionError("it was written on a full disk")
