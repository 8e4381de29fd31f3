"""Whatever ftkit writes to a disk, each once in a version of its own."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from jsonargparse import ArgumentParser

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
from ftkit.commands import audit, evaluate
from ftkit.commands.images import write_manifest
from ftkit.commands.init import init
from ftkit.lock import exclusive
from ftkit.models.base_files import write_fingerprint
from ftkit.report import ablation_report, document, wandb_report
from ftkit.results.forgetting import write_losses
from ftkit.results.predictions import write_predictions
from ftkit.results.threshold import Threshold
from ftkit.run_config import RunConfig
from ftkit.training.checkpoint import AtomicCheckpointIO
from ftkit.training.curves_logger import CurvesLogger
from ftkit.training.export import export_trained
from ftkit.training.recorder import record_unfinished
from ftkit.vlm.preparing import Settings, prepare_one


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
    trainer: Any = SimpleNamespace(default_root_dir=folder, loggers=[])
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
