"""Read image files safely: regular files inside the data folder, of a bounded size."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from ftkit.errors import InputError

PREPARED_SUFFIX = ".png"  # what `ftkit images prepare` adds to a file's name
MAX_BYTES = 256 * 2**20  # the largest image as an uncompressed BMP has 200 MB
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|(data|file|https?|ftp):", re.IGNORECASE)


def image_path(path: str | Path, root: str | Path | None = None) -> Path:
    """Find an image's file without leaving the data folder.

    In a folder written by ``ftkit images prepare`` an image is also found by its original name.

    Args:
        path: As in :func:`ftkit.vlm.images.open_image`.
        root: As in :func:`ftkit.vlm.images.open_image`.

    Returns:
        The file, links resolved.

    Raises:
        InputError: It is a URL, lies outside ``root``, or does not exist.
    """
    if _URL.match(str(path)):
        fix = "download it and name the file instead"
        raise InputError("images are never fetched from a URL", file=path, fix=fix)
    try:
        found, folder = (Path(root or ".") / path).resolve(), Path(root or "/").resolve()
        if found.is_relative_to(folder) and not found.exists():
            found = found.with_name(found.name + PREPARED_SUFFIX).resolve()
        inside, missing = found.is_relative_to(folder), not found.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a NUL in it, links that go round
        raise InputError(f"cannot be the path of an image: {error}", field="image", got=str(path)) from error
    if not inside:
        raise InputError("the image is outside the data folder", file=path, fix=f"copy it into {root}")
    if missing:
        kind = "is not a file" if found.exists() else "does not exist"
        raise InputError(f"the image {kind}", file=path, fix=f"relative paths start in {root or Path.cwd()}")
    return found


def read_bytes(path: Path, name: str | Path | None = None) -> bytes:
    """Return the bytes of a file, if they can be those of an image.

    Args:
        path: The file.
        name: What messages call it; ``path`` if not given.

    Raises:
        InputError: The file is empty, too large, no regular file, or cannot be read.
    """
    name = name or path
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a device or a pipe may never end
            raise InputError("the image is not a file", file=name)
        check_bytes(found.st_size, name)
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror}", file=name) from error


def check_bytes(size: int, name: str | Path | None = None) -> None:
    """Refuse an image that has no bytes, or too many.

    Args:
        size: Their number.
        name: What messages call the image.

    Raises:
        InputError: It is refused.
    """
    if size > MAX_BYTES:
        raise InputError(f"the file has more than {MAX_BYTES:,} bytes: {size:,}", file=name)
    if not size:
        raise InputError("the file is empty", file=name)
