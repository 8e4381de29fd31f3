"""Metrics as an argument: logged, monitored, equal to torchmetrics' own and to ``ftkit evaluate``."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryF1Score, BinaryROC

from ftkit import BinaryEvaluator, GPT2Classifier
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.results.predictions import read_predictions
from ftkit.training.checkpoint import read_checkpoint

TORCHMETRICS = {
    "f1": {"class_path": "torchmetrics.classification.BinaryF1Score"},
    "auroc": {"class_path": "torchmetrics.classification.BinaryAUROC"},
}


class Cost(Metric):
    """A metric of one's own: a missed positive costs five, a false alarm one."""

    total: Tensor

    def __init__(self, missed: float = 5.0) -> None:
        super().__init__()
        self.missed = missed
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        wrong = (preds >= 0.5) != target.bool()
        self.total += torch.where(target.bool(), self.missed, 1.0)[wrong].sum()

    def compute(self) -> Tensor:
        return self.total


@pytest.fixture
def configured(tiny_config: Path, tmp_path: Path) -> Any:
    """Makes a config file of the tiny classifier with some metrics, and settings of the trainer."""

    def make(metrics: Any, **trainer: Any) -> Path:
        tree = yaml.safe_load(tiny_config.read_text())
        tree["model"]["init_args"] |= {"metrics": metrics, "trainable": 2}
        tree["trainer"] |= trainer
        path = tmp_path / "metrics.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return make


def last_logged(folder: Path) -> dict[str, float]:
    """What the last validation logged."""
    with (folder / "metrics.csv").open(newline="") as file:
        row = [row for row in csv.DictReader(file) if row["val/loss"]][-1]
    return {name.removeprefix("val/"): float(value) for name, value in row.items() if name.startswith("val/")}


def evaluated(file: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", str(file), "--positive", "spam", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["files"][0]


def test_metrics_of_a_config_choose_the_checkpoint_and_the_end(configured: Any, tmp_path: Path) -> None:
    best = {"monitor": "val/auroc", "mode": "max", "filename": "last", "enable_version_counter": False}
    stop = {"monitor": "val/f1", "mode": "max", "patience": 1, "stopping_threshold": 0.0}
    callbacks = [{"class_path": "ModelCheckpoint", "init_args": best}]
    callbacks += [{"class_path": "EarlyStopping", "init_args": stop}]
    config, folder = configured(TORCHMETRICS, callbacks=callbacks, max_epochs=9), tmp_path / "run"
    command = ["--config", str(config), "--trainer.default_root_dir", str(folder)]
    assert main(["fit", *command]) == 0
    logged = last_logged(folder)
    assert set(logged) == {"loss", "accuracy", "f1", "auroc"}
    checkpoint = read_checkpoint(folder)
    assert checkpoint["epoch"] == 0  # the threshold is passed at once
    (saved,) = (state for name, state in checkpoint["callbacks"].items() if name.startswith("ModelCheckpoint"))
    assert saved["current_score"] == pytest.approx(logged["auroc"])
    assert "metrics" not in checkpoint["hyper_parameters"]
    assert not [name for name in checkpoint["state_dict"] if "metrics" in name]
    assert main(["validate", *command]) == 0
    table = read_predictions(folder / "predictions-val.tsv")
    assert table.scores is not None
    preds = torch.tensor(table.scores.tolist())
    target = torch.tensor([int(label == "spam") for label in table.labels])
    assert logged["f1"] == pytest.approx(float(BinaryF1Score()(preds, target)))
    assert logged["auroc"] == pytest.approx(float(BinaryAUROC()(preds, target)))
    assert main(["test", *command]) == 0
    tested = json.loads((folder / "result.json").read_text())["metrics"]["test"]
    assert set(tested) == {"test/loss", "test/accuracy", "test/f1", "test/auroc"}


@pytest.mark.parametrize(
    "metrics",
    [
        pytest.param(None, id="default", marks=pytest.mark.slow),
        pytest.param({"class_path": "BinaryEvaluator"}, id="by its short name"),
    ],
)
def test_the_evaluator_logs_what_ftkit_evaluate_finds(
    metrics: Any, configured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    command = ["--config", str(configured(metrics)), "--trainer.default_root_dir", str(folder)]
    for name in ("fit", "validate", "test"):
        assert main([name, *command]) == 0
    logged, found = last_logged(folder), evaluated(folder / "predictions-val.tsv", capsys)
    figures = {name: value for name, value in found["figures"].items() if value is not None}
    assert {"f_measure", "auroc", "brier"} <= set(figures)
    assert {name: logged[name] for name in figures} == pytest.approx(figures, abs=1e-6)
    assert logged["tp"] == found["counts"]["tp"]
    tested = json.loads((folder / "result.json").read_text())["metrics"]["test"]
    if metrics is None:  # the prediction file has the others
        assert set(tested) == {"test/loss", "test/accuracy"}
        return
    figures = evaluated(folder / "predictions-test.tsv", capsys)["figures"]
    assert tested["test/auroc"] == pytest.approx(figures["auroc"], abs=1e-6)
    assert not [name for name in tested if not name.startswith("test/")]  # train and val are tested, too


def test_a_metric_of_ones_own_is_one_class_in_no_list(configured: Any, tmp_path: Path) -> None:
    metric = {"class_path": f"{__name__}.Cost", "init_args": {"missed": 2.0}}
    collection = {"class_path": "torchmetrics.MetricCollection", "init_args": {"metrics": {"cost": metric}}}
    seen = {}
    for name, metrics in (("alone", metric), ("named", {"cost": metric}), ("collected", collection)):
        folder = tmp_path / name
        fit = ["fit", "--config", str(configured(metrics, max_epochs=1)), "--trainer.default_root_dir", str(folder)]
        assert main(fit) == 0
        seen[name] = last_logged(folder)
    assert seen["named"] == seen["collected"]
    assert seen["alone"]["Cost"] == seen["named"]["cost"]


def test_a_training_resumed_in_mid_epoch_logs_the_same(configured: Any, tmp_path: Path) -> None:
    config = configured(TORCHMETRICS, val_check_interval=2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = ["fit", "--config", str(config), "--trainer.default_root_dir"]
    assert main([*command, str(whole)]) == 0
    stop = "--trainer.callbacks+", "stops.StopAfter", "--trainer.callbacks.step", "3"
    assert main([*command, str(broken), *stop]) == 128 + signal.SIGTERM
    assert main([*command, str(broken), "--resume", "true"]) == 0
    assert (broken / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_metrics_that_agree_on_the_first_batch_stay_apart() -> None:
    module = GPT2Classifier(
        base_model="demo", metrics={"low": BinaryAccuracy(threshold=0.2), "high": BinaryAccuracy(threshold=0.8)}
    )
    collection: Any = module.metrics["val/"]
    for preds, target in ([0.9, 0.1], [1, 0]), ([0.5, 0.5], [1, 1]):
        collection.update(torch.tensor(preds), torch.tensor(target))
    assert {name: float(value) for name, value in collection.compute().items()} == {"val/low": 1.0, "val/high": 0.5}


def test_each_split_has_metrics_of_its_own() -> None:
    given = MetricCollection({"auroc": BinaryAUROC()})
    module = GPT2Classifier(base_model="demo", metrics=given)
    assert len({id(module.metrics[f"{split}/"]) for split in ("val", "test")} | {id(given)}) == 3


def test_names_of_the_modules_own_are_taken() -> None:
    with pytest.raises(InputError, match=r"metrics.accuracy: is logged by the module itself; fix: choose another name"):
        GPT2Classifier(base_model="demo", metrics={"accuracy": BinaryAccuracy()})


def test_what_cannot_be_logged_is_refused_before_training(
    configured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured({"roc": {"class_path": f"{BinaryROC.__module__}.BinaryROC"}}, num_sanity_val_steps=1)
    assert main(["fit", "--config", str(config), "--trainer.default_root_dir", str(tmp_path / "run")]) == 2
    assert "metrics: val/roc: is more than a number (got 'tuple')" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"class_path": "BinaryEvaluatr"}, "no such class (got 'BinaryEvaluatr'); fix: did you mean ftkit.Binary"),
        ({"f1": {"class_path": "torchmetrics.classification.BinaryF1Scor"}}, "did you mean torchmetrics.class"),
        (
            {"f1": {"class_path": "torchmetrics.classification.BinaryF1Score", "init_args": {"treshold": 1}}},
            "treshold: no such option; fix: did you mean threshold?",
        ),
        ({"class_path": "torch.optim.AdamW"}, "is not a Metric (got 'torch.optim.AdamW'); fix: name ftkit.BinaryEval"),
    ],
)
def test_a_misspelt_metric_is_refused_with_what_was_meant(
    metrics: Any, said: str, configured: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(configured(metrics))]) == 2
    assert said in capsys.readouterr().err


def test_a_threshold_that_was_given_replaces_the_answers() -> None:
    for threshold, counts in ((None, "Tp=0 Tn=1 Fp=0 Fn=1"), (0.4, "Tp=1 Tn=1 Fp=0 Fn=0")):
        evaluator = BinaryEvaluator(threshold=threshold)
        evaluator.update(torch.tensor([0.45, 0.2]), torch.tensor([1, 0]), answers=torch.tensor([0, 0]))
        assert str(evaluator.report().counts) == counts
