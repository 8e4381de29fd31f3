"""Choose a checkpoint on validation, and stop a training that no longer improves there."""

import math
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from ftkit.errors import InputError, TrainingFailed, at_least
from ftkit.results.metrics import Mode
from ftkit.run_folder import BEST_CHECKPOINT
from ftkit.storage import CHECKSUM_SUFFIX
from ftkit.training.recorder import add_to_result, record_unfinished
from ftkit.training.split_data import SplitDataModule


class EarlyStop(EarlyStopping):
    """Stop a training when a metric no longer improves. A validation in which it is NaN is passed over.

    Args:
        monitor: The metric.
        mode: Whether lower (``min``) or higher values are better.
        patience: Stop after this many validations without an improvement; null never stops.
        min_delta: The least change that is an improvement.
    """

    def __init__(self, monitor: str, mode: Mode, patience: int | None = None, min_delta: float = 0.0) -> None:
        forever: Any = math.inf
        at_least(1, **{} if patience is None else {"early_stopping.patience": patience})
        patience = forever if patience is None else patience
        super().__init__(monitor, min_delta, patience, mode=mode, check_finite=False)
        self.goes_on = False  # where it stopped a run that is resumed with more patience

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a training without the validation that is monitored."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            need_validation(trainer, self.monitor, "early_stopping")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse a training without a validation in it."""
        check_validation(trainer, self.monitor, "early_stopping")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the metric."""
        if not self._is_nan(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the metric."""
        if not self._is_nan(trainer):
            super().on_validation_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a run stopped, with the patience that is given now."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        self.goes_on = state_dict["patience"] <= self.wait_count < self.patience

    def _is_nan(self, trainer: L.Trainer) -> bool:
        """Return whether it is NaN in any process; one that went on alone would wait for the others forever."""
        nan = math.isnan(trainer.callback_metrics.get(self.monitor, 0.0))
        return trainer.strategy.reduce_boolean_decision(nan, all=False)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say that training was stopped."""
        if self.wait_count >= self.patience:
            rank_zero_info(
                f"Stopped early at epoch {self.stopped_epoch} (counted from 0): no better {self.monitor} in the last "
                f"{self.wait_count} validation(s) than {self.best_score:.4g}"
            )


class BestCheckpoint(ModelCheckpoint):
    """Keep the checkpoint with the best value of a metric on validation, the first of equal ones.

    A value that is not finite is never the best, see :class:`ftkit.training.guards.FiniteGuard`.
    """

    def __init__(self, monitor: str, mode: Mode) -> None:
        super().__init__(filename=Path(BEST_CHECKPOINT).stem, monitor=monitor, mode=mode, enable_version_counter=False)
        self.saved_at: dict[str, int] = {}  # epoch and step

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a training without validation data."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            need_validation(trainer, "val", "model_selection")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Refuse a training without a validation in it; remove what an earlier training left."""
        super().on_train_start(trainer, pl_module)
        check_validation(trainer, "val", "model_selection")
        if not self.saved_at and trainer.is_global_zero:
            for suffix in ("", CHECKSUM_SUFFIX):
                Path(f"{self.dirpath}/{BEST_CHECKPOINT}{suffix}").unlink(missing_ok=True)

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        """Return whether a value is the best so far, and note where."""
        if best := super().check_monitor_top_k(trainer, current):
            self.saved_at = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        return best

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say and record which checkpoint is the best.

        Raises:
            TrainingFailed: There is none.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.best_model_score is None:
            problem, fix = "no validation gave it a value", "monitor another metric; the last checkpoint was saved"
            record_unfinished(trainer, "failed", f"{self.monitor}: {problem}")
            raise TrainingFailed(problem, field="monitor", got=self.monitor, fix=fix)
        value, at = float(self.best_model_score), self.saved_at
        where = f"epoch {at['epoch']} (counted from 0), step {at['step']}"
        lowest = "lowest" if self.mode == "min" else "highest"
        rank_zero_info(f"Best checkpoint: {lowest} {self.monitor} {value:.4g} at {where}; it is {self.best_model_path}")
        found = {"checkpoint": BEST_CHECKPOINT, "metric": self.monitor, "mode": self.mode, "value": value}
        add_to_result(trainer, model_selection=found | at)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, and where it was reached."""
        return {**super().state_dict(), "saved_at": self.saved_at}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on from the best of a run that is resumed, also where its folder was moved, but not of another run."""
        state = checkpoint["callbacks"].pop(self.state_key, None)
        loaded, own = Path(str(trainer.ckpt_path)), Path(str(self.dirpath))
        if state and state["saved_at"] and loaded.resolve().parent == own.resolve():
            path = str(own / BEST_CHECKPOINT)
            here = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
            self.load_state_dict({**state, **here, "best_k_models": {path: state["best_model_score"]}})
            self.saved_at = state["saved_at"]


def need_validation(trainer: L.Trainer, monitor: str, option: str) -> None:
    """Refuse a training without validation data where a metric of validation is monitored.

    The examples of a data module are known before the model is built, other data loaders only after that.
    """
    data: Any = getattr(trainer, "datamodule", None)
    none = isinstance(data, SplitDataModule) and not len(data.datasets["val"])
    none = none or (trainer.val_dataloaders is not None and not sum(trainer.num_val_batches))
    if monitor.startswith("val") and (none or not trainer.enable_validation):
        fix = "give some, or leave the option out"
        raise InputError("needs validation data, and there is none", field=option, fix=fix)


def check_validation(trainer: L.Trainer, monitor: str, option: str) -> None:
    """Refuse a training that has no validation, or ends before it, where a metric of validation is monitored."""
    need_validation(trainer, monitor, option)
    if not monitor.startswith("val"):
        return
    epoch = trainer.num_training_batches
    first = ((trainer.check_val_every_n_epoch or 1) - 1) * epoch + (trainer.val_check_batch or 0)
    epochs, steps = (math.inf if limit in (None, -1) else limit for limit in (trainer.max_epochs, trainer.max_steps))
    if min(epochs * epoch, steps * trainer.accumulate_grad_batches) < first < math.inf:
        fix = "train longer, or validate more often: trainer.val_check_interval, trainer.check_val_every_n_epoch"
        raise InputError("the training ends before its first validation", field=option, fix=fix)
