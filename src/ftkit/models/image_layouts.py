"""How processors lay out the images of a batch: as one entry for each image, as tiles, as patches, or as crops.

A tile is what a vision tower sees by itself: an image, or a part of one that the processor cut out.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Tile = Mapping[str, Tensor]


class Images:
    """One entry for each image: ``pixel_values`` (images, 3, H, W), examples one behind the other."""

    tensors: tuple[str, ...] = ("pixel_values",)  # the processor's tensors of images
    beside: tuple[str, ...] = ()  # those among them that the text model reads too

    def batch(self, examples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the image tensors of examples as those of a batch; an example may have none."""
        names = sorted({name for example in examples for name in example})
        like = {name: next(example[name] for example in examples if name in example) for name in names}
        return {
            name: self._joined(name, [example.get(name, self._empty(like[name])) for example in examples])
            for name in names
        }

    def absent(self, inputs: Mapping[str, Tensor]) -> bool:
        """Return whether a batch has no tile that is not padding."""
        return not len(inputs.get("pixel_values", ()))

    def tiles(self, inputs: Mapping[str, Tensor]) -> list[Tile]:
        """Return the tiles of a batch in the order of the examples, without padding."""
        if "pixel_values" not in inputs:
            return []
        rows = zip(*(inputs[name] for name in self.tensors if name in inputs), strict=True)
        names = [name for name in self.tensors if name in inputs]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def arguments(self, tiles: Sequence[Tile]) -> dict[str, Tensor]:
        """Return tiles as the arguments of ``get_image_features``."""
        return {name: torch.stack([tile[name] for tile in tiles]) for name in tiles[0]}

    def token_key(self, image_processor: Any, width: int, height: int, alone: bool) -> Hashable:
        """Return what decides how many tokens an image takes: images with the same take as many.

        Args:
            image_processor: The model's, with the settings that are used.
            width: Of the image, in pixels.
            height: Of the image, in pixels.
            alone: Whether it is the only one of its example.
        """
        return (width, height) if getattr(image_processor, "do_pan_and_scan", False) else ()  # crops: Gemma 3

    def sizes(self, inputs: Mapping[str, Tensor], tokens: int) -> list[int] | None:
        """Return how many of all image ``tokens`` are each tile's, found in ``beside``; None where all have as many."""
        return None

    def places(self, inputs: Mapping[str, Tensor], tokens: Sequence[int]) -> list[range]:
        """Return which tiles are those of each example, given its image tokens.

        Raises:
            ValueError: The tiles do not come out even with the examples.
        """
        sizes = self.sizes(inputs, sum(tokens))
        if sizes is None:
            count = len(self.tiles(inputs))
            sizes = [sum(tokens) // max(count, 1)] * count
        return tiles_of_examples(sizes, tokens)

    def examples(self, inputs: Mapping[str, Tensor], tokens: Sequence[int], chosen: Sequence[int]) -> dict[str, Tensor]:
        """Return the image tensors of some examples of a batch; none where they have no images.

        Args:
            inputs: The batch's.
            tokens: Image tokens of each example.
            chosen: The numbers of the examples.
        """
        tiles, places = self.tiles(inputs), self.places(inputs, tokens)
        kept = [tiles[tile] for example in chosen for tile in places[example]]
        return self.arguments(kept) if kept else {}

    def _joined(self, name: str, tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(tensors))

    def _empty(self, like: Tensor) -> Tensor:
        return like.new_zeros((0, *like.shape[1:]))


class Tiles(Images):
    """One entry for each example: ``pixel_values`` (B, tiles, 3, H, W), filled with tiles of zeros, and their masks."""

    tensors = ("pixel_values", "pixel_attention_mask")

    def token_key(self, image_processor: Any, width: int, height: int, alone: bool) -> Hashable:  # noqa: D102
        if image_processor.size["longest_edge"] % image_processor.max_image_size["longest_edge"]:
            return width, height  # the image processor's own count is wrong there
        return image_processor.get_number_of_image_patches(height, width)

    def absent(self, inputs: Mapping[str, Tensor]) -> bool:  # noqa: D102
        return super().absent(inputs) or not bool(inputs["pixel_values"].any())

    def tiles(self, inputs: Mapping[str, Tensor]) -> list[Tile]:  # noqa: D102
        rows = super().tiles({name: inputs[name].flatten(0, 1) for name in self.tensors if name in inputs})
        if not rows:
            return []
        real = inputs["pixel_values"].flatten(0, 1).flatten(1).any(dim=1).tolist()
        return [row for row, kept in zip(rows, real, strict=True) if kept]

    def arguments(self, tiles: Sequence[Tile]) -> dict[str, Tensor]:  # noqa: D102
        return {name: value[None] for name, value in super().arguments(tiles).items()}  # one example of N tiles

    def examples(self, inputs: Mapping[str, Tensor], tokens: Sequence[int], chosen: Sequence[int]) -> dict[str, Tensor]:  # noqa: D102
        if not any(tokens[example] for example in chosen):
            return {}
        return {name: inputs[name][list(chosen)] for name in self.tensors if name in inputs}

    def _joined(self, name: str, tensors: Sequence[Tensor]) -> Tensor:
        return pad_tiles(tensors)

    def _empty(self, like: Tensor) -> Tensor:
        return like.new_zeros((1, 0, *like.shape[2:]))


class Patches(Images):
    """The patches of all images one behind the other, (patches, D), and each image's grid (images, 3)."""

    tensors = ("pixel_values", "image_grid_thw")
    beside = ("image_grid_thw",)  # it decides the positions of the image's tokens

    def token_key(self, image_processor: Any, width: int, height: int, alone: bool) -> Hashable:  # noqa: D102
        return image_processor.get_number_of_image_patches(height, width)

    def tiles(self, inputs: Mapping[str, Tensor]) -> list[Tile]:  # noqa: D102
        if "pixel_values" not in inputs:
            return []
        grids = inputs["image_grid_thw"]
        parts = inputs["pixel_values"].split(grids.prod(-1).tolist())
        return [{"pixel_values": part, "image_grid_thw": grid} for part, grid in zip(parts, grids, strict=True)]

    def arguments(self, tiles: Sequence[Tile]) -> dict[str, Tensor]:  # noqa: D102
        return {
            "pixel_values": torch.cat([tile["pixel_values"] for tile in tiles]),
            "image_grid_thw": torch.stack([tile["image_grid_thw"] for tile in tiles]),
        }

    def sizes(self, inputs: Mapping[str, Tensor], tokens: int) -> list[int] | None:  # noqa: D102
        if "image_grid_thw" not in inputs:
            return []
        patches = inputs["image_grid_thw"].prod(-1)
        return (patches * tokens // patches.sum().clamp_min(1)).tolist()


class Crops(Images):
    """The crops of each image, (images, crops, 3, H, W), its size, and the number of images of each example.

    A single image is cut into crops, one of several is not, so a tile depends on the images beside it.
    """

    tensors = ("pixel_values", "image_sizes", "batch_num_images")

    def token_key(self, image_processor: Any, width: int, height: int, alone: bool) -> Hashable:  # noqa: D102
        return (width, height) if alone else ()

    def tiles(self, inputs: Mapping[str, Tensor]) -> list[Tile]:  # noqa: D102
        return super().tiles({name: inputs[name] for name in self.tensors[:2] if name in inputs})

    def places(self, inputs: Mapping[str, Tensor], tokens: Sequence[int]) -> list[range]:  # noqa: D102
        counts = iter(inputs["batch_num_images"].tolist() if "batch_num_images" in inputs else [])
        ends = list(accumulate(next(counts) if count else 0 for count in tokens))
        return [range(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]

    def examples(self, inputs: Mapping[str, Tensor], tokens: Sequence[int], chosen: Sequence[int]) -> dict[str, Tensor]:  # noqa: D102
        found = super().examples(inputs, tokens, chosen)
        places = self.places(inputs, tokens)
        counts = [len(places[example]) for example in chosen if places[example]]
        return {**found, "batch_num_images": inputs["batch_num_images"].new_tensor(counts)} if found else {}

    def _joined(self, name: str, tensors: Sequence[Tensor]) -> Tensor:
        return pad_tiles(tensors) if name == "pixel_values" else super()._joined(name, tensors)


def pad_tiles(tensors: Sequence[Tensor]) -> Tensor:
    """Join tiles (rows, tiles, ..., H, W), padded with zeros at the end of each dimension but the first.

    Idefics3 and SmolVLM leave out tiles that are zero throughout, and pixels whose mask is.

    Example:
        >>> pad_tiles([torch.ones(1, 1, 2, 2), torch.ones(1, 3, 1, 2)]).shape
        torch.Size([2, 3, 2, 2])
    """
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [wanted - size for wanted, size in zip(shape, tensor.shape[1:], strict=True)]
        # F.pad takes (before, after) of the last dimension first.
        padded.append(F.pad(tensor, [part for size in reversed(missing) for part in (0, size)]))
    return torch.cat(padded)


def tiles_of_examples(sizes: Sequence[int], tokens: Sequence[int]) -> list[range]:
    """Return which tiles are those of each example.

    Args:
        sizes: Tokens of each tile.
        tokens: Image tokens of each example.

    Raises:
        ValueError: The tiles do not come out even with the examples.

    Example:
        >>> tiles_of_examples([4, 2, 6], [6, 0, 6])
        [range(0, 2), range(2, 2), range(2, 3)]
    """
    places, start = [], 0
    for wanted in tokens:
        stop, found = start, 0
        while found < wanted and stop < len(sizes):
            found, stop = found + sizes[stop], stop + 1
        if found != wanted:
            raise ValueError(f"tiles of {list(sizes)} tokens do not make up examples of {list(tokens)}")
        places.append(range(start, stop))
        start = stop
    if start != len(sizes):
        raise ValueError(f"tiles of {list(sizes)} tokens do not make up examples of {list(tokens)}")
    return places
