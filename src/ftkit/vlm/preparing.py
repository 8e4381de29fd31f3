"""Prepare a picture for training: decode it, bring it to size and write it, unless that is done already."""

import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import InputError
from ftkit.examples.image_files import PREPARED_SUFFIX, image_path, read_bytes
from ftkit.storage import atomic_write
from ftkit.vlm.decoding import DamagedImageError, Image, PngImagePlugin, decoding
from ftkit.vlm.images import Color, at_size, decode_image

RECIPE = 2  # goes up when the same source and settings give other pixels
_PILLOW = Image.__version__
_LONGEST_NAME = 220  # bytes; file systems take 255, and a temporary file's name is longer by up to 34
_TEXT = "ftkit"  # the PNG text that says what the picture was made of


@dataclass(frozen=True)
class Settings:
    """Hold the settings for all pictures of a folder.

    Attributes:
        source: The folder that is read; nothing outside of it is.
        target: The folder that is written.
        size: Width and height of the results, in pixels.
        background: The color behind transparency.
    """

    source: Path
    target: Path
    size: int
    background: Color


@dataclass(frozen=True)
class Prepared:
    """Hold a line of the manifest: what was prepared, from which source, or why it is ``bad``.

    Paths are relative to the folders, hashes are SHA-256 of the files. Width and height are those of the upright
    source; format, frame and frames are those of :class:`ftkit.vlm.images.OpenedImage`. A reason may be a mere note.
    """

    source: str
    output: str = ""
    source_sha256: str = ""
    sha256: str = ""
    width: int | None = None
    height: int | None = None
    format: str = ""
    frame: int | None = None
    frames: int | None = None
    status: str = "bad"
    reason: str = ""


def prepare_one(name: str, settings: Settings) -> tuple[Prepared, bool]:
    """Prepare the picture ``name`` of the source folder.

    The result says in a PNG text what it was made of, so that a later run knows it again without any other record. A
    bad picture has no result, not even an old one.

    Returns:
        The line of the manifest, and whether an earlier run's result was kept.

    Raises:
        EnvironmentFault: The result cannot be written.
    """
    output = settings.target / f"{name}{PREPARED_SUFFIX}"
    try:
        if len(os.fsencode(output.name)) > _LONGEST_NAME:
            raise InputError("the name is too long", file=name)
        data = read_bytes(image_path(name, settings.source), name)
        source_sha256 = hashlib.sha256(data).hexdigest()
        made_of = {
            "source_sha256": source_sha256,
            "size": settings.size,
            "background": list(settings.background),
            "recipe": RECIPE,
            "pillow": _PILLOW,
        }
        facts, png = _kept(output, made_of), None
        if facts is None:
            facts, png = _made(name, data, made_of, settings)
            with atomic_write(output, "wb") as file:
                file.write(png)
    except InputError as error:
        if output.is_file():
            output.unlink()
        reason = str(error).removeprefix(f"{name}: ").partition("; fix: ")[0]
        return Prepared(name, reason=reason), False
    checksum = hashlib.sha256(png or output.read_bytes()).hexdigest()
    return Prepared(
        name, output.relative_to(settings.target).as_posix(), source_sha256, checksum, **facts, status="done"
    ), png is None


def _made(name: str, data: bytes, made_of: dict[str, Any], settings: Settings) -> tuple[dict[str, Any], bytes]:
    opened = decode_image(data, settings.background, name)
    facts: dict[str, Any] = {
        "width": opened.image.width,
        "height": opened.image.height,
        "format": opened.format,
        "frame": opened.frame,
        "frames": opened.frames,
        "reason": opened.note,
    }
    text = PngImagePlugin.PngInfo()
    text.add_text(_TEXT, json.dumps({"made_of": made_of, "facts": facts}, sort_keys=True))
    buffer = io.BytesIO()
    at_size(opened.image, settings.size).save(buffer, "PNG", pnginfo=text)
    return facts, buffer.getvalue()


def _kept(output: Path, made_of: dict[str, Any]) -> dict[str, Any] | None:
    """Return the facts that an undamaged earlier result records, if it was made from the same source and settings."""
    if not output.is_file():
        return None
    try:
        with decoding(), Image.open(output, formats=["PNG"]) as image:
            text = image.info.get(_TEXT)
            image.verify()  # the checksums of all its parts
        record = json.loads(text or "{}")
    except (DamagedImageError, ValueError):
        return None
    return record["facts"] if isinstance(record, dict) and record.get("made_of") == made_of else None
