"""Write predictions and figures of every run to its folder."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from ftkit.results.duplicates import duplicates_line
from ftkit.results.predictions import write_predictions
from ftkit.results.preferences import TIE, is_preference
from ftkit.run_folder import FORMAT, RESULT_FILE, UNLABELED, examples_file, predictions_file, read_result
from ftkit.storage import atomic_write
from ftkit.training.checkpoint import trainable_parameters
from ftkit.training.environment import hardware, versions
from ftkit.training.peak_memory import peak_memory_mb, reset_peak_memory
from ftkit.training.trainable_line import trainable_line


class RunRecorder(L.Callback):
    """Write the results of a run to its folder (``trainer.default_root_dir``).

    Writes ``result.json``: of a ``fit`` seconds, peak memory, trainable parameters, number formats, versions,
    hardware, base model and data. A ``test``, ``validate`` or ``predict`` (which is over the test split) writes
    ``predictions-SPLIT.tsv`` and puts the split's counts into ``result.json``, so that the two agree; the seconds are
    those of ``fit`` and ``test``. Beside the predictions of val and test lie their texts and duplicates
    (``examples-SPLIT.tsv``), where the data module has ``known_examples(split)``. The trainable parameters are also
    said when a training starts.

    The module's ``test_step``, ``validation_step`` and ``predict_step`` return dicts with ``id`` (list of str), label
    and ``prediction``: texts (lists of str), or classes (B,) int64 that the module's ``class_names`` name. There may be
    ``probability``, of two classes float32 (B,) of the positive one, of more float32 (B, C) of each, or ``score`` (B,)
    float32 of the kind that the module's ``score_name`` says; and ``columns``, more lists of str by name. Of a step
    that returns no dict, or one without ``id``, no prediction is kept; what a ``test`` or ``validate`` logs is kept of
    every module, as ``metrics``. A data module may name what ``test`` and ``predict`` run over (``evaluate_splits``,
    ``predicted_split``) and describe itself (``report``); loaders beyond the names are numbered: ``test``, ``test-1``.
    """

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}
        self.evaluated: dict[str, dict[str, Any]] = {}  # counts of the splits whose predictions were written just now
        self._collected: dict[int, list[Mapping[str, Any]]] = {}
        self._fit_started = self._evaluation_started = 0.0
        self._before = {"fit": 0.0, "frozen": 0.0}  # seconds, of a training that is resumed
        self._module: L.LightningModule | None = None  # while it is trained

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Start to measure a training's memory; a ``test`` adds to what ``fit`` left."""
        file = Path(trainer.default_root_dir) / RESULT_FILE
        if stage == "fit":
            reset_peak_memory()
            self.result = {}
        elif not self.result and file.is_file():
            self.result = read_result(file)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what is trainable and held out, and start the clock, after the loading of the model and the data."""
        rank_zero_info(trainable_line(**_parameters(pl_module)))
        report = getattr(_datamodule(trainer), "report", {})
        if line := report.get("held_out"):
            rank_zero_info(line)
        if duplicates := report.get("duplicates"):
            rank_zero_info(f"{duplicates_line(duplicates)}: ftkit data audit shows them")
        self._fit_started, self._module = time.perf_counter(), pl_module

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the result of an earlier training, whose weights this one replaces; nothing refuses it any more."""
        if trainer.is_global_zero:
            (Path(trainer.default_root_dir) / RESULT_FILE).unlink(missing_ok=True)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note cost and origin of the training, beside what others add, see :func:`add_to_result`."""
        checkpoint = getattr(trainer.checkpoint_callback, "best_model_path", "") or ""
        seconds = self.state_dict()
        self.result |= {
            "seconds": {"fit": seconds["fit"]},
            # a part of those: work on frozen layers that later runs find done
            "seconds_frozen": {"fit": seconds["frozen"]},
            "peak_memory_mb": peak_memory_mb(),
            "steps": trainer.global_step,
            "seed": pl_module.hparams.get("seed"),
            "parameters": _parameters(pl_module),
            "checkpoint_mb": Path(checkpoint).stat().st_size / 1e6 if Path(checkpoint).is_file() else None,
            "base": getattr(pl_module, "base", None),
            "commit": getattr(pl_module, "fingerprint", {}).get("commit"),  # on the hub, of the base model
            "device": str(pl_module.device),
            "data": getattr(_datamodule(trainer), "report", None),
            "numerics": {
                "precision": str(trainer.precision),
                "matmul_precision": torch.get_float32_matmul_precision(),
            },
            "versions": versions(),
            "hardware": hardware(),
        }
        if (found := getattr(pl_module, "lr", None)) is not None:  # by a LearningRateFinder
            self.result["learning_rate"] = found
        folder = Path(trainer.default_root_dir)
        # Not removed, for the training may have chosen its rows by them.
        if earlier := ", ".join(sorted(file.name for file in folder.glob(predictions_file("*")))):
            rank_zero_warn(f"{earlier} in {folder} are not this training's; `ftkit test` writes them anew")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the whole result of a training at once: with it the training is finished."""
        if stage == "fit" and self.result:
            _write(trainer, self.result)

    def state_dict(self) -> dict[str, float]:
        """Return the seconds that the training has taken so far, those before it was resumed included."""
        if self._module is None:
            return self._before
        fit, frozen = time.perf_counter() - self._fit_started, getattr(self._module, "frozen_seconds", 0.0)
        return {"fit": self._before["fit"] + fit, "frozen": self._before["frozen"] + frozen}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on with the seconds of a training that is resumed."""
        self._before = state_dict

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of an evaluation."""
        self._evaluation_started = time.perf_counter()
        self._collected.clear()
        self.evaluated = {}

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
        """Collect a batch of predictions; of a validation during training nothing is read."""
        if trainer.state.fn == "fit":
            return
        batches = self._collected.setdefault(dataloader_idx, [])
        if isinstance(outputs, Mapping) and "id" in outputs:
            batches.append(_flat(outputs))

    on_validation_batch_end = on_predict_batch_end = on_test_batch_end

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the predictions of each tested split and the figures."""
        self.result.setdefault("seconds", {})["test"] = time.perf_counter() - self._evaluation_started
        self.result.setdefault("seconds_frozen", {})["test"] = getattr(pl_module, "frozen_seconds", 0.0)
        self.result.setdefault("metrics", {})["test"] = _logged(trainer)
        self._keep(trainer, pl_module, getattr(_datamodule(trainer), "evaluate_splits", ("test",)))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the predictions of a ``validate`` run and the figures; validation during training leaves none."""
        if trainer.state.fn == "validate":
            self.result.setdefault("metrics", {})["val"] = _logged(trainer)
            self._keep(trainer, pl_module, ("val",))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the predictions of a ``predict`` run, which is over the test split, and the figures."""
        self._keep(trainer, pl_module, (getattr(_datamodule(trainer), "predicted_split", "test"),))

    def _keep(self, trainer: L.Trainer, pl_module: L.LightningModule, splits: Sequence[str]) -> None:
        """Write what was collected; each loader's split has its place in ``splits``."""
        names = getattr(pl_module, "class_names", ("0", "1"))
        kinds = [f"probability:{name}" for name in names]
        scores = {
            "probability": kinds[1] if len(kinds) == 2 else kinds,
            "score": getattr(pl_module, "score_name", None),
        }
        for place, batches in self._collected.items():
            split = splits[place] if place < len(splits) else f"{splits[-1]}-{place - len(splits) + 1}"
            columns = _merged(batches)
            if not columns or not trainer.is_global_zero:
                continue
            labels, predictions = (_named(columns[key], names) for key in ("label", "prediction"))
            score = next((key for key in scores if key in columns), None)
            write_predictions(
                Path(trainer.default_root_dir) / predictions_file(split),
                columns["id"],
                labels,
                predictions,
                columns[score] if score else None,
                scores[score] if score else None,
                {key: column for key, column in columns.items() if key not in _KEYS},
            )
            known = getattr(_datamodule(trainer), "known_examples", None)
            if known is not None and (examples := known(split)) is not None:
                examples.write(Path(trainer.default_root_dir) / examples_file(split))
            self.evaluated[split] = _figures(labels, predictions)
            if "accuracy" in self.evaluated[split]:
                self.result.setdefault("splits", {})[split] = self.evaluated[split]
        _write(trainer, self.result)


def add_to_result(trainer: L.Trainer, **facts: Any) -> None:
    """Add facts to the run's ``result.json``; of a training before the end of its ``on_fit_end``."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunRecorder):
            callback.result.update(facts)
            if trainer.state.fn != "fit":  # else all of it is written when the training ends
                _write(trainer, callback.result)


def record_unfinished(trainer: L.Trainer, status: str, reason: str, **facts: Any) -> None:
    """Replace the run's ``result.json``: a result of an earlier run in the folder is not that of this one.

    The status is ``interrupted``, ``failed`` or ``pruned``; the reason is the signal, or what went wrong.
    """
    place = {"epoch": trainer.current_epoch, "step": trainer.global_step}
    _write(trainer, {"status": status, "reason": reason, **place, **facts})


def _write(trainer: L.Trainer, result: Mapping[str, Any]) -> None:
    if trainer.is_global_zero:
        with atomic_write(Path(trainer.default_root_dir) / RESULT_FILE) as file:
            json.dump({"format": FORMAT, **result}, file, indent=1)


def _figures(labels: Sequence[str | None], predictions: Sequence[str | None]) -> dict[str, int | float]:
    """Return the counts of a split; of pairs, ties apart, each of which is worth half a right answer."""
    if None in labels:
        return {"n": len(labels)}
    n, correct = len(labels), sum(label == prediction for label, prediction in zip(labels, predictions, strict=True))
    if not is_preference(labels, predictions):
        return {"n": n, "correct": correct, "accuracy": correct / n}
    ties = list(predictions).count(TIE)
    return {"n": n, "correct": correct, "ties": ties, "accuracy": (correct + ties / 2) / n}


def _logged(trainer: L.Trainer) -> dict[str, float | None]:
    """Return what a module has logged over the evaluation that ends; None where it is no finite number."""
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _parameters(pl_module: L.LightningModule) -> dict[str, Any]:
    """Return how many weights of how many are trainable, and the parameters' names."""
    trained = trainable_parameters(pl_module)
    sizes = {"trainable": sum(map(_size, trained.values())), "total": sum(map(_size, pl_module.parameters()))}
    return {**sizes, "names": list(trained)}


def _size(parameter: Tensor) -> int:
    """Return how many weights a parameter holds; one of 4 bits packs two in a byte."""
    return parameter.numel() * (2 if hasattr(parameter, "quant_state") else 1)


def _datamodule(trainer: L.Trainer) -> L.LightningDataModule | None:
    return getattr(trainer, "datamodule", None)


_KEYS = ("id", "label", "prediction", "probability", "score")


def _flat(outputs: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the columns of a batch as lists, those in ``columns`` beside the others."""
    kept = {key: outputs[key] for key in _KEYS if key in outputs} | outputs.get("columns", {})
    return {key: value.tolist() if isinstance(value, Tensor) else list(value) for key, value in kept.items()}


def _named(classes: list[Any], names: Sequence[str]) -> list[str | None]:
    return [entry if isinstance(entry, str) else None if entry == UNLABELED else names[entry] for entry in classes]


def _merged(batches: list[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Join the batches of all processes, which took turns; an example that a sampler repeated is kept once."""
    everywhere: list[Any] = [batches]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        everywhere = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everywhere, batches)
    keys = next((list(batch) for process in everywhere for batch in process), [])
    shares = (
        [row for batch in process for row in zip(*(batch[key] for key in keys), strict=True)] for process in everywhere
    )
    in_order = chain.from_iterable(zip_longest(*shares))
    rows = {row[0]: row for row in in_order if row is not None}
    if not rows:
        return {}
    return dict(zip(keys, (list(column) for column in zip(*rows.values(), strict=True)), strict=True))
