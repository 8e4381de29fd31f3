"""Choose the checkpoint that a command starts from, and refuse those that it cannot start from."""

import sys
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal

from jsonargparse import Namespace

from ftkit.errors import ExitCode, InputError
from ftkit.run_folder import has_checkpoint, is_trained
from ftkit.training.checkpoint import INTERRUPTED, find_checkpoint, read_checkpoint
from ftkit.training.model_selection import Mode
from ftkit.training.resume import resumable
from ftkit.training.stored_options import read_options
from ftkit.training.trained_state import TrainedStateModule, commit_trained_on

_LIGHTNINGS_OWN = ("best", "last", "hpc", "registry")  # words that it takes for the path of a checkpoint
RESUME_OPTIONS = {
    "resume": "Resume from the newest checkpoint of the run folder, if there is one.",
    "allow_changed": "Resume although seed, batch size, accumulation or data have changed; the changes are recorded.",
}
EVALUATION_OPTIONS = {"untrained": "Evaluate the model as it is loaded, before any training."}
CONTROLS_OPTION = {
    "controls": "Predict the test examples with blank and with swapped images too: is the image looked at?"
}
SELECTION_OPTIONS: dict[str, tuple[Any, str | None, str]] = {  # type, default, help
    "model_selection": (Literal["best", "last"], "last", "The checkpoint that is the run's model; best on validation."),
    "monitor": (str, "val/loss", "The metric that decides what is best, and when to stop early."),
    "monitor_mode": (Mode | None, None, "Better is lower or higher; null: lower of a loss, perplexity or error."),
}


def choose_resumable(chosen: Namespace) -> None:
    """Take the newest checkpoint of the run folder that training can resume from; without one start anew.

    Raises:
        InputError: A checkpoint is named as well.
        SystemExit: The training is finished, and left no checkpoint to resume from.
    """
    if chosen.ckpt_path:
        raise InputError("choose one of --resume and --ckpt_path", field="resume")
    folder = Path(chosen.trainer.default_root_dir)
    found, notices = resumable(folder)
    if found is None and is_trained(folder):
        said = f"the training in {folder} is finished; it kept weights only, so there is nothing to resume"
        print(f"notice: {said}", file=sys.stderr)
        raise SystemExit(ExitCode.DONE)
    for notice in notices:
        print(f"notice: {notice}", file=sys.stderr)
    if found is None:
        print(f"notice: no checkpoint to resume from in {folder}; training starts from the beginning", file=sys.stderr)
    chosen.ckpt_path = None if found is None else str(found)


def refuse_interrupted(chosen: Namespace) -> None:
    """Keep the state of an interrupted training from being replaced by another training.

    Raises:
        InputError: The run folder holds one.
    """
    file = Path(chosen.trainer.default_root_dir) / "checkpoints" / INTERRUPTED
    if file.exists() and not chosen.trainer.fast_dev_run:
        problem = "is the state of an interrupted training, which would be lost"
        fix = "continue it with --resume, choose another --trainer.default_root_dir, or remove the file"
        raise InputError(problem, file=file, fix=fix)


def named_checkpoint(chosen: Namespace) -> str | None:
    """Return the path of the checkpoint that is named; None without one, or for a word of Lightning's own."""
    path = chosen.get("ckpt_path")
    return path if path and path not in _LIGHTNINGS_OWN else None


def check_checkpoint(chosen: Namespace, path: str, given: Mapping[str, Any]) -> str | None:
    """Read a checkpoint safely, refuse a wrong one and name its file, before Lightning takes hyperparameters from it.

    Args:
        chosen: The options of the subcommand.
        path: The checkpoint, or the folder of a run.
        given: The arguments of the model that the user gave.

    Returns:
        The base model's commit if ``given`` names it as its revision, and the checkpoint was trained on it.

    Raises:
        InputError: It is that of another class, or was trained with other options.
    """
    checkpoint = read_checkpoint(path)
    stored = checkpoint.get("hyper_parameters") or {}
    trained = stored.get("_class_path")
    if trained not in (None, chosen.model.class_path):
        raise InputError("is a checkpoint of another class", file=path, field="model.class_path", got=trained)
    kind = resolve_name(chosen.model.class_path)
    if isinstance(kind, type) and issubclass(kind, TrainedStateModule):
        read_options(kind, stored, path, "hyper_parameters")
    commit = commit_trained_on(checkpoint)
    same = commit is not None and given.get("revision") == commit
    _refuse_other_options(given, {**stored, "revision": commit} if same else stored, path)
    chosen.ckpt_path = str(find_checkpoint(path))
    return commit if same else None


def _refuse_other_options(given: Mapping[str, Any], stored: Mapping[str, Any], path: str) -> None:
    """Refuse options that the checkpoint's would silently replace.

    Raises:
        InputError: An option was given another value.
    """
    for name, value in given.items():
        if name in stored and value is not None and not _agree(value, stored[name]):
            problem = f"the checkpoint {path} was trained with {stored[name]!r}"
            fix = "leave the option out or give the same, or train anew"
            raise InputError(problem, field=f"model.{name}", got=value, fix=fix)


def _agree(given: Any, stored: Any) -> bool:
    """Return whether a value is the stored one; of a class with its arguments, as far as they were given."""
    if not (isinstance(given, Mapping) and isinstance(stored, Mapping)):
        return bool(given == stored)
    return all(value is None or _agree(value, stored.get(name)) for name, value in given.items())


def refuse_trained(chosen: Namespace) -> None:
    """Keep what an untrained model predicts apart from trained ones.

    Raises:
        InputError: A checkpoint is named as well, or the run folder holds one.
    """
    if chosen.ckpt_path is not None:
        raise InputError("choose one of --untrained and --ckpt_path", field="untrained")
    folder = Path(chosen.trainer.default_root_dir)
    if has_checkpoint(folder):
        problem = "holds a trained model, whose predictions would be replaced"
        raise InputError(problem, file=folder, field="untrained", fix="choose another --trainer.default_root_dir")
