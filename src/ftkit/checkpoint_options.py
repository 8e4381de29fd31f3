"""Which folder and checkpoint a command starts from, and what it refuses to start from."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ftkit.errors import InputError
from ftkit.lock import LOCK_FILE
from ftkit.run_folder import CONFIG_FILE, RUNS, need_newest_run
from ftkit.storage import disk_faults
from ftkit.training.model_selection import Mode
from ftkit.training.resume import resumable

_CHOSEN = "FTKIT_RUN_FOLDER"  # by the process that starts those of the other ranks, for them
LIGHTNINGS_OWN_CHECKPOINTS = ("best", "last", "hpc", "registry")  # words that it takes for a path
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


def with_newest_config(arguments: Sequence[str]) -> list[str]:
    """Add the newest run's ``config.yaml`` where an evaluation or a resumed training names neither config nor model."""
    meant = {"--resume", "--resume=true"} & set(arguments) or arguments[:1] not in ([], ["fit"])
    named = (
        "--config",
        "-c",
        "--model",
        "--trainer.default_root_dir",
        "--ckpt_path",
        "--untrained",
        "--help",
        "--print_",
    )
    if not meant or any(argument.startswith(named) for argument in arguments):
        return [*arguments]
    run = need_newest_run()
    return [arguments[0], "--config", str(run / CONFIG_FILE), "--trainer.default_root_dir", str(run), *arguments[1:]]


def make_new_folder(name: str) -> Path:
    """Make the folder of a run, ``runs/DATE-TIME-NAME``, with a counter behind where that is taken.

    Raises:
        InputError: This is one of several processes that were started each for itself, as by SLURM or torchrun.
        EnvironmentFault: It cannot be made.
    """
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        if _CHOSEN not in os.environ:
            fix = "name one with --trainer.default_root_dir"
            raise InputError("several processes cannot agree on the name of a new folder", file=RUNS, fix=fix)
        return Path(os.environ[_CHOSEN])
    stem = f"{datetime.now():%Y-%m-%d-%H%M}-{name}"
    with disk_faults(RUNS):
        RUNS.mkdir(exist_ok=True)
        for number in count(1):
            folder = RUNS / (stem if number == 1 else f"{stem}-{number}")
            with suppress(FileExistsError):
                folder.mkdir()
                break
    os.environ[_CHOSEN] = str(folder)
    return folder


def remove_unused(folder: Path) -> None:
    """Remove the folder of a run that left nothing in it."""
    if folder.is_dir() and not {file.name for file in folder.iterdir()} - {LOCK_FILE}:
        shutil.rmtree(folder)


def name_of_run(configs: Sequence[Path], class_path: str) -> str:
    """Return the name of the last config file, or of the module's class where that says nothing of the run.

    Example:
        >>> name_of_run([Path("ch06/base.yaml"), Path("ch06/rows/02_first_token.yaml")], "ftkit.GPT2Classifier")
        '02_first_token'
        >>> name_of_run([Path("runs/mine/config.yaml")], "ftkit.GPT2Classifier")
        'GPT2Classifier'
    """
    name = configs[-1].stem if configs else "config"
    return class_path.rpartition(".")[2] if name in ("base", "config") else name


def folder_of_run(configs: Sequence[Path]) -> Path | None:
    """Return the folder of the last config file that a run wrote, with a notice; None if there is none."""
    own = [file.parent for file in configs if file.name == CONFIG_FILE]
    if not own:
        return None
    print(f"notice: using the run folder {own[-1]}, which holds this {CONFIG_FILE}", file=sys.stderr)
    return own[-1]


def choose_resumable(chosen: Namespace) -> None:
    """Take the newest checkpoint of the run folder that training can resume from; without one start anew.

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
    if any((folder / "checkpoints").glob("*.ckpt")):
        problem = "holds a trained model, whose predictions would be replaced"
        raise InputError(problem, file=folder, field="untrained", fix="choose another --trainer.default_root_dir")
