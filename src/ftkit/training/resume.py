"""Resuming where a run stopped, to the last bit.

Lightning restores weights, optimizer and loops; shuffling, dropout, half-counted metrics and the curve file go on as if
nothing had been before. :class:`ExactResume` adds what is missing, for any LightningModule on one process.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import Metric

from ftkit.errors import InputError
from ftkit.training.checkpoint import read_checkpoint
from ftkit.training.environment import data_sha256
from ftkit.training.randomness import ReplayLoader, reseed, seed_all
from ftkit.training.recorder import add_to_result

_RESULTS = ("value", "cumulated_batch_size")  # what Lightning keeps of a value that is averaged over an epoch


class ExactResume(L.Callback):
    """Lets a run that is resumed end with the weights, metrics and predictions of an unbroken one.

    The order of an epoch and all random numbers of a batch become functions of (seed, epoch, batch), see
    :class:`ftkit.training.randomness.ReplayLoader`; checkpoints get the state of the metrics that an epoch has half
    counted, and of generators that loaders were given. A resumed epoch starts at the batch that follows.

    Exact on one process, with any number of loader workers. Not restored: what persistent workers
    (``persistent_workers=True``) draw, and accumulated gradients, so save between optimizer steps.

    Args:
        allow_changed: Resume though seed, batch size, accumulation, data or how they are read are not those of the
            checkpoint; the differences are kept in :attr:`changed`.
    """

    def __init__(self, allow_changed: bool = False) -> None:
        self.allow_changed = allow_changed
        self.changed: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self._seed = 0
        self._epoch = self._batches = 0  # where the run is: batches done in the epoch
        self._loaders: list[ReplayLoader] = []
        self._stored: dict[str, Any] | None = None  # of the checkpoint, until the run has gone on
        self._results: dict[str, Any] = {}
        self._trainer: L.Trainer | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note seed and data before anything is drawn."""
        if stage == "fit":
            self._trainer, self._seed = trainer, torch.initial_seed()
            self.settings = settings(trainer, getattr(trainer, "datamodule", None))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the loaders, and what the checkpoint knows."""
        if self._stored is not None:
            self._seed = int(self._stored["settings"]["seed"])
            trainer._logger_connector._callback_metrics.update(self._stored["metrics"]["callback"])
            for logger in trainer.loggers:
                if hasattr(logger, "go_on"):
                    logger.go_on()
            # Lightning cannot know that the loaders are.
            warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")
        self._replay(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over loaders that were made anew."""
        self._epoch, self._batches = trainer.current_epoch, 0
        self._replay(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed what the batch draws, dropout above all.

        Raises:
            RuntimeError: Lightning goes on at another batch than the loader; never seen.
        """
        stored, self._stored = self._stored, None
        if stored is not None and trainer.current_epoch == stored["epoch"]:
            if batch_idx != stored["batches"]:
                raise RuntimeError(f"resumed at batch {batch_idx}, but batch {stored['batches']} was next")
            _restore_metrics(pl_module, stored["metrics"]["modules"])
            self._results = stored["metrics"]["results"]
        self._epoch = trainer.current_epoch
        self._merge_results(trainer)
        reseed(self._seed, trainer.current_epoch, batch_idx)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        self._batches = batch_idx + 1
        self._merge_results(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See that the averages of the epoch are whole."""
        self._merge_results(trainer)
        self._results = {}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the generators as a fresh run of the same seed finds them."""
        seed_all(self._seed)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the result say what was changed on the way."""
        if self.changed:
            add_to_result(trainer, changed_on_resume=self.changed)

    def state_dict(self) -> dict[str, Any]:
        """Where the run is, as tensors and plain values."""
        if self._trainer is None or self._trainer.state.fn != "fit":
            return {}
        return {
            "settings": {**self.settings, "seed": self._seed},
            "epoch": self._epoch,
            "batches": self._batches,
            "generators": [state for loader in self._loaders for state in loader.generator_states],
            "metrics": {
                "modules": _metrics(self._trainer.lightning_module),
                "results": _results(self._trainer),
                "callback": {name: value.cpu() for name, value in self._trainer.callback_metrics.items()},
            },
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the settings; the rest waits for the training to start.

        Raises:
            InputError: They changed, and that was not allowed.
        """
        if not state_dict or self._trainer is None or self._trainer.state.fn != "fit":
            return
        self.changed = compare_settings(state_dict["settings"], self.settings, self.allow_changed)
        self._stored = state_dict

    def begin_again(self, trainer: L.Trainer, batch_idx: int) -> None:
        """Go on with a batch of this epoch that was fetched before; Lightning's counters are left to the caller."""
        self._batches = batch_idx
        for loader in self._loaders:
            loader.begin_again(batch_idx)
        fetcher: Any = trainer.fit_loop._data_fetcher
        iter(fetcher)
        fetcher.fetched = batch_idx

    def _replay(self, trainer: L.Trainer) -> None:
        """Wrap the loaders, unless they restore themselves or are wrapped."""
        combined: Any = trainer.fit_loop._combined_loader
        loaders = combined.flattened
        stateful = any(hasattr(loader, "load_state_dict") for loader in loaders)
        if stateful or all(isinstance(loader, ReplayLoader) for loader in loaders):
            return
        alone = len(loaders) == 1
        self._loaders = [
            ReplayLoader(
                loader,
                self._seed + number,
                lambda: trainer.current_epoch,
                (lambda: self._start(trainer)) if alone else (lambda: (0, None)),
            )
            for number, loader in enumerate(loaders)
        ]
        combined.flattened = self._loaders
        fetcher: Any = trainer.fit_loop._data_fetcher
        iter(fetcher)  # Lightning's first iterator is over the loaders as they were
        if not alone and self._stored is not None and self._stored["epoch"] == trainer.current_epoch:
            for _ in range(self._stored["batches"]):
                next(fetcher)
            fetcher.fetched = 0  # Lightning adds them

    def _start(self, trainer: L.Trainer) -> tuple[int, list[Tensor] | None]:
        """Where the coming iteration starts."""
        stored = self._stored
        if stored is None or stored["epoch"] != trainer.current_epoch:
            return 0, None
        return stored["batches"], stored["generators"]

    def _merge_results(self, trainer: L.Trainer) -> None:
        """Add what was counted before the stop, once Lightning has a place for it: after the first batch."""
        found: Any = trainer.fit_loop.epoch_loop._results
        for key in [key for key in self._results if key in found]:
            stored, result = self._results.pop(key), found[key]
            for name in _RESULTS:
                if name in stored:
                    before, now = stored[name].to(getattr(result, name).device), getattr(result, name)
                    limit = result.meta.is_max_reduction or result.meta.is_min_reduction
                    setattr(result, name, result.meta.reduce_fx(before, now) if limit else before + now)


def settings(trainer: L.Trainer, datamodule: Any) -> dict[str, Any]:
    """What decides which examples make a step; a resumed run must not differ in it."""
    return {
        "seed": torch.initial_seed(),
        "batch_size": getattr(datamodule, "batch_size", None),
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "data_sha256": data_sha256(datamodule),
        "data_seed": getattr(datamodule, "seed", None),  # of the order, where it is not that of the run
        "processes": trainer.world_size,  # they share a step's examples
        **{f"data.{name}": str(getattr(datamodule, name)) for name in getattr(datamodule, "step_options", ())},
    }


def compare_settings(stored: Mapping[str, Any], now: Mapping[str, Any], allow_changed: bool = False) -> dict[str, Any]:
    """Compare the settings of a checkpoint with those of the run that resumes it.

    Returns:
        By name, what was and what is now where they differ.

    Raises:
        InputError: They differ, and that was not allowed.

    Example:
        >>> compare_settings({"seed": 1, "batch_size": 8}, {"seed": 2, "batch_size": 8}, allow_changed=True)
        {'seed': [1, 2]}
    """
    changed = {name: [old, now.get(name)] for name, old in stored.items() if old != now.get(name)}
    if changed and not allow_changed:
        listing = ", ".join(f"{name} was {old}, is {new}" for name, (old, new) in changed.items())
        raise InputError(
            f"the run to resume had other settings: {listing}",
            fix="use the same, or --allow_changed true: the result is then that of neither",
        )
    return changed


def resumable(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of a run that a training can go on from.

    Returns:
        The file, or None; and what was wrong with newer ones.
    """
    notices: list[str] = []
    found = sorted((folder / "checkpoints").glob("*.ckpt"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in found:
        try:
            if "optimizer_states" in read_checkpoint(file):
                return file, notices
            notices.append(f"{file} holds weights only, nothing to go on from")
        except InputError as error:
            notices.append(str(error))
    return None, notices


def stored_settings(path: Path) -> dict[str, Any]:
    """The settings of the run that wrote a checkpoint; empty if it did not keep them."""
    states = read_checkpoint(path).get("callbacks", {})
    return next((state["settings"] for name, state in states.items() if "ExactResume" in name and state), {})


def _metrics(module: L.LightningModule) -> dict[str, Any]:
    """The counts of all torchmetrics of a module."""
    return {
        name: {"count": metric._update_count, "state": _detached(metric.metric_state)}
        for name, metric in module.named_modules()
        if isinstance(metric, Metric)
    }


def _restore_metrics(module: L.LightningModule, stored: Mapping[str, Any]) -> None:
    for name, metric in module.named_modules():
        if isinstance(metric, Metric) and name in stored:
            metric._update_count, metric._computed = stored[name]["count"], None
            for key, value in stored[name]["state"].items():
                parts = value if isinstance(value, list) else [value]
                moved = [part.to(metric.device) for part in parts]
                setattr(metric, key, moved if isinstance(value, list) else moved[0])


def _results(trainer: L.Trainer) -> dict[str, dict[str, Tensor]]:
    """What Lightning has summed up of the values that are logged over an epoch."""
    results: Any = trainer.fit_loop.epoch_loop._results
    return {
        key: {name: _detached(getattr(result, name)) for name in _RESULTS if hasattr(result, name)}
        for key, result in results.items()
        if result.is_tensor and result.meta.on_epoch
    }


def _detached(value: Any) -> Any:
    """A copy on the CPU of a tensor, or of the tensors in a list or dict."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    return {k: _detached(v) for k, v in value.items()} if isinstance(value, Mapping) else [_detached(v) for v in value]
