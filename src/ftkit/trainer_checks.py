"""Refuse options of the trainer that would fail, or lose the run, only once it has been trained."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from ftkit.errors import InputError
from ftkit.training.lightning_internals import starts_processes_from_memory
from ftkit.training.monitors import metrics_in_name

LARGEST_SEED = 2**32 - 1


def check_options(chosen: Any) -> None:
    """Refuse trainings without a step, and intervals that nothing can be divided by.

    Args:
        chosen: The options of the trainer.

    Raises:
        InputError: Nothing would be trained, or an interval is zero.
    """
    if 0 in (chosen.max_epochs, chosen.max_steps):
        raise InputError(
            "nothing would be trained", field="trainer.max_epochs", got=0, fix="train for at least 1 epoch"
        )
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        if (value := chosen[name]) is not None and value < 1:
            raise InputError("must be at least 1", field=f"trainer.{name}", got=value)
    if chosen.val_check_interval == 0:
        raise InputError("must be positive", field="trainer.val_check_interval", got=chosen.val_check_interval)


def check_seed(seed: int | bool | None) -> None:
    """Refuse a seed that NumPy would not take.

    Raises:
        InputError: It is out of range.
    """
    if not 0 <= int(seed or 0) <= LARGEST_SEED:
        raise InputError(f"must be from 0 to {LARGEST_SEED}", field="seed_everything", got=seed)


def check_trainer(trainer: L.Trainer) -> None:
    """Refuse what would not leave a run where the other commands look for it.

    Raises:
        InputError: The strategy spawns or forks processes, or the name of a checkpoint has a slash.
    """
    if starts_processes_from_memory(trainer):
        raise InputError(
            "trains in spawned or forked processes, from which the run does not come back",
            field="trainer.strategy",
            got=type(trainer.strategy).__name__,
            fix="use ddp, which runs the command again in each process",
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ModelCheckpoint) and callback.filename:
            _check_name(callback.filename, callback.auto_insert_metric_name)


def _check_name(name: str, with_metric_names: bool) -> None:
    """Refuse a checkpoint's name that would become a folder, where no command looks for a checkpoint."""
    field = "trainer.callbacks.filename"
    try:
        slashed = [metric for metric in metrics_in_name(name) if "/" in metric]
    except ValueError as error:
        raise InputError(f"is no format: {error}", field=field, got=name) from error
    if "/" in re.sub(r"\{.*?\}", "", name):
        fix = f"use {PurePath(name).name!r}, and dirpath for a folder"
        raise InputError("a checkpoint's name may have no slash", field=field, got=name, fix=fix)
    if slashed and with_metric_names:
        plain = re.sub(r"\{(.*?)(:.*?)?\}", lambda part: f"{part[1].replace('/', '_')}={part[0]}", name)
        raise InputError(
            f"the name of {slashed[0]} would put the checkpoint into a folder, which is not looked into",
            field=field,
            got=name,
            fix=f"use auto_insert_metric_name: false with filename: '{plain}'",
        )
