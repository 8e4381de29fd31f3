"""Load from the hub, its cache or a local folder, with errors that say what is missing and how to get it."""

import json
import re
import socket
import struct
from copy import deepcopy
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import file_download
from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE
from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedModel

from ftkit.errors import InputError, UnavailableError, first_line
from ftkit.storage import FileStamp, file_stamp

ADAPTER_FILE = "adapter_config.json"  # of peft
_COMMIT = re.compile(r"[0-9a-f]{40}")
_UNKNOWN_KIND = re.compile("Unrecognized|does not recognize")  # a ValueError of transformers; its others may be ours


def load_pretrained(kind: Any, name: str, revision: str | None = None, **options: Any) -> Any:
    """Load a model, configuration, tokenizer or processor by transformers' own ``from_pretrained``.

    Code that a repository brings along is never run.

    Args:
        kind: A transformers class with ``from_pretrained``. A model is loaded in float32, whatever its file holds.
        name: A hub id; a local folder; or the path of a GGUF file, whose weights are dequantized.
        revision: The hub revision; None takes the current one.
        **options: Further keyword arguments of ``from_pretrained``.

    Raises:
        UnavailableError: A hub id that is neither in the cache nor to be downloaded, or that needs access; or a GGUF
            file without the package that reads it.
        InputError: A folder, file or download that is missing, damaged, or lacks some of the model's weights; a GGUF
            file that is to be quantized; or a model that is not of transformers itself, or not of the kind wanted.
    """
    if is_gguf(name):
        return _load_gguf(kind, Path(name).expanduser(), options)
    return _load(kind, name, revision, options)


def _load(kind: Any, name: str, revision: str | None, options: dict[str, Any]) -> Any:
    if Path(name).is_file():
        raise InputError("neither a folder nor a GGUF file", file=name, fix="name a folder, FILE.gguf or a hub id")
    local = Path(name).is_dir()
    cached_only = not local and not hub_is_reachable()
    if local and (kind is AutoConfig or _is_model(kind)):  # a tokenizer may lie beside an adapter
        refuse_adapter(Path(name) / ADAPTER_FILE, name)
    if isinstance(kind, type) and issubclass(kind, PreTrainedModel):
        options = {"dtype": torch.float32, "output_loading_info": True, **options}
    if getattr(kind, "__name__", "").startswith("Auto"):  # left out, transformers asks on the terminal
        options = {**options, "trust_remote_code": False}
    if not local:
        options |= {"revision": revision, "local_files_only": cached_only}
    try:
        loaded = kind.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        refuse_adapter(Path(name) / ADAPTER_FILE if local else _adapter_on_hub(name, revision, cached_only), name)
        raise _explained(error, name, local, cached_only) from error
    except (TypeError, AttributeError) as error:  # where transformers looks into JSON of another shape
        if not local or _is_model(kind):
            raise
        raise InputError(f"a file in it is damaged: {error}", file=name, fix="use an intact copy") from error
    if not options.get("output_loading_info"):
        return loaded
    model, info = loaded
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise InputError(f"lacks {len(missing)} of the model's weights", file=name, got=missing[:5])
    return model


def base_of_adapter(folder: Path) -> tuple[str, str | None]:
    """Return the base model of a peft adapter, and its revision.

    Raises:
        InputError: The adapter's configuration names none.
    """
    try:
        config = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))
        return str(config["base_model_name_or_path"]), config.get("revision")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError("names no base model", file=folder / ADAPTER_FILE) from error


def refuse_adapter(file: Path | None, name: str) -> None:
    """Refuse an adapter without a model where a model is wanted; do nothing if there is no such file.

    Raises:
        InputError: It is an adapter; its base, and what to do.
    """
    if file is None or not file.is_file() or (file.parent / "config.json").is_file():
        return
    base, _ = base_of_adapter(file.parent)
    fix = f"start from {base}; or merge the two (peft: merge_and_unload, then save_pretrained) and name that folder"
    raise InputError(f"is an adapter of {base}, not a model", file=name, fix=fix)


def _adapter_on_hub(name: str, revision: str | None, cached_only: bool) -> Path | None:
    """Return the adapter configuration of a hub repository; None if it has none or cannot be reached."""
    try:
        return Path(file_download.hf_hub_download(name, ADAPTER_FILE, revision=revision, local_files_only=cached_only))
    except (OSError, HFValidationError):  # not there, or what the caller is about to tell
        return None


def is_gguf(name: str) -> bool:
    """Return whether a model's name is that of a GGUF file.

    Example:
        >>> is_gguf("models/smollm2-135m.Q4_1.gguf"), is_gguf("HuggingFaceTB/SmolLM2-135M")
        (True, False)
    """
    return Path(name).suffix == ".gguf"


def is_local(name: str) -> bool:
    """Return whether a model's name means a folder or a GGUF file on this machine, and nothing on the hub."""
    return is_gguf(name) or Path(name).is_dir()


def _load_gguf(kind: Any, path: Path, options: dict[str, Any]) -> Any:
    if not path.is_file():
        raise InputError("no such GGUF file", file=path)
    if find_spec("gguf") is None:
        raise UnavailableError("needs the package gguf to be read", file=path, fix="pip install 'ftkit[gguf]'")
    if "quantization_config" in options:
        problem = "a GGUF file is unpacked into full weights, which transformers cannot quantize on the way"
        fix = "leave it out, or load the same model from a hub id or folder"
        raise InputError(problem, file=path, field="quantization", fix=fix)
    _switch_bar_like_others()
    described = _described_by_gguf(AutoConfig if _is_model(kind) else kind, path, file_stamp(path))
    if not _is_model(kind):
        return deepcopy(described)
    model = _read_gguf(kind, path, {"config": deepcopy(described), **options})
    if quantizer := getattr(model, "hf_quantizer", None):  # or transformers refuses to save what is full weights now
        quantizer.remove_quantization_config(model)
    return model


def _switch_bar_like_others() -> None:
    """Let transformers' reader of GGUF files, which calls tqdm itself, obey the switch of its other progress bars."""
    if find_spec("transformers.modeling_gguf_pytorch_utils"):
        from transformers import modeling_gguf_pytorch_utils as reader
        from transformers.utils.logging import tqdm

        reader.tqdm = tqdm


@lru_cache(maxsize=4)
def _described_by_gguf(kind: Any, path: Path, stamp: FileStamp) -> Any:
    """Read a configuration or tokenizer once: it takes seconds, and every run of a sweep asks for both repeatedly."""
    found = _read_gguf(kind, path, {})
    if kind is AutoConfig:
        _refuse_larger_model(found.get_text_config(), path)
    return found


def _refuse_larger_model(config: Any, path: Path) -> None:
    """Refuse a header that describes a model of more weights than its file has bits, which would take all memory."""
    names = ("num_hidden_layers", "hidden_size", "vocab_size")
    layers, width, words = sizes = [getattr(config, name, 0) for name in names]
    if (layers * width + words) * width > 8 * path.stat().st_size:
        problem = "is damaged: its header describes a model that does not fit into it"
        raise InputError(problem, file=path, got=dict(zip(names, sizes, strict=True)), fix="use an intact copy")


def _read_gguf(kind: Any, path: Path, options: dict[str, Any]) -> Any:
    try:
        return _load(kind, str(path.parent), None, {"gguf_file": path.name, **options})
    except (InputError, struct.error, IndexError, OverflowError) as error:  # but the first: a length leads past the end
        cause = error.__cause__ or error
        fix = "use a complete GGUF file of a kind that transformers reads"
        raise InputError(f"cannot be loaded: {cause}", file=path, fix=fix) from error


def _is_model(kind: Any) -> bool:
    return hasattr(kind, "from_config") or (isinstance(kind, type) and issubclass(kind, PreTrainedModel))


def commit_of(name: str, revision: str | None = None, cache: str | Path = HF_HUB_CACHE) -> str | None:
    """Return the commit that a hub id stands for on this machine, so that a run can say what it was made from.

    Args:
        name: A hub id, a local folder or a GGUF file.
        revision: The branch, tag or commit that was asked for; None is ``main``.
        cache: The hub's cache.

    Returns:
        40 hexadecimal digits; None for a folder or a file, or where nothing of this revision is in the cache.

    Example:
        >>> commit_of("org/model", "0123456789" * 4)
        '0123456789012345678901234567890123456789'
    """
    if is_local(name):
        return None
    revision = revision or "main"
    if _COMMIT.fullmatch(revision):
        return revision
    reference = repository_cache(name, cache) / "refs" / revision
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


def repository_cache(name: str, cache: str | Path = HF_HUB_CACHE) -> Path:
    """Return the folder of a model repository in the hub's cache, whether it is there or not."""
    return Path(cache) / file_download.repo_folder_name(repo_id=name, repo_type="model")


def hub_is_reachable() -> bool:
    """Return whether the hub answers; asked first, since its client tries for minutes where there is no network."""
    if HF_HUB_OFFLINE:
        return False
    if getproxies().keys() - {"no"}:  # NO_PROXY alone is no way out
        return True
    hub = urlsplit(ENDPOINT)
    try:
        socket.create_connection((hub.hostname or "", hub.port or 443), timeout=3).close()
    except OSError:
        return False
    return True


def not_cached(name: str) -> UnavailableError:
    """Return the error of a hub id that is needed but neither in the cache nor to be downloaded."""
    fix = f"run `hf download {name}` where there is a network, or name a local folder"
    return UnavailableError(f"{name} is not in the cache {HF_HUB_CACHE} and the hub cannot be reached", fix=fix)


def _explained(error: Exception, name: str, local: bool, cached_only: bool) -> Exception:
    """Return the error to show: damaged weights are the user's input, unreachable hub ids the environment's fault."""
    if isinstance(error, torch.OutOfMemoryError):
        return error  # nothing is wrong with the model
    reason = error.__cause__ if isinstance(error, StrictDataclassError) else None  # which itself begins with a heading
    said = first_line(reason or error)
    if "trust_remote_code" in str(error) or "custom code" in str(error):
        problem = "needs code that its repository brings along, which ftkit never runs"
        return InputError(problem, file=name, fix="use a model whose architecture is part of transformers")
    if local:
        fix = "use a complete folder in transformers format"
        return InputError(f"cannot be loaded: {said}", file=name, fix=fix)
    if isinstance(error, HFValidationError) or isinstance(error.__cause__, HFValidationError):
        return InputError("neither a folder nor the name of a model on the hub", got=name, fix="check the path")
    if isinstance(error, GatedRepoError) or isinstance(error.__cause__, GatedRepoError):
        fix = f"accept its license at https://huggingface.co/{name} and set HF_TOKEN, or `hf auth login`"
        return UnavailableError(f"{name} is gated", fix=fix)
    if isinstance(error, OSError) and (cached_only or isinstance(error.__cause__, LocalEntryNotFoundError)):
        return not_cached(name)
    if isinstance(error, OSError):
        fix = "check the name and the revision; a private model needs a valid HF_TOKEN"
        return UnavailableError(f"{name} cannot be loaded: {said}", fix=fix)
    damage = isinstance(error, (SafetensorError, RuntimeError, KeyError, StrictDataclassError))
    if damage or _UNKNOWN_KIND.search(str(error)):
        damaged = f"`hf cache rm model/{name}` and try again"
        fix = f"name a model of another kind; or, if its files are damaged, {damaged}"
        return InputError(f"cannot be loaded: {said}", file=name, fix=fix)
    return error
