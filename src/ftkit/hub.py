"""Loading from the hub, its cache or a local folder, with errors that say what is missing and how to get it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import PreTrainedModel

from ftkit.errors import InputError, UnavailableError


def load_pretrained(kind: Any, name: str, revision: str | None = None, **options: Any) -> Any:
    """Load a model, configuration, tokenizer or processor by transformers' own ``from_pretrained``.

    Args:
        kind: A transformers class with ``from_pretrained``. A model is loaded in float32, whatever its file holds.
        name: A hub id or a local folder.
        revision: The hub revision; None takes the current one.
        **options: Further keyword arguments of ``from_pretrained``.

    Returns:
        What ``kind.from_pretrained`` returns.

    Raises:
        UnavailableError: A hub id that is neither in the cache nor to be downloaded, or that needs access.
        InputError: A folder whose files are missing or damaged, or lack some of the model's weights.
    """
    local = Path(name).is_dir()
    if isinstance(kind, type) and issubclass(kind, PreTrainedModel):
        options = {"dtype": torch.float32, "output_loading_info": True, **options}
    try:
        loaded = kind.from_pretrained(name, **({} if local else {"revision": revision}), **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _explained(error, name, local) from error
    if not options.get("output_loading_info"):
        return loaded
    model, info = loaded
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise InputError(f"lacks {len(missing)} of the model's weights", file=name, got=missing[:5])
    return model


def _explained(error: Exception, name: str, local: bool) -> Exception:
    """The error to show: damaged folders are the user's input, unreachable hub ids the environment's fault."""
    if local:
        return InputError(
            f"cannot be loaded: {_first_line(error)}", file=name, fix="use a complete folder in transformers format"
        )
    if isinstance(error, GatedRepoError) or isinstance(error.__cause__, GatedRepoError):
        return UnavailableError(
            f"{name} is gated",
            fix=f"accept its licence at https://huggingface.co/{name} and set HF_TOKEN, or `hf auth login`",
        )
    if isinstance(error, LocalEntryNotFoundError) or isinstance(error.__cause__, LocalEntryNotFoundError):
        return UnavailableError(
            f"{name} is not in the cache {HF_HUB_CACHE} and the hub cannot be reached",
            fix=f"run `hf download {name}` where there is a network, or name a local folder",
        )
    if isinstance(error, OSError):
        return UnavailableError(f"{name} cannot be loaded: {_first_line(error)}", fix="check the name and the revision")
    return error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
