"""Internals of transformers that ftkit relies on: how a decoder calls its blocks, and what is in them.

No other file imports from a submodule of transformers, and ``tests/models/test_transformers_internals.py`` names each
assumption, so that a release which breaks one turns a named test red.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.activations import NewGELUActivation as NewGELUActivation
from transformers.cache_utils import DynamicLayer as DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling as BaseModelOutputWithPooling
from transformers.models.gpt2.modeling_gpt2 import GPT2Block
from transformers.pytorch_utils import Conv1D as Conv1D

Arguments = dict[str, Any]
_CACHE_NAMES = ("cache", "past_key_values")  # its name in a block's forward, before and since transformers 5.24
_TAKE_A_MASK = ("sdpa", "eager")  # attention implementations that take a mask of four dimensions


class DecoderParts(NamedTuple):
    """The names of a decoder's children.

    Attributes:
        blocks: The list of transformer blocks.
        norm: The norm behind the last block.
    """

    blocks: str
    norm: str


def is_block(module: nn.Module) -> bool:
    """Return whether a module is a transformer block."""
    return isinstance(module, GradientCheckpointingLayer)


def mark_sharded(model: nn.Module) -> None:
    """Have transformers generate in step on all processes, as a sharded model must."""
    model._is_fsdp_managed_module = True  # type: ignore[assignment]


def attention_implementation(config: PretrainedConfig) -> str:
    """Return the name of the attention implementation that a model with this configuration runs, such as ``sdpa``."""
    return config._attn_implementation


def decoder_parts(model: PreTrainedModel) -> DecoderParts | None:
    """Find the list of blocks and the final norm among a decoder's children.

    Args:
        model: A transformers model without a head.

    Returns:
        Their names; None if there is not exactly one list of as many blocks as the configuration says, or not exactly
        one norm behind it.
    """
    children = list(model.named_children())
    depth = model.config.get_text_config().num_hidden_layers
    lists = [
        place
        for place, (_, child) in enumerate(children)
        if isinstance(child, nn.ModuleList) and len(child) == depth and all(map(is_block, child))
    ]
    if len(lists) != 1:
        return None
    norms = [name for name, child in children[lists[0] :] if "norm" in type(child).__name__.lower()]
    return DecoderParts(children[lists[0]][0], norms[0]) if len(norms) == 1 else None


def embed(model: PreTrainedModel, parts: DecoderParts, input_ids: Tensor) -> Tensor:
    """Return what a decoder gives its first block for ``input_ids`` (B, T) int64: hidden states (B, T, D)."""
    return _without_blocks(model, parts)(input_ids=input_ids, use_cache=False).last_hidden_state


def block_arguments(
    model: PreTrainedModel, parts: DecoderParts, hidden: Tensor, attention_mask: Tensor | None
) -> list[Arguments]:
    """Return the keyword arguments that a decoder's own forward pass calls each of its blocks with.

    Masks, rotary positions and all else are the model's own, whatever its family; nothing random is drawn. Where
    gradients are on, they pass to whatever of the model the arguments are made with.

    Args:
        model: The decoder.
        parts: Its parts.
        hidden: Hidden states (B, T, D) of any depth: only shape, type and device matter.
        attention_mask: What the decoder takes: (B, T), 0 for padding; (B, 1, T, T); or None.
    """
    calls: list[Arguments] = []
    shell = _without_blocks(model, parts, calls)
    shell(inputs_embeds=hidden.detach(), attention_mask=attention_mask, use_cache=False)
    return calls


def run_block(block: nn.Module, hidden: Tensor, arguments: Mapping[str, Any]) -> Tensor:
    """Return the output of a block for ``hidden`` (B, T, D)."""
    out = block(hidden, **arguments)
    return out if isinstance(out, Tensor) else out[0]


def attention_mask_4d(model: PreTrainedModel, real: Tensor) -> Tensor:
    """Return a mask under which each token attends to all real ones, before and behind it.

    Args:
        model: The decoder, for its attention implementation.
        real: bool (B or 1, T), whether a token is real.

    Returns:
        (B or 1, 1, T, T): bool for ``sdpa``; for ``eager``, which adds its mask to the scores, of the model's type.

    Raises:
        ValueError: The attention implementation takes no such mask.
    """
    if not takes_mask_4d(model.config):
        implementation = attention_implementation(model.config)
        raise ValueError(f"attention implementation {implementation} takes no mask of four dimensions")
    return as_mask_4d(model.config, model.dtype, real[:, None, None].expand(-1, 1, real.shape[1], -1))


def takes_mask_4d(config: PretrainedConfig) -> bool:
    """Return whether the attention implementation of a model takes any mask of four dimensions."""
    return attention_implementation(config) in _TAKE_A_MASK


def as_mask_4d(config: PretrainedConfig, dtype: torch.dtype, visible: Tensor) -> Tensor:
    """Return a visibility mask in the form that an attention implementation takes.

    Args:
        config: The text model's configuration; :func:`takes_mask_4d` holds.
        dtype: The type of what is added to the scores.
        visible: bool (B or 1, 1, T, T).
    """
    if attention_implementation(config) != "eager":
        return visible
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)


def runs_at_one_position(model: PreTrainedModel, block: nn.Module) -> bool:
    """Return whether a block may run for one position of each sequence as things stand.

    Other attention implementations, quantized and sharded weights, dropout and gradient checkpointing need the whole.
    """
    if not isinstance(block, GradientCheckpointingLayer) or not takes_mask_4d(model.config):
        return False
    if block.training and (block.gradient_checkpointing or drops_out(block)):
        return False
    return all(type(parameter) is nn.Parameter for parameter in block.parameters())


def drops_out(module: nn.Module) -> bool:
    """Return whether anything inside has dropout while training: a layer, or an attention with a rate."""
    return any(
        (isinstance(child, nn.Dropout) and child.p > 0) or getattr(child, "attention_dropout", 0.0)
        for child in module.modules()
    )


def run_block_at(block: Any, hidden: Tensor, arguments: Mapping[str, Any], position: Tensor) -> Tensor:
    """Run a block for one position of each sequence: query, attention, output projection and MLP see no other.

    Keys and values are computed for all positions and given to the block in transformers' own cache. The block adds
    those of its one position once more, and the mask hides them.

    Args:
        block: A block of GPT-2, or one whose attention is Llama's: ``input_layernorm`` before separate projections,
            whole heads rotated, no norms on queries and keys.
        hidden: Hidden states before it (B, T, D).
        arguments: Its arguments, see :func:`block_arguments`.
        position: The position of each sequence, (B,) int64.

    Returns:
        Hidden states behind the block at ``position`` (B, D).

    Raises:
        AttributeError: The block is built otherwise. Others that are built otherwise give other hidden states, so
            compare before use.
    """
    if isinstance(block, GPT2Block) and type(block.attn.c_attn) is Conv1D:
        return _run_gpt2_block_at(block, hidden, arguments, position)
    rows = torch.arange(len(hidden), device=hidden.device)
    known, layer = DynamicCache(), block.attn.layer_idx if isinstance(block, GPT2Block) else block.self_attn.layer_idx
    known.update(*_keys_and_values(block, hidden, arguments), layer)
    there = _arguments_at(arguments, position, hidden.shape[1])
    mask = there["attention_mask"]
    hides = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    there["attention_mask"] = nn.functional.pad(mask, (0, 1), value=hides)
    there[_cache_name(block.__class__)] = known
    return run_block(block, hidden[rows, position][:, None], there)[:, 0]


class SplitProjection(nn.Module):
    """GPT-2's fused query, key and value projection as three linear layers, each of which can have an adapter.

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


def split_fused_projections(blocks: nn.ModuleList) -> None:
    """Give query, key and value of GPT-2's blocks a layer each with the same weights; leave other blocks alone."""
    for block in blocks:
        if isinstance(block, GPT2Block):
            block.attn.c_attn = SplitProjection(block.attn.c_attn)


class _Recorder(nn.Module):
    """Stand in for a block in its model's forward pass: keep the arguments and pass the hidden states through."""

    def __init__(self, block: nn.Module, calls: list[Arguments] | None) -> None:
        super().__init__()
        self.__dict__.update(block=block, calls=calls)  # no child: it stays where it is

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.calls is not None:
            self.calls.append({**dict(zip(_parameters(self.block.__class__)[1:], args, strict=False)), **kwargs})
        return hidden


def _without_blocks(model: PreTrainedModel, parts: DecoderParts, calls: list[Arguments] | None = None) -> Any:
    """Return a decoder that shares all modules with another but calls none of its blocks, nor its norm.

    If ``calls`` are wanted, nothing drops out either.
    """
    shell = copy.copy(model)
    children = dict(model.named_children())
    replaced: dict[str, nn.Module] = {parts.norm: nn.Identity()}
    replaced[parts.blocks] = nn.ModuleList(_Recorder(block, calls) for block in children[parts.blocks].children())
    if calls is not None:
        replaced |= {name: nn.Identity() for name, child in children.items() if isinstance(child, nn.Dropout)}
    shell._modules = {**children, **replaced}
    return shell


@cache
def _parameters(block: Any) -> tuple[str, ...]:
    """Return the names of the parameters of a block's forward, without ``self``."""
    return tuple(inspect.signature(block.forward).parameters)[1:]


@cache
def _cache_name(block: Any) -> str:
    return next(name for name in _CACHE_NAMES if name in _parameters(block))


def _arguments_at(arguments: Mapping[str, Any], position: Tensor, positions: int) -> Arguments:
    """Return what a block is called with for one ``position`` (B,) of each sequence."""
    rows, there = torch.arange(len(position), device=position.device), dict(arguments)
    if (mask := arguments["attention_mask"]) is None:  # causal
        visible = torch.arange(positions, device=position.device) <= position[:, None]  # (B, T)
        there["attention_mask"] = visible[:, None, None]
    else:  # (B or 1, 1, T, T), boolean or additive
        there["attention_mask"] = mask.expand(len(position), -1, -1, -1)[rows, :, position][:, :, None]  # (B, 1, 1, T)
    if (ids := arguments.get("position_ids")) is not None:  # (B or 1, T)
        there["position_ids"] = ids.expand(len(position), -1)[rows, position][:, None]
    if (rotations := arguments.get("position_embeddings")) is not None:  # cosine and sine, (B or 1, T, head size) each
        there["position_embeddings"] = tuple(
            table.expand(len(position), -1, -1)[rows, position][:, None] for table in rotations
        )
    return there


def _keys_and_values(block: Any, hidden: Tensor, arguments: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the keys and values (B, heads, T, head size) that a block makes of ``hidden`` (B, T, D)."""
    if isinstance(block, GPT2Block):
        projection, normed, attention = block.attn.c_attn, block.ln_1(hidden), block.attn
        if isinstance(projection, SplitProjection):
            key, value = projection.key(normed), projection.value(normed)
        else:  # an adapter over the fused layer
            _, key, value = projection(normed).chunk(3, dim=-1)
    else:
        attention, normed = block.self_attn, block.input_layernorm(hidden)
        key, value = attention.k_proj(normed), attention.v_proj(normed)
    heads = (*hidden.shape[:2], -1, attention.head_dim)
    key, value = key.view(heads).transpose(1, 2), value.view(heads).transpose(1, 2)
    if isinstance(block, GPT2Block):
        return key, value
    cosine, sine = (table[:, None] for table in arguments["position_embeddings"])  # for all heads
    first, second = key.chunk(2, dim=-1)
    return key * cosine + torch.cat((-second, first), dim=-1) * sine, value


def _run_gpt2_block_at(block: Any, hidden: Tensor, arguments: Mapping[str, Any], position: Tensor) -> Tensor:
    """Run a block of GPT-2 for one position of each sequence without making keys and values.

    One query a head asks all positions, so its product with the key projection is taken first, and the value
    projection is applied to what attention has read: (q K^T) x = q (K^T x), and sum(p V x) = V sum(p x). The key bias
    adds the same to all of a query's scores, and softmax takes it out again.
    """
    attention = block.attn
    rows, by_head = torch.arange(len(hidden), device=hidden.device), (-1, attention.num_heads, attention.head_dim)
    query_weight, key_weight, value_weight = attention.c_attn.weight.chunk(3, dim=1)  # (D, D) each
    query_bias, _, value_bias = attention.c_attn.bias.chunk(3)
    normed = block.ln_1(hidden)  # (B, T, D)
    query = torch.addmm(query_bias, normed[rows, position], query_weight).view(by_head)
    asked = torch.einsum("bhs,dhs->bhd", query, key_weight.view(by_head))
    scores = asked @ normed.transpose(1, 2) * attention.scaling  # (B, heads, T)
    mask = _arguments_at(arguments, position, hidden.shape[1])["attention_mask"]
    scores = scores.masked_fill(~mask[:, 0], -torch.inf) if mask.dtype == torch.bool else scores + mask[:, 0]
    read = scores.softmax(dim=-1).to(normed) @ normed  # (B, heads, D)
    value = torch.einsum("bhd,dhs->bhs", read, value_weight.view(by_head)).flatten(1) + value_bias
    there = (hidden[rows, position] + attention.c_proj(value))[:, None]
    return (there + block.mlp(block.ln_2(there)))[:, 0]


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    outputs, inputs = weight.shape
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    linear.load_state_dict({"weight": weight.contiguous(), "bias": bias})
    return linear
