"""Refuse a monitored metric that is never logged, before training instead of after the first epoch."""

from collections.abc import Iterator
from difflib import get_close_matches
from string import Formatter
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from ftkit.errors import InputError
from ftkit.training.logged_values_internals import logged_in_training
from ftkit.training.model_selection import BestCheckpoint, EarlyStop

_COUNTED = {"epoch", "step"}  # a checkpoint callback knows them without a log


class MonitorCheck(L.Callback):
    """Compare what callbacks and schedulers monitor with what is logged.

    Validation logs in Lightning's sanity check, so a wrong name that begins with ``val`` is known before training; with
    early stopping or model selection the check has one batch at least. Training logs in its first batch, so any other
    wrong name is known after one step. Where there is no sanity check, it is known after the first validation. A module
    or a callback of one's own may log at the end of an epoch; then Lightning finds it there.
    """

    def __init__(self) -> None:
        self._validation: set[str] | None = None  # what validation logs
        self._checked = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin anew, and see to a sanity check where early stopping or model selection needs one."""
        self._validation, self._checked = None, False
        ours = any(isinstance(one, EarlyStop | BestCheckpoint) for one in trainer.callbacks)  # type: ignore[attr-defined]
        if ours and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.num_sanity_val_steps = max(1, trainer.num_sanity_val_steps)

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note what validation logs, which Lightning forgets now, and check the names that begin with ``val``.

        Raises:
            InputError: Such a metric is monitored that is not logged; the nearest one is named.
        """
        self._validation = set(trainer.callback_metrics)
        self._check(trainer, pl_module, "val")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Check after the first batch, as :meth:`on_sanity_check_end` does."""
        if self._validation is None and not trainer.num_val_batches:
            self._validation = set()
        if not self._checked and self._validation is not None:
            self._check(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check after the first validation, where there was no sanity check."""
        if not self._checked and not trainer.sanity_checking and trainer.state.fn == "fit":
            self._validation = set(trainer.callback_metrics)
            self._check(trainer, pl_module)

    def _check(self, trainer: L.Trainer, pl_module: L.LightningModule, start: str = "") -> None:
        self._checked = not start
        if _logs_later(trainer, pl_module):
            return
        logged = sorted(logged_in_training(trainer) | set(trainer.callback_metrics) | (self._validation or set()))
        for who, field, name in _monitored(trainer):
            if name.startswith(start) and name not in logged:
                close = get_close_matches(name, logged, n=1)
                there = f"logged are {', '.join(logged) or 'none'}"
                fix = f"did you mean {close[0]}? {there.capitalize()}" if close else f"{there}"
                raise InputError(f"{who} a metric that is not logged", field=field, got=name, fix=fix)


def _monitored(trainer: L.Trainer) -> Iterator[tuple[str, str, str]]:
    """Yield who monitors, the option, and the name of the metric."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        who = f"{type(callback).__name__} monitors"
        option = "monitor" if isinstance(callback, EarlyStop | BestCheckpoint) else "trainer.callbacks.monitor"
        if isinstance(callback, EarlyStopping) and callback.strict:
            yield who, option, callback.monitor
        if isinstance(callback, ModelCheckpoint):
            if callback.monitor and callback.monitor not in _COUNTED:
                yield who, option, callback.monitor
            for name in metrics_in_name(callback.filename or ""):
                if name not in _COUNTED:
                    yield "ModelCheckpoint's filename has", "trainer.callbacks.filename", name
    for schedule in trainer.lr_scheduler_configs:
        if schedule.reduce_on_plateau and schedule.strict:
            yield f"{type(schedule.scheduler).__name__} monitors", "model.scheduler.monitor", schedule.monitor or ""


def metrics_in_name(name: str) -> list[str]:
    """Return the metrics in the format of a checkpoint's name; a ValueError is raised where it is no format."""
    return [field for _, field, _, _ in Formatter().parse(name) if field]


def _logs_later(trainer: L.Trainer, pl_module: L.LightningModule) -> bool:
    """Return whether a module or a callback of the user's may log at the end of an epoch; none of ours does."""
    hooks = (one.on_train_epoch_end for one in (pl_module, *trainer.callbacks))  # type: ignore[attr-defined]
    return any(hook.__module__.partition(".")[0] not in ("lightning", "ftkit") for hook in hooks)
