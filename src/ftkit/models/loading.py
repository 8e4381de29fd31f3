"""Load a decoder or encoder and its tokenizer from the hub, a folder, a GGUF file, or draw its weights."""

import inspect
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
from ftkit.models.transformers_internals import block_parts, is_encoder

_CONTEXTS = ("max_position_embeddings", "max_seq_len", "seq_length")  # what families call their number of positions


def load_config(name: str, revision: str | None = None) -> PretrainedConfig:
    """Load the configuration of a decoder or encoder from the hub, a folder or a GGUF file.

    Raises:
        InputError: It is another kind of model, or an adapter.
        UnavailableError: It is neither in the cache nor to be downloaded.
    """
    config = load_pretrained(AutoConfig, name, revision)
    if config.is_encoder_decoder or config is not config.get_text_config():
        raise InputError(
            "is neither a text decoder nor a text encoder",
            file=name,
            field="model_type",
            got=config.model_type,
            fix="name a causal or masked LM",
        )
    return config


def context_length(config: PretrainedConfig) -> int:
    """Return the largest number of tokens that a configuration leaves room for.

    Raises:
        InputError: It names none.
    """
    if (known := known_context(config)) is None:
        raise InputError("does not give its context length", field="model_type", got=config.model_type)
    return known


def known_context(config: PretrainedConfig) -> int | None:
    """Return the same; None where a configuration names none.

    RoBERTa and similar models count positions from behind the id of their padding.
    """
    for name in _CONTEXTS:
        if isinstance(positions := getattr(config, name, None), int):
            return positions - _first_position(config)
    return None


def load_body(
    name: str,
    config: PretrainedConfig,
    weights: Weights = "pretrained",
    revision: str | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> PreTrainedModel:
    """Build a decoder or encoder without a head, in float32 and training mode.

    Args:
        name: A hub id, a folder in transformers format or a GGUF file, see :func:`ftkit.hub.load_pretrained`.
        config: Its configuration, which is changed: every rate of dropout in it becomes ``dropout``, and no token of a
            decoder is padding, since it is read like any other token and transformers would freeze its embedding.
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
    rates = {key: dropout for key in config.to_dict() if key.endswith(("dropout", "_pdrop", "dropout_prob"))}
    config.update(rates if is_encoder(config) else {**rates, "pad_token_id": None})
    kind: dict[str, Any] = {"dtype": torch.float32}
    if "add_pooling_layer" in inspect.signature(type(empty_body(config))).parameters:
        kind["add_pooling_layer"] = False  # nothing reads BERT's pooler, and some checkpoints lack it
    if weights == "pretrained":
        model = load_pretrained(AutoModel, name, revision, config=config, output_loading_info=True, **kind, **options)
    else:
        before = torch.get_rng_state()
        model = AutoModel.from_config(config, **kind)  # draws from the global generator
        if weights == "random":
            torch.set_rng_state(before)
            _draw_default_weights(model)
    prepare_layers(model)
    return model.train()


def block_names(config: PretrainedConfig) -> list[str]:
    """Return the names of a model's blocks, first to last; none if they are not found. No weights are made."""
    parts = block_parts(empty_body(config))
    return [] if parts is None else [f"{parts.blocks}.{index}" for index in range(config.num_hidden_layers)]


def load_tokenizer(name: str, revision: str | None = None, encoder: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a hub id, a folder or a GGUF file.

    Raises:
        InputError: There is no usable tokenizer, or it names no padding, for which a decoder's end of text serves.
        UnavailableError: It is neither in the cache nor to be downloaded.
    """
    tokenizer = load_processor(AutoTokenizer, name, revision)
    what, field = ("padding", "pad_token") if encoder else ("end-of-text", "eos_token")
    if getattr(tokenizer, field) is None:
        raise InputError(f"the tokenizer has no {what} token", file=name, field=field, got=None)
    return tokenizer


def empty_body(config: PretrainedConfig) -> PreTrainedModel:
    """Build a decoder or encoder without a head on the meta device: shapes, no weights."""
    with torch.device("meta"):
        return AutoModel.from_config(config)


def _first_position(config: PretrainedConfig) -> int:
    """Return the number of the first token's position in the table of position embeddings."""
    if not is_encoder(config):
        return 0
    table = getattr(getattr(empty_body(config), "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else padding + 1


def _draw_default_weights(model: PreTrainedModel) -> None:
    if model.config.model_type == "gpt2":
        draw_published_weights(model)
        return
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.Linear)):
            module.reset_parameters()
