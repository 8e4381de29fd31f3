"""Open an image as the data do: found below a folder, read whole, decoded on white."""

from pathlib import Path

from ftkit.examples.image_files import image_path, read_bytes
from ftkit.vlm.decoding import Image
from ftkit.vlm.images import WHITE, decode_image


def open_image(path: str | Path, root: str | Path | None = None) -> Image.Image:
    found = image_path(path, root)
    return decode_image(read_bytes(found), WHITE, found).image
