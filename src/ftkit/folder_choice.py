"""Choose the folder that a command runs in: that of the run that is meant, or a new one."""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ftkit.checkpoint_options import named_checkpoint
from ftkit.errors import InputError
from ftkit.lock import LOCK_FILE
from ftkit.run_folder import CONFIG_FILE, RUNS, need_newest_run, newest_run
from ftkit.storage import disk_faults

_CHOSEN = "FTKIT_RUN_FOLDER"  # by the process that starts those of the other ranks, for them


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


def choose_folder(subcommand: str, chosen: Namespace) -> tuple[Path, bool]:
    """Return the folder of the run that is meant, or a new one, and whether it is new.

    An evaluation of the newest run names its folder as the checkpoint.
    """
    configs = [Path(file.absolute) for file in chosen.config or []]
    name = name_of_run(configs, chosen.model.class_path)
    if chosen.get("resume", subcommand != "fit"):
        if folder := folder_of_run(configs):
            return folder, False
        if not (chosen.get("untrained") or named_checkpoint(chosen)) and (folder := newest_run(name)):
            print(f"notice: using the newest run of {name}, {folder}", file=sys.stderr)
            if subcommand != "fit" and chosen.ckpt_path is None:
                chosen.ckpt_path = str(folder)  # so that options other than those of its training are refused
            return folder, False
    return make_new_folder(name), True


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
