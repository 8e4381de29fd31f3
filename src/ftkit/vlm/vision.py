"""Cache the features of a frozen vision tower and its connector on disk.

SFT, preference tuning, yes/no scoring and generation share them, with all their epochs, runs and processes. A model
whose processor cuts an image into tiles sees each tile alone, so features are cached by tile. A tile is found by its
tensors as they enter the tower, so the processor's settings need not be compared: others make other pixels, or other
tiles. Families whose features depend on more than their tile are not cached, see
:class:`ftkit.models.vision_families.Family`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from ftkit.models.base_model import plain_model
from ftkit.models.evaluation_mode import evaluating
from ftkit.models.image_layouts import Tile
from ftkit.models.vision_families import (
    FAMILIES,
    FEATURES,
    family_of,
    image_features,
    vision_parameters,
    vision_parts,
    without_pixels,
)
from ftkit.training.feature_store import FeatureStore, pinned_for
from ftkit.training.fingerprint import Unchanged, digest_of, digests, each_hashed, numerics, settings_of, weights_of
from ftkit.training.tensor_table import TensorTable
from ftkit.vlm.dataset import ORIGIN

_WITH_IMAGES = ("inputs", "prompts")  # keys of a batch
_FORMAT = 2  # increase it when the same description means other numbers
_TILES_AT_ONCE = 16  # more need more memory and are hardly faster: a tile is a thousand patches


def is_frozen(net: nn.Module) -> bool:
    """Return whether a model has a vision tower and a connector without trainable parameters."""
    return bool(vision_parts(net)) and not any(parameter.requires_grad for parameter in vision_parameters(net))


def can_cache(net: nn.Module) -> bool:
    """Return whether image features of a model can be cached: it is frozen, and each tile is seen by itself."""
    return is_frozen(net) and not FAMILIES[plain_model(net).config.model_type].not_cached


def with_features(net: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a batch with ``image_features``, computed now and with gradients if they are on, in place of its pixels.

    Without pixels it is returned unchanged.
    """
    if "pixel_values" not in inputs:
        return inputs
    return without_pixels(family_of(plain_model(net).config), inputs, image_features(net, inputs))


def for_pairs(net: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Give the images, or their features, of B pairs to all 2B examples: the chosen answers, then the rejected ones."""
    names = (*family_of(plain_model(net).config).images.tensors, FEATURES)
    return {**inputs, **{name: torch.cat([inputs[name]] * 2) for name in names if name in inputs}}


def tile_keys(tiles: Sequence[Tile]) -> list[bytes]:
    """Return a SHA-256 of each tile's tensors, on the CPU."""

    def key(number: int) -> bytes:
        tile = tiles[number]
        return hashlib.sha256(f"{sorted(tile)} {digest_of([tile[name] for name in sorted(tile)])}".encode()).digest()

    return each_hashed(key, range(len(tiles)), sum(tile["pixel_values"].nbytes for tile in tiles))


class FrozenVision:
    """Cache the features of a model's frozen vision tower and connector on disk.

    Args:
        net: The model, on its device; :func:`can_cache` holds.
        precision: Makes the context of the run's precision.
        store: Where the features are cached; None takes the default one.

    Attributes:
        computed: How many tiles were computed and not read.
        seconds: Time spent on computing and reading features.
    """

    def __init__(
        self,
        net: nn.Module,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        store: FeatureStore | None = None,
    ) -> None:
        self.net, self.precision = net, precision
        self.computed, self.seconds = 0, 0.0
        self._parts, self._images = vision_parts(net), family_of(plain_model(net).config).images
        self._device = next(self._parts[0].parameters()).device
        self._unchanged = Unchanged(vision_parameters(net))
        self._remembering: WeakSet[Any] = WeakSet()  # data sets
        with precision():
            self._made_of = _made_of(net)
        self._table = TensorTable(self._made_of, store)

    def attach(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Replace a batch's pixels by features, and have its examples remembered without pixels.

        Args:
            batch: On the CPU: features are found by the bytes of the pixels, and pixels that are not needed need not
                travel to the device. ``inputs`` are the processor's tensors, ``prompts``, if there are any, others of
                the same images, ``origin`` a :class:`ftkit.vlm.dataset.BatchOrigin`, if there is one.

        Returns:
            The batch with ``image_features`` (N, D), on the CPU, in ``inputs`` and ``prompts``, unless there are no
            images. Once a part is trained, a batch with pixels.
        """
        origin = batch.get(ORIGIN)
        if not self._unchanged():
            return batch if origin is None else origin.with_pixels(batch)
        started = time.perf_counter()
        tiles = self._images.tiles(batch["inputs"] if origin is None else origin.with_own_images(batch["inputs"]))
        of_pixels = tile_keys(tiles)
        by_example = [of_pixels] if origin is None else origin.tile_keys(of_pixels)
        keys = list(chain.from_iterable(by_example))
        features = dict(zip(keys, self._table.get(keys), strict=True))
        missing = [key for key, feature in features.items() if feature is None]
        place = {key: number for number, key in enumerate(of_pixels)}
        if origin is not None and any(key not in place for key in missing):  # what was cached is gone
            return self.attach(origin.with_pixels(batch))
        for start in range(0, len(missing), _TILES_AT_ONCE):
            chunk = missing[start : start + _TILES_AT_ONCE]
            computed = self._compute([tiles[place[key]] for key in chunk])
            self._table.add(chunk, computed)
            features |= zip(chunk, computed, strict=True)
        if origin is not None:
            origin.remember([example if all(key in self._table for key in example) else None for example in by_example])
            self._remembering.add(origin.dataset)
        found = pinned_for(torch.cat([features[key] for key in keys]), self._device) if keys else None
        self.seconds += time.perf_counter() - started
        family = family_of(plain_model(self.net).config)
        return batch | {name: without_pixels(family, batch[name], found) for name in _WITH_IMAGES if name in batch}

    def forget(self) -> None:
        """Let all examples that were remembered without images come with them again."""
        for dataset in self._remembering:
            dataset.forget()

    def _compute(self, tiles: Sequence[Tile]) -> list[Tensor]:
        """Return the features (T, D) of each tile, on the CPU."""
        self.computed += len(tiles)
        arguments = self._images.arguments(tiles)
        with torch.no_grad(), self.precision(), evaluating(self._parts):
            found = image_features(self.net, arguments)
        assert found is not None, "there are tiles"
        sizes = self._images.sizes(arguments, len(found)) or [len(found) // len(tiles)] * len(tiles)
        return list(found.cpu().split(sizes))


def _made_of(net: nn.Module) -> dict[str, Any]:
    """Return what decides the features of a tile besides the tile, as plain values."""
    config = plain_model(net).config
    settings = json.loads(settings_of(config))
    quantized = config.to_dict().get("quantization_config")  # it is the whole model's and not in the tower's settings
    return {
        "format": _FORMAT,
        "output": "image features",
        "vision": settings_of(config.vision_config),
        "connector": {name: value for name, value in settings.items() if not isinstance(value, dict)},
        "quantized": json.dumps(quantized, sort_keys=True, default=str),
        "weights": digests(map(weights_of, vision_parts(net))),
        **numerics(next(net.parameters()).device.type),
    }
