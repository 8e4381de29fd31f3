"""The reference model of preference tuning, and a cache of its log-probabilities on disk.

An answer's log-probability under the reference does not depend on beta, the loss, the learning rate or the seed. So it
is cached beside the image features, and every run on the same pairs and the same model reads it.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from ftkit.models.base_model import plain_model
from ftkit.models.evaluation_mode import evaluating
from ftkit.models.peft_internals import adapter_modules
from ftkit.models.vision_families import FEATURES, family_of, vision_parts
from ftkit.training.feature_store import FeatureStore
from ftkit.training.fingerprint import Unchanged, digest_of, digests, numerics, settings_of, weights_of
from ftkit.training.tensor_table import TensorTable
from ftkit.vlm.vision import tile_keys

_FORMAT = 2  # increase it when the same description means other numbers


@contextmanager
def as_reference(net: nn.Module) -> Iterator[nn.Module]:
    """Yield the network as it was before training: adapters off, no dropout, no gradients.

    A policy without adapters is given as a frozen copy of its start.
    """
    with torch.no_grad(), evaluating([net]), _without_adapters(net):
        yield net


@contextmanager
def _without_adapters(net: nn.Module) -> Iterator[None]:
    tuner: Any = net.base_model if isinstance(net, PeftModel) else None
    if tuner is not None:
        tuner.disable_adapter_layers()  # net.disable_adapter() would look at every parameter of every layer first
    try:
        yield
    finally:
        if tuner is not None:
            tuner.enable_adapter_layers()


class CachedReference:
    """Cache log-probabilities of answers under the reference on disk.

    The entry is named by the weights of the text model and the settings, an example in it by the tokens, which of them
    are supervised, and the images as the text model sees them: their features, or their pixels and the weights of the
    tower. Chat template, processor and image sizes need not be compared: others make other tokens or images. Once a
    weight other than the adapters' is trained, nothing is read or cached any more. The model itself may be freed after
    the first :meth:`keys`.

    Args:
        net: See :func:`as_reference`; of a policy with adapters everything but them is the reference.
        precision: Makes the context of the run's precision.
        store: Where they are cached; None takes the default one.
        device: Where it computes; None takes where its weights are.
    """

    def __init__(
        self,
        net: nn.Module,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        store: FeatureStore | None = None,
        device: torch.device | None = None,
    ) -> None:
        adapters, vision = list(adapter_modules(net)), vision_parts(net)
        text = weights_of(net, without=[*adapters, *vision])
        self._vision = [weights_of(part, without=adapters) for part in vision]  # until their digest is known
        self._unchanged = Unchanged(chain(text, *self._vision))
        with precision():
            self._table = TensorTable(_made_of(net, text, device or next(net.parameters()).device), store)
        config = plain_model(net).config
        self._image_token: int = config.image_token_id
        self._family = family_of(config)
        self._read = ("input_ids", *self._family.answer_values, "labels")

    def keys(self, inputs: dict[str, Any]) -> list[str]:
        """Return a SHA-256 of each example of a batch of pairs, whatever its padding, in hexadecimal digits.

        Args:
            inputs: The batch's ``inputs``, 2B examples and the images of the first B, on the CPU.
        """
        marks = inputs["input_ids"] == self._image_token  # (2B, T)
        pairs = len(marks) // 2
        images = self._image_keys(inputs, marks[:pairs].sum(1).tolist())
        keys = []
        for example in range(len(marks)):
            key = hashlib.sha256()
            real = inputs["attention_mask"][example].bool()
            for name in self._read:
                if name in inputs:
                    key.update(f"{name} {digest_of([inputs[name][example][real]])}".encode())
            key.update(images[example % pairs])
            keys.append(key.hexdigest())
        return keys

    def get(self, keys: list[str]) -> Tensor | None:
        """Return the log-probabilities (2B,) float32 of a batch, or None unless all of them are cached."""
        if not self._unchanged():
            return None
        kept = self._table.get(list(map(bytes.fromhex, keys)))
        return None if any(one is None for one in kept) else torch.stack(kept)  # type: ignore[arg-type]

    def add(self, keys: list[str], log_probs: Tensor) -> None:
        """Cache the log-probabilities (2B,) of a batch."""
        if self._unchanged():
            self._table.add(list(map(bytes.fromhex, keys)), log_probs.float())

    def _image_keys(self, inputs: dict[str, Any], tokens: list[int]) -> list[bytes]:
        """Return what decides how the text model sees the images of each example, given its image tokens."""
        images = self._family.images
        if FEATURES in inputs:
            seen = [[part] for part in inputs[FEATURES].split(tokens)]
            for name in images.beside:
                for tensors, place in zip(seen, images.places(inputs, tokens), strict=True):
                    tensors.append(inputs[name][list(place)])
            return [digest_of(tensors).encode() if count else b"" for tensors, count in zip(seen, tokens, strict=True)]
        keys = tile_keys(images.tiles(inputs))
        places = images.places(inputs, tokens)
        return [self._tower + b"".join(keys[tile] for tile in place) if place else b"" for place in places]

    @cached_property
    def _tower(self) -> bytes:
        """Return digests of the weights that turn pixels into features; not needed where batches bring features."""
        found = "".join(digests(self._vision)).encode()
        self._vision.clear()
        return found


def _made_of(net: nn.Module, text: list[Tensor], device: torch.device) -> dict[str, Any]:
    """Return what decides a log-probability besides its tokens and images, as plain values."""
    return {
        "format": _FORMAT,
        "output": "reference log-probabilities",
        "config": settings_of(plain_model(net).config),
        "weights": digests([text]),
        **numerics(device.type),
    }
