"""Adapt the private interfaces of Lightning and torchmetrics for logged values; no other file uses any.

``tests/training/test_lightning_internals.py`` names every assumption that is made here, so that a version that breaks
one turns that test red first.
"""

from collections.abc import Collection, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torchmetrics import Metric

from ftkit.training.lightning_internals import running_hook

_SUMS = ("value", "cumulated_batch_size")


def logged_in_step(trainer: L.Trainer, name: str) -> Tensor | None:
    """Return what ``training_step`` has logged of the current batch; ``callback_metrics`` would wait for the device.

    Assumes that ``_results`` of the epoch loop has an entry ``training_step.NAME`` with the last value as
    ``_forward_cache``.
    """
    results: Any = trainer.fit_loop.epoch_loop._results
    found = results.get(f"training_step.{name}")
    return None if found is None else found._forward_cache


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
