"""Cache the features of a frozen vision tower and its connector on disk.

SFT, preference tuning, yes/no scoring and generation share them, with all their epochs, runs and processes. A model
whose processor cuts an image into tiles sees each tile alone, so features are cached by tile. A tile is found by its
pixels as they enter the tower, so the processor's settings need not be compared: others make other pixels, or other
tiles.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from ftkit.models.base_model import plain_model
from ftkit.models.transformers_internals import BaseModelOutputWithPooling
from ftkit.training.feature_store import FeatureStore, pinned_for
from ftkit.training.fingerprint import Unchanged, digests, each_hashed, numerics, settings_of, weights_of
from ftkit.training.tensor_table import TensorTable
from ftkit.vlm.dataset import ORIGIN

FEATURES = "image_features"  # key of a batch: (N, T, D), T vectors for each of its N tiles
_PIXELS = ("pixel_values", "pixel_attention_mask")
_WITH_IMAGES = ("inputs", "prompts")  # keys of a batch
_FORMAT = 1  # increase it when the same description means other numbers
_TILES_AT_ONCE = 16  # more need more memory and are hardly faster: a tile is a thousand patches

# Tower and connector by model type. In these families features depend on their own tile only.
_PARTS = {
    "idefics3": ("vision_model", "connector"),
    "smolvlm": ("vision_model", "connector"),
    "paligemma": ("vision_tower", "multi_modal_projector"),
}


def vision_parts(net: nn.Module) -> list[nn.Module]:
    """Return the vision tower and the connector of a model, or nothing if its family is not supported."""
    model = plain_model(net)
    return [getattr(model.base_model, name) for name in _PARTS.get(model.config.model_type, ())]


def is_frozen(net: nn.Module) -> bool:
    """Return whether a model of a supported family has a vision tower and a connector without trainable parameters."""
    parts = vision_parts(net)
    return bool(parts) and not any(parameter.requires_grad for part in parts for parameter in part.parameters())


def image_features(net: nn.Module, inputs: dict[str, Any]) -> Tensor | None:
    """Run tower and connector on the images of a batch, with gradients if they are on.

    Args:
        net: The model, plain or wrapped by peft.
        inputs: The processor's tensors, among them ``pixel_values``: (B, tiles, 3, H, W) padded with tiles of zeros, or
            (images, 3, H, W).

    Returns:
        (N, T, D), T vectors for each tile that is not padding, in the order of the examples; None if there is no tile.
    """
    pixels, mask = _tiles(inputs)
    return _run(net, pixels, mask) if len(pixels) else None


def to_model(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the network's inputs, in training and in ``generate``, for a batch with features in place of pixels."""
    if FEATURES not in inputs:
        return inputs
    rest = {name: value for name, value in inputs.items() if name != FEATURES}
    return {**rest, "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=inputs[FEATURES])}}


def with_features(net: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a batch with ``image_features``, computed now and with gradients if they are on, in place of its pixels.

    Without pixels, or of an unsupported family, it is returned unchanged.
    """
    if "pixel_values" not in inputs or not vision_parts(net):
        return inputs
    return _instead_of_pixels(inputs, image_features(net, inputs))


def for_pairs(inputs: dict[str, Any]) -> dict[str, Any]:
    """Give the images, or their features, of B pairs to all 2B examples: the chosen answers, then the rejected ones."""
    images = {name: torch.cat([inputs[name]] * 2) for name in (*_PIXELS, FEATURES) if name in inputs}
    return {**inputs, **images}


def tile_keys(inputs: dict[str, Any]) -> list[bytes]:
    """Return a SHA-256 of each tile of the processor's tensors, on the CPU, that is not padding.

    It is that of its pixels, and of which of them its image covers.
    """
    return _keys(*_tiles(inputs))


class FrozenVision:
    """Cache the features of a model's frozen vision tower and connector on disk.

    Args:
        net: The model, on its device; :func:`is_frozen` holds.
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
        self._parts = vision_parts(net)
        self._device = next(self._parts[0].parameters()).device
        self._unchanged = Unchanged(parameter for part in self._parts for parameter in part.parameters())
        self._remembering: WeakSet[Any] = WeakSet()  # data sets
        with precision():
            self._made_of = _made_of(net)
        self._store = store
        self._tile: tuple[int, ...] = ()  # the shape of a tile, once there is one
        self._table = TensorTable(self._made_of, store)

    def attach(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Replace a batch's pixels by features, and have its examples remembered without pixels.

        Args:
            batch: On the CPU: features are found by the bytes of the pixels, and pixels that are not needed need not
                travel to the device. ``inputs`` are the processor's tensors, ``prompts``, if there are any, others of
                the same images, ``origin`` a :class:`ftkit.vlm.dataset.BatchOrigin`, if there is one.

        Returns:
            The batch with ``image_features`` (N, T, D), on the CPU, in ``inputs`` and ``prompts``, unless there are no
            images. Once a part is trained, a batch with pixels.
        """
        origin = batch.get(ORIGIN)
        if not self._unchanged():
            return batch if origin is None else origin.with_pixels(batch)
        started = time.perf_counter()
        pixels, mask = _tiles(batch["inputs"])
        of_pixels = _keys(pixels, mask)
        tile = tuple(pixels.shape[1:])
        if of_pixels and tile != self._tile:  # other tiles may have more features or fewer
            self._tile, self._table = tile, TensorTable({**self._made_of, "tile": list(tile)}, self._store)
        by_example = [of_pixels] if origin is None else origin.tile_keys(of_pixels)
        keys = list(chain.from_iterable(by_example))
        features = dict(zip(keys, self._table.get(keys), strict=True))
        missing = [key for key, feature in features.items() if feature is None]
        place = {key: number for number, key in enumerate(of_pixels)}
        if origin is not None and any(key not in place for key in missing):  # what was cached is gone
            return self.attach(origin.with_pixels(batch))
        for start in range(0, len(missing), _TILES_AT_ONCE):
            chunk = missing[start : start + _TILES_AT_ONCE]
            numbers = [place[key] for key in chunk]
            computed = self._compute(pixels[numbers], None if mask is None else mask[numbers])
            self._table.add(chunk, computed)
            features |= zip(chunk, computed, strict=True)
        if origin is not None:
            origin.remember([example if all(key in self._table for key in example) else None for example in by_example])
            self._remembering.add(origin.dataset)
        found = pinned_for(torch.stack([features[key] for key in keys]), self._device) if keys else None
        self.seconds += time.perf_counter() - started
        return batch | {name: _instead_of_pixels(batch[name], found) for name in _WITH_IMAGES if name in batch}

    def forget(self) -> None:
        """Let all examples that were remembered without images come with them again."""
        for dataset in self._remembering:
            dataset.forget()

    def _compute(self, pixels: Tensor, mask: Tensor | None) -> Tensor:
        """Return features (N, T, D), on the CPU."""
        self.computed += len(pixels)
        with torch.no_grad(), self.precision(), evaluating(self._parts):
            return _run(self.net, pixels, mask).cpu()


def _instead_of_pixels(inputs: dict[str, Any], features: Tensor | None) -> dict[str, Any]:
    rest = {name: value for name, value in inputs.items() if name not in _PIXELS}
    return rest if features is None else {**rest, FEATURES: features}


def _tiles(inputs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Return tiles (N, 3, H, W) and masks (N, H, W) without padding: tiles that are all zero, as the models do."""
    pixels, mask = inputs.get("pixel_values", torch.empty(0, 3, 0, 0)), inputs.get("pixel_attention_mask")
    if pixels.ndim == 4:
        return pixels, mask
    pixels = pixels.flatten(0, 1)
    mask = None if mask is None else mask.flatten(0, 1)
    real = pixels.flatten(1).any(dim=1)
    if bool(real.all()):
        return pixels, mask
    return pixels[real], None if mask is None else mask[real]


def _run(net: nn.Module, pixels: Tensor, mask: Tensor | None) -> Tensor:
    model = plain_model(net)
    device = next(vision_parts(net)[0].parameters()).device
    if model.config.model_type == "paligemma":
        return model.get_image_features(pixel_values=pixels.to(device), return_dict=True).pooler_output
    masks = {} if mask is None else {"pixel_attention_mask": mask[None].to(device)}  # one example of N tiles
    out = model.get_image_features(pixel_values=pixels[None].to(device), return_dict=True, **masks)
    return torch.cat(list(out.pooler_output)).unflatten(0, (len(pixels), -1))


def _keys(pixels: Tensor, mask: Tensor | None) -> list[bytes]:
    def key(number: int) -> bytes:
        digest = hashlib.sha256(f"{pixels.dtype} {tuple(pixels.shape[1:])}".encode())
        digest.update(pixels[number].contiguous().view(torch.uint8).numpy().data)
        if mask is not None and not bool(mask[number].all()):
            digest.update(mask[number].bool().contiguous().numpy().data)
        return digest.digest()

    return each_hashed(key, range(len(pixels)), pixels.nbytes)


@contextmanager
def evaluating(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Run modules without dropout, whose random draws could not be cached; their modes are restored afterwards."""
    training = [module for part in parts for module in part.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _made_of(net: nn.Module) -> dict[str, Any]:
    """Return what decides the features of a tile besides the tile, as plain values."""
    config = plain_model(net).config
    quantized = config.to_dict().get("quantization_config")  # it is the whole model's and not in the tower's settings
    return {
        "format": _FORMAT,
        "output": "image features",
        "family": config.model_type,
        "vision": settings_of(config.vision_config),
        "scale_factor": getattr(config, "scale_factor", None),
        "quantized": json.dumps(quantized, sort_keys=True, default=str),
        "weights": digests(map(weights_of, vision_parts(net))),
        **numerics(next(net.parameters()).device.type),
    }
