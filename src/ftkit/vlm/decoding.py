"""Import Pillow, limit what decoding may cost, and raise one error for all the ways in which it fails."""

from collections.abc import Iterator
from contextlib import contextmanager

from ftkit.errors import EnvironmentFault

try:
    from PIL import ExifTags as ExifTags
    from PIL import Image as Image
    from PIL import ImageColor as ImageColor
    from PIL import ImageOps as ImageOps
    from PIL import PngImagePlugin as PngImagePlugin
    from PIL import features as features
except ImportError as error:
    raise EnvironmentFault("images need Pillow, which is not installed", fix='pip install "ftkit[vlm]"') from error

MAX_PIXELS = 50_000_000  # of a picture or of one frame; 150 MB as RGB


class DamagedImageError(ValueError):
    """Bytes that cannot be used as a picture; the message says why, the caller knows the file."""


@contextmanager
def decoding() -> Iterator[None]:
    """Turn whatever a decoder makes of bad bytes into :class:`DamagedImageError`.

    Nothing but calls of Pillow belongs into the block.
    """
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        said = str(error).partition(" exceeds")[0]
        raise DamagedImageError(f"the picture has more than {MAX_PIXELS:,} pixels: {said}") from error
    # On damaged bytes Pillow raises OSError, SyntaxError, ValueError, IndexError, struct.error, and more.
    except Exception as error:
        said = str(error).partition(" <")[0] or type(error).__name__
        raise DamagedImageError(f"the picture is damaged or cut off: {said}") from error


def check_size(width: int, height: int) -> None:
    """Refuse a picture by its header, before anything is decoded: one without pixels, or with too many.

    Raises:
        DamagedImageError: It is refused.
    """
    if width < 1 or height < 1:
        raise DamagedImageError(f"the picture is empty: {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise DamagedImageError(
            f"the picture has more than {MAX_PIXELS:,} pixels: {width:,} x {height:,}; make it smaller first"
        )
