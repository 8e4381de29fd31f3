import csv
import json
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import wandb
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger

from ftkit import wandb_settings
from ftkit.lightning_engine import LightningEngine
from ftkit.training.wandb_run import WandbRun
from ftkit.wandb_settings import mode

WANDB = Path(sys.executable).parent / "wandb"
OVERLAY = Path(__file__).parents[2] / "configs/trackers/wandb.yaml"


@pytest.fixture(autouse=True)
def without_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def inspect(folder: Path, *options: str) -> str:
    """An offline run, read from its own file by wandb."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    command = [WANDB, "leet", "inspect", "--json", *options, run]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in inspect(folder).splitlines()]


class Learner(BoringModel):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        found = super().training_step(batch, batch_idx)
        self.log("train/loss", found["loss"])
        return found


def fit(folder: Path, *callbacks: L.Callback) -> tuple[str, torch.Tensor]:
    """Train for three steps; the local curves and the weights."""
    torch.manual_seed(1)
    model = Learner()
    trainer = L.Trainer(
        default_root_dir=folder,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=list(callbacks),
        max_steps=3,
        limit_val_batches=0,
        log_every_n_steps=1,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model)
    return (folder / "metrics.csv").read_text(), model.layer.weight.detach()


def warned(caught: pytest.WarningsRecorder) -> list[str]:
    return [text for warning in caught if "Weights & Biases" in (text := str(warning.message))]


def test_an_offline_run_holds_config_curves_figures_and_predictions(tiny_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study" / "01_base" / "seed-123"
    LightningEngine(lambda step, steps: None).run([tiny_config, OVERLAY], 123, folder)

    records = records_of(folder)
    (run,) = (record["run"] for record in records if record["type"] == "run")
    assert (run["project"], run["run_group"], run["display_name"]) == ("ftkit", "study", "01_base/seed-123")
    assert run["job_type"] == "01_base"  # the variant, by which a report groups
    configs = [update for record in records if "model" in (update := record.get("config", {}).get("update", {}))]
    assert len(configs) == 1  # once
    assert configs[0]["model"]["init_args"]["trainable"] == "last_block"
    assert configs[0]["data"]["init_args"]["batch_size"] == 8

    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    with (folder / "metrics.csv").open() as file:  # written all the same
        local = list(csv.DictReader(file))
    for name in ("train/loss", "val/accuracy"):
        ours = [(int(line["step"]), float(line[name])) for line in local if line[name]]
        assert len(ours) >= 2
        assert [(line["trainer/global_step"], line[name]) for line in history if name in line] == ours

    (table,) = folder.glob("wandb/offline-run-*/files/media/table/predictions/test_*.json")
    lines = (folder / "predictions-test.tsv").read_text().splitlines()
    found = json.loads(table.read_text())
    assert found["columns"] == ["id", "label", "prediction", "probability:spam"] == lines[0].split("\t")
    assert [[*row[:3], str(row[3])] for row in found["data"]] == [line.split("\t") for line in lines[1:]]

    summary = json.loads(inspect(folder, "--summary"))["summary"]
    result = json.loads((folder / "result.json").read_text())
    assert summary["final/test/accuracy"] == result["splits"]["test"]["accuracy"]
    assert (folder / "checkpoints/last.ckpt").exists()  # where it is without W&B
    assert wandb.run is None  # ended: the next cell starts its own


@pytest.mark.parametrize("when", ["missing", "at the start", "in the middle", "at the end"])
def test_a_failure_is_one_warning_and_changes_nothing(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    warnings.simplefilter("always")  # else a repeated one would not show
    plain = fit(tmp_path / "plain")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("the server is on fire")

    if when == "missing":
        monkeypatch.setitem(sys.modules, "wandb", None)
    elif when == "at the start":
        monkeypatch.setattr(wandb, "init", fail)
    else:
        monkeypatch.setattr(wandb, "init", lambda **init: Broken(fails_at=2 if when == "in the middle" else 100))
    callback = WandbRun()
    logged = fit(tmp_path / "logged", callback)
    assert logged[0] == plain[0]
    assert torch.equal(logged[1], plain[1])
    if when == "at the end":
        assert warned(recwarn) == []
        callback.teardown(L.Trainer(logger=False, accelerator="cpu"), Learner(), "test")
    (warning,) = warned(recwarn)
    assert str(tmp_path / "logged") in warning


class Broken:
    """A run of wandb that fails from one call of ``log`` on, and cannot be finished."""

    def __init__(self, fails_at: int) -> None:
        self.left = fails_at

    def define_metric(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log(self, metrics: dict[str, Any]) -> None:
        self.left -= 1
        if self.left < 1:
            raise ConnectionError("the server is on fire")

    def finish(self, exit_code: int) -> None:
        raise ConnectionError("the server is on fire")

    class summary:  # noqa: N801
        update = staticmethod(lambda figures: None)


def test_a_server_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    plain = fit(tmp_path / "plain")
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and says nothing
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        short = {"init_timeout": 1, "login_timeout": 1, "finish_timeout": 1}
        monkeypatch.setattr(wandb_settings, "TIMEOUTS", short)
        start = time.monotonic()
        assert fit(tmp_path / "logged", WandbRun())[0] == plain[0]
        assert time.monotonic() - start < 60
    assert len(warned(recwarn)) == 1


def test_a_run_that_raises_is_ended_so_that_the_next_starts_its_own(tmp_path: Path) -> None:
    class Stumbling(L.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise ValueError("stumbled")

    with pytest.raises(ValueError, match="stumbled"):
        fit(tmp_path, WandbRun(), Stumbling())
    assert wandb.run is None
    assert next(record["exit"]["exit_code"] for record in records_of(tmp_path) if record["type"] == "exit") == 1


def test_it_is_online_only_with_a_key_or_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (mode(), mode(offline=False)) == ("offline", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert (mode(), mode(offline=True)) == ("online", "offline")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert mode() == "disabled"


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_run_that_is_not_online_leaves_no_telemetry_that_would_call_home(mode: str, tmp_path: Path) -> None:
    script = f"""
from ftkit.wandb_settings import start_run
start_run({mode!r}, dir={str(tmp_path)!r}).finish()
from wandb.analytics.opentelemetry.opentelemetry_proxy import get_open_telemetry_proxy
print(get_open_telemetry_proxy())
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "None\n"
