"""The options of the trainer: what ftkit adds, and what would fail, or lose the run, only once it has been trained."""

import re
from pathlib import PurePath
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint

from ftkit.errors import InputError
from ftkit.results.metrics import mode_of
from ftkit.training.checkpoint import AtomicCheckpointIO
from ftkit.training.curves_logger import CurvesLogger
from ftkit.training.lightning_internals import starts_processes_from_memory
from ftkit.training.model_selection import BestCheckpoint, EarlyStop
from ftkit.training.monitor_check import metrics_in_name
from ftkit.training.optimizer import check_warmup, configured_optimizers
from ftkit.training.trained_state import TrainedStateModule

LARGEST_SEED = 2**32 - 1


def check_options(chosen: Any) -> None:
    """Refuse trainings without a step, and intervals that nothing can be divided by.

    Raises:
        InputError: Nothing would be trained, or an interval is zero.
    """
    if 0 in (chosen.max_epochs, chosen.max_steps):
        fix = "train for at least 1 epoch"
        raise InputError("nothing would be trained", field="trainer.max_epochs", got=0, fix=fix)
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


def trainer_options(command: Any, folder: str, training: bool) -> dict[str, Any]:
    """Return what ftkit puts in the place of the options that a user chose.

    Returns:
        The run folder, the loggers with curves as CSV before them, the plugins with checkpoints that are written whole,
        the callbacks with those of model selection and early stopping.
    """
    chosen = command.trainer
    options: dict[str, Any] = {"default_root_dir": folder, "callbacks": _callbacks(command)}
    if chosen.logger is not False:
        others = [] if chosen.logger in (None, True) else chosen.logger
        others = others if isinstance(others, list) else [others]
        # First, for the first logger decides where checkpoints go; always, for reports read the curves.
        options["logger"] = [*([CurvesLogger(folder)] if training else []), *others]
    if chosen.enable_model_summary is None:  # the line of what is trained says it, and knows adapters
        options["enable_model_summary"] = False
    plugins = chosen.plugins or []
    options["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
    return options


def _callbacks(command: Any) -> list[L.Callback]:
    """Return the chosen callbacks, those that stop before those that save, so that a checkpoint knows all."""
    callbacks = command.trainer.callbacks or []
    callbacks = [*callbacks] if isinstance(callbacks, list) else [callbacks]
    what = command.monitor, command.monitor_mode or mode_of(command.monitor)
    if command.model_selection == "best":
        saving = [one for one in callbacks if isinstance(one, ModelCheckpoint)]
        if any(one.filename == "best" for one in saving):
            fix = "leave it out, or give it another filename"
            raise InputError("is best.ckpt too, which model_selection writes", field="trainer.callbacks", fix=fix)
        if not any(one.monitor is None and one.save_top_k for one in saving):
            callbacks.append(ModelCheckpoint(filename="last", enable_version_counter=False))
        callbacks.insert(0, BestCheckpoint(*what))
    if command.early_stopping.patience is not None:
        callbacks.insert(0, EarlyStop(*what, **command.early_stopping))
    return callbacks


def check_optimizer(module: Any, chosen: Any) -> None:
    """Refuse what torch, or training, would refuse only once the run folder is there.

    Raises:
        InputError: A value is out of range.
    """
    if not isinstance(module, TrainedStateModule):
        return
    check_warmup(module.scheduler, module.warmup, module.scheduler_interval)
    if _is_of(chosen.get("optimizer"), "torch.optim."):
        known = _is_of(chosen.get("scheduler"), "torch.optim.", "lightning.")
        any_parameter = torch.nn.Parameter(torch.zeros(1))
        configured_optimizers([any_parameter], module.optimizer, module.scheduler if known else None)


def check_trainer(trainer: L.Trainer) -> None:
    """Refuse what would not leave a run where the other commands look for it.

    Raises:
        InputError: The strategy spawns or forks processes, or the name of a checkpoint has a slash.
    """
    if starts_processes_from_memory(trainer):
        problem = "trains in spawned or forked processes, whose results are lost when they end"
        got, fix = type(trainer.strategy).__name__, "use ddp, which runs the command again in each process"
        raise InputError(problem, field="trainer.strategy", got=got, fix=fix)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ModelCheckpoint) and callback.filename:
            _check_name(callback.filename, callback.auto_insert_metric_name)


def _check_name(name: str, with_metric_names: bool) -> None:
    """Refuse a checkpoint's name that would become a folder, where no command looks for a checkpoint."""
    field = "trainer.callbacks.filename"
    try:
        slashed = [metric for metric in metrics_in_name(name) if "/" in metric]
    except ValueError as error:
        raise InputError(f"is not a valid format: {error}", field=field, got=name) from error
    if "/" in re.sub(r"\{.*?\}", "", name):
        fix = f"use {PurePath(name).name!r}, and dirpath for a folder"
        raise InputError("a checkpoint's name may have no slash", field=field, got=name, fix=fix)
    if slashed and with_metric_names:
        plain = re.sub(r"\{(.*?)(:.*?)?\}", lambda part: f"{part[1].replace('/', '_')}={part[0]}", name)
        problem = f"the name of {slashed[0]} would put the checkpoint into a folder where no command looks for it"
        fix = f"use auto_insert_metric_name: false with filename: '{plain}'"
        raise InputError(problem, field=field, got=name, fix=fix)


def _is_of(chosen: Any, *packages: str) -> bool:
    """Return whether an option names a class of one of these packages."""
    return isinstance(chosen, Namespace) and str(chosen.get("class_path", "")).startswith(packages)
