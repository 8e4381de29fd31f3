"""Which checkpoint a command starts from, and what it refuses to start from."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from ftkit.errors import InputError
from ftkit.run_folder import CONFIG_FILE
from ftkit.training.model_selection import Mode
from ftkit.training.resume import resumable

LIGHTNINGS_OWN_CHECKPOINTS = ("best", "last", "hpc", "registry")  # words that it takes for a path
RESUME_OPTIONS = {
    "resume": "Resume from the newest checkpoint of the run folder, if there is one.",
    "allow_changed": "Resume although seed, batch size, accumulation or data have changed; the changes are recorded.",
}
EVALUATION_OPTIONS = {"untrained": "Evaluate the model as it is loaded, before any training."}
SELECTION_OPTIONS: dict[str, tuple[Any, str | None, str]] = {  # type, default, help
    "model_selection": (Literal["best", "last"], "last", "The checkpoint that is the run's model; best on validation."),
    "monitor": (str, "val/loss", "The metric that decides what is best, and when to stop early."),
    "monitor_mode": (Mode | None, None, "Better is lower or higher; null: lower of a loss, perplexity or error."),
}


def folder_of_run(configs: Sequence[Path]) -> Path | None:
    """Return the folder of the last config file that a run wrote, with a notice; None if there is none."""
    own = [file.parent for file in configs if file.name == CONFIG_FILE]
    if not own:
        return None
    print(f"notice: using the run folder {own[-1]}, which holds this {CONFIG_FILE}", file=sys.stderr)
    return own[-1]


def choose_resumable(chosen: Namespace) -> None:
    """Take the newest checkpoint of the run folder that training can resume from; without one start anew.

    Args:
        chosen: The options of a ``fit`` with ``--resume``; its ``ckpt_path`` is set.

    Raises:
        InputError: A checkpoint is named as well.
    """
    if chosen.ckpt_path:
        raise InputError("choose one of --resume and --ckpt_path", field="resume")
    folder = Path(chosen.trainer.default_root_dir)
    found, notices = resumable(folder)
    for notice in notices:
        print(f"notice: {notice}", file=sys.stderr)
    if found is None:
        print(f"notice: no checkpoint to resume from in {folder}; training starts from the beginning", file=sys.stderr)
    chosen.ckpt_path = None if found is None else str(found)


def refuse_other_options(given: Mapping[str, Any], stored: Mapping[str, Any], path: str) -> None:
    """Refuse options that the checkpoint's would silently replace.

    Args:
        given: The model's options that the user named; None where one was left open.
        stored: Those that the checkpoint was trained with.
        path: The checkpoint.

    Raises:
        InputError: An option was given another value.
    """
    for name, value in given.items():
        if name in stored and value is not None and value != stored[name]:
            raise InputError(
                f"the checkpoint {path} was trained with {stored[name]!r}",
                field=f"model.{name}",
                got=value,
                fix="leave the option out or give the same, or train anew",
            )


def refuse_trained(chosen: Namespace) -> None:
    """Keep what an untrained model predicts apart from trained ones.

    Args:
        chosen: The options of an evaluation with ``--untrained``.

    Raises:
        InputError: A checkpoint is named as well, or the run folder holds one.
    """
    if chosen.ckpt_path is not None:
        raise InputError("choose one of --untrained and --ckpt_path", field="untrained")
    folder = Path(chosen.trainer.default_root_dir)
    if any((folder / "checkpoints").glob("*.ckpt")):
        raise InputError(
            "holds a trained model, whose predictions would be replaced",
            file=folder,
            field="untrained",
            fix="choose another --trainer.default_root_dir",
        )
