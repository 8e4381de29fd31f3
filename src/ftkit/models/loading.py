"""Load a decoder and its tokenizer from the hub, a folder, a GGUF file, or draw its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ftkit.errors import InputError
from ftkit.hub import load_pretrained
from ftkit.models.backbone import Weights
from ftkit.models.base_model import load_processor, prepare_layers
from ftkit.models.gpt2 import draw_published_weights
from ftkit.models.transformers_internals import decoder_parts

_CONTEXTS = ("max_position_embeddings", "max_seq_len", "seq_length")  # what families call their number of positions


def load_config(name: str, revision: str | None = None) -> PretrainedConfig:
    """Load the configuration of a decoder.

    Args:
        name: A hub id, a folder in transformers format or a GGUF file.
        revision: The hub revision; None takes the current one.

    Raises:
        InputError: It is another kind of model, or an adapter.
        UnavailableError: It is neither in the cache nor to be downloaded.
    """
    config = load_pretrained(AutoConfig, name, revision)
    if config.is_encoder_decoder or config is not config.get_text_config():
        raise InputError(
            "is not a text decoder", file=name, field="model_type", got=config.model_type, fix="name a causal LM"
        )
    return config


def context_length(config: PretrainedConfig) -> int:
    """Return the largest number of positions that a configuration names.

    Raises:
        InputError: It names none.
    """
    for name in _CONTEXTS:
        if isinstance(positions := getattr(config, name, None), int):
            return positions
    raise InputError("does not name its context length", field="model_type", got=config.model_type)


def load_decoder(
    name: str,
    config: PretrainedConfig,
    weights: Weights = "pretrained",
    revision: str | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> PreTrainedModel:
    """Build a decoder without a head, in float32 and training mode.

    Args:
        name: A hub id, a folder in transformers format or a GGUF file, see :func:`ftkit.hub.load_pretrained`.
        config: Its configuration, which is changed: every rate of dropout in it becomes ``dropout``, and no token is
            padding, since padding is read like any other token and transformers would freeze its embedding.
        weights: ``pretrained``; ``random``, drawn from the global generator as PyTorch initializes its layers by
            default (N(0, 1) embeddings, uniform linear layers); or ``random_transformers``, as the transformers library
            does (N(0, 0.02) in most families). Random ones need no more of the base model than its configuration.
        revision: The hub revision to pin; None takes the current one.
        dropout: Probability of dropout wherever the family has some.
        **options: Further keyword arguments of ``from_pretrained``.

    Raises:
        InputError: The base model does not hold such a model.
        UnavailableError: The weights are not on this machine and cannot be downloaded.
    """
    rates = {key: dropout for key in config.to_dict() if key.endswith(("dropout", "_pdrop"))}
    config.update({**rates, "pad_token_id": None})
    if weights == "pretrained":
        kind = {"dtype": torch.float32, "output_loading_info": True}
        model = load_pretrained(AutoModel, name, revision, config=config, **kind, **options)
    else:
        before = torch.get_rng_state()
        model = AutoModel.from_config(config, dtype=torch.float32)  # draws from the global generator
        if weights == "random":
            torch.set_rng_state(before)
            _draw_default_weights(model)
    prepare_layers(model)
    return model.train()


def block_names(config: PretrainedConfig) -> list[str]:
    """Return the names of a decoder's blocks, first to last; none if they are not found. No weights are made."""
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    parts = decoder_parts(model)
    return [] if parts is None else [f"{parts.blocks}.{index}" for index in range(config.num_hidden_layers)]


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a hub id, a folder or a GGUF file.

    Raises:
        InputError: There is no usable tokenizer, or it names no end of text, which serves as padding.
        UnavailableError: It is neither in the cache nor to be downloaded.
    """
    tokenizer = load_processor(AutoTokenizer, name, revision)
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end-of-text token", file=name, field="eos_token", got=None)
    return tokenizer


def _draw_default_weights(model: PreTrainedModel) -> None:
    if model.config.model_type == "gpt2":
        draw_published_weights(model)
        return
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.Linear)):
            module.reset_parameters()
