"""A decoder as the classifier sees it: embeddings, a list of blocks and a final norm.

A decoder family joins by one adapter class; everything else of the wing knows this interface only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.masking_utils import create_causal_mask


class Backbone(nn.Module, ABC):
    """A decoder without its language-model head, in pieces that can be run apart.

    Args:
        config: The transformers configuration; ``config.is_causal`` says whether a position sees only those before it.

    Attributes:
        hidden_size: Width of the hidden states.
        context_length: Largest number of positions.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden_size: int = config.hidden_size
        self.context_length: int = config.max_position_embeddings

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""

    @property
    @abstractmethod
    def norm(self) -> nn.Module:
        """The norm behind the last block."""

    @property
    @abstractmethod
    def lora_targets(self) -> tuple[str, ...]:
        """Name endings of the layers that peft adapts in this family by default."""

    @abstractmethod
    def embed(self, input_ids: Tensor) -> Tensor:
        """Embed ``input_ids`` (B, T) int64 as hidden states (B, T, D)."""

    def split_projections(self) -> None:
        """Give query, key and value a layer each, where the family fuses them. The function computed stays the same."""

    def block_arguments(self, hidden: Tensor, attention_mask: Tensor | None) -> dict[str, Any]:
        """What every block is called with besides the hidden states.

        Args:
            hidden: The embedded batch (B, T, D).
            attention_mask: 1 for real tokens and 0 for padding, (B, T) int64; None lets padding be attended to.

        Returns:
            Keyword arguments of a block, among them the mask in the form that the attention implementation wants.
        """
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=None,
            position_ids=positions,
        )
        # A block called by hand is causal under sdpa unless it is told otherwise, whatever the configuration says.
        return {"attention_mask": mask, "is_causal": self.config.is_causal}

    def run_blocks(
        self, hidden: Tensor, arguments: Mapping[str, Any], start: int = 0, stop: int | None = None
    ) -> Tensor:
        """Run blocks ``start`` to ``stop`` (exclusive) on ``hidden`` (B, T, D); the final norm is not applied."""
        for block in self.blocks[start:stop]:
            hidden = block(hidden, **arguments)
        return hidden

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Hidden states (B, T, D) behind the last block, before the final norm."""
        hidden = self.embed(input_ids)
        return self.run_blocks(hidden, self.block_arguments(hidden, attention_mask))
