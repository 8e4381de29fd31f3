"""What every run leaves in its folder: predictions and figures."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ftkit.evaluation.predictions import write_predictions
from ftkit.storage import atomic_write
from ftkit.training.environment import hardware, versions
from ftkit.training.memory import peak_memory_mb, reset_peak_memory

RESULT_FILE = "result.json"


class RunRecorder(L.Callback):
    """Keeps what a run found in its folder (``trainer.default_root_dir``).

    Writes ``predictions-SPLIT.tsv`` for every split that is tested, validated or predicted, and ``result.json``:
    accuracy by split, seconds, peak memory, parameters that learn, versions, hardware, base model and data.

    The module's ``test_step``, ``validation_step`` and ``predict_step`` return dicts with ``id`` (list of str),
    ``label`` (B,) int64, ``prediction`` (B,) int64 and ``probability`` (B,) float32 of the positive class; its
    ``class_names`` name the classes. A data module may name what ``test`` runs over (``evaluate_splits``) and
    describe itself (``report``).
    """

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}
        self._collected: dict[int, list[Mapping[str, Any]]] = {}
        self._fit_started = self._evaluation_started = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Start the clock and the measurement of memory; a ``test`` adds to what ``fit`` left."""
        reset_peak_memory()
        file = Path(trainer.default_root_dir) / RESULT_FILE
        if stage != "fit" and not self.result and file.is_file():
            self.result = json.loads(file.read_text(encoding="utf-8"))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of training; loading the model and the data is not in it."""
        self._fit_started = time.perf_counter()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record cost and origin of the training."""
        trained = {
            name: parameter.numel() for name, parameter in pl_module.named_parameters() if parameter.requires_grad
        }
        checkpoint = getattr(trainer.checkpoint_callback, "best_model_path", "") or ""
        self.result = {
            "seconds": {"fit": time.perf_counter() - self._fit_started},
            # a part of those: work on frozen layers that later runs find done
            "frozen_seconds": getattr(pl_module, "frozen_seconds", 0.0),
            "peak_memory_mb": peak_memory_mb(),
            "steps": trainer.global_step,
            "seed": pl_module.hparams.get("seed"),
            "parameters": {
                "trainable": sum(trained.values()),
                "total": sum(parameter.numel() for parameter in pl_module.parameters()),
                "names": list(trained),
            },
            "checkpoint_mb": Path(checkpoint).stat().st_size / 1e6 if Path(checkpoint).is_file() else None,
            "base": getattr(pl_module, "base", None),
            "device": str(pl_module.device),
            "data": getattr(_datamodule(trainer), "report", None),
            "versions": versions(),
            "hardware": hardware(),
        }
        self._write_result(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of an evaluation."""
        self._evaluation_started = time.perf_counter()
        self._collected.clear()

    on_validation_start = on_predict_start = on_test_start

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect a batch of predictions."""
        self._collected.setdefault(dataloader_idx, []).append({key: _cpu(value) for key, value in outputs.items()})

    on_validation_batch_end = on_predict_batch_end = on_test_batch_end

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the predictions of each tested split and the figures."""
        splits = getattr(_datamodule(trainer), "evaluate_splits", ("test",))
        self._keep(trainer, pl_module, dict(zip(splits, self._collected.values(), strict=True)))
        self.result.setdefault("seconds", {})["test"] = time.perf_counter() - self._evaluation_started
        self._write_result(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the predictions of a ``validate`` run; validation during training leaves none."""
        if trainer.state.fn == "validate":
            self._keep(trainer, pl_module, {"val": self._collected.get(0, [])})

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the predictions of a ``predict`` run, which is over the test split."""
        self._keep(trainer, pl_module, {"test": self._collected.get(0, [])})

    def _keep(
        self, trainer: L.Trainer, pl_module: L.LightningModule, splits: Mapping[str, list[Mapping[str, Any]]]
    ) -> None:
        names = getattr(pl_module, "class_names", ("0", "1"))
        for split, batches in splits.items():
            rows = _merged(batches)
            if not trainer.is_global_zero:
                continue
            labels, predictions = rows["label"], rows["prediction"]
            write_predictions(
                Path(trainer.default_root_dir) / f"predictions-{split}.tsv",
                rows["id"],
                [names[index] for index in labels],
                [names[index] for index in predictions],
                rows["probability"],
                f"probability:{names[1]}",
            )
            correct = sum(label == prediction for label, prediction in zip(labels, predictions, strict=True))
            figures = {"n": len(labels), "correct": correct, "accuracy": correct / len(labels)}
            self.result.setdefault("splits", {})[split] = figures

    def _write_result(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            with atomic_write(Path(trainer.default_root_dir) / RESULT_FILE) as file:
                json.dump(self.result, file, indent=1)


def _datamodule(trainer: L.Trainer) -> L.LightningDataModule | None:
    return getattr(trainer, "datamodule", None)


def _cpu(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _merged(batches: list[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Join the batches of all processes; an example that a distributed sampler repeated is kept once."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        everywhere: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everywhere, batches)
        batches = [batch for process in everywhere for batch in process]
    rows = {row[0]: row for batch in batches for row in zip(*(batch[key] for key in _KEYS), strict=True)}
    return dict(zip(_KEYS, (list(column) for column in zip(*rows.values(), strict=True)), strict=True))


_KEYS = ("id", "label", "prediction", "probability")
