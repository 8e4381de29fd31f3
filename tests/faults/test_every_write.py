"""The disk is full at each write in turn: the file is named, the former one is whole, and nothing half is left."""

import builtins
import errno
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from fake_engine import make_folder
from ftkit.ablation.description import write_description
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.ledger import Entry, Ledger
from ftkit.ablation.peft_experiments import import_experiments
from ftkit.ablation.planned import write_plan
from ftkit.commands.images import write_manifest
from ftkit.commands.init import init
from ftkit.errors import EnvironmentFault
from ftkit.lock import exclusive
from ftkit.report import ablation_report
from ftkit.results.forgetting import write_losses
from ftkit.results.predictions import write_predictions
from ftkit.results.threshold import Threshold
from ftkit.training.checkpoint import AtomicCheckpointIO, read_checkpoint
from ftkit.training.curves_logger import CurvesLogger
from ftkit.training.export import export_trained


class SmallDisk:
    """A disk below a folder that is full from the n-th write on: opening, writing, flushing to it, naming, a folder."""

    def __init__(self, folder: Path, room: float) -> None:
        self.folder, self.room, self.writes = folder, room, 0

    def take(self, path: Any) -> None:
        if isinstance(path, int) or not Path(os.fsdecode(path)).absolute().is_relative_to(self.folder):
            return
        self.writes += 1
        if self.writes > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not set(mode) & set("wax+"):
                return real(path, mode, *args, **options)
            self.take(path)
            return _Watched(self, path, real(path, mode, *args, **options))

        return call

    def before(self, real: Callable[..., Any], which: int = 0) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.take(args[which])
            return real(*args, **options)

        return call

    @contextmanager
    def mounted(self) -> Iterator[None]:
        with (
            patch.object(io, "open", self.opened(io.open)),
            patch.object(builtins, "open", self.opened(builtins.open)),
            patch.object(os, "mkdir", self.before(os.mkdir)),
            patch.object(os, "replace", self.before(os.replace, 1)),
            patch.object(os, "rename", self.before(os.rename, 1)),
        ):
            yield


class _Watched:
    """A file whose writes take room."""

    def __init__(self, disk: SmallDisk, path: Any, file: Any) -> None:
        self._disk, self._path, self._file = disk, path, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, part: Any) -> int:
        try:
            self._disk.take(self._path)
        except OSError:
            self._file.write(part[: len(part) // 2])  # there was room for a half
            raise
        return int(self._file.write(part))

    def writelines(self, parts: Any) -> None:
        for part in parts:
            self.write(part)

    def flush(self) -> None:
        self._disk.take(self._path)
        self._file.flush()


def _predictions(folder: Path, version: int) -> None:
    answers = ["ham", "spam"] if version == 1 else ["spam", "spam"]
    write_predictions(folder / "predictions.tsv", ["a", "b"], ["ham", "spam"], answers)


def _sweep(folder: Path, version: int) -> AblationFolder:
    place = folder.parent / f"ablation-{version}" / "same"
    rows: dict[str, Any] = {f"0{number}_a": {} for number in range(1, version + 1)}
    return AblationFolder.load(place if place.exists() else make_folder(place, rows))


def _threshold(folder: Path, version: int) -> None:
    Threshold(0.5 / version, "probability", "yes", "no", "accuracy", 0.9, 8, "val", "0" * 64).save(folder / "t.json")


def _checkpoint(folder: Path, version: int) -> None:
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.full((9,), version)}}, folder / "a.ckpt")


def _export(folder: Path, version: int) -> None:
    run = folder.parent / f"run-{version}" / "checkpoints" / "last.ckpt"
    if not run.exists():
        run.parent.mkdir(parents=True)
        content = {"state_dict": {"weight": torch.full((9,), float(version))}, "hyper_parameters": {}, "base": {}}
        torch.save({**content, "format": 2}, run)
    export_trained(run, folder, "ftkit.GPT2Classifier")


def _held(folder: Path, version: int) -> None:
    with exclusive(folder):
        pass


def _curves(folder: Path, version: int) -> None:
    logger = CurvesLogger(folder)
    logger.log_hyperparams({"rate": version})
    logger.log_metrics({"loss": version}, 0)
    logger.log_metrics({"loss": version, "accuracy": 1.0}, 1)


def _description(folder: Path, version: int) -> None:
    write_description(folder, _sweep(folder, version))


def _report(folder: Path, version: int) -> None:
    ablation_report.write(_Report(version), folder, png=False)  # type: ignore[arg-type]


class _Report:
    """What a report consists of, without the work to find it."""

    def __init__(self, version: int) -> None:
        self.version, self.analysis, self.changes, self.labels = version, None, [], None
        self.plots: dict[str, Any] = {}

    def document(self) -> str:
        return f"version {self.version}"


def _imported(folder: Path, version: int) -> None:
    source = folder.parent / "comparison"
    if not source.exists():
        for name in ("lora/one", "lora/two"):
            (source / "experiments" / name).mkdir(parents=True)
            content = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8}
            (source / "experiments" / name / "adapter_config.json").write_text(json.dumps(content))
    import_experiments(source, folder / "imported")


WRITERS: dict[str, Callable[[Path, int], object]] = {
    "predictions": _predictions,
    "ledger": lambda folder, version: Ledger(folder).append(Entry("01_a/seed-1", version, 1, "started")),
    "description of a sweep": _description,
    "plan": lambda folder, version: write_plan(folder, "cpu", [{"row": f"0{version}_a", "not_planned": "?"}]),
    "threshold": _threshold,
    "forgetting": lambda folder, version: write_losses(folder / "f.tsv", [1], [1.0], [version]),
    "manifest of images": lambda folder, version: write_manifest(folder / "manifest.jsonl", []),
    "curves": _curves,
    "checkpoint": _checkpoint,
    "export": _export,
    "lock": _held,
    "report": _report,
    "init": lambda folder, version: init(folder / "new"),
    "import": _imported,
}
ANEW = ("init", "import")  # write a folder that must not be there
# What is not compared: the end may be half a line, which the next one removes; weights come before what says of them.
SPARED = ("ledger", "curves", "export")


def contents(folder: Path) -> dict[str, bytes]:
    held = (".lock", ".running")
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name not in held}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_is_full_at_any_write(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation_report, "to_markdown", str)
    monkeypatch.setattr(ablation_report, "to_html", str)
    monkeypatch.setattr(ablation_report, "table", lambda *_: "variant\n")
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
        assert not [name for name in left if "partial" in name]
        if kind in ANEW:
            assert left in ({}, second)
            assert not any(out.iterdir()) or left
        for name, content in left.items():
            assert kind in SPARED or name.endswith(".sha256") or content in (first.get(name), second.get(name)), name
        for file in out.glob("*.ckpt"):
            read_checkpoint(file)  # whose checksum is beside it
        refused += 1
        write(out, 2)  # there is room again
        assert contents(out).keys() == second.keys()
    assert refused == disk.writes


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
