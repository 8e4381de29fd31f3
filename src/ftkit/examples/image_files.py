"""Read images safely: regular files inside the data folder, or bytes of a record, of a bounded size."""

import base64
import binascii
import re
import stat
from io import BytesIO
from pathlib import Path
from typing import Any

from ftkit.errors import InputError

PREPARED_SUFFIX = ".png"  # what `ftkit images prepare` adds to a file's name
MAX_BYTES = 256 * 2**20  # the largest image as an uncompressed BMP has 200 MB
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|(data|file|https?|ftp):", re.IGNORECASE)
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")


def holds_image(value: Any) -> bool:
    """Return whether a value is an image itself: bytes, what ``datasets`` makes of one, or one of Pillow's."""
    structured = isinstance(value, dict) and bool(value) and value.keys() <= {"bytes", "path"}
    return structured or isinstance(value, bytes) or _is_picture(value)


def find_image(value: Any, root: str | Path | None = None) -> Path | bytes:
    """Return the image that a record gives: its file, or what would be in it.

    Args:
        value: A path, a data URI in base64, the bytes of a file, ``{"bytes": ..., "path": ...}`` as ``datasets`` and
            Parquet files have it (the path where there are no bytes), or an image of Pillow's, which is kept as it is.
        root: As for :func:`image_path`.

    Raises:
        InputError: It is none of them, has no bytes or too many, or is refused by :func:`image_path`.
    """
    if isinstance(value, dict) and holds_image(value):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if _is_picture(value):
        value = _encoded(value)
    if isinstance(value, str) and value[:5].lower() == "data:":
        value = _data_of_uri(value)
    if isinstance(value, bytes):
        check_bytes(len(value))
        return value
    if not isinstance(value, str) or not value:
        raise InputError("must be the path of an image, or the image", got=value)
    return image_path(value, root)


def image_path(path: str | Path, root: str | Path | None = None) -> Path:
    """Find an image's file, links resolved, without leaving the data folder.

    In a folder written by ``ftkit images prepare`` an image is also found by its original name.

    Args:
        path: The file; never an address on the web.
        root: The folder that the file has to lie in, links resolved; a relative path starts there. Without it any
            file is found, which is for paths that the user types, not for those that data contain.

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
    """Return the bytes of a file, if they can be those of an image; messages call it ``name``.

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
    """Refuse an image that has no bytes, or too many; messages call it ``name``."""
    if size > MAX_BYTES:
        raise InputError(f"the file is larger than {MAX_BYTES:,} bytes: {size:,}", file=name)
    if not size:
        raise InputError("the file is empty", file=name)


def _data_of_uri(uri: str) -> bytes:
    """Return what a data URI holds; the type that it names does not matter."""
    head, _, body = uri.partition(",")
    if not head.lower().endswith(";base64"):
        raise InputError("a data URI of an image must be in base64", got=uri, fix="data:image/png;base64,...")
    check_bytes(len(body) * 3 // 4)
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"the data URI is damaged: {error}", got=uri) from error


def _is_picture(value: Any) -> bool:
    return hasattr(value, "getexif") and hasattr(value, "save")


def _encoded(picture: Any) -> bytes:
    """Return an image of Pillow's as a file without loss: upright, an animation with its frames."""
    from PIL import ImageOps

    animated = picture.format in _ANIMATED and getattr(picture, "is_animated", False)
    buffer = BytesIO()
    try:
        picture = picture if animated else ImageOps.exif_transpose(picture)
        picture.save(buffer, "PNG" if picture.mode in _PNG_MODES else "TIFF", save_all=animated)
    except Exception as error:  # of a file that is read only now Pillow raises many kinds
        raise InputError(f"the image cannot be used: {error}", got=picture) from error
    return buffer.getvalue()
