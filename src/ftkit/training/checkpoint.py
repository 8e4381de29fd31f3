"""Checkpoints that hold what was trained: small, written whole, checked when they are read, and never run as code."""

import math
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from ftkit.config_files import read_config
from ftkit.errors import InputError
from ftkit.run_folder import BEST_CHECKPOINT, CONFIG_FILE
from ftkit.storage import CHECKSUM_SUFFIX, atomic_write, verify_checksum
from ftkit.training.stored_options import check_fields

INTERRUPTED = "interrupted.ckpt"  # what a training that was told to stop leaves, see SafeStop


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written beside the target and renamed, with a checksum that is verified on load.

    Lightning's own transaction builds its temporary file in the system's folder for them and moves it over the old
    checkpoint, so that a full disk can destroy the good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``: the old file stays until the new one is whole."""
        with atomic_write(path, "wb", checksum=True) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # its writer notices that it could not finish the file, and says only that
                why = error.__context__
                raise why if isinstance(why, (OSError, KeyboardInterrupt, SystemExit)) else error from None

    def load_checkpoint(
        self, path: Any, map_location: Any | None = lambda storage, loc: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint as data: tensors and plain values. Code in it is refused whatever ``weights_only`` says."""
        return load_checkpoint(Path(path), map_location)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint with its checksum."""
        super().remove_checkpoint(path)
        Path(f"{path}{CHECKSUM_SUFFIX}").unlink(missing_ok=True)


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters by name, in the module's order."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint that a path means.

    Args:
        path: A ``.ckpt`` file, or a run folder: its ``checkpoints/last.ckpt``, or else its newest
            ``checkpoints/*.ckpt``; or ``checkpoints/best.ckpt`` if its ``config.yaml`` says ``model_selection: best``.
            That of a training that was interrupted is not meant.

    Raises:
        InputError: There is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    found = sorted((path / "checkpoints").glob("*.ckpt"), key=lambda ckpt: (ckpt.stem == "last", ckpt.stat().st_mtime))
    if [ckpt.name for ckpt in found] == [INTERRUPTED]:
        raise InputError("its training was interrupted", file=path, fix="finish it: the same fit with --resume")
    config = path / CONFIG_FILE
    best = config.is_file() and read_config(config).get("model_selection") == "best"
    found = [ckpt for ckpt in found if (ckpt.name == BEST_CHECKPOINT if best else ckpt.name != INTERRUPTED)]
    if not found:
        named = BEST_CHECKPOINT if best else "*.ckpt"
        problem = f"holds no checkpoints/{named}" if path.is_dir() else "no such checkpoint"
        raise InputError(problem, file=path, fix="train first, or name the checkpoint itself")
    return found[-1]


def steps_of(file: Path) -> float:
    """Return the steps of a checkpoint without reading its tensors; infinite if it cannot be read.

    Unlike the time of a file, they never go back.
    """
    try:
        return int(torch.load(file, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception:  # whatever it is, it is told when the file is read
        return math.inf


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read the checkpoint that a path means, see :func:`find_checkpoint`, on the CPU.

    Raises:
        InputError: There is none, it is damaged, or it holds more than tensors and plain values.
    """
    return load_checkpoint(find_checkpoint(path), "cpu")


def load_checkpoint(path: Path, map_location: Any) -> dict[str, Any]:
    """Return what a checkpoint holds, with the ``file`` that it came from."""
    if not path.is_file():
        raise InputError("no such checkpoint", file=path)
    verify_checksum(path)
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            "holds more than tensors and plain values (it is read with weights_only), or is damaged", file=path
        ) from error
    except (OSError, EOFError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"cannot be read as a checkpoint: {error}", file=path, fix=_newest_other(path)) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError("is not a Lightning checkpoint", file=path)
    check_fields(checkpoint, path)
    return {**checkpoint, "file": str(path)}


def _newest_other(path: Path) -> str:
    others = [file for file in path.parent.glob("*.ckpt") if file != path and file.stat().st_size]
    if not others:
        return "train again"
    return f"try {max(others, key=lambda file: file.stat().st_mtime)}"
