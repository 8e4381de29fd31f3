"""The disk is full at each write in turn: the file is named, the former one is whole, and nothing half is left."""

import builtins
import errno
import hashlib
import io
import json
import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from jsonargparse import ArgumentParser

import ftkit
from fake_engine import FakeEngine, make_folder
from ftkit.ablation.description import write_description
from ftkit.ablation.external import add_external_run
from ftkit.ablation.folder import AblationFolder, Run
from ftkit.ablation.ledger import Entry, Ledger
from ftkit.ablation.peft_experiments import import_experiments
from ftkit.ablation.planned import write_plan
from ftkit.ablation.runner import SweepRunner
from ftkit.ablation.sweep import read_sweep
from ftkit.classifier import download
from ftkit.cli import main
from ftkit.commands import audit, evaluate
from ftkit.commands.images import write_manifest
from ftkit.commands.init import init
from ftkit.errors import EnvironmentFault
from ftkit.lock import exclusive
from ftkit.models import file_hash
from ftkit.models.base_files import write_fingerprint
from ftkit.report import ablation_report, document, wandb_report
from ftkit.results.forgetting import write_losses
from ftkit.results.predictions import write_predictions
from ftkit.results.threshold import Threshold
from ftkit.run_config import RunConfig
from ftkit.training.checkpoint import AtomicCheckpointIO, read_checkpoint
from ftkit.training.curves_logger import CurvesLogger
from ftkit.training.export import export_trained
from ftkit.training.feature_store import FeatureStore
from ftkit.training.recorder import record_unfinished
from ftkit.vlm.preparing import Settings, prepare_one


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


def _result(folder: Path, version: int) -> None:
    trainer = SimpleNamespace(is_global_zero=True, default_root_dir=folder, current_epoch=0, global_step=version)
    record_unfinished(trainer, "interrupted", "SIGTERM")  # type: ignore[arg-type]


def _config(folder: Path, version: int) -> None:
    parser = ArgumentParser()
    parser.add_argument("--trainer.default_root_dir", default="runs/a")
    parser.add_argument("--seed_everything", default=version)
    trainer: Any = SimpleNamespace(default_root_dir=folder)
    RunConfig(parser, parser.parse_args([])).save_config(trainer, None, "fit")  # type: ignore[arg-type]


def _download(folder: Path, version: int) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(download.MEMBER, "ham\tOk\n" * 999)
    send = lambda url, file, _: file.write(archive.getvalue())  # noqa: E731
    wanted = hashlib.sha256(b"ham\tOk\n" * 999).hexdigest()
    with patch.object(download, "HTTPDownloader", lambda **_: send), patch.object(download, "MEMBER_SHA256", wanted):
        download.fetch_sms_spam(folder)


def _audit(folder: Path, version: int) -> None:
    train = [{"text": "Call me now", "label": "ham"}, {"text": "See you", "label": "ham"}][:version]
    audit.audit_command([], html=folder / "a.html", examples=folder / "a.tsv", train=train)


def _evaluation(folder: Path, version: int) -> None:
    for name in ("before", "after"):
        if not (file := folder.parents[1] / f"{name}-{version}.tsv").exists():
            answers = ["ham", "spam", "ham"] if name == "after" else ["spam"] * 3
            write_predictions(file, [f"{version}-{row}" for row in range(3)], ["ham", "spam", "ham"], answers)
    files = [folder.parents[1] / f"{name}-{version}.tsv" for name in ("after", "before")]
    pages = {"html": folder / "a.html", "changes": folder / "a.tsv"}
    evaluate.evaluate_command(files[:1], against=files[1], positive="spam", **pages)


def _figure(folder: Path, version: int) -> None:
    with patch.object(document, "image", lambda *_: bytes(version)):
        document.Figure("a", "A", None).save(folder / "a.svg")  # type: ignore[arg-type]


def _image(folder: Path, version: int) -> None:
    source = folder.parent / "pictures"
    if not source.exists():
        source.mkdir()
        pytest.importorskip("PIL.Image").new("RGB", (4, 3)).save(source / "a.png")
    prepare_one("a.png", Settings(source, folder, 8 * version, (255, 255, 255)))


def _logged(folder: Path, version: int) -> None:
    with patch.object(wandb_report, "report_id", lambda _: str(version)), patch.object(wandb_report, "_log", _nowhere):
        wandb_report.log_report(None, folder, folder)  # type: ignore[arg-type]


def _nowhere(*_: object) -> dict[str, str]:
    return {"where": "nowhere"}


def _added(folder: Path, version: int) -> None:
    """The second one has as many right answers as the first, so that only the ledger tells them apart."""
    if not (folder / "ablation.json").exists():
        _description(folder, 1)
    given = folder.parents[1] / f"given-{version}.tsv"
    if not given.exists():
        answers = ["ham", "spam", "ham"][version - 1 :] + ["ham", "spam", "ham"][: version - 1]
        write_predictions(given, ["a", "b", "c"], ["ham"] * 3, answers)
    try:
        add_external_run(folder, "20_added", given)
    finally:
        assert_one_version(folder)


def assert_one_version(folder: Path) -> None:
    """Result and predictions of the row that was added are of one file, and the run counts or is not there."""
    run = folder / "20_added" / "seed-123"
    assert len([*run.parent.glob("*seed-123*")]) == 1  # which has another name if it could not be given its own back
    if run.exists():
        source = json.loads((run / "result.json").read_text())["data"]["source"]
        assert (run / "predictions-test.tsv").read_bytes() == (folder.parents[1] / source).read_bytes()
    states = [state for row in read_sweep(folder).rows if row.number == 20 for state in row.runs]
    if [state.status for state in states] == ["unfinished"]:  # the ledger knows the new one, whose folder is not there
        assert (folder / "ledger.jsonl").read_text().count("done") == 2
    else:
        assert [state.status for state in states] == ["done"] * run.exists()


def _setting(folder: Path, version: int) -> None:
    sweep = _sweep(folder, version)
    runner = SweepRunner(sweep, FakeEngine(), None, folder, [], lambda event: None)  # type: ignore[arg-type]
    runner.plan([Run(sweep.rows[0], 1, (("lr", version),))])


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
    "result": _result,
    "config": _config,
    "download": _download,
    "audit": _audit,
    "evaluation": _evaluation,
    "figure": _figure,
    "prepared image": _image,
    "W&B's marker": _logged,
    "setting": _setting,
    "added run": _added,
    "fingerprint": lambda folder, version: write_fingerprint({"a": str(version)}, folder),
}
ANEW = ("init", "import", "download")  # write what must not be there
# What is not compared: the end may be half a line, which the next one removes; weights come before what says of them.
# Of a run that is added the line of the ledger is written before its folder has its name.
SPARED = ("ledger", "curves", "export", "added run")


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
