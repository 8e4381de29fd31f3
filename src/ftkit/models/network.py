"""The classifier's network: a backbone, pooling and a linear head, without computations that no output depends on."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftkit.models.backbone import Arguments, Backbone
from ftkit.models.pooling import (
    Pooling,
    needed_positions,
    pool,
    pooled_position,
    reads_padding,
    real_tokens,
)

FrozenDtype = Literal["float32", "bfloat16"]


class SequenceClassifier(nn.Module):
    """Put pooling and a linear head on a backbone.

    Args:
        backbone: The decoder or encoder.
        pooling: Which hidden state is classified.
        mask_padding: Whether attention ignores padding; that of an encoder always does.
        classes: How many classes the head tells apart.
        head_bias: Whether the head has a bias.

    Attributes:
        bf16_blocks: How many of the first blocks run under bf16 autocast, whatever the precision of the rest.
    """

    def __init__(
        self, backbone: Backbone, pooling: Pooling, mask_padding: bool, classes: int = 2, head_bias: bool = True
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.hidden_size, classes, bias=head_bias)
        self.pooling, self.classes = pooling, classes
        self.causal_mask = backbone.causal
        self.mask_padding = mask_padding or backbone.encoder
        self.bf16_blocks = 0

    @property
    def masks(self) -> bool:
        """Return whether masking padding changes anything: under a causal mask real tokens do not see it anyway."""
        return self.mask_padding and (not self.causal_mask or reads_padding(self.pooling, True, True))

    def needed(self, length: Tensor, positions: int) -> Tensor:
        """Return how many of the first positions of each sequence can change its logits, (B,) int64."""
        return needed_positions(length, positions, self.pooling, self.causal_mask, self.mask_padding)

    def trim(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Leave out the columns of ``input_ids`` that no sequence of the batch needs; the logits stay the same."""
        input_ids = batch["input_ids"]
        columns = int(self.needed(batch["length"], input_ids.shape[1]).max())
        return {**batch, "input_ids": input_ids[:, :columns]}

    def forward(self, input_ids: Tensor, length: Tensor, features: Tensor | None = None, depth: int = 0) -> Tensor:
        """Return logits (B, C).

        Args:
            input_ids: Right-padded token ids (B, T) int64.
            length: Number of real tokens, (B,) int64.
            features: Outputs that are cached for these texts: hidden states behind ``depth`` blocks (B, T, D), or the
                pooled vector (B, D).
            depth: How many blocks are behind ``features``.
        """
        if not self.backbone.splits:
            real = self._real(input_ids, length)
            return self.head(pool(self.backbone(input_ids, real), length, self.pooling))
        if features is None:
            features = self.backbone.embed(input_ids)
        if features.dim() == 3:
            features = self.pooled(features, length, depth)
        return self.head(features)

    def hidden_states(self, input_ids: Tensor, length: Tensor) -> Tensor:
        """Return hidden states (B, T, D) behind the last block, of all positions."""
        if not self.backbone.splits:
            return self.backbone(input_ids, self._real(input_ids, length))
        return self.run(self.backbone.embed(input_ids), length, 0, len(self.backbone.blocks))

    def run(self, hidden: Tensor, length: Tensor, start: int, stop: int) -> Tensor:
        """Return hidden states (B, T, D) behind ``stop`` blocks, from those behind ``start`` blocks."""
        return self._run(hidden, self._arguments(hidden, length), start, stop)

    def pooled(self, hidden: Tensor, length: Tensor, start: int) -> Tensor:
        """Return the pooled vector (B, D), from the hidden states (B, T, D) behind ``start`` blocks."""
        position = pooled_position(length, hidden.shape[1], self.pooling)
        blocks = len(self.backbone.blocks)
        if position is None:
            # The head is affine, so the mean of the logits is the head of the mean.
            return pool(self.backbone.norm(self.run(hidden, length, start, blocks)), length, self.pooling)
        if start == blocks:
            return self.backbone.norm(pool(hidden, length, self.pooling))
        arguments = self._arguments(hidden, length)
        hidden = self._run(hidden, arguments, start, blocks - 1)
        with self._precision_of(blocks - 1, hidden):
            hidden = self.backbone.run_last_block(hidden, arguments, position)
        return self.backbone.norm(hidden)

    def _run(self, hidden: Tensor, arguments: Arguments, start: int, stop: int) -> Tensor:
        middle = min(max(start, self.bf16_blocks), stop)
        with self._precision_of(start, hidden):
            hidden = self.backbone.run_blocks(hidden, arguments, start, middle)
        return self.backbone.run_blocks(hidden, arguments, middle, stop)

    def _precision_of(self, block: int, hidden: Tensor) -> AbstractContextManager[Any]:
        """Return the autocast context of a block; the residual stream keeps its own dtype under it."""
        if block >= self.bf16_blocks:
            return nullcontext()
        return torch.autocast(hidden.device.type, dtype=torch.bfloat16)

    def _arguments(self, hidden: Tensor, length: Tensor) -> Arguments:
        return self.backbone.block_arguments(hidden, self._real(hidden, length))

    def _real(self, batch: Tensor, length: Tensor) -> Tensor | None:
        """Return which positions of a batch (B, T, ...) may be attended to; None for all."""
        return real_tokens(length, batch.shape[1]) if self.masks else None
