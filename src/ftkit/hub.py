"""Loading from the hub, its cache or a local folder, with errors that say what is missing and how to get it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE
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
    cached_only = not local and not hub_is_reachable()
    if isinstance(kind, type) and issubclass(kind, PreTrainedModel):
        options = {"dtype": torch.float32, "output_loading_info": True, **options}
    if not local:
        options |= {"revision": revision, "local_files_only": cached_only}
    try:
        loaded = kind.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _explained(error, name, local, cached_only) from error
    if not options.get("output_loading_info"):
        return loaded
    model, info = loaded
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise InputError(f"lacks {len(missing)} of the model's weights", file=name, got=missing[:5])
    return model


def hub_is_reachable() -> bool:
    """Whether the hub answers; asked first, since its client tries for minutes where there is no network."""
    if HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True
    hub = urlsplit(ENDPOINT)
    try:
        socket.create_connection((hub.hostname or "", hub.port or 443), timeout=3).close()
    except OSError:
        return False
    return True


def not_cached(name: str) -> UnavailableError:
    """The error of a hub id that is needed but neither in the cache nor to be downloaded."""
    return UnavailableError(
        f"{name} is not in the cache {HF_HUB_CACHE} and the hub cannot be reached",
        fix=f"run `hf download {name}` where there is a network, or name a local folder",
    )


def _explained(error: Exception, name: str, local: bool, cached_only: bool) -> Exception:
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
    if isinstance(error, OSError) and (cached_only or isinstance(error.__cause__, LocalEntryNotFoundError)):
        return not_cached(name)
    if isinstance(error, OSError):
        return UnavailableError(f"{name} cannot be loaded: {_first_line(error)}", fix="check the name and the revision")
    return error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
