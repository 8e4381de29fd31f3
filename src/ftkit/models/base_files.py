"""Fingerprint a base model by the contents of its files, so that another one under the same name is noticed."""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoConfig, AutoTokenizer

from ftkit.errors import InputError
from ftkit.hub import commit_of, is_gguf, load_pretrained, not_cached, repository_cache
from ftkit.models.file_hash import file_sha256
from ftkit.storage import atomic_write

FINGERPRINT_FILE = "base_fingerprint.json"
_NAMED = 5  # differing files
_WEIGHTS = (".safetensors", ".bin")
_SETTINGS = (".json", ".jinja", ".model", ".txt", ".tiktoken")
_TOKENIZER = ("tokenizer", "vocab", "merges", "special_tokens_map", "added_tokens", "chat_template")


class Location(NamedTuple):
    """Name where a model or tokenizer lies: a hub id, perhaps with a revision; a folder; or a GGUF file."""

    name: str
    revision: str | None = None


@dataclass(frozen=True)
class BaseFiles:
    """The files that decide what a base model computes.

    Args:
        model: Where configuration and weights lie; None if nothing is read.
        tokenizer: Where the tokenizer or processor lies.
        weights: Whether the weights are read, and not only the configuration.
    """

    model: Location | None
    tokenizer: Location
    weights: bool = True

    def fingerprint(self) -> dict[str, str]:
        """Return the SHA-256 of each file by its name; of a model on the hub, its ``commit``.

        What belongs to a tokenizer that lies elsewhere has names that begin with ``tokenizer/``.

        Raises:
            InputError: A file cannot be read, or a name is neither a path nor on the hub.
            UnavailableError: A hub id is neither in the cache nor to be downloaded.
        """
        found = {} if self.model is None else self._of_model(self.model)
        if self.tokenizer != self.model:
            files = _tokenizer_files(self.tokenizer)
            found |= {f"tokenizer/{name}": digest for name, digest in _hashed(files).items()}
        return found

    def _of_model(self, place: Location) -> dict[str, str]:
        if is_gguf(place.name):
            return {"model.gguf": file_sha256(Path(place.name).expanduser())}
        folder = Path(place.name).expanduser()
        if not folder.is_dir():
            return {"commit": _commit(place, AutoConfig)}
        wanted = (*_SETTINGS, *_WEIGHTS) if self.weights else _SETTINGS
        return _hashed(file for file in folder.iterdir() if file.suffix in wanted and file.is_file())


def differing_files(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say in which files two base models differ, by their fingerprints.

    Example:
        >>> differing_files({"config.json": "5f" * 32}, {"config.json": "90" * 32, "merges.txt": "c1" * 32})
        'config.json was 5f5f5f5f5f5f, is 909090909090; merges.txt was absent, is c1c1c1c1c1c1'
    """
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    listing = [f"{name} was {before.get(name, 'absent')[:12]}, is {now.get(name, 'absent')[:12]}" for name in names]
    return "; ".join(listing[:_NAMED]) + ("; …" if len(listing) > _NAMED else "")


def write_fingerprint(fingerprint: Mapping[str, str], folder: Path) -> None:
    """Write the fingerprint of the base model beside an adapter, for :func:`refuse_other_base`."""
    with atomic_write(folder / FINGERPRINT_FILE) as file:
        json.dump(dict(fingerprint), file, indent=1)


def refuse_other_base(adapter: Path, files: BaseFiles) -> None:
    """Compare the base model that an adapter is to be put on with the one that it was trained on.

    Without a fingerprint in the adapter's folder there is nothing to compare.

    Raises:
        InputError: They differ, or the fingerprint is damaged.
    """
    file = adapter / FINGERPRINT_FILE
    if not file.is_file():
        return
    try:
        before = dict(json.loads(file.read_text(encoding="utf-8")))
        now = files.fingerprint()
        differing = differing_files(before, now) if before != now else ""
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"is damaged: {error}", file=file, fix="use an intact copy, or remove it") from error
    if differing:
        raise InputError(
            f"the base model is not the one that the adapter was trained on: {differing}",
            file=file,
            fix="name that base model, or train again",
        )


def _hashed(files: Iterable[Path]) -> dict[str, str]:
    ordered = sorted(files)
    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter free
        return {file.name: digest for file, digest in zip(ordered, pool.map(file_sha256, ordered), strict=True)}


def _tokenizer_files(place: Location) -> list[Path]:
    """Return the files of a tokenizer that has a place of its own, downloaded if need be."""
    path = Path(place.name).expanduser()
    if is_gguf(place.name):
        return [path]
    if path.is_dir():
        return _named_as_a_tokenizers(path)
    snapshot = repository_cache(place.name) / "snapshots" / _commit(place, AutoTokenizer)
    if not (found := _named_as_a_tokenizers(snapshot)):
        load_pretrained(AutoTokenizer, *place)
        found = _named_as_a_tokenizers(snapshot)
    return found


def _named_as_a_tokenizers(folder: Path) -> list[Path]:
    files = folder.glob("*")
    named = (file for file in files if file.name.startswith(_TOKENIZER) or file.suffix in (".model", ".tiktoken"))
    return [file for file in named if file.is_file()]


def _commit(place: Location, kind: Any) -> str:
    """Return the commit of a hub id; what ``kind`` reads is downloaded if none of this revision is known yet."""
    commit = commit_of(*place)
    if commit is None:
        load_pretrained(kind, *place)
        commit = commit_of(*place)
    if commit is None:
        raise not_cached(place.name)
    return commit
