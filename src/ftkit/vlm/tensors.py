"""Pad the tensors of each processor and put them into a batch, by rules for their names.

A tensor without a rule here is an error: one that is padded wrongly or left out would silently train a model on
something else.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# Tensors with one value for each token: what an answer's tokens get, by processor, because a name does not mean the
# same to all. Padding gets 0.
TOKEN_VALUES: Mapping[str, Mapping[str, int]] = {
    "token_type_ids": {
        "PaliGemmaProcessor": 1,  # 0 sees everything before the answer, 1 only what is before it
        "Gemma3Processor": 0,  # 1 is an image, whose tokens see each other
    }
}


def pad_tiles(tensors: Sequence[Tensor]) -> Tensor:
    """Pad tiles (1, tiles, ..., H, W) of examples with zeros at the end of each dimension, and make one tensor of them.

    Idefics3 and SmolVLM leave out tiles that are zero throughout, and pixels whose mask is.

    Example:
        >>> pad_tiles([torch.ones(1, 1, 2, 2), torch.ones(1, 3, 1, 2)]).shape
        torch.Size([2, 3, 2, 2])
    """
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [wanted - size for wanted, size in zip(shape, tensor.shape, strict=True)]
        # F.pad takes (before, after) of the last dimension first.
        padded.append(F.pad(tensor, [part for size in reversed(missing) for part in (0, size)]))
    return torch.cat(padded)


def _pixels(tensors: Sequence[Tensor]) -> Tensor:
    tiled = tensors[0].ndim == 5  # (1, tiles, 3, H, W) of Idefics3; (images, 3, H, W) of PaliGemma
    return pad_tiles(tensors) if tiled else torch.cat(list(tensors))


IMAGE_TENSORS: Mapping[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "pixel_values": _pixels,
    "pixel_attention_mask": pad_tiles,
}


def image_batch(examples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the image tensors of examples as those of a batch; an example may have none."""
    batch = {}
    for name in sorted({name for example in examples for name in example}):
        like = next(example[name] for example in examples if name in example)
        batch[name] = IMAGE_TENSORS[name]([example.get(name, _empty(like)) for example in examples])
    return batch


def _empty(like: Tensor) -> Tensor:
    """Return the tensor of an example without images: it has no tiles."""
    tiled = like.ndim != 4 or like.shape[1] != 3
    return like.new_zeros((1, 0, *like.shape[2:]) if tiled else (0, *like.shape[1:]))
