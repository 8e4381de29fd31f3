"""Adapt the private interfaces of Lightning's trainer, loops and callbacks that ftkit uses; no other file uses any.

``tests/training/test_lightning_internals.py`` names every assumption that is made here, so that a version that breaks
one turns that test red first.
"""

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

# The module and its hooks


def attached_trainer(module: L.LightningModule) -> L.Trainer | None:
    """Return the trainer that a module is attached to, or None; the public ``trainer`` raises where there is none.

    Assumes that ``_trainer`` holds it.
    """
    return module._trainer


def running_hook(module: L.LightningModule) -> str | None:
    """Return the name of the hook that the trainer is calling.

    Assumes that ``_current_fx_name`` is the name of the hook while callbacks are called in it, and while a checkpoint
    asks them for their state.
    """
    return module._current_fx_name


def as_the_step_gets_it(module: L.LightningModule, batch: Any) -> Any:
    """Return a batch as the trainer hands it on, before it goes to its device.

    Assumes that the trainer calls ``_on_before_batch_transfer`` of the module, which asks module and data module.
    """
    return module._on_before_batch_transfer(batch, dataloader_idx=0)


# The loader of the training data


def training_loaders(trainer: L.Trainer) -> list[Any]:
    """Return the loaders of the training data; none before they were asked for.

    Assumes that the fit loop combines them in ``_combined_loader``, whose ``flattened`` lists them.
    """
    return getattr(trainer.fit_loop._combined_loader, "flattened", [])


def replace_training_loaders(trainer: L.Trainer, loaders: list[Any]) -> None:
    """Have the fit loop iterate over other loaders, from their beginning.

    Assumes the same as :func:`training_loaders`, that ``flattened`` can be set, and that ``_data_fetcher`` begins anew
    with ``iter``.
    """
    loop: Any = trainer.fit_loop
    loop._combined_loader.flattened = loaders
    iter(loop._data_fetcher)  # the first iterator is over the old ones


def pass_over_batches(trainer: L.Trainer, batches: int) -> None:
    """Fetch batches and drop them, before the loop begins.

    Assumes that ``_data_fetcher`` counts in ``fetched``, to which the loop adds the batches that were done itself.
    """
    fetcher: Any = trainer.fit_loop._data_fetcher
    for _ in range(batches):
        next(fetcher)
    fetcher.fetched = 0


def set_batches_of_an_epoch(trainer: L.Trainer, batches: int) -> None:
    """Change the number of batches in an epoch, once the training data are set up.

    Assumes that it stands in ``max_batches`` and in the combined loader's ``limits``.
    """
    loop: Any = trainer.fit_loop
    loop._combined_loader.limits = loop.max_batches = batches
    iter(loop._data_fetcher)  # it may have fetched whole batches


# Strategies


def starts_processes_from_memory(trainer: L.Trainer) -> bool:
    """Return whether a trainer spawns or forks its processes, instead of running the command again in each.

    Assumes that a strategy that does so has a ``_MultiProcessingLauncher``.
    """
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def join_all_processes(strategy: ModelParallelStrategy) -> None:
    """Have all processes of a strategy share the data; by default it would cut layers apart inside a node.

    Assumes that ``_data_parallel_size`` and ``_tensor_parallel_size`` are read when its environment is set up.
    """
    strategy._data_parallel_size, strategy._tensor_parallel_size = strategy.num_nodes * strategy.num_processes, 1


# Checkpoint callbacks


def checkpoint_flags(trainer: L.Trainer) -> dict[str, dict[str, Any]]:
    """Return, by callback, at which step it saved last, and whether it waits for a validation; its own state lacks it.

    Assumes that a ModelCheckpoint keeps them as ``_last_global_step_saved``, once it has saved, and
    ``_defer_save_until_validation``, and saves after steps by ``_every_n_train_steps`` in ``on_train_batch_end``.
    """
    flags = {}
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            saved, waits = callback._last_global_step_saved, callback._defer_save_until_validation
            saves = running_hook(trainer.lightning_module) == "on_train_batch_end" and callback._every_n_train_steps > 0
            flags[callback.state_key] = {"saved": trainer.global_step if saves and not waits else saved, "waits": waits}
    return flags


def restore_checkpoint_flags(trainer: L.Trainer, flags: Mapping[str, Mapping[str, Any]]) -> None:
    """Put back what :func:`checkpoint_flags` returned, so that no step is saved twice."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and (flag := flags.get(callback.state_key)):
            callback._last_global_step_saved, callback._defer_save_until_validation = flag["saved"], flag["waits"]


# The loops and their state in a checkpoint


def epoch_is_over(trainer: L.Trainer) -> bool:
    """Return whether no batch of the epoch is left, or no step of the training.

    Assumes that ``_is_training_done`` of the epoch loop says so.
    """
    return trainer.fit_loop.epoch_loop._is_training_done


def before_the_batch(trainer: L.Trainer, loops: dict[str, Any]) -> None:
    """Turn the loops' state, saved at the start of a batch, into the state before it.

    Assumes that Lightning takes all counters equal for a checkpoint that follows a validation: it does not validate
    again, and then counts the batch that stepped in ``_batches_that_stepped``. So that is counted back where a
    validation came, see :func:`validation_is_due`.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    saved = loops["epoch_loop.batch_progress"]
    for counts in (saved["total"], saved["current"]):
        counts["ready"] = counts["started"] = counts["completed"]
    saved["is_last_batch"] = False
    progress = loop.batch_progress
    before = progress.state_dict()
    progress.total.ready, progress.current.ready = saved["total"]["ready"], saved["current"]["ready"]
    progress.is_last_batch = False
    if validation_is_due(trainer):
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
    progress.total.ready, progress.current.ready = before["total"]["ready"], before["current"]["ready"]
    progress.is_last_batch = before["is_last_batch"]


def epoch_is_under_way(trainer: L.Trainer) -> bool:
    """Return whether an epoch of training has begun, and its end was not told to callbacks.

    Assumes that ``epoch_progress`` of the fit loop counts an epoch as processed just before that.
    """
    counts: Any = trainer.fit_loop.epoch_progress.total
    return counts.started > counts.processed


def validation_is_due(trainer: L.Trainer) -> bool:
    """Return whether a validation comes after the batch that is under way.

    Assumes that ``_should_check_val_fx`` of the epoch loop says so from its start to its end.
    """
    return trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]


def after_the_batch(trainer: L.Trainer, loops: dict[str, Any]) -> None:
    """Turn the loops' state, saved at the end of a batch, into that after it, with its validation still to come.

    Lightning would leave out a validation that is due, and what follows the last batch of an epoch. Assumes the same as
    :func:`before_the_batch`, and that a validation that had begun a batch is taken up again, from its first batch.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    saved = loops["epoch_loop.batch_progress"]
    for counts in (saved["total"], saved["current"]):
        counts["completed"] = counts["processed"]
    if validation_is_due(trainer):
        validation = loops["epoch_loop.val_loop.batch_progress"]
        done = validation["total"]["completed"]
        validation["total"] |= {"ready": done + 1, "started": done + 1, "processed": done}
        validation["current"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        validation["is_last_batch"] = False
    elif not loop._should_accumulate():
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1


def step_plateaus_again(trainer: L.Trainer) -> None:
    """Let the fit loop step a ``ReduceLROnPlateau`` at the end of the epoch in which a training was resumed.

    Assumes that it does so unless ``_restarting``, whose public setter does more.
    """
    trainer.fit_loop._restarting = False


def finish_epoch_first(trainer: L.Trainer, validates: bool, stop: bool) -> None:
    """Let a resumed training finish the epoch that was under way, though its last step has been taken.

    Args:
        trainer: Before its fit loop runs.
        validates: Whether a validation follows the last step; Lightning knows whether it has been.
        stop: Whether training was told to stop.

    Assumes that the fit loop looks at ``max_steps`` of its epoch loop and at ``should_stop`` before it calls its own
    ``on_advance_start``; and that the epoch loop, when it is restarted, calls ``advance`` and ``on_advance_end`` at
    least once, and ends at a StopIteration.
    """
    loop: Any = trainer.fit_loop
    epoch: Any = loop.epoch_loop
    limit, begin, advance, end = epoch.max_steps, loop.on_advance_start, epoch.advance, epoch.on_advance_end

    def begin_once() -> None:
        loop.on_advance_start, epoch.max_steps = begin, limit
        if epoch_is_over(trainer) and not validates:
            epoch.advance = leave_once
        begin()

    def leave_once(fetcher: Any) -> None:
        epoch.advance = advance
        trainer.should_stop = trainer.should_stop or stop
        raise StopIteration

    def end_once(fetcher: Any) -> None:
        epoch.on_advance_end = end
        end(fetcher)
        trainer.should_stop = trainer.should_stop or stop

    loop.on_advance_start, epoch.on_advance_end = begin_once, end_once
    epoch.max_steps = -1
