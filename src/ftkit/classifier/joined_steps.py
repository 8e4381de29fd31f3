"""Replace batches of 1 with accumulated gradients by larger batches that make the same steps.

The trainer accumulates that much less, and counts the larger ones.
"""

import lightning as L
from lightning.pytorch.callbacks import GradientAccumulationScheduler

TOGETHER = 8  # largest batch that replaces batches of 1


def joinable(trainer: L.Trainer) -> int:
    """Return how many batches of 1 may be one.

    It is 1 where processes share the steps, or where the trainer was told to count batches that would not come out
    even.
    """
    scheduled = any(isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if scheduled or trainer.limit_train_batches != 1.0 or trainer.world_size > 1:
        return 1
    counted = [trainer.accumulate_grad_batches]
    if trainer.val_check_interval != 1.0:
        if not isinstance(trainer.val_check_interval, int) or trainer.check_val_every_n_epoch is None:
            return 1
        counted.append(trainer.val_check_interval)
    return max(n for n in range(1, TOGETHER + 1) if not any(count % n for count in counted))


def count_together(trainer: L.Trainer, before: int, now: int) -> None:
    """Have a trainer count batches of ``now`` examples where it counted batches of ``before``."""
    trainer.accumulate_grad_batches = trainer.accumulate_grad_batches * before // now
    if isinstance(trainer.val_check_interval, int):
        trainer.val_check_interval = trainer.val_check_interval * before // now
