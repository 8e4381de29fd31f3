"""Runs as other commands find them again: which class made a folder, and the model in it."""

from importlib import import_module
from pathlib import Path
from typing import Any

from ftkit.errors import InputError


def is_run(folder: Path) -> bool:
    """Return whether a folder holds a run, or a classifier exported by `ftkit push`."""
    from ftkit.training.export import DESCRIPTION

    return (folder / "checkpoints").is_dir() or (folder / DESCRIPTION).is_file()


def class_of(folder: Path) -> Any:
    """Return the module class of a run's checkpoint, or of a pushed classifier.

    Only classes of ftkit are imported: a checkpoint is data, and may come from anywhere.

    Raises:
        InputError: It names no class of ftkit's, or one of another version, or a baseline.
    """
    from ftkit.baselines.module import Baseline
    from ftkit.training.export import read_trained
    from ftkit.training.trained_state import TrainedStateModule

    stored = read_trained(folder)
    file = stored["file"]
    path = str((stored.get("hyper_parameters") or {}).get("_class_path") or stored.get("class_path", ""))
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name, None) if module.split(".")[0] == "ftkit" else None
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("ftkit"):
            raise
        problem, fix = "was made by another version of ftkit", "use the one that its result.json names"
        raise InputError(problem, file=file, field="class_path", got=path, fix=fix) from error
    if not (isinstance(kind, type) and issubclass(kind, TrainedStateModule)):
        problem, fix = "was made by a class that is not ftkit's", "load it in Python"
        raise InputError(problem, file=file, field="class_path", got=path, fix=fix)
    if issubclass(kind, Baseline):
        fix = f"use `ftkit predict`, or {kind.__name__}.load in Python"
        raise InputError("is a baseline, which is neither served nor pushed", file=folder, fix=fix)
    return kind


def load_run(folder: Path, **loading: Any) -> Any:
    """Load the model of a run, ready to answer.

    Args:
        folder: The run's folder, or what `ftkit push` made of a classifier's.
        **loading: ``quantization``, ``dtype`` and ``device_map``, for generative models; a classifier takes
            ``device_map`` only. ``auto`` is the first GPU.

    Raises:
        InputError: The checkpoint is missing or damaged, or the model cannot be loaded so.
        UnavailableError: The base model cannot be had.
    """
    from transformers import AutoModelForImageTextToText

    from ftkit.models.adapters import merge
    from ftkit.serving.loading import chosen_device
    from ftkit.training.export import read_trained
    from ftkit.training.generative import GenerativeModule
    from ftkit.vlm.yes_no import VLMYesNo

    kind = class_of(folder)
    device = chosen_device(loading.get("device_map")).replace("auto", "cuda:0")  # a run fits where it was trained
    if issubclass(kind, GenerativeModule):
        if kind.auto_class is AutoModelForImageTextToText and not issubclass(kind, VLMYesNo):
            problem = "is a vision-language model, of which only VLMYesNo is served"
            raise InputError(problem, file=folder, fix="push it with --format transformers, and serve it with vLLM")
        changes: dict[str, Any] = {}
        if loading.get("quantization"):
            changes["quantization"] = loading["quantization"]
        if loading.get("dtype", "auto") != "auto":
            changes["dtype"] = loading["dtype"]
        elif device == "cpu":  # half precision is slow there
            changes["dtype"] = "float32"
        module = kind.restored(read_trained(folder), device, **changes)
        if module.virtual_tokens:
            raise InputError("virtual tokens are not served", file=folder, field="adapter")
        if module.adapter is not None and module.quantization is None:
            module.net = merge(module.net)
    else:
        for field in ("quantization", "dtype"):
            if loading.get(field) not in (None, "auto"):
                raise InputError("does not apply to a classifier", field=field, got=loading[field])
        module = kind.restored(read_trained(folder), device)
    return module
