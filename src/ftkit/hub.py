"""Loading from the hub, its cache or a local folder, with errors that say what is missing and how to get it."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import file_download
from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE
from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import PreTrainedModel

from ftkit.errors import InputError, UnavailableError

_COMMIT = re.compile(r"[0-9a-f]{40}")


def load_pretrained(kind: Any, name: str, revision: str | None = None, **options: Any) -> Any:
    """Load a model, configuration, tokenizer or processor by transformers' own ``from_pretrained``.

    Code that a repository brings along is never run.

    Args:
        kind: A transformers class with ``from_pretrained``. A model is loaded in float32, whatever its file holds.
        name: A hub id or a local folder.
        revision: The hub revision; None takes the current one.
        **options: Further keyword arguments of ``from_pretrained``.

    Returns:
        What ``kind.from_pretrained`` returns.

    Raises:
        UnavailableError: A hub id that is neither in the cache nor to be downloaded, or that needs access.
        InputError: A folder whose files are missing or damaged, or lack some of the model's weights; or a model that
            is not of transformers itself.
    """
    local = Path(name).is_dir()
    cached_only = not local and not hub_is_reachable()
    if isinstance(kind, type) and issubclass(kind, PreTrainedModel):
        options = {"dtype": torch.float32, "output_loading_info": True, **options}
    if getattr(kind, "__name__", "").startswith("Auto"):  # left out, transformers asks on the terminal
        options = {**options, "trust_remote_code": False}
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


def commit_of(name: str, revision: str | None = None, cache: str | Path = HF_HUB_CACHE) -> str | None:
    """The commit that a hub id stands for on this machine, so that a run can say what it was made from.

    Args:
        name: A hub id or a local folder.
        revision: The branch, tag or commit that was asked for; None is ``main``.
        cache: The hub's cache.

    Returns:
        40 hexadecimal digits; None for a folder, or where nothing of this revision is in the cache.

    Example:
        >>> commit_of("org/model", "0123456789" * 4)
        '0123456789012345678901234567890123456789'
    """
    if Path(name).is_dir():
        return None
    revision = revision or "main"
    if _COMMIT.fullmatch(revision):
        return revision
    reference = repository_cache(name, cache) / "refs" / revision
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


def repository_cache(name: str, cache: str | Path = HF_HUB_CACHE) -> Path:
    """The folder that holds a model repository in the hub's cache, whether it is there or not."""
    return Path(cache) / file_download.repo_folder_name(repo_id=name, repo_type="model")


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
    if "trust_remote_code" in str(error) or "custom code" in str(error):
        return InputError(
            "needs code that its repository brings along, which ftkit never runs",
            file=name,
            fix="use a model whose architecture is part of transformers",
        )
    if local:
        return InputError(
            f"cannot be loaded: {_first_line(error)}", file=name, fix="use a complete folder in transformers format"
        )
    if isinstance(error, HFValidationError) or isinstance(error.__cause__, HFValidationError):
        return InputError("neither a folder nor the name of a model on the hub", got=name, fix="check the path")
    if isinstance(error, GatedRepoError) or isinstance(error.__cause__, GatedRepoError):
        return UnavailableError(
            f"{name} is gated",
            fix=f"accept its licence at https://huggingface.co/{name} and set HF_TOKEN, or `hf auth login`",
        )
    if isinstance(error, OSError) and (cached_only or isinstance(error.__cause__, LocalEntryNotFoundError)):
        return not_cached(name)
    if isinstance(error, OSError):
        return UnavailableError(
            f"{name} cannot be loaded: {_first_line(error)}",
            fix="check the name and the revision; a private model needs a valid HF_TOKEN",
        )
    return error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
