"""Ask a model the same questions with blank images, and with images of other examples."""

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import lightning as L

from ftkit.errors import InputError
from ftkit.examples.reader import Example, ImageReference
from ftkit.results.image_controls import CONTROLS, ImageControls, read_image_controls
from ftkit.training.recorder import add_to_result
from ftkit.vlm.decoding import Image
from ftkit.vlm.images import size_of

GRAY = (128, 128, 128)


def image_controls(trainer: L.Trainer, module: L.LightningModule, data: Any) -> ImageControls | None:
    """Predict test examples with blank and with swapped images, and compare with the run's own predictions.

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
        InputError: The examples have no images or too few different ones, an example is too long with another's
            images, or the trainer tests a part of them only.
    """
    refuse_limits(trainer)
    for control in reversed(CONTROLS):  # swapped images may be refused: before hours are spent on blank ones
        with data.controlled(control):
            trainer.predict(module, datamodule=data, return_predictions=False)
    if not trainer.is_global_zero:
        return None
    found = read_image_controls(trainer.default_root_dir)
    add_to_result(trainer, image_controls=found.to_dict())
    return found


def refuse_limits(trainer: L.Trainer) -> None:
    """Refuse a trainer that tests or predicts a part of the examples: the controls need the same ones.

    Raises:
        InputError: It has ``limit_test_batches``, ``limit_predict_batches`` or ``fast_dev_run``.
    """
    for name in ("limit_test_batches", "limit_predict_batches"):
        limit = getattr(trainer, name)
        if not (isinstance(limit, float) and limit == 1):
            option = "fast_dev_run" if getattr(trainer, "fast_dev_run", False) else name
            problem = f"image controls need all test examples, but trainer.{option} leaves some out"
            raise InputError(problem, field="controls", got=limit, fix=f"leave out trainer.{option}, or controls")


def with_other_images(
    examples: Sequence[Example], control: str, key: Callable[[ImageReference, Example], bytes]
) -> list[Example]:
    """Return the examples that have images, with gray ones of the same sizes or with those of another example.

    Args:
        examples: With or without images.
        control: ``blank``, or ``swapped``: an example gets all images of another one that has as many. They are not
            the same images, in whatever order, and each is used as often as before. The choice is always the same.
        key: Returns what tells the contents of images apart.

    Raises:
        InputError: No example has an image, or more than half of those with as many have the same.
    """
    shown = [example for example in examples if example.images]
    if not shown:
        raise InputError("no test example has an image", field="controls", fix="leave it out")
    if control == "blank":
        return [replace(one, images=tuple(_gray(size_of(image, one)) for image in one.images)) for one in shown]
    alike: dict[int, list[tuple[list[bytes], int]]] = defaultdict(list)  # by the number of images
    for place, one in enumerate(shown):
        alike[len(one.images)].append((sorted(key(image, one) for image in one.images), place))
    others = dict(pair for members in alike.values() for pair in _rotated(sorted(members)))
    return [replace(one, images=shown[others[place]].images) for place, one in enumerate(shown)]


def _rotated(members: list[tuple[list[bytes], int]]) -> list[tuple[int, int]]:
    """Return each example's place with that of one of other images, given the sorted images of all."""
    images = Counter(tuple(keys) for keys, _ in members)
    most = images.most_common(1)[0][1]  # equal ones are neighbors: that far away there are others
    if 2 * most > len(members):
        count = len(members[0][0])
        problem = (
            f"{most:,} of {len(members):,} test examples with {count} {'image' if count == 1 else 'images'} have the "
            "same, so there are too few others to swap with"
        )
        raise InputError(problem, field="controls", fix="use more test examples with as many, but different images")
    return [(place, members[(number + most) % len(members)][1]) for number, (_, place) in enumerate(members)]


@cache
def _gray(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, GRAY).save(buffer, "PNG")
    return buffer.getvalue()
