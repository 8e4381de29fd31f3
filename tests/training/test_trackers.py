"""The overlays of configs/trackers: each run of an ablation logs to a tracker, whose files are read back."""

import csv
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from lightning.pytorch.loggers import Logger

from ftkit.cli import main
from ftkit.lightning_engine import LightningEngine

TRACKERS = Path(__file__).parents[2] / "configs" / "trackers"
RUNS = ("01_base", "02_other")
LOGGED = ("train/loss", "val/accuracy")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output folder of an ablation, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return tmp_path / "study"


def run(config: Path, tracker: str, study: Path) -> None:
    for row in RUNS:
        LightningEngine(lambda step, steps: None).run([config, TRACKERS / tracker], 123, study / row / "seed-123")


def local(folder: Path, figure: str) -> list[tuple[int, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), float(row[figure])) for row in csv.DictReader(file) if row[figure]]


def test_tensorboard_has_the_curves_of_each_run_in_its_folder(tiny_config: Path, study: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tiny_config, "tensorboard.yaml", study)
    for row in RUNS:
        folder = study / row / "seed-123"
        found = EventAccumulator(str(folder / "tensorboard")).Reload()
        for figure in LOGGED:
            ours = local(folder, figure)
            assert len(ours) >= 2
            assert {event.step: event.value for event in found.Scalars(figure)} == pytest.approx(dict(ours))
        result = json.loads((folder / "result.json").read_text())
        (tested,) = found.Scalars("test/accuracy")
        assert tested.value == pytest.approx(result["splits"]["test"]["accuracy"])
        assert "pooling: last" in (folder / "tensorboard" / "hparams.yaml").read_text()
        assert (folder / "checkpoints" / "last.ckpt").exists()  # where it is without a tracker


def test_mlflow_has_an_experiment_with_a_run_for_each_variant(tiny_config: Path, study: Path) -> None:
    pytest.importorskip("mlflow.store.tracking.sqlalchemy_store", reason="mlflow is not installed")
    from mlflow.tracking import MlflowClient

    run(tiny_config, "mlflow.yaml", study)
    client = MlflowClient("sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("ftkit/study")
    assert experiment is not None
    found = {one.data.tags["variant"]: one for one in client.search_runs([experiment.experiment_id])}
    assert sorted(found) == list(RUNS)
    for row, one in found.items():
        folder = study / row / "seed-123"
        assert (one.info.run_name, one.info.status) == (f"{row}/seed-123", "FINISHED")
        assert one.data.tags["folder"] == str(folder)
        assert one.data.params["pooling"] == "last"
        assert one.data.params["model.optimizer.lr"] == "0.01"
        for figure in LOGGED:
            history = client.get_metric_history(one.info.run_id, figure)
            assert {at.step: at.value for at in history} == pytest.approx(dict(local(folder, figure)))
        result = json.loads((folder / "result.json").read_text())
        assert one.data.metrics["test/accuracy"] == pytest.approx(result["splits"]["test"]["accuracy"])


class Recording(Logger):
    """Keeps what it is given."""

    name, version = "recording", "0"
    given: ClassVar[dict[str, Any]] = {}

    def __init__(self, api_key: str) -> None:
        super().__init__()

    def log_hyperparams(self, params: dict[str, Any]) -> None:  # type: ignore[override]
        self.given.update(params)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep none."""


def test_a_tracker_gets_the_settings_by_their_options(tiny_config: Path, tmp_path: Path) -> None:
    logger = f"class_path: {__name__}.Recording, init_args: {{api_key: secret}}"
    (layer := tmp_path / "layer.yaml").write_text(f"trainer: {{logger: {{{logger}}}}}\n")
    LightningEngine(lambda step, steps: None).run([tiny_config, layer], 7, tmp_path / "run")
    wanted = {"model.optimizer.lr": 0.01, "data.batch_size": 8, "trainer.max_epochs": 2, "seed_everything": 7}
    wanted |= {"model": "ftkit.GPT2Classifier", "model.optimizer": "torch.optim.AdamW", "model.pooling": "last"}
    assert {name: Recording.given.get(name) for name in wanted} == wanted
    assert not [name for name, value in Recording.given.items() if value is None and "." in name]
    assert not [name for name, value in Recording.given.items() if "logger" in name or value == "secret"]


def test_names_of_the_run_are_filled_in_for_any_logger_and_the_config_keeps_the_places(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CSVLogger needs no package; the recorded config can be run again elsewhere."""
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    overlay = tmp_path / "csv.yaml"
    arguments = {"save_dir": "{folder}/extra", "name": "{variant}", "version": "{group}"}
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": arguments}
    overlay.write_text(yaml.safe_dump({"trainer": {"logger": [logger], "max_epochs": 1}}))
    folder = tmp_path / "study" / "03_third" / "seed-7"
    LightningEngine(lambda step, steps: None).run([tiny_config, overlay], 7, folder)
    assert local(folder / "extra" / "03_third" / "study", "val/accuracy") == local(folder, "val/accuracy")
    recorded = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["logger"][0]["init_args"]
    assert recorded | arguments == recorded
    other = tmp_path / "again"
    command = ["fit", "--config", str(folder / "config.yaml"), "--trainer.default_root_dir", str(other)]
    assert main(command) == 0
    assert (other / "extra" / "again" / "metrics.csv").is_file()  # without an ablation there is no group
