"""Make thumbnails of images for a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_SIZE = (120, 120)  # pixels at most
_MOST = 50_000_000  # pixels of an image that is decoded


def thumbnail(file: Path) -> str:
    """Return the thumbnail of an image file as a ``data:`` URL; empty where none can be read, or without Pillow."""
    try:
        from PIL import Image, ImageOps

        if not file.is_file():  # a device or a pipe may never end
            return ""
        with Image.open(file) as picture:
            if picture.width * picture.height > _MOST:
                return ""
            picture.draft("RGB", _SIZE)
            return thumbnail_of(ImageOps.exif_transpose(picture))
    except Exception:  # of damaged bytes Pillow raises many kinds, and a page does without a picture
        return ""


def thumbnail_of(picture: Image) -> str:
    """Return the thumbnail of a picture as a ``data:`` URL."""
    file, picture = io.BytesIO(), picture.convert("RGB")
    picture.thumbnail(_SIZE)
    picture.save(file, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
