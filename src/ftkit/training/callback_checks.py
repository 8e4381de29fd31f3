"""Refuse callbacks of Lightning that would not do their work with a network that is built late."""

import lightning as L
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)

from ftkit.errors import InputError

# What each takes before ``configure_model`` has built the network, for any module that has this hook.
_TOO_EARLY: dict[type[L.Callback], tuple[str, str]] = {
    StochasticWeightAveraging: (
        "copies the module before its network is built, so it would average nothing and only change the rate",
        "leave it out; model.scheduler can let the rate fall to zero instead",
    ),
    ModelPruning: ("looks for weights before the network is built", "leave it out"),
    BaseFinetuning: (
        "freezes layers before the network is built",
        "leave it out; model.trainable says what is trained",
    ),
}
# What does not go with ftkit's own modules.
_NOT_WITH_OURS: dict[type[L.Callback], tuple[str, str]] = {
    WeightAveraging: (
        "keeps the frozen weights a second time, and its checkpoints, which hold only what is trained, could not be "
        "resumed",
        "leave it out; model.scheduler can let the rate fall to zero instead",
    ),
    BatchSizeFinder: (
        "changes the size of a step, and with it the result",
        "use ftkit.training.fit_batch.FitBatch, which finds micro-batches that fit and keeps the step as it is",
    ),
}


def refuse_callbacks(trainer: L.Trainer, module: L.LightningModule, ours: bool) -> None:
    """Refuse callbacks that cannot do their work, by name and with the way out.

    Args:
        trainer: The trainer, with its callbacks.
        module: The module that is to be trained.
        ours: Whether its checkpoints hold only what is trained.
    """
    built_late = type(module).configure_model is not L.LightningModule.configure_model
    refused = {**(_TOO_EARLY if built_late else {}), **(_NOT_WITH_OURS if ours else {})}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for kind, (problem, fix) in refused.items():
            if isinstance(callback, kind):
                raise InputError(f"{type(callback).__name__} {problem}", field="trainer.callbacks", fix=fix)
