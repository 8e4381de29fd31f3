"""Choose how often a training logs."""

import lightning as L

POINTS = 10  # of a learning curve in an epoch
LONGEST = 50  # steps between two of them, which is Lightning's own default


class LogInterval(L.Callback):
    """Log ten times an epoch, or every 50 steps if that is more often, so that a short training has a curve too."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the interval, now that the batches are counted."""
        steps = trainer.num_training_batches / trainer.accumulate_grad_batches
        trainer.log_every_n_steps = int(min(LONGEST, max(1, steps // POINTS)))  # type: ignore[attr-defined]
