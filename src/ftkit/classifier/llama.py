"""The Llama-like decoders (SmolLM2 and relatives): rotary positions, RMSNorm and grouped keys; weights and backbone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaModel, PreTrainedTokenizerBase
from transformers.models.llama.modeling_llama import rotate_half

from ftkit.classifier.backbone import Backbone, KeysAndValues, Weights
from ftkit.errors import InputError
from ftkit.hub import load_pretrained


class LlamaBackbone(Backbone):
    """A Llama as embeddings, blocks and a final norm.

    Args:
        model: A transformers Llama without a head.
    """

    def __init__(self, model: LlamaModel) -> None:
        super().__init__(model.config)
        self.model = model

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        return self.model.layers

    @property
    def norm(self) -> nn.Module:
        """The norm behind the last block."""
        return self.model.norm

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """The projections of queries and values: what peft adapts in Llama by default."""
        return ("q_proj", "v_proj")

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token embeddings of ``input_ids`` (B, T) int64, as (B, T, D); positions come in with the attention."""
        return self.model.embed_tokens(input_ids)

    def block_arguments(self, hidden: Tensor, attention_mask: Tensor | None) -> dict[str, Any]:
        """What every block is called with besides the hidden states, see :class:`Backbone`; adds the rotations."""
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rotations = self.model.rotary_emb(hidden, position_ids=positions)  # cosine and sine, (1, T, head size) each
        return {**super().block_arguments(hidden, attention_mask), "position_embeddings": rotations}

    def arguments_at(self, arguments: Mapping[str, Any], position: Tensor, positions: int) -> dict[str, Any]:
        """What a block is called with for one ``position`` (B,) of each sequence, with that position's rotation."""
        cosine, sine = (table[0, position][:, None] for table in arguments["position_embeddings"])  # (B, 1, head size)
        there = super().arguments_at(arguments, position, positions)
        return {**there, "position_embeddings": (cosine, sine)}

    def keys_and_values(self, block: Any, hidden: Tensor, arguments: Mapping[str, Any]) -> KeysAndValues:
        """Keys, rotated, and values of a block (B, key heads, T, head size)."""
        attention, normed = block.self_attn, block.input_layernorm(hidden)
        heads = (*hidden.shape[:2], -1, attention.head_dim)
        key, value = (
            projection(normed).view(heads).transpose(1, 2) for projection in (attention.k_proj, attention.v_proj)
        )
        cosine, sine = (table[:, None] for table in arguments["position_embeddings"])  # for all heads
        return KeysAndValues(key * cosine + rotate_half(key) * sine, value)


def load_llama(
    source: str, weights: Weights, revision: str | None, causal: bool, dropout: float, **options: Any
) -> LlamaModel:
    """Build a Llama in float32, in training mode.

    Args:
        source: A hub id, a folder in transformers format or a GGUF file, see :func:`ftkit.hub.load_pretrained`.
        weights: ``pretrained``; ``random``, drawn from the global generator as PyTorch initialises its layers by
            default (N(0, 1) embeddings, uniform linear layers); or ``random_transformers``, N(0, 0.02). Random ones
            need no more of the source than its configuration.
        revision: The hub revision to pin; None takes the current one.
        causal: Whether a position sees only itself and those before it.
        dropout: Probability of dropout on the attention weights.
        **options: Further keyword arguments of ``from_pretrained``.

    Returns:
        The model without a head.

    Raises:
        InputError: The source does not hold a Llama.
        UnavailableError: The weights are not on this machine and cannot be downloaded.
    """
    config = load_config(source, revision)
    # A padding token is read like any other; transformers would keep its embedding from learning.
    config.update({"is_causal": causal, "attention_dropout": dropout, "pad_token_id": None})
    if weights == "pretrained":
        return load_pretrained(LlamaModel, _path(source), revision, config=config, **options).train()
    before = torch.get_rng_state()
    model = LlamaModel(config)  # draws from the global generator: the transformers kind
    if weights == "random":
        torch.set_rng_state(before)
        for module in model.modules():
            if isinstance(module, (nn.Embedding, nn.Linear)):
                module.reset_parameters()
    return model.train()


def load_config(source: str, revision: str | None = None) -> LlamaConfig:
    """The configuration of a model.

    Args:
        source: A hub id, a folder in transformers format or a GGUF file.
        revision: The hub revision; None takes the current one.

    Raises:
        InputError: It is another kind of model.
        UnavailableError: It is neither in the cache nor to be downloaded.
    """
    config = load_pretrained(AutoConfig, _path(source), revision)
    if config.model_type != "llama":
        raise InputError("is not a Llama", file=source, field="model_type", got=config.model_type)
    return config


def load_tokenizer(source: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a hub id, a folder or a GGUF file.

    Raises:
        InputError: There is no usable tokenizer, or it names no end of text, which serves as padding.
        UnavailableError: It is neither in the cache nor to be downloaded.
    """
    tokenizer = load_pretrained(AutoTokenizer, _path(source), revision)
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer names no end of text", file=source, field="eos_token", got=None)
    return tokenizer


def _path(source: str) -> str:
    return str(Path(source).expanduser())
