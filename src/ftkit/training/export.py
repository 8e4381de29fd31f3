"""Export the trained parameters of a run for others: safetensors and JSON, no pickle."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ftkit.errors import InputError
from ftkit.run_folder import refuse_other_format
from ftkit.storage import atomic_write, sha256_of
from ftkit.training.checkpoint import read_checkpoint
from ftkit.training.stored_options import check_fields

DESCRIPTION = "ftkit.json"
STATE = "trained.safetensors"
_KEPT = ("format", "hyper_parameters", "base", "encoding")


def export_trained(run: Path, folder: Path, class_path: str) -> None:
    """Write the parameters that a run trained, and what is needed to put them on their base again.

    Raises:
        InputError: The run has no checkpoint, or a damaged one.
    """
    checkpoint = read_checkpoint(run)
    with atomic_write(folder / STATE, "wb") as file:
        file.write(save({name: tensor.contiguous() for name, tensor in checkpoint["state_dict"].items()}))
    description: dict[str, Any] = {key: checkpoint.get(key) for key in _KEPT}
    description["hyper_parameters"] = {**description["hyper_parameters"], "_class_path": class_path}
    description["sha256"] = sha256_of(folder / STATE)
    with atomic_write(folder / DESCRIPTION) as file:
        json.dump(description, file, indent=1, default=list)


def read_trained(path: str | Path) -> dict[str, Any]:
    """Read what was trained: the checkpoint that a path means, or what :func:`export_trained` wrote into a folder.

    Raises:
        InputError: See :func:`ftkit.training.checkpoint.read_checkpoint` and :func:`read_export`.
    """
    folder = Path(path)
    return read_export(folder) if (folder / DESCRIPTION).is_file() else read_checkpoint(folder)


def read_export(folder: Path) -> dict[str, Any]:
    """Read what :func:`export_trained` wrote, in the form of a checkpoint.

    Raises:
        InputError: A file is missing, damaged, changed or of another format.
    """
    try:
        checkpoint = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        refuse_other_format(checkpoint.get("format"), folder / DESCRIPTION)
        found = sha256_of(folder / STATE)
        if found != checkpoint.pop("sha256"):
            raise InputError("the checksum does not match: the file was changed or damaged", file=folder / STATE)
        checkpoint |= {"state_dict": load_file(folder / STATE), "file": str(folder / DESCRIPTION)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot be read: {error}", file=folder, fix="use a complete copy") from error
    check_fields(checkpoint, folder / DESCRIPTION)
    return checkpoint
