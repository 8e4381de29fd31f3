"""GPT-2: sizes by name, weights from the hub, a folder, the built-in demo or chance, and its backbone."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model, GPT2Tokenizer
from transformers.pytorch_utils import Conv1D

from ftkit.classifier.backbone import Backbone, KeysAndValues, Weights
from ftkit.errors import InputError
from ftkit.hub import load_pretrained, not_cached

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


class GPT2Backbone(Backbone):
    """GPT-2 as embeddings, blocks and a final norm.

    Args:
        model: A transformers GPT-2 without a head.
    """

    def __init__(self, model: GPT2Model) -> None:
        super().__init__(model.config)
        self.model = model

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        return self.model.h

    @property
    def norm(self) -> nn.Module:
        """The norm behind the last block."""
        return self.model.ln_f

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """The fused query, key and value projection: what peft adapts in GPT-2 by default."""
        return ("c_attn",)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token plus position embeddings of ``input_ids`` (B, T) int64, as (B, T, D)."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        return self.model.drop(self.model.wte(input_ids) + self.model.wpe(positions))

    def keys_and_values(self, block: Any, hidden: Tensor, arguments: Mapping[str, Any]) -> KeysAndValues:
        """Keys and values of a block (B, heads, T, head size), without the queries as far as the layers are apart."""
        projection, normed = block.attn.c_attn, block.ln_1(hidden)  # (B, T, D)
        if isinstance(projection, SplitProjection):
            key, value = projection.key(normed), projection.value(normed)
        else:  # an adapter over the fused layer, or a quantised one
            _, key, value = projection(normed).chunk(3, dim=-1)
        heads = (*hidden.shape[:2], -1, block.attn.head_dim)
        return KeysAndValues(key.view(heads).transpose(1, 2), value.view(heads).transpose(1, 2))

    def run_last_block(self, hidden: Tensor, arguments: Mapping[str, Any], position: Tensor) -> Tensor:
        """Run the last block for one position a sequence, see :class:`Backbone`, without making keys and values.

        One query a head asks all positions, so its product with the key projection is taken first, and the value
        projection is applied to what attention has read: (q K^T) x = q (K^T x), and sum(p V x) = V sum(p x). The key
        bias adds the same to all of a query's scores, and softmax takes it out again.
        """
        block: Any = self.blocks[-1]
        attention = block.attn
        if not self._runs_one_position(block) or type(attention.c_attn) is not Conv1D:
            return super().run_last_block(hidden, arguments, position)
        rows, by_head = torch.arange(len(hidden), device=hidden.device), (-1, attention.num_heads, attention.head_dim)
        query_weight, key_weight, value_weight = attention.c_attn.weight.chunk(3, dim=1)  # (D, D) each
        query_bias, _, value_bias = attention.c_attn.bias.chunk(3)
        normed = block.ln_1(hidden)  # (B, T, D)
        query = torch.addmm(query_bias, normed[rows, position], query_weight).view(by_head)
        asked = torch.einsum("bhs,dhs->bhd", query, key_weight.view(by_head))
        scores = asked @ normed.transpose(1, 2) * attention.scaling  # (B, heads, T)
        mask = self.arguments_at(arguments, position, hidden.shape[1])["attention_mask"]
        if mask is not None:
            scores = scores.masked_fill(~mask[:, 0], -torch.inf) if mask.dtype == torch.bool else scores + mask[:, 0]
        read = scores.softmax(dim=-1).to(normed) @ normed  # (B, heads, D)
        value = torch.einsum("bhd,dhs->bhs", read, value_weight.view(by_head)).flatten(1) + value_bias
        there = (hidden[rows, position] + attention.c_proj(value))[:, None]
        return (there + block.mlp(block.ln_2(there)))[:, 0]

    def split_projections(self) -> None:
        """Replace each fused ``c_attn`` by three linear layers with the same weights."""
        for block in self.model.h:
            block.attn.c_attn = SplitProjection(block.attn.c_attn)


class SplitProjection(nn.Module):
    """GPT-2's fused query, key and value projection as three linear layers, so that each can have its own adapter.

    Args:
        fused: The ``c_attn`` of a GPT-2 block, weight (D, 3D).
    """

    def __init__(self, fused: Conv1D) -> None:
        super().__init__()
        weights, biases = fused.weight.detach().chunk(3, dim=1), fused.bias.detach().chunk(3)
        self.query, self.key, self.value = (_linear(w.T, b) for w, b in zip(weights, biases, strict=True))

    def forward(self, hidden: Tensor) -> Tensor:
        """Project ``hidden`` (B, T, D) to query, key and value side by side (B, T, 3D)."""
        return torch.cat((self.query(hidden), self.key(hidden), self.value(hidden)), dim=-1)


def load_gpt2(
    source: str,
    size: Size | None,
    weights: Weights,
    revision: str | None,
    causal: bool,
    dropout: float,
    **options: Any,
) -> GPT2Model:
    """Build a GPT-2 in float32, in training mode.

    Args:
        source: ``hub``, ``demo`` or a folder, see :func:`locate`.
        size: The size by name; None takes a folder's model as it is.
        weights: ``pretrained``; ``random``, drawn from the global generator as PyTorch initialises its layers by
            default (N(0, 1) embeddings, uniform linear layers), in the order of the published procedure; or
            ``random_transformers``, N(0, 0.02) as the transformers library does.
        revision: The hub revision to pin; None takes the current one.
        causal: Whether a position sees only itself and those before it.
        dropout: Probability of dropout in embeddings, attention and residual paths.
        **options: Further keyword arguments of ``from_pretrained``.

    Returns:
        The model without a head.

    Raises:
        InputError: The folder does not hold what was asked for.
        UnavailableError: The weights are not on this machine and cannot be downloaded.
    """
    config = load_config(source, size, revision)
    config.update({"is_causal": causal, "resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout})
    if weights == "pretrained":
        return load_pretrained(GPT2Model, locate(source, size), revision, config=config, **options).train()
    before = torch.get_rng_state()
    model = GPT2Model(config)  # draws from the global generator: the transformers kind
    if weights == "random":
        torch.set_rng_state(before)
        draw_published_weights(model)
    return model.train()


def load_config(source: str, size: Size | None, revision: str | None) -> GPT2Config:
    """The configuration of a model. For a hub size it is known without the network."""
    if source == "hub":
        shape = SIZES[_need_size(size)]
        return GPT2Config(n_layer=shape.layers, n_embd=shape.width, n_head=shape.heads)
    return load_pretrained(GPT2Config, locate(source, size), revision=revision)


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


def tokenizer_name(source: str, size: Size | None) -> str:
    """Where the tokenizer of a source lies: with the model, or in a folder ``tokenizer`` beside the sizes."""
    name = locate(source, size)
    shared = Path(name).parent / "tokenizer"
    return str(shared) if source != "hub" and shared.is_dir() else name


def locate(source: str, size: Size | None) -> str:
    """The hub id or the folder that ``source`` and ``size`` mean.

    Args:
        source: ``hub`` for OpenAI's weights; ``demo`` for the small models that ftkit carries; otherwise a folder in
            transformers format that holds one model, or one folder a size.
        size: The size by name, or None for the one model of a folder.

    Returns:
        A name that transformers' ``from_pretrained`` takes.

    Raises:
        InputError: There is no such folder, or its model is not of this size.

    Example:
        >>> locate("hub", "medium")
        'openai-community/gpt2-medium'
    """
    if source == "hub":
        return SIZES[_need_size(size)].hub_id
    folder = Path(str(files("ftkit") / "assets" / "gpt2-demo")) if source == "demo" else Path(source)
    if not folder.is_dir():
        raise InputError(
            "no such folder", field="source", got=source, fix="use hub, demo or a folder in transformers format"
        )
    if size is not None and (folder / size / "config.json").is_file():
        return str(folder / size)
    if not (folder / "config.json").is_file():
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


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    outputs, inputs = weight.shape
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    linear.load_state_dict({"weight": weight.contiguous(), "bias": bias})
    return linear


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
