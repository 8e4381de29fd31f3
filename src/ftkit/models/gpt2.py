"""GPT-2 by size: where its weights come from, and the random weights of the published table."""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn
from transformers import GPT2Config, GPT2Model

from ftkit.errors import InputError
from ftkit.hub import ADAPTER_FILE, load_pretrained, refuse_adapter
from ftkit.models.base_model import locate as locate_model
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


def published_config(size: Size) -> GPT2Config:
    """Return the configuration of a size on the hub, which is known without the network."""
    shape = SIZES[size]
    return GPT2Config(n_layer=shape.layers, n_embd=shape.width, n_head=shape.heads)


def locate(base_model: str, size: Size) -> str:
    """Return the hub id or the folder that ``base_model`` and ``size`` mean.

    Args:
        base_model: ``hub`` for OpenAI's weights; ``demo`` for the small models that ftkit carries; otherwise a folder
            in transformers format that holds one model, or one folder a size.
        size: The size by name.

    Returns:
        A name that transformers' ``from_pretrained`` takes.

    Raises:
        InputError: There is no such folder, or its model is not of this size.

    Example:
        >>> locate("hub", "medium")
        'openai-community/gpt2-medium'
    """
    if base_model == "hub":
        return SIZES[size].hub_id
    if base_model == "demo":
        return locate_model(f"demo-{size}")
    folder = Path(base_model)
    if not folder.is_dir():
        raise InputError(
            "no such folder", field="base_model", got=base_model, fix="use hub, demo or a folder in transformers format"
        )
    if (folder / size / "config.json").is_file():
        return str(folder / size)
    if not (folder / "config.json").is_file():
        refuse_adapter(folder / ADAPTER_FILE, base_model)
        raise InputError(f"contains no config.json, and neither does a folder {size} in it", file=folder)
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


def _check_size(folder: Path, size: Size) -> None:
    config = load_pretrained(GPT2Config, str(folder))
    shape = SIZES[size]
    if (config.n_layer, config.n_embd) != (shape.layers, shape.width):
        raise InputError(
            f"has {config.n_layer} layers x {config.n_embd}, but size {size} is {shape.layers} x {shape.width}",
            file=folder,
            field="size",
            got=size,
            fix="size: null takes the folder's model as it is",
        )
