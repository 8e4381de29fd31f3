"""Stop a training on a signal at a safe point, with everything saved that resuming needs."""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from ftkit.storage import CHECKSUM_SUFFIX, remove_partials
from ftkit.training.checkpoint import INTERRUPTED
from ftkit.training.lightning_internals import before_the_batch
from ftkit.training.recorder import record_unfinished


class SafeStop(L.Callback):
    """Save ``checkpoints/interrupted.ckpt`` and stop when the process is told to end, by SIGTERM or Ctrl-C.

    The safe point is the next batch after an optimizer step: a validation that runs is finished first. Before the first
    batch, as while outputs of frozen layers are computed, there is nothing to save, and one process ends at once. So it
    does at a second signal; the files on the disk stay whole. ``result.json`` says ``"status": "interrupted"``. When a
    training ends, its ``interrupted.ckpt`` is removed. Of several processes each stops if any of them is told to; they
    agree on it once a step.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._handlers: dict[int, Any] = {}
        self._saving = False
        self._begun = False  # whether there may be something to save

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove temporary files that a killed run left."""
        if trainer.is_global_zero:
            for folder in (Path(trainer.default_root_dir), _checkpoint(trainer).parent):
                remove_partials(folder)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to signals."""
        self.received = None
        self._begun = trainer.world_size > 1  # several stop together, at a batch
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._receive)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop if told to, and if no gradients are waiting for their step.

        Raises:
            SIGTERMException: The process was terminated.
            KeyboardInterrupt: It was interrupted.
        """
        self._begun = True
        if batch_idx % trainer.accumulate_grad_batches:
            return
        self.received = _received_by_any(trainer, self.received)
        if self.received is None:
            return
        path = _checkpoint(trainer)
        self._saving = True
        trainer.save_checkpoint(path, weights_only=False)
        self._saving = False
        record_unfinished(trainer, "interrupted", signal.Signals(self.received).name)
        rank_zero_info(f"Interrupted at step {trainer.global_step}; continue with --resume (saved as {path})")
        raise KeyboardInterrupt if self.received == signal.SIGINT else SIGTERMException

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record in the loops' state that the last batch is over and the next one has not begun."""
        if self._saving:
            before_the_batch(trainer, checkpoint["loops"]["fit_loop"])

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop listening; there is nothing to resume any more."""
        self._restore_handlers()
        if trainer.is_global_zero:
            for suffix in ("", CHECKSUM_SUFFIX):
                Path(f"{_checkpoint(trainer)}{suffix}").unlink(missing_ok=True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Stop listening."""
        self._restore_handlers()
        if self.received is not None and not self._begun:
            record_unfinished(trainer, "interrupted", signal.Signals(self.received).name)

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        at_once = self.received is not None or not self._begun
        self.received = number
        if at_once:
            self._restore_handlers()
            raise KeyboardInterrupt if number == signal.SIGINT else SIGTERMException
        _say("stopping after this step; a second signal stops at once, without saving")


@rank_zero_only
def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # not logged: a sweep shows nothing of Lightning's


def _received_by_any(trainer: L.Trainer, received: int | None) -> int | None:
    """Return the signal that some process received, the same one in all of them."""
    if trainer.world_size == 1:
        return received
    number = torch.tensor(received or 0, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(number, reduce_op="max")) or None


def _checkpoint(trainer: L.Trainer) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints" / INTERRUPTED
