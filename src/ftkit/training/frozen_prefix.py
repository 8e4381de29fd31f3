"""Cache the outputs of a classifier's frozen layers on disk.

Under a causal mask a position does not depend on what follows. So outputs cached for padded messages serve unpadded
ones, and those pooled at their last real token: they take the first positions of the same entries.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ftkit.models.backbone import Backbone
from ftkit.models.network import SequenceClassifier
from ftkit.models.pooling import reads_padding
from ftkit.models.trainable import frozen_parts
from ftkit.models.transformers_internals import drops_out
from ftkit.training.dataset import Batch, MessageDataset
from ftkit.training.feature_file import Features
from ftkit.training.feature_store import FeatureStore, pinned_for
from ftkit.training.fingerprint import Unchanged, digest_of, digests, numerics, settings_of, weights_of

_FORMAT = 2  # raise it when the same description comes to mean other numbers
_SMALLEST_BATCH = 8  # messages of one length each cost no padding, and a batch of one wastes the processor
_log = logging.getLogger(__name__)


class _Stage(NamedTuple):
    """A point of the network at which outputs are cached: behind ``depth`` blocks, or pooled behind the final norm."""

    depth: int
    pooled: bool
    weights: str  # fingerprint of everything before it


class FrozenPrefix:
    """The cached outputs of a network's frozen layers, for the messages of some datasets.

    Args:
        net: The network, on its device.
        datasets: The messages by name of their split.
        batch_size: Messages computed together; the run's own batch size gives the very same bits.
        precision: Makes the context of the run's precision.
        store: Where the outputs are cached.

    Attributes:
        seconds: Time spent on computing or opening them.
    """

    def __init__(
        self,
        net: SequenceClassifier,
        datasets: Mapping[str, MessageDataset],
        batch_size: int,
        precision: Callable[[], AbstractContextManager[Any]],
        store: FeatureStore | None = None,
    ) -> None:
        self.net, self.datasets, self.batch_size, self.precision = net, datasets, batch_size, precision
        self.store = FeatureStore() if store is None else store
        self.seconds = 0.0
        self._device = next(net.parameters()).device
        self._unchanged = Unchanged(parameter for part in frozen_parts(net.backbone) for parameter in part)
        self._stages = [] if drops_out(net.backbone) or not net.backbone.splits else _stages(net.backbone)
        self._features: dict[str, Features | None] = {}

    def attach(self, batch: Batch) -> Batch:
        """Add ``features`` and their ``depth`` to a trimmed batch of one of the datasets, if they are cached or can be.

        Returns:
            The batch; ``features`` is what :meth:`SequenceClassifier.forward` takes, on the CPU, and pinned if the
            network is on a GPU. Once a frozen part has been changed, batches stay as they are.
        """
        if not self._stages or batch.get("split") not in self.datasets or not self._unchanged():
            return batch
        features = self._open(batch["split"])
        if features is None:
            return batch
        stage, examples = self._stages[-1], batch["index"].tolist()
        if stage.pooled:
            known = features.read(examples)[:, 0]
        else:
            lengths = self.net.needed(batch["length"], batch["input_ids"].shape[1]).tolist()
            known = features.read(examples, lengths)
        return {**batch, "features": pinned_for(known, self._device), "depth": stage.depth}

    def _open(self, split: str) -> Features | None:
        if split not in self._features:
            started = time.perf_counter()
            with torch.no_grad(), self.precision():
                self._features[split] = self._find_or_build(self.datasets[split])
            self.seconds += time.perf_counter() - started
        return self._features[split]

    def _find_or_build(self, dataset: MessageDataset) -> Features | None:
        padding_decides = reads_padding(self.net.pooling, self.net.causal_mask, self.net.mask_padding)
        alone = padding_decides and not dataset.pad_to_max
        if alone and self.batch_size > 1:
            return None  # a message's states depend on what it shares a batch with
        stage, widths = self._stages[-1], list(self._widths(dataset))
        descriptions = [self._made_of(stage, dataset, lengths) for lengths in widths]
        for made_of in descriptions:
            if found := self.store.find(made_of):
                return found
        lengths = widths[-1]
        known, start = self._deepest(dataset, widths)

        def compute(examples: list[int]) -> Tensor:
            kept, length = lengths[examples], dataset.length[examples].to(self._device)
            if known is None:
                hidden = self.net.backbone.embed(dataset.input_ids[examples, : int(kept.max())].to(self._device))
            else:
                hidden = known.read(examples, kept.tolist()).to(self._device)
            if stage.pooled:
                return self.net.pooled(hidden, length, start)[:, None]
            return self.net.run(hidden, length, start, stage.depth)

        _log.info(
            "computing the outputs of %d frozen blocks for %d messages; they are cached",
            stage.depth - start,
            len(dataset),
        )
        one_by_one = alone and (stage.pooled or not self.net.causal_mask)
        batch_size = self.batch_size if dataset.pad_to_max or one_by_one else max(self.batch_size, _SMALLEST_BATCH)
        rows = torch.ones_like(lengths) if stage.pooled else lengths
        return self.store.build(descriptions[-1], rows.tolist(), batch_size, compute)

    def _deepest(self, dataset: MessageDataset, widths: list[Tensor]) -> tuple[Features | None, int]:
        """Return the deepest cached outputs to continue from, and their depth."""
        for stage in reversed(self._stages[:-1]):
            for lengths in widths:
                if found := self.store.find(self._made_of(stage, dataset, lengths)):
                    return found, stage.depth
        return None, 0

    def _widths(self, dataset: MessageDataset) -> Iterator[Tensor]:
        """Yield how many positions an entry may hold of each message, (N,): from the most to the fewest needed."""
        length, positions = dataset.length, dataset.input_ids.shape[1]
        if dataset.pad_to_max:
            needed = self.net.needed(length, positions)
        else:
            needed = torch.minimum(length, self.net.needed(length, positions))
        if self.net.causal_mask or self.net.mask_padding:  # what follows a position, or is masked, changes nothing
            yield torch.full_like(length, positions)
            yield torch.maximum(length, needed)
        yield needed

    def _made_of(self, stage: _Stage, dataset: MessageDataset, lengths: Tensor) -> dict[str, Any]:
        """Return everything that the outputs of a stage depend on, as plain values."""
        kept = dataset.input_ids[torch.arange(dataset.input_ids.shape[1]) < lengths[:, None]]
        texts = [lengths, kept]
        if stage.pooled or self.net.masks:
            texts.append(dataset.length)
        arithmetic = numerics(self._device.type)
        if self.net.bf16_blocks:  # the frozen part runs under its own autocast then, inside that of the run
            arithmetic["autocast"] = str(torch.bfloat16)
        return {
            "format": _FORMAT,
            "output": f"pooled {self.net.pooling}" if stage.pooled else "hidden states",
            "depth": stage.depth,
            "weights": stage.weights,
            "texts": digest_of(texts),
            "causal": self.net.causal_mask,
            "masked": self.net.masks,
            **arithmetic,
        }


def _stages(backbone: Backbone) -> list[_Stage]:
    """Return the points behind frozen blocks, first to last; behind the final norm, too, if that is frozen."""
    blocks, behind = len(backbone.blocks), (*backbone.blocks, backbone.norm)
    parts = [weights_of(backbone, without=behind), *map(weights_of, behind)]  # the embeddings come first
    weights = hashlib.sha256(settings_of(backbone.config).encode())
    stages = []
    for part, digest in enumerate(digests(parts[: len(frozen_parts(backbone))])):
        weights.update(bytes.fromhex(digest))
        stages.append(_Stage(min(part, blocks), part > blocks, weights.hexdigest()))
    return stages[1:]
