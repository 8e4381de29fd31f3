"""Hash files whole; remember the hashes of large ones, which take seconds."""

import hashlib
import warnings
from pathlib import Path

from ftkit.errors import EnvironmentFault, InputError
from ftkit.storage import atomic_write, cache_folder, file_stamp, sha256_of

_LARGE = 1 << 24  # bytes; a smaller file is hashed faster than a kept hash is worth


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file. That of a large one is kept in ``$FTKIT_CACHE/sha256`` until the file changes.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        stamp = file_stamp(path)
        if stamp.size < _LARGE:
            return sha256_of(path)
        place = cache_folder() / "sha256" / _sha256(f"{path.resolve()} {stamp}")
        if known := _kept(place):
            return known
        digest = sha256_of(path)
        if file_stamp(path) == stamp:
            _keep(digest, place)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path, fix="use a file that can be read") from error
    return digest


def _kept(place: Path) -> str | None:
    """Return the hash that was kept in a file; None if there is none, or a damaged one."""
    if not place.is_file():
        return None
    content = place.read_text(encoding="utf-8", errors="replace")
    return content[:64] if content == _record(content[:64], place) else None


def _keep(digest: str, place: Path) -> None:
    try:
        with atomic_write(place) as file:
            file.write(_record(digest, place))
    except EnvironmentFault as error:
        warnings.warn(
            f"the hash of a large file is not cached, so every command computes it again: {error}", stacklevel=3
        )


def _record(digest: str, place: Path) -> str:
    """Return what is kept: the hash, and a checksum of it and of what it was made from."""
    return f"{digest} {_sha256(place.name + digest)}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
