"""A decoder as the classifier sees it: embeddings, a list of blocks and a final norm.

A decoder family joins by one adapter class; everything else of the wing knows this interface only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer

from ftkit.models.attention import quick_attention

Weights = Literal["pretrained", "random", "random_transformers"]


class KeysAndValues(NamedTuple):
    """What a block's attention reads, given to the block as if it were a cache of earlier steps.

    Args:
        key: Keys of all positions (B, heads, T, head size).
        value: Values of all positions, of the same shape.
    """

    key: Tensor
    value: Tensor

    def update(self, key: Tensor, value: Tensor, layer: int, **options: Any) -> tuple[Tensor, Tensor]:
        """Answer the block, which offers the keys and values of its one position: they are in already."""
        return self.key, self.value


def drops_out(module: nn.Module) -> bool:
    """Whether anything inside drops out while training: a layer, or an attention that is told a rate."""
    return any(
        (isinstance(child, nn.Dropout) and child.p > 0) or getattr(child, "attention_dropout", 0.0)
        for child in module.modules()
    )


class Backbone(nn.Module, ABC):
    """A decoder without its language-model head, in pieces that can be run apart.

    Args:
        config: The transformers configuration; ``config.is_causal`` says whether a position sees only those before it.

    Attributes:
        hidden_size: Width of the hidden states.
        context_length: Largest number of positions.
        runs_blocks: Methods that may run blocks without calling them,
            see :class:`ftkit.training.compiled.CompiledTraining`.
    """

    runs_blocks: ClassVar[tuple[str, ...]] = ("run_last_block",)

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

    @abstractmethod
    def keys_and_values(self, block: Any, hidden: Tensor, arguments: Mapping[str, Any]) -> KeysAndValues:
        """Keys and values that a block makes of ``hidden`` (B, T, D), the hidden states before it."""

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
            with quick_attention(block, hidden):
                hidden = block(hidden, **arguments)
        return hidden

    def run_last_block(self, hidden: Tensor, arguments: Mapping[str, Any], position: Tensor) -> Tensor:
        """Run the last block for one position a sequence: nothing reads its output anywhere else.

        Keys and values are computed for all positions; query, attention, output projection and MLP for one.

        Args:
            hidden: Hidden states before the block (B, T, D).
            arguments: What :meth:`block_arguments` returned.
            position: The position of each sequence, (B,) int64.

        Returns:
            Hidden states behind the block at ``position`` (B, D), before the final norm.
        """
        block, rows = self.blocks[-1], torch.arange(len(hidden), device=hidden.device)
        if not self._runs_one_position(block):
            return self.run_blocks(hidden, arguments, len(self.blocks) - 1)[rows, position]
        known = self.keys_and_values(block, hidden, arguments)
        there = self.arguments_at(arguments, position, hidden.shape[1])
        return block(hidden[rows, position][:, None], past_key_values=known, **there)[:, 0]

    def arguments_at(self, arguments: Mapping[str, Any], position: Tensor, positions: int) -> dict[str, Any]:
        """What a block is called with for one ``position`` (B,) of each sequence; see :meth:`block_arguments`."""
        mask = arguments["attention_mask"]  # (B or 1, 1, T, T), boolean or additive
        if mask is not None:
            rows = torch.arange(len(position), device=position.device)
            mask = mask.expand(len(position), -1, -1, -1)[rows, :, position][:, :, None]  # (B, 1, 1, T)
        elif arguments["is_causal"]:
            visible = torch.arange(positions, device=position.device) <= position[:, None]  # (B, T)
            mask = visible[:, None, None]
        return {**arguments, "attention_mask": mask, "is_causal": False}

    def _runs_one_position(self, block: nn.Module) -> bool:
        """Whether one position alone gives the same: other attentions, sharding or checkpointing need the whole."""
        return (
            self.config._attn_implementation in ("sdpa", "eager")
            and all(type(parameter) is nn.Parameter for parameter in block.parameters())
            and isinstance(block, GradientCheckpointingLayer)
            and not (block.training and (block.gradient_checkpointing or drops_out(block)))
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Hidden states (B, T, D) behind the last block, before the final norm."""
        hidden = self.embed(input_ids)
        return self.run_blocks(hidden, self.block_arguments(hidden, attention_mask))
