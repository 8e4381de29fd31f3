"""GPT-2 by size: where its weights and tokenizer come from, and the random weights of the published table."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn
from transformers import GPT2Config, GPT2Model, GPT2Tokenizer

from ftkit.errors import InputError
from ftkit.hub import ADAPTER_FILE, load_pretrained, not_cached, refuse_adapter
from ftkit.models.transformers_internals import Conv1D

Size = Literal["small", "medium", "large", "xl"]


class Shape(NamedTuple):
    """The proportions of one size and its name on the hub."""

    layers: int
    width: int
    heads: int
    hub_id: str


SIZES: dict[str, Shape] = {
    "small": Shape(12, 768, 12, "openai-community/gpt2"),
    "medium": Shape(24, 1024, 16, "openai-community/gpt2-medium"),
    "large": Shape(36, 1280, 20, "openai-community/gpt2-large"),
    "xl": Shape(48, 1600, 25, "openai-community/gpt2-xl"),
}


def load_config(base_model: str, size: Size | None, revision: str | None) -> GPT2Config:
    """Return the configuration of a model; for a hub size it is known without the network."""
    if base_model == "hub":
        shape = SIZES[_need_size(size)]
        return GPT2Config(n_layer=shape.layers, n_embd=shape.width, n_head=shape.heads)
    return load_pretrained(GPT2Config, locate(base_model, size), revision=revision)


def load_tokenizer(name: str, revision: str | None = None) -> GPT2Tokenizer:
    """Load a byte-level BPE.

    Args:
        name: A hub id, or a folder with ``tokenizer.json`` or with ``vocab.json`` and ``merges.txt``.
        revision: Hub revision to pin.

    Raises:
        InputError: The folder holds no usable tokenizer.
        UnavailableError: It is neither in the cache nor to be downloaded.
    """
    tokenizer = load_pretrained(GPT2Tokenizer, name, revision=revision)
    if len(tokenizer) < 256:  # transformers returns a vocabulary of one token where the files are missing
        if not Path(name).is_dir():
            raise not_cached(name)
        raise InputError("holds no GPT-2 tokenizer", file=name, fix="add vocab.json and merges.txt, or tokenizer.json")
    return tokenizer


def tokenizer_name(base_model: str, size: Size | None) -> str:
    """Return where a base model's tokenizer is: with the model, or in a folder ``tokenizer`` beside the sizes."""
    name = locate(base_model, size)
    shared = Path(name).parent / "tokenizer"
    return str(shared) if base_model != "hub" and shared.is_dir() else name


def locate(base_model: str, size: Size | None) -> str:
    """Return the hub id or the folder that ``base_model`` and ``size`` mean.

    Args:
        base_model: ``hub`` for OpenAI's weights; ``demo`` for the small models that ftkit carries; otherwise a folder
            in transformers format that holds one model, or one folder a size.
        size: The size by name, or None for the one model of a folder.

    Returns:
        A name that transformers' ``from_pretrained`` takes.

    Raises:
        InputError: There is no such folder, or its model is not of this size.

    Example:
        >>> locate("hub", "medium")
        'openai-community/gpt2-medium'
    """
    if base_model == "hub":
        return SIZES[_need_size(size)].hub_id
    folder = Path(str(files("ftkit") / "assets" / "gpt2-demo")) if base_model == "demo" else Path(base_model)
    if not folder.is_dir():
        raise InputError(
            "no such folder", field="base_model", got=base_model, fix="use hub, demo or a folder in transformers format"
        )
    if size is not None and (folder / size / "config.json").is_file():
        return str(folder / size)
    if not (folder / "config.json").is_file():
        refuse_adapter(folder / ADAPTER_FILE, base_model)
        raise InputError(f"holds no config.json, neither itself nor in a folder {size}", file=folder)
    _check_size(folder, size)
    return str(folder)


def draw_published_weights(model: GPT2Model) -> None:
    """Draw weights from the global generator as the published procedure does: PyTorch's defaults, in its own order.

    Embeddings are N(0, 1), linear weights and biases uniform within 1/sqrt(inputs), norms one and zero. Query, key
    and value are drawn as three layers and stored side by side.

    Source: rasbt/LLMs-from-scratch, ``ch06/02_bonus_additional-experiments``, row 10.
    """
    with torch.no_grad():
        for embedding in (model.wte, model.wpe):
            embedding.weight.copy_(nn.Embedding(embedding.num_embeddings, embedding.embedding_dim).weight)
        for block in model.h:
            for layer, parts in (
                (block.attn.c_attn, 3),
                (block.attn.c_proj, 1),
                (block.mlp.c_fc, 1),
                (block.mlp.c_proj, 1),
            ):
                _draw_linear(layer, parts)
            for norm in (block.ln_1, block.ln_2):
                norm.reset_parameters()
        model.ln_f.reset_parameters()


def _draw_linear(layer: Conv1D, parts: int) -> None:
    inputs, outputs = layer.weight.shape
    drawn = [nn.Linear(inputs, outputs // parts) for _ in range(parts)]
    layer.weight.copy_(torch.cat([linear.weight.T for linear in drawn], dim=1))
    layer.bias.copy_(torch.cat([linear.bias for linear in drawn]))


def _need_size(size: Size | None) -> Size:
    if size is None:
        raise InputError("the hub has four sizes", field="size", got=None, fix=f"choose one of {', '.join(SIZES)}")
    return size


def _check_size(folder: Path, size: Size | None) -> None:
    if size is None:
        return
    config = load_pretrained(GPT2Config, str(folder))
    shape = SIZES[size]
    if (config.n_layer, config.n_embd) != (shape.layers, shape.width):
        raise InputError(
            f"holds {config.n_layer} layers x {config.n_embd}, but size {size} is {shape.layers} x {shape.width}",
            file=folder,
            field="size",
            got=size,
            fix="size: null takes the folder's model as it is",
        )
