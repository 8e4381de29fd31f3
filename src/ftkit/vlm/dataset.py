"""Examples with images as a dataset, and which examples can be used in it."""

import pickle
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, get_worker_info

from ftkit.errors import InputError
from ftkit.examples.encoder import Batch, EncodedExample, column_names
from ftkit.examples.reader import Example
from ftkit.vlm.encoder import ChatEncoder

ORIGIN = "origin"  # key of a batch: its BatchOrigin


class ExampleDataset(Dataset[Any]):
    """Hold the examples of one split; images are opened when an example is asked for.

    Where a frozen tower's features are cached, examples can be remembered without their images, see
    :class:`BatchOrigin`. Until they are forgotten, examples come with the keys of their tiles and no image is opened.
    """

    def __init__(self, examples: Sequence[Example], encoder: ChatEncoder) -> None:
        self.examples, self.encoder = list(map(_with_path, examples)), encoder
        self.columns = column_names(self.examples)
        self._remembered: dict[int, bytes] = {}  # by the example's identity: its name is its own in one source only

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> EncodedExample:
        example = self.examples[index]
        packed = None if _in_worker() else self._remembered.get(id(example))
        if packed is None:
            return self.encoder.encode(example)
        return EncodedExample(example, *pickle.loads(zlib.decompress(packed)))

    def batch(self, encoded: Sequence[EncodedExample], evaluation: bool = False) -> Batch:
        """Return a batch to train on or to evaluate.

        Returns:
            Those of :meth:`ftkit.examples.encoder.Encoder.batch`, and, unless a worker makes the batch, ``origin``, a
            :class:`BatchOrigin`.
        """
        batch = self.encoder.batch(encoded, self.columns if evaluation else None)
        if not _in_worker():
            batch[ORIGIN] = BatchOrigin(self, encoded, evaluation)
        return batch

    def remember(self, encoded: EncodedExample, tile_keys: list[bytes]) -> None:
        """Let an example come from now on with its ``images`` as they are here, without pixels."""
        kept = (encoded.prompt, encoded.answers, encoded.tokens, encoded.images, encoded.cut, tile_keys, encoded.turns)
        # Packed, an example takes little more than its text: most of a prompt are image tokens, all alike.
        self._remembered[id(encoded.example)] = zlib.compress(pickle.dumps(kept), level=1)

    def forget(self, examples: Iterable[Example] | None = None) -> None:
        """Let examples come with their images again; None takes all examples."""
        for example in self.examples if examples is None else examples:
            self._remembered.pop(id(example), None)


def _with_path(example: Example) -> Example:
    """Return an example that has the path of its first image, if it is a file, as a column of its predictions."""
    first = next(iter(example.images), None)
    return replace(example, columns={**example.columns, "image": str(first)}) if isinstance(first, Path) else example


class BatchOrigin:
    """Remember where a batch came from, so that cached features of its images can take their place."""

    def __init__(self, dataset: ExampleDataset, encoded: Sequence[EncodedExample], evaluation: bool) -> None:
        self.dataset, self._evaluation = dataset, evaluation
        images = dataset.encoder.family.images
        self._tiles = [len(images.tiles(one.images)) for one in encoded]
        self._encoded = [  # pixels are in the batch alone
            replace(one, images={name: one.images[name] for name in images.beside if name in one.images})
            for one in encoded
        ]

    def tile_keys(self, of_pixels: Sequence[bytes]) -> list[list[bytes]]:
        """Return the keys of each example's tiles, given those of the tiles whose pixels are in the batch, in order."""
        found = iter(of_pixels)
        return [
            list(islice(found, tiles)) if one.tile_keys is None else one.tile_keys
            for one, tiles in zip(self._encoded, self._tiles, strict=True)
        ]

    def with_own_images(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the batch's inputs with the image tensors of those examples only whose pixels are in it."""
        own = self.dataset.encoder.family.images.batch([one.images for one in self._encoded if one.tile_keys is None])
        return {**inputs, **own}

    def remember(self, tile_keys: Sequence[list[bytes] | None]) -> None:
        """Let examples come without their images from now on, given their tiles' keys; None leaves one as it is."""
        for one, keys in zip(self._encoded, tile_keys, strict=True):
            if one.tile_keys is None and keys is not None:
                self.dataset.remember(one, keys)

    def with_pixels(self, batch: Batch) -> Batch:
        """Return the batch with all its images: missing ones are opened, and their examples forgotten."""
        remembered = [one.example for one in self._encoded if one.tile_keys is not None]
        if not remembered:
            return batch
        self.dataset.forget(remembered)
        encoded = [self.dataset.encoder.encode(one.example) for one in self._encoded]
        return self.dataset.batch(encoded, self._evaluation)


def _in_worker() -> bool:
    """Return whether this is a worker of a data loader.

    Workers have copies of the data set, and only the main process knows which features are cached. So examples of
    theirs always come with pixels, which they prepare beside the training.
    """
    return get_worker_info() is not None


def leave_out_unusable(
    examples: Sequence[Example], encoder: ChatEncoder, split: str
) -> tuple[list[Example], dict[str, int]]:
    """Return the examples that can be trained on; without a length rule and pairs, no example is looked at.

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


def refuse_longer(examples: Sequence[Example], others: Sequence[Example], encoder: ChatEncoder) -> None:
    """Refuse examples that are too long with other images than their own, before a model is asked.

    Args:
        examples: As they are.
        others: Those among them that have images, with other ones.
        encoder: The model's.

    Raises:
        InputError: A prompt leaves no room for the answer, or answers of a pair are cut elsewhere.
    """
    own = {example.id: example for example in examples}
    for other in others:
        try:
            answers, _ = encoder.fitted(other)
        except InputError as error:
            raise other.error(f"too long with another's images: {error}", field="controls") from error
        if encoder.preference and answers != encoder.fitted(own[other.id])[0]:
            problem, fix = "its answers are cut elsewhere with another's images", "use image_options of fewer tokens"
            raise other.error(problem, field="controls", fix=fix)


def _nothing_left(examples: int, counts: dict[str, int], max_length: int | None, split: str) -> InputError:
    if not counts["equal"]:
        return InputError(
            f"all {examples} {split} examples are longer", field="max_length", got=max_length,
            fix="raise max_length, or configure the processor to use fewer tokens for an image",
        )  # fmt: skip
    longer = f", {counts['skipped']} examples are longer than {max_length} tokens" if counts["skipped"] else ""
    return InputError(
        f"no {split} example is left: in {counts['equal']} pairs both answers are the same, uncut or cut{longer}",
        field="rejected",
        fix="give pairs whose answers differ, or raise max_length",
    )
