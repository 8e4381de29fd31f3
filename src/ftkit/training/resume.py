"""Resume a run so that it ends bit-identical to an uninterrupted one.

Lightning restores weights, optimizer and loops; shuffling, dropout, half-counted metrics and the curve file go on as if
nothing had been before. :class:`ExactResume` adds what is missing, for any LightningModule on one process.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from ftkit.errors import FormatError, InputError
from ftkit.run_folder import BEST_CHECKPOINT
from ftkit.training import lightning_internals as internals
from ftkit.training import logged_values_internals as values
from ftkit.training.checkpoint import read_checkpoint, steps_of
from ftkit.training.curves_logger import CurvesLogger
from ftkit.training.environment import data_sha256
from ftkit.training.model_selection import EarlyStop
from ftkit.training.recorder import add_to_result
from ftkit.training.replay_loader import ReplayLoader, reseed, seed_all


class ExactResume(L.Callback):
    """Make a resumed run end with the weights, metrics and predictions of an uninterrupted one.

    The order of an epoch and all random numbers of a batch become functions of (seed, epoch, batch), see
    :class:`ftkit.training.replay_loader.ReplayLoader`; checkpoints get the state of the metrics that an epoch has half
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
        self._sums: dict[str, Any] = {}
        self._trainer: L.Trainer | None = None
        self._hook: str | None = None  # in which a checkpoint is saved

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note seed and data before anything is drawn."""
        if stage == "fit":
            self._trainer, self._seed = trainer, torch.initial_seed()
            self.settings = settings(trainer, getattr(trainer, "datamodule", None))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finish the epoch under way first if its last step was taken, even if training ends with it."""
        if self._stored is None:
            return
        patient = any(isinstance(one, EarlyStop) and one.goes_on for one in trainer.callbacks)  # type: ignore[attr-defined]
        stop = self._stored["stop"] and not patient
        if self._stored["under_way"] and self._stored["over"]:
            internals.finish_epoch_first(trainer, self._stored["validates"], stop)
        else:
            trainer.should_stop = stop
        if stop:
            rank_zero_info("The run to resume was being stopped early, and is not trained on")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wrap the loaders, and restore the state of the checkpoint."""
        if self._stored is not None:
            self._seed = int(self._stored["settings"]["seed"])
            values.restore_callback_metrics(trainer, self._stored["metrics"]["callback"])
            if self._stored["ended"]:
                _step_plateaus(trainer, self._stored["epoch"])
            # Lightning cannot know that the loaders are.
            warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")
        self._replay(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wrap loaders that were created anew."""
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
            values.restore_metric_states(pl_module, stored["metrics"]["modules"])
            self._sums = stored["metrics"]["sums"]
        self._epoch = trainer.current_epoch
        values.add_epoch_sums(trainer, self._sums)
        reseed(self._seed, trainer.current_epoch, batch_idx)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        self._batches = batch_idx + 1
        values.add_epoch_sums(trainer, self._sums)  # once there is a place for them: after the first batch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Complete the figures of the epoch, also where no batch of it was left."""
        values.add_epoch_sums(trainer, self._sums)
        self._sums = {}
        stored, self._stored = self._stored, None
        if stored is not None and stored["epoch"] == trainer.current_epoch:
            for name, value in stored["metrics"]["epoch"].items():
                pl_module.log(name, value, logger=name in stored["metrics"]["logged"], batch_size=1)
        internals.step_plateaus_again(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the random generators to the seed of the run."""
        seed_all(self._seed)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record in ``result.json`` which settings were changed on resuming."""
        if self.changed:
            add_to_result(trainer, changed_on_resume=self.changed)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the run, as tensors and plain values."""
        trainer = self._trainer
        if trainer is None or trainer.state.fn != "fit":
            return {}
        self._hook = internals.running_hook(trainer.lightning_module)
        if self._hook == "on_fit_start":  # a LearningRateFinder comes back to it: nothing has begun
            return {}
        under_way = internals.epoch_is_under_way(trainer)
        over = under_way and (internals.epoch_is_over(trainer) or trainer.should_stop)
        epoch, logged = values.epoch_values(trainer) if over else ({}, set())
        done = values.metrics_of_validation(trainer) if self._hook == "on_validation_end" else []
        return {
            "settings": {**self.settings, "seed": self._seed},
            "epoch": self._epoch,
            "batches": self._batches,
            "over": over,
            "stop": trainer.should_stop,
            "ended": self._hook == "on_train_epoch_end",
            "under_way": under_way,
            "validates": self._hook == "on_validation_end" or (under_way and internals.validation_is_due(trainer)),
            "generators": [state for loader in self._loaders for state in loader.generator_states],
            "metrics": {
                "modules": values.metric_states(trainer.lightning_module, apart_from=done),
                "sums": values.epoch_sums(trainer),
                "epoch": epoch,
                "logged": sorted(logged),
                "callback": {name: value.cpu() for name, value in trainer.callback_metrics.items()},
            },
            "checkpoints": internals.checkpoint_flags(trainer),
            "curves": [{"rows": logger.rows, "to_come": values.rows_to_come(trainer)} for logger in _curves(trainer)],
        }

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record in the loops' state that the batch is over, and what follows it is not."""
        if self._hook == "on_train_batch_end":
            internals.after_the_batch(trainer, checkpoint["loops"]["fit_loop"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the settings and go on with the curves; the rest waits for the training to start.

        Raises:
            InputError: They changed, and that was not allowed; or another version has written the checkpoint.
        """
        if not state_dict or self._trainer is None or self._trainer.state.fn != "fit":
            return
        if not state_dict.keys() >= {"settings", "over", "checkpoints", "curves"}:
            raise InputError("the run to resume is of an earlier version of ftkit", field="resume", fix="train anew")
        self.changed = compare_settings(state_dict["settings"], self.settings, self.allow_changed)
        self._stored = state_dict
        for finder in [one for one in self._trainer.callbacks if isinstance(one, LearningRateFinder)]:  # type: ignore[attr-defined]
            self._trainer.callbacks.remove(finder)  # type: ignore[attr-defined]  # what it found is in the optimizer's state
        internals.restore_checkpoint_flags(self._trainer, state_dict["checkpoints"])
        for logger, curves in zip(_curves(self._trainer), state_dict["curves"], strict=False):
            logger.go_on(**curves)

    def _replay(self, trainer: L.Trainer) -> None:
        """Wrap the loaders, unless they restore themselves or are wrapped."""
        loaders = internals.training_loaders(trainer)
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
        internals.replace_training_loaders(trainer, self._loaders)
        if not alone and self._stored is not None and self._stored["epoch"] == trainer.current_epoch:
            internals.pass_over_batches(trainer, self._stored["batches"])

    def _start(self, trainer: L.Trainer) -> tuple[int, list[Tensor] | None]:
        """Return where the coming iteration starts."""
        stored = self._stored
        if stored is None or stored["epoch"] != trainer.current_epoch:
            return 0, None
        return stored["batches"], stored["generators"]


def settings(trainer: L.Trainer, datamodule: Any) -> dict[str, Any]:
    """Return the settings that decide which examples make a step; a resumed run must have the same."""
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
    """Return by name what was in a checkpoint, and what is in the run that resumes it, of settings that differ.

    Raises:
        InputError: They differ, and that was not allowed.
    """
    changed = {name: [old, now.get(name)] for name, old in stored.items() if old != now.get(name)}
    if changed and not allow_changed:
        listing = ", ".join(f"{name} was {old}, is {new}" for name, (old, new) in changed.items())
        raise InputError(
            f"the run to resume had other settings: {listing}",
            fix="use the same, or --allow_changed: the result is then comparable with neither",
        )
    return changed


def resumable(folder: Path) -> tuple[Path | None, list[str]]:
    """Return a run's checkpoint of most steps that training can resume from, if any; and what was wrong with others.

    The best one is taken only if there is no other; of equal steps the newer one. Clocks are set back, steps are not.

    Raises:
        FormatError: A checkpoint was written in another format.
    """
    notices: list[str] = []
    files = (folder / "checkpoints").glob("*.ckpt")
    ranks = {file: (file.name != BEST_CHECKPOINT, steps_of(file), file.stat().st_mtime_ns) for file in files}
    for file in sorted(ranks, key=ranks.__getitem__, reverse=True):
        try:
            if "optimizer_states" in read_checkpoint(file):
                return file, notices
            notices.append(f"{file} holds weights only, and cannot be resumed from")
        except FormatError:
            raise
        except InputError as error:
            notices.append(str(error))
    return None, notices


def stored_settings(path: Path) -> dict[str, Any]:
    """Return the settings of the run that wrote a checkpoint; empty if it did not keep them."""
    states = read_checkpoint(path).get("callbacks", {})
    return next((state["settings"] for name, state in states.items() if "ExactResume" in name and state), {})


def _curves(trainer: L.Trainer) -> list[CurvesLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, CurvesLogger)]


def _step_plateaus(trainer: L.Trainer, epoch: int) -> None:
    """Step the schedulers that Lightning steps after the checkpoint at the end of an epoch."""
    for config in trainer.lr_scheduler_configs:
        due = config.interval == "epoch" and (epoch + 1) % config.frequency == 0
        if due and config.reduce_on_plateau and config.monitor:
            trainer.lightning_module.lr_scheduler_step(config.scheduler, trainer.callback_metrics.get(config.monitor))
