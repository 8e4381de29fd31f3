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
        self._values: dict[int, float | None] = {}  # of the validations, by the step that they followed

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the value.

        Raises:
            Pruned: The training is not worth more steps.
            InputError: Validation does not log the metric.
        """
        step = trainer.global_step
        if trainer.sanity_checking or trainer.state.fn != "fit" or step in self._values:  # known, where it is resumed
            return
        if self.monitor not in trainer.callback_metrics:
            logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            problem, fix = "validation in training does not log it, which a pruner needs", f"it logs {logged}"
            raise InputError(problem, field="monitor", got=self.monitor, fix=fix)
        value = float(trainer.callback_metrics[self.monitor])
        unpromising = self._report(step, value if math.isfinite(value) else None)
        if step < trainer.estimated_stepping_batches and unpromising:
            at = f"step {step} (validation {len(self._values)})"
            reason = f"stopped at {at}: {self.monitor} {value:.4g}"
            record_unfinished(trainer, "pruned", reason, validations=self._validations)
            raise Pruned(reason)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the values, by which later trainings are judged."""
        add_to_result(trainer, validations=self._validations)

    def state_dict(self) -> dict[str, dict[int, float | None]]:
        """Return the values by metric and step."""
        return {self.monitor: self._values}

    def load_state_dict(self, state_dict: dict[str, dict[int, float | None]]) -> None:
        """Report the values of the training that is resumed again."""
        for step, value in state_dict.get(self.monitor, {}).items():
            self._report(step, value)

    @property
    def _validations(self) -> dict[str, list[float | None]]:
        return {self.monitor: list(self._values.values())}

    def _report(self, step: int, value: float | None) -> bool:
        """Report the value of a validation, and return whether the training should be pruned."""
        self._values[step] = value
        self.trial.report(math.nan if value is None else value, len(self._values))
        return bool(self.trial.should_prune())
