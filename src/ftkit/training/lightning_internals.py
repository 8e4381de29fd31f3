"""Private interfaces of Lightning and torchmetrics that ftkit uses; no other file uses any.

``tests/training/test_lightning_internals.py`` names every assumption that is made here, so that a version that breaks
one turns that test red first.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, _InstantiatorFn
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch import Tensor, nn
from torchmetrics import Metric


class HookedCLI(LightningCLI):
    """LightningCLI with hooks at four steps that it offers no hooks for.

    Assumes that it makes the parser of each subcommand in ``_prepare_subcommand_parser``, takes hyperparameters from a
    checkpoint in ``_parse_ckpt_path`` before it builds anything, chooses in ``_add_instantiators`` what builds the
    classes that a configuration names, with an ``_InstantiatorFn`` for the model and one for the data, and does its
    work in ``_run_subcommand``.
    """

    def add_arguments_to_subcommand(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Add options to the parser of one subcommand."""

    def before_parse_checkpoint(self) -> None:
        """Look at the configuration before a checkpoint's hyperparameters are put into it."""

    @contextmanager
    def around_constructor(self, class_type: type) -> Iterator[None]:
        """Surround the building of an object whose class a configuration names, now or when a partial is called."""
        yield

    def constructor_arguments(self, class_type: type, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments to build an object with, from those that a configuration names."""
        return arguments

    @contextmanager
    def around_subcommand(self, subcommand: str) -> Iterator[None]:
        """Surround the subcommand, its ``before_`` and ``after_`` hooks included."""
        yield

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        self.add_arguments_to_subcommand(parser, subcommand)
        return parser

    def _parse_ckpt_path(self) -> None:
        self.before_parse_checkpoint()
        super()._parse_ckpt_path()

    def _add_instantiators(self) -> None:
        for key, base in (("model", L.LightningModule), ("data", L.LightningDataModule)):
            self.parser.add_instantiator(_Constructor(self, _InstantiatorFn(self, key)), base)
        self.parser.add_instantiator(_Constructor(self, _call), object)

    def _run_subcommand(self, subcommand: str) -> None:
        with self.around_subcommand(subcommand):
            super()._run_subcommand(subcommand)


class _Constructor:
    """Build the objects of a configuration inside :meth:`HookedCLI.around_constructor`."""

    def __init__(self, cli: HookedCLI, build: Callable[..., Any]) -> None:
        self.cli, self.build = cli, build

    def __call__(self, class_type: type, *args: Any, applied_instantiation_links: dict[str, Any], **kwargs: Any) -> Any:
        with self.cli.around_constructor(class_type):
            kwargs = self.cli.constructor_arguments(class_type, kwargs)
            return self.build(class_type, *args, applied_instantiation_links=applied_instantiation_links, **kwargs)


def _call(class_type: type, *args: Any, applied_instantiation_links: dict[str, Any], **kwargs: Any) -> Any:
    return class_type(*args, **kwargs)


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


# Values that are logged


def logged_in_step(trainer: L.Trainer, name: str) -> Tensor | None:
    """Return what ``training_step`` has logged of the current batch; ``callback_metrics`` would wait for the device.

    Assumes that ``_results`` of the epoch loop has an entry ``training_step.NAME`` with the last value as
    ``_forward_cache``.
    """
    results: Any = trainer.fit_loop.epoch_loop._results
    found = results.get(f"training_step.{name}")
    return None if found is None else found._forward_cache


_SUMS = ("value", "cumulated_batch_size")


def logged_in_training(trainer: L.Trainer) -> set[str]:
    """Return the names of the metrics that the training steps of this epoch have logged so far.

    Assumes that the training loop keeps what is logged in ``epoch_loop._results``, each with a ``meta`` that holds its
    name, and the two names that it has if it is logged per step and per epoch. The public ``callback_metrics`` has the
    averages of an epoch only when it is over.
    """
    metas = [result.meta for result in trainer.fit_loop.epoch_loop._results.values()]
    return {name for meta in metas for name in (meta.name, meta.forked_name(True), meta.forked_name(False))}


def epoch_sums(trainer: L.Trainer) -> dict[str, dict[str, Tensor]]:
    """Return what has been summed up of the values that are logged over the epoch, by hook and name.

    Assumes that an entry of ``_results`` keeps tensors as ``value`` and, for a mean, ``cumulated_batch_size``.
    """
    results: Any = trainer.fit_loop.epoch_loop._results
    return {
        key: {name: _detached(getattr(result, name)) for name in _SUMS if hasattr(result, name)}
        for key, result in results.items()
        if result.is_tensor and result.meta.on_epoch
    }


def add_epoch_sums(trainer: L.Trainer, stored: dict[str, dict[str, Tensor]]) -> None:
    """Add sums of the same epoch to those of the values that have been logged since; these are removed from ``stored``.

    Assumes the same as :func:`epoch_sums`, that ``meta`` says how a value is reduced, and ``_computed`` caches it.
    """
    results: Any = trainer.fit_loop.epoch_loop._results
    for key in [key for key in stored if key in results]:
        sums, result = stored.pop(key), results[key]
        for name, value in sums.items():
            before, now = value.to(getattr(result, name).device), getattr(result, name)
            limit = result.meta.is_max_reduction or result.meta.is_min_reduction
            setattr(result, name, result.meta.reduce_fx(before, now) if limit else before + now)
        result._computed = None


def epoch_values(trainer: L.Trainer) -> tuple[dict[str, Tensor], set[str]]:
    """Return the values of the epoch so far that callbacks see, by name, and the names of those that loggers get.

    Assumes that ``metrics(on_step=False)`` of ``_results`` computes both.
    """
    found: Any = trainer.fit_loop.epoch_loop._results.metrics(on_step=False)
    return {name: _detached(value) for name, value in found["callback"].items()}, set(found["log"])


def rows_to_come(trainer: L.Trainer) -> list[tuple[int, dict[str, float]]]:
    """Return what loggers will get of the step, or the epoch, whose end is being told to callbacks: step and values.

    Checkpoints are saved in these hooks, before the values are logged. Assumes :func:`running_hook`, and that
    ``_logger_connector`` logs after ``on_train_batch_end`` by ``update_train_step_metrics``, and after
    ``on_train_epoch_end`` its ``metrics`` at the step before ``_batches_that_stepped``.
    """
    hook, loop, noted = running_hook(trainer.lightning_module), trainer.fit_loop.epoch_loop, _Notes()
    connector: Any = trainer._logger_connector
    loggers, trainer.loggers = trainer.loggers, [noted]
    try:
        if hook == "on_train_batch_end":
            connector.update_train_step_metrics()
        elif hook == "on_train_epoch_end":
            loop._batches_that_stepped -= 1
            connector.log_metrics(connector.metrics["log"])
            loop._batches_that_stepped += 1
    finally:
        trainer.loggers = loggers
    return noted.rows


class _Notes(Logger):
    """A logger that notes what is logged."""

    name = version = None

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Note them."""
        self.rows.append((int(step or 0), dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Note nothing."""


def restore_callback_metrics(trainer: L.Trainer, values: dict[str, Tensor]) -> None:
    """Put back what callbacks may monitor.

    Assumes that ``_callback_metrics`` of ``_logger_connector`` keeps it from one epoch to the next.
    """
    trainer._logger_connector._callback_metrics.update(values)


def metric_states(module: nn.Module, apart_from: Collection[Metric] = ()) -> dict[str, Any]:
    """Return the counts of all torchmetrics of a module, by name.

    Assumes that a metric is its ``metric_state`` and the number of updates in ``_update_count``.
    """
    return {
        name: {"count": metric._update_count, "state": _detached(metric.metric_state)}
        for name, metric in module.named_modules()
        if isinstance(metric, Metric) and not any(metric is other for other in apart_from)
    }


def metrics_of_validation(trainer: L.Trainer) -> list[Metric]:
    """Return the metrics that are logged in the validation that is under way; Lightning resets them at its end.

    Assumes that an entry of ``_results`` of the validation loop keeps a metric as ``value``.
    """
    results: Any = trainer.fit_loop.epoch_loop.val_loop._results
    return [result.value for result in results.values() if not result.is_tensor]


def restore_metric_states(module: nn.Module, stored: Mapping[str, Any]) -> None:
    """Put back what :func:`metric_states` returned.

    Assumes the same, that states are attributes, and that ``_computed`` is a cached result or None.
    """
    for name, metric in module.named_modules():
        if isinstance(metric, Metric) and name in stored:
            metric._update_count, metric._computed = stored[name]["count"], None
            for key, value in stored[name]["state"].items():
                parts = value if isinstance(value, list) else [value]
                moved = [part.to(metric.device) for part in parts]
                setattr(metric, key, moved if isinstance(value, list) else moved[0])


def _detached(value: Any) -> Any:
    """Copy a tensor, or the tensors in a list or dict, to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    return {k: _detached(v) for k, v in value.items()} if isinstance(value, Mapping) else [_detached(v) for v in value]


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
