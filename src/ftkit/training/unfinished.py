"""What ``result.json`` says of a training that did not end by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L

from ftkit.run_folder import RESULT_FILE
from ftkit.storage import atomic_write
from ftkit.training.recorder import RunRecorder


def record_unfinished(trainer: L.Trainer, status: str, reason: str) -> None:
    """Replace the run's ``result.json``: a result of an earlier run in the folder is not that of this one.

    Args:
        trainer: The trainer.
        status: ``interrupted`` or ``failed``.
        reason: The signal, or what went wrong.
    """
    facts = {"status": status, "reason": reason, "epoch": trainer.current_epoch, "step": trainer.global_step}
    if trainer.is_global_zero:
        with atomic_write(Path(trainer.default_root_dir) / RESULT_FILE) as file:
            json.dump(facts, file, indent=1)


def add_to_result(trainer: L.Trainer, **facts: Any) -> None:
    """Add facts to what the run's :class:`ftkit.training.recorder.RunRecorder` has written and will write."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunRecorder) and trainer.is_global_zero:
            callback.result.update(facts)
            with atomic_write(Path(trainer.default_root_dir) / RESULT_FILE) as file:
                json.dump(callback.result, file, indent=1)
