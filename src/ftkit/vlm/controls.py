"""Ask a model the same questions with blank images, and with images of other examples."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L

from ftkit.errors import InputError
from ftkit.examples.reader import Example, ImageReference, image_bytes
from ftkit.results.image_controls import CONTROLS, ImageControls, read_image_controls
from ftkit.training.recorder import add_to_result
from ftkit.vlm.decoding import Image
from ftkit.vlm.images import decode_image

GRAY = (128, 128, 128)


def image_controls(trainer: L.Trainer, module: L.LightningModule, data: Any) -> ImageControls | None:
    """Predict the test examples with blank and with swapped images, and compare with the run's own predictions.

    The predictions are those of ``trainer.test``, which comes first; the others lie beside them, as
    ``predictions-test-blank.tsv`` and ``predictions-test-swapped.tsv``. What was found is in ``result.json`` as
    ``image_controls``.

    Args:
        trainer: Has a :class:`ftkit.training.recorder.RunRecorder`.
        module: The model; it keeps its weights.
        data: Its :class:`ftkit.VLMDataModule`.

    Returns:
        What was found; None on other processes than the first.

    Raises:
        InputError: The examples have no images, or all have the same.
    """
    for control in CONTROLS:
        with data.controlled(control):
            trainer.predict(module, datamodule=data, return_predictions=False)
    if not trainer.is_global_zero:
        return None
    found = read_image_controls(trainer.default_root_dir)
    add_to_result(trainer, image_controls=found.to_dict())
    return found


def with_other_images(
    examples: Sequence[Example], control: str, key: Callable[[ImageReference, Example], bytes]
) -> list[Example]:
    """Return examples with gray images of the same sizes, or with the images of other examples.

    Args:
        examples: With their images.
        control: ``blank`` or ``swapped``: every image becomes one of other content, in an order that is always the
            same.
        key: Returns what tells the contents of images apart.

    Raises:
        InputError: No example has an image, or more than half of the images are the same.
    """
    if not any(example.images for example in examples):
        raise InputError("no test example has an image", field="controls", fix="leave it out")
    if control == "blank":
        return [replace(one, images=tuple(_blank(image, one) for image in one.images)) for one in examples]
    images = [(key(image, example), image) for example in examples for image in example.images]
    others = iter(_swapped(images))
    return [replace(example, images=tuple(next(others) for _ in example.images)) for example in examples]


def _swapped(images: list[tuple[bytes, ImageReference]]) -> list[ImageReference]:
    """Return an image of other content for each; every image is used as often as before."""
    order = sorted(range(len(images)), key=lambda place: images[place][0])
    keys = [images[place][0] for place in order]
    most = max(keys.count(one) for one in set(keys))  # equal ones are neighbors: that far away there is another
    if 2 * most > len(keys):
        problem = f"{most:,} of {len(keys):,} test images are the same, so there are too few others to swap them for"
        raise InputError(problem, field="controls", fix="use test examples with different images")
    found: dict[int, ImageReference] = {}
    for number, place in enumerate(order):
        found[place] = images[order[(number + most) % len(order)]][1]
    return [found[place] for place in range(len(images))]


def _blank(image: ImageReference, example: Example) -> bytes:
    name = image if isinstance(image, Path) else example.id
    return _gray(decode_image(image_bytes(image), GRAY, name).image.size)


@cache
def _gray(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, GRAY).save(buffer, "PNG")
    return buffer.getvalue()
