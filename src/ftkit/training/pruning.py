"""Stop a training that a pruner of a search finds unpromising."""

import math
from typing import Any

import lightning as L

from ftkit.errors import InputError, Pruned
from ftkit.training.recorder import add_to_result, record_unfinished


class PruneUnpromising(L.Callback):
    """Report each validation to an ``optuna.Trial``, and stop the training if it should be pruned.

    The values are kept in ``result.json`` as ``validations``, by the metric's name. A training that has taken
    its last step is not stopped.

    Args:
        trial: Takes the values with the number of the validation, from 1.
        monitor: The metric.
    """

    def __init__(self, trial: Any, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor
        self.values: list[float | None] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the value.

        Raises:
            Pruned: The training is not worth more steps.
            InputError: Validation does not log the metric.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.monitor not in trainer.callback_metrics:
            logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            problem, fix = "validation in training does not log it, which a pruner needs", f"it logs {logged}"
            raise InputError(problem, field="monitor", got=self.monitor, fix=fix)
        value = float(trainer.callback_metrics[self.monitor])
        self.values.append(value if math.isfinite(value) else None)
        self.trial.report(value, len(self.values))
        if trainer.global_step < trainer.estimated_stepping_batches and self.trial.should_prune():
            at = f"step {trainer.global_step} (validation {len(self.values)})"
            reason = f"stopped at {at}: {self.monitor} {value:.4g}"
            record_unfinished(trainer, "pruned", reason, validations={self.monitor: self.values})
            raise Pruned(reason)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the values, by which later trainings are judged."""
        add_to_result(trainer, validations={self.monitor: self.values})
