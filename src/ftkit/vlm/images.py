"""Open pictures from untrusted files as upright RGB, one frame, on a known background."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ftkit.errors import InputError
from ftkit.examples.reader import Example, ImageReference, image_bytes, naming
from ftkit.vlm.decoding import DamagedImageError, ExifTags, Image, ImageColor, ImageOps, check_size, decoding, features
from ftkit.vlm.frames import FRAME_PIXELS, MAX_FRAMES, most_varied

Color = tuple[int, int, int]
WHITE = (255, 255, 255)
_SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "GIF": re.compile(rb"GIF8[79]a"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "AVIF": re.compile(rb"....ftyp(.{4})*?avi[fs]", re.DOTALL),
}
_HEIF = re.compile(rb"....ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_MAX_GIF_BYTES = 64 * 2**20  # counting the frames of 64 MB takes seconds at worst


@dataclass(frozen=True)
class OpenedImage:
    """Hold a picture, RGB and upright, and what had to be decided on the way to it.

    Attributes:
        format: What the bytes say, whatever the file's name says.
        frame: The frame that was chosen, counted from 0.
        note: What a user should know; empty mostly.
    """

    image: Image.Image
    format: str
    frame: int = 0
    frames: int = 1
    note: str = ""


def decode_image(data: bytes, background: Color, name: str | Path) -> OpenedImage:
    """Decode the bytes of a whole, untrusted file as upright RGB in its own size.

    Read are JPEG, PNG, GIF, WEBP, BMP, TIFF and AVIF of at most 50 million pixels, which the header is asked for before
    anything is decoded. EXIF rotation is applied, transparency laid on the background, an animation represented by its
    frame of the most varied colors, a TIFF by its first page. 16-bit greys keep their upper 8 bits, CMYK becomes RGB;
    color profiles are ignored.

    Args:
        data: The bytes.
        background: Red, green and blue of the color behind transparency.
        name: What messages call the file.

    Raises:
        InputError: The file is damaged, cut off, too large, or of another format.
    """
    form = next((form for form, signature in _SIGNATURES.items() if signature.match(data[:64])), None)
    if form is None and _HEIF.match(data):
        fix = "convert it to JPEG, for example with heif-convert"
        raise InputError("HEIC images, which many phones take, are not supported", file=name, fix=fix)
    if form is None:
        raise InputError(f"this is not a {', '.join(_SIGNATURES)} file", file=name, got=bytes(data[:8]))
    try:
        return _decode(data, form, background)
    except DamagedImageError as error:
        raise InputError(str(error), file=name, field=form) from error


def upright_size(data: bytes, name: str | Path) -> tuple[int, int]:
    """Return width and height of the picture that :func:`decode_image` returns; of a still one, no pixel is decoded."""
    try:
        with decoding():
            image = Image.open(io.BytesIO(data), formats=list(_SIGNATURES))
            still = getattr(image, "n_frames", 1) == 1
        check_size(*image.size)
    except DamagedImageError as error:
        raise InputError(str(error), file=name) from error
    if not still:
        return decode_image(data, WHITE, name).image.size
    return _upright(image, Image.new("1", image.size))[0].size


def image_of(image: ImageReference, example: Example) -> Image.Image:
    """Open an image of an example, which an error names."""
    with naming(example):
        return decode_image(image_bytes(image), WHITE, _name(image, example)).image


def size_of(image: ImageReference, example: Example) -> tuple[int, int]:
    """Return width and height of an image of an example, which an error names."""
    with naming(example):
        return upright_size(image_bytes(image), _name(image, example))


def _name(image: ImageReference, example: Example) -> str | Path:
    return image if isinstance(image, Path) else example.id


def parse_color(color: str) -> Color:
    """Return red, green and blue of a color given as a name or #RRGGBB.

    Raises:
        InputError: It is neither.

    Example:
        >>> parse_color("white"), parse_color("#102030")
        ((255, 255, 255), (16, 32, 48))
    """
    try:
        red, green, blue, *alpha = ImageColor.getrgb(color)
        if alpha:
            raise ValueError("a background is not transparent itself")
    except ValueError as error:
        raise InputError("not a color", field="background", got=color, fix="use a name or #RRGGBB") from error
    return red, green, blue


def at_size(image: Image.Image, size: int) -> Image.Image:
    """Resize an RGB picture to a square of so many pixels, stretched, which is how PaliGemma reads pictures."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def _decode(data: bytes, form: str, background: Color) -> OpenedImage:
    _refuse_cut(data, form)
    with decoding():
        image = Image.open(io.BytesIO(data), formats=[form])
    check_size(*image.size)
    with decoding():  # a second frame in a JPEG is a depth or brightness map
        frames = getattr(image, "n_frames", 1) if form in _ANIMATED else 1
    composites = _composites(image, frames, background)
    number, frame, looked_at = most_varied(composites) if frames > 1 else (0, next(composites), 1)
    note = "" if looked_at == frames else f"only the first {looked_at:,} of {frames:,} frames were looked at"
    if form == "TIFF" and getattr(image, "is_animated", False):
        note = "the first of several pages"
    rgb, rotation_note = _upright(image, Image.fromarray(frame))
    return OpenedImage(rgb, form, number, frames, "; ".join(filter(None, (note, rotation_note))))


def _refuse_cut(data: bytes, form: str) -> None:
    """Refuse what Pillow takes for a shorter animation."""
    if form == "GIF" and len(data) > _MAX_GIF_BYTES:
        raise DamagedImageError(f"the GIF has more than {_MAX_GIF_BYTES:,} bytes: {len(data):,}")
    if (form == "PNG" and _PNG_END not in data) or (form == "GIF" and not data.rstrip(b"\0\r\n ").endswith(b";")):
        raise DamagedImageError(f"the picture is cut off: the end of the {form} is missing")
    if form == "AVIF" and not features.check("avif"):
        raise DamagedImageError("this Pillow does not read AVIF: pip install --upgrade pillow")


def _composites(image: Image.Image, frames: int, background: Color) -> Iterator[np.ndarray]:
    """Yield frame after frame as Pillow composes it, until there are enough; the first one always."""
    pixels = 0
    for number in range(min(frames, MAX_FRAMES)):
        with decoding():
            image.seek(number)
        check_size(*image.size)  # a frame of a GIF may be larger than its canvas
        pixels += image.width * image.height
        if number and pixels > FRAME_PIXELS:
            return
        with decoding():
            image.load()
            frame = np.asarray(_to_rgb(image, background))
        yield frame


def _to_rgb(image: Image.Image, background: Color) -> Image.Image:
    transparency = image.info.get("transparency")
    if image.mode == "F":
        raise ValueError("its values are fractions, and nothing says which of them is white: save it with 8 bits")
    if image.mode.startswith("I"):  # Pillow's own conversion would clip at 255
        values = np.asarray(image)
        grey = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
        if transparency is None:
            return grey
        return _on_background(grey, Image.fromarray(values != transparency), background)
    if transparency is None and image.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return _on_background(rgba, rgba.getchannel("A"), background)


def _on_background(image: Image.Image, mask: Image.Image, background: Color) -> Image.Image:
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image, mask=mask)
    return canvas


def _upright(image: Image.Image, rgb: Image.Image) -> tuple[Image.Image, str]:
    try:
        rgb.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(rgb, in_place=True)
    except Exception as error:  # a viewer shows a picture with damaged EXIF as it is, too
        return rgb, f"the EXIF data are damaged ({type(error).__name__}): not rotated"
    return rgb, ""
