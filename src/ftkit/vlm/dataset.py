"""Examples with images as a dataset, and which examples belong to it."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from torch.utils.data import Dataset, get_worker_info

from ftkit.errors import InputError
from ftkit.examples.reader import Example, ImageReference
from ftkit.training.order import seeded_order
from ftkit.vlm.encoder import ChatEncoder, EncodedExample

Batch = dict[str, Any]
ORIGIN = "origin"  # key of a batch: its BatchOrigin


class ExampleDataset(Dataset[Any]):
    """The examples of one split; images are opened when an example is asked for.

    Whoever keeps what a frozen tower makes of images may have the examples remembered without them, see
    :class:`BatchOrigin`. Until they are forgotten, examples come with the keys of their tiles and no picture is opened.

    Args:
        examples: The examples.
        encoder: Makes tokens and pixels of them.
    """

    def __init__(self, examples: Sequence[Example], encoder: ChatEncoder) -> None:
        self.examples, self.encoder = list(examples), encoder
        self.columns = list(dict.fromkeys(name for example in examples for name in example.columns))
        self._remembered: dict[int, bytes] = {}  # by the example's identity: its name is its own in one source only

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> EncodedExample:
        example = self.examples[index]
        packed = None if _in_worker() else self._remembered.get(id(example))
        return (
            self.encoder.encode(example)
            if packed is None
            else EncodedExample(example, *pickle.loads(zlib.decompress(packed)))
        )

    def training_batch(self, encoded: Sequence[EncodedExample]) -> Batch:
        """A batch to learn from.

        Returns:
            ``inputs``, see :meth:`ftkit.vlm.encoder.ChatEncoder.inputs`; ``id``, a list of B strings; and, unless a
            worker makes the batch, ``origin``, a :class:`BatchOrigin`.
        """
        return self._batch(encoded) | self._origin(encoded, self.training_batch)

    def evaluation_batch(self, encoded: Sequence[EncodedExample]) -> Batch:
        """The same with ``answer`` (B strings) and ``columns`` (B strings by name).

        Except of pairs there are also ``prompts`` and, of each answer's text, ``affixes``.
        """
        batch = self._batch(encoded)
        batch["answer"] = [one.example.completion for one in encoded]
        if not self.encoder.preference:
            renderer, examples = self.encoder.renderer, [one.example for one in encoded]
            batch["prompts"] = self.encoder.prompts(encoded)
            batch["affixes"] = affixes = [renderer.affixes(example) for example in examples]
            batch["answer"] = [renderer.reference(example, one) for example, one in zip(examples, affixes, strict=True)]
        batch["columns"] = {name: [one.example.columns.get(name, "") for one in encoded] for name in self.columns}
        return batch | self._origin(encoded, self.evaluation_batch)

    def remember(self, encoded: EncodedExample, tile_keys: list[bytes]) -> None:
        """Let an example come without its images from now on."""
        empty: dict[str, Any] = {}
        kept = (encoded.prompt, encoded.answers, encoded.tokens, empty, encoded.cut, tile_keys, encoded.turns)
        # Packed, an example takes little more than its text: most of a prompt are image tokens, all alike.
        self._remembered[id(encoded.example)] = zlib.compress(pickle.dumps(kept), level=1)

    def forget(self, examples: Iterable[Example] | None = None) -> None:
        """Let examples come with their images again; None takes all examples."""
        for example in self.examples if examples is None else examples:
            self._remembered.pop(id(example), None)

    def _batch(self, encoded: Sequence[EncodedExample]) -> Batch:
        return {"inputs": self.encoder.inputs(encoded), "id": [one.example.id for one in encoded]}

    def _origin(self, encoded: Sequence[EncodedExample], make: Callable[[Sequence[EncodedExample]], Batch]) -> Batch:
        return {} if _in_worker() else {ORIGIN: BatchOrigin(self, encoded, make)}


class BatchOrigin:
    """Where a batch came from, for whoever puts what is kept of its images in their place.

    Args:
        dataset: The data set.
        encoded: The examples of the batch.
        make: Makes the batch of them.

    Attributes:
        dataset: The data set.
    """

    def __init__(
        self,
        dataset: ExampleDataset,
        encoded: Sequence[EncodedExample],
        make: Callable[[Sequence[EncodedExample]], Batch],
    ) -> None:
        self.dataset, self._make = dataset, make
        self._tiles = [one.tiles for one in encoded]
        self._encoded = [replace(one, images={}) for one in encoded]  # pixels are in the batch alone

    def tile_keys(self, of_pixels: Sequence[bytes]) -> list[list[bytes]]:
        """The keys of each example's tiles.

        Args:
            of_pixels: Those of the tiles whose pixels are in the batch, example by example.
        """
        found = iter(of_pixels)
        return [
            list(islice(found, tiles)) if one.tile_keys is None else one.tile_keys
            for one, tiles in zip(self._encoded, self._tiles, strict=True)
        ]

    def remember(self, tile_keys: Sequence[list[bytes] | None]) -> None:
        """Let examples come without their images from now on.

        Args:
            tile_keys: The keys of each example's tiles; None leaves the example as it is.
        """
        for one, keys in zip(self._encoded, tile_keys, strict=True):
            if one.tile_keys is None and keys is not None:
                self.dataset.remember(one, keys)

    def with_pixels(self, batch: Batch) -> Batch:
        """Return the batch with all its images: missing ones are opened, and their examples forgotten."""
        remembered = [one.example for one in self._encoded if one.tile_keys is not None]
        if not remembered:
            return batch
        self.dataset.forget(remembered)
        return self._make([self.dataset.encoder.encode(one.example) for one in self._encoded])


def _in_worker() -> bool:
    """Whether this is a worker of a data loader.

    Workers have copies of the data set, and what becomes of its images is known in the main process alone. So theirs
    come with pixels always, which they prepare beside the training.
    """
    return get_worker_info() is not None


def leave_out_unusable(
    examples: Sequence[Example], encoder: ChatEncoder, split: str
) -> tuple[list[Example], dict[str, int]]:
    """The examples that something can be learnt from.

    Args:
        examples: The examples of a split.
        encoder: Knows the length rule and whether there are pairs; without both no example is looked at.
        split: The split's name, for the error.

    Returns:
        The examples, and the numbers of those among them with an answer ``cut``, and of those left out: ``skipped`` are
        too long, ``equal`` are pairs without a preference, since both answers are the same or are so when cut.

    Raises:
        InputError: No example is left, or the rule of evaluation finds no room for an answer.
    """
    kept, counts = [], {"cut": 0, "skipped": 0, "equal": 0}
    if encoder.length.max_length is None and not encoder.preference:
        return list(examples), counts
    for example in examples:
        answers, cut = encoder.fitted(example)
        if answers is None:
            counts["skipped"] += 1
        elif encoder.preference and answers[0] == answers[1]:
            counts["equal"] += 1
        else:
            kept.append(example)
            counts["cut"] += cut
    if examples and not kept:
        raise _nothing_left(len(examples), counts, encoder.length.max_length, split)
    return kept, counts


def _nothing_left(examples: int, counts: dict[str, int], max_length: int | None, split: str) -> InputError:
    if not counts["equal"]:
        return InputError(
            f"all {examples} {split} examples are longer", field="max_length", got=max_length,
            fix="allow more tokens, or let the processor make fewer of an image",
        )  # fmt: skip
    longer = f", {counts['skipped']} examples are longer than {max_length} tokens" if counts["skipped"] else ""
    return InputError(
        f"no {split} example is left: in {counts['equal']} pairs both answers are the same, as they are or cut{longer}",
        field="rejected",
        fix="give pairs whose answers differ, or allow more tokens",
    )


def split_by_images(
    examples: Sequence[Example],
    fractions: tuple[float, float],
    seed: int,
    content_of: Callable[[ImageReference, Example], Hashable],
) -> dict[str, list[Example]]:
    """Divide examples into train, val and test so that no image is in two of them.

    Args:
        examples: The examples.
        fractions: Parts of the examples for train and validation, met as closely as the groups allow.
        seed: Decides which.
        content_of: What is equal for equal images; a saved data set holds an image anew with each example.

    Returns:
        The examples by split, each in their order.

    Example:
        >>> examples = [Example(str(number), "", "") for number in range(10)]
        >>> parts = split_by_images(examples, (0.8, 0.1), seed=1, content_of=lambda image, example: image)
        >>> {name: len(part) for name, part in parts.items()}
        {'train': 8, 'val': 1, 'test': 1}
    """
    group_of = _groups(examples, content_of)
    members: dict[int, list[int]] = {}
    for index, group in enumerate(group_of):
        members.setdefault(group, []).append(index)
    groups = list(members.values())
    bounds = {"train": fractions[0], "val": fractions[0] + fractions[1], "test": 1.0}
    chosen: dict[str, list[int]] = {name: [] for name in bounds}
    placed = 0
    for number in seeded_order(len(groups), seed, 0).tolist():
        # The group goes where its middle falls.
        middle = (placed + len(groups[number]) / 2) / len(examples)
        name = next(name for name, bound in bounds.items() if middle <= bound or name == "test")
        chosen[name] += groups[number]
        placed += len(groups[number])
    return {name: [examples[index] for index in sorted(indices)] for name, indices in chosen.items()}


def _groups(examples: Sequence[Example], content_of: Callable[[ImageReference, Example], Hashable]) -> list[int]:
    """The number of each example's group: examples that share an image, directly or through other examples."""
    parent = list(range(len(examples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    first: dict[Hashable, int] = {}
    for index, example in enumerate(examples):
        for image in example.images:
            parent[root(index)] = root(first.setdefault(content_of(image, example), index))
    return [root(index) for index in range(len(examples))]
