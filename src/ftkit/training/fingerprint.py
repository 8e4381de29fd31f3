"""Describe what decides an entry of the feature store: weights, settings and numerics, as plain values."""

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any, TypeVar
from weakref import ref

import torch
import transformers
from torch import Tensor, nn
from transformers import PretrainedConfig

from ftkit.models.transformers_internals import attention_implementation
from ftkit.training.feature_file import bytes_of

_MANY_BYTES = 1 << 23  # they take longer to hash than threads take to start
T = TypeVar("T")
D = TypeVar("D")
_WITHOUT_EFFECT = ("_name_or_path", "transformers_version", "architectures")


def weights_of(module: nn.Module, without: Iterable[nn.Module] = ()) -> list[Tensor]:
    """Return every tensor that decides what a module computes, each once, in the order of its parts, without some.

    They are those that the parts write into a state dict, because there bitsandbytes adds what it needs besides the
    integers of a quantized weight and keeps in other places, and the buffers that no state dict has.
    """
    left_out = {id(part) for outer in without for part in outer.modules()}
    found: dict[int, Tensor] = {}
    for part in module.modules():
        if id(part) in left_out:
            continue
        own: dict[str, Tensor] = {}
        part._save_to_state_dict(own, "", keep_vars=True)
        for tensor in (*own.values(), *part.buffers(recurse=False)):
            found.setdefault(id(tensor), tensor)
    return list(found.values())


def digests(parts: Iterable[Iterable[Tensor]]) -> list[str]:
    """Return the SHA-256 of the tensors of each part; large ones are hashed at the same time."""
    tensors = [list(part) for part in parts]
    together = list(chain.from_iterable(tensors))
    size = sum(tensor.nbytes for tensor in together)
    found = iter(each_hashed(lambda tensor: digest_of([tensor]), together, size))
    return [hashlib.sha256("".join(islice(found, len(part))).encode()).hexdigest() for part in tensors]


def digest_of(tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of tensors, in order: types, shapes and bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(bytes_of(tensor.detach().cpu()))
    return digest.hexdigest()


def each_hashed(hashed: Callable[[T], D], things: Iterable[T], size: int) -> list[D]:
    """Hash each of some things, of ``size`` bytes in all, in threads if that is worth it."""
    if size < _MANY_BYTES:
        return list(map(hashed, things))
    with ThreadPoolExecutor() as pool:
        return list(pool.map(hashed, things))


def settings_of(config: PretrainedConfig) -> str:
    """Return the settings that decide what weights compute, as JSON; a name or a path does not."""
    settings = {key: value for key, value in config.to_dict().items() if key not in _WITHOUT_EFFECT}
    return json.dumps({**settings, "attention": attention_implementation(config)}, sort_keys=True, default=str)


def numerics(device: str) -> dict[str, Any]:
    """Return what decides the last bits of an output on a kind of device, as plain values, in the current context."""
    return {
        "autocast": str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None,
        "matmul": torch.get_float32_matmul_precision(),
        "device": device,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


class Unchanged:
    """Tell whether weights are still those that were there when this was made; only parameters are watched.

    A part that becomes trainable, as a callback may decide, is not what made an entry, and freezing it again does not
    bring it back. So what was once false stays false. No weight is kept alive.

    Example:
        >>> layer = nn.Linear(2, 3).requires_grad_(False)
        >>> unchanged = Unchanged(layer.parameters())
        >>> unchanged()
        True
        >>> _ = layer.requires_grad_(True)
        >>> unchanged(), layer.requires_grad_(False) and unchanged()
        (False, False)
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._versions = [(ref(weight), _version(weight)) for weight in weights if isinstance(weight, nn.Parameter)]
        self._so_far = True

    def __call__(self) -> bool:
        """Return whether no weight has become trainable or been written to, at this call and at those before it."""
        if self._so_far:
            self._so_far = not any(
                weight.requires_grad or _version(weight) != version
                for reference, version in self._versions
                if (weight := reference()) is not None
            )
        return self._so_far


def _version(tensor: Tensor) -> int:
    """Return the number of writes in place; fused optimizers do not count, but what they write to is trainable."""
    return 0 if tensor.is_inference() else tensor._version
