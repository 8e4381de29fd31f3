"""Internals of transformers that ftkit relies on: how a model calls its blocks, and what is in them.

No other file imports from a submodule of transformers, and ``tests/models/test_transformers_internals.py`` names each
assumption, so that a release which breaks one turns a named test red.
"""

import copy
import inspect
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_MASKED_LM_MAPPING, DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.activations import NewGELUActivation as NewGELUActivation
from transformers.cache_utils import DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling as BaseModelOutputWithPooling
from transformers.models.gpt2.modeling_gpt2 import GPT2Block as GPT2Block
from transformers.pytorch_utils import Conv1D as Conv1D
from transformers.utils import import_utils

Arguments = dict[str, Any]
_TAKE_A_MASK = ("sdpa", "eager")  # attention implementations that take a mask of four dimensions


class BlockParts(NamedTuple):
    """Name the list of transformer blocks, and the norm behind it; None where blocks end in one of their own."""

    blocks: str
    norm: str | None


def is_block(module: nn.Module) -> bool:
    """Return whether a module is a transformer block."""
    return isinstance(module, GradientCheckpointingLayer)


@contextmanager
def fake_tensors_are_real() -> Iterator[None]:
    """Let transformers choose masks and kernels for fake tensors as for real ones, not as for a graph to export."""
    asked = import_utils.is_fake_tensor
    setattr(import_utils, "is_fake_tensor", lambda tensor: False)  # noqa: B010
    try:
        yield
    finally:
        setattr(import_utils, "is_fake_tensor", asked)  # noqa: B010


def mark_sharded(model: nn.Module) -> None:
    """Have transformers generate in step on all processes, as a sharded model must."""
    model._is_fsdp_managed_module = True  # type: ignore[assignment]


def attention_implementation(config: PretrainedConfig) -> str:
    """Return the name of the attention implementation that a model with this configuration runs, such as ``sdpa``."""
    return config._attn_implementation


def is_encoder(config: PretrainedConfig) -> bool:
    """Return whether a model is of a family pretrained to fill in masked tokens, and not configured as a decoder."""
    return type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)


def block_parts(model: PreTrainedModel) -> BlockParts | None:
    """Find the list of blocks and the final norm among the children of a model without a head.

    Returns:
        Their names; None if there is not exactly one list of as many blocks as the configuration says, or more than one
        norm behind it.
    """
    children = list(model.named_children())
    depth = model.config.get_text_config().num_hidden_layers
    lists = [(place, _block_list(name, child, depth)) for place, (name, child) in enumerate(children)]
    lists = [(place, name) for place, name in lists if name]
    if len(lists) != 1:
        return None
    place, blocks = lists[0]
    norms = [name for name, child in children[place + 1 :] if "norm" in type(child).__name__.lower()]
    return BlockParts(blocks, norms[0] if norms else None) if len(norms) <= 1 else None


def _block_list(name: str, module: nn.Module, depth: int) -> str:
    """Return the dotted name of the list of blocks that a child is, or holds and nothing else; or nothing."""
    if isinstance(module, nn.ModuleList):
        return name if len(module) == depth and all(map(is_block, module)) else ""
    inner = list(module.named_children())
    return _block_list(f"{name}.{inner[0][0]}", inner[0][1], depth) if len(inner) == 1 else ""


def embed(model: PreTrainedModel, parts: BlockParts, input_ids: Tensor) -> Tensor:
    """Return what a model gives its first block for ``input_ids`` (B, T) int64: hidden states (B, T, D)."""
    return _without_blocks(model, parts)(input_ids=input_ids, use_cache=False).last_hidden_state


def block_arguments(
    model: PreTrainedModel, parts: BlockParts, hidden: Tensor, attention_mask: Tensor | None
) -> list[Arguments]:
    """Return the keyword arguments that a model's own forward pass calls each of its blocks with.

    Masks, rotary positions and all else are the model's own, whatever its family; nothing random is drawn. Where
    gradients are on, they pass to whatever of the model the arguments are made with.

    Args:
        model: The model.
        parts: Its parts.
        hidden: Hidden states (B, T, D) of any depth: only shape, type and device matter.
        attention_mask: What the model takes: (B, T), 0 for padding; (B, 1, T, T); or None.
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
    """Return a visibility mask, bool (B or 1, 1, T, T), in the form that a text model's attention implementation takes.

    One that adds its mask to the scores gets it as ``dtype``; :func:`takes_mask_4d` holds.
    """
    if attention_implementation(config) != "eager":
        return visible
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)


def drops_out(module: nn.Module) -> bool:
    """Return whether anything inside has dropout while training: a layer, or an attention with a rate."""
    return any(
        (isinstance(child, nn.Dropout) and child.p > 0) or getattr(child, "attention_dropout", 0.0)
        for child in module.modules()
    )


@cache
def forward_parameters(block: Any) -> tuple[str, ...]:
    """Return the names of the parameters of the forward of a model or a block, without ``self``."""
    return tuple(inspect.signature(block.forward).parameters)[1:]


def cache_name(parameters: Container[str]) -> str:
    """Return which parameter of a model's or a block's forward is the cache: ``cache`` since transformers 5.24."""
    return "cache" if "cache" in parameters else "past_key_values"


def keeps_every_position(cache: Any) -> bool:
    """Return whether a cache keeps keys and values of every position in every layer, and nothing else."""
    return isinstance(cache, DynamicCache) and all(type(layer) is DynamicLayer for layer in cache.layers)


class SplitProjection(nn.Module):
    """GPT-2's fused query, key and value projection as three linear layers, each of which can have an adapter.

    Their weights are views of the fused one, which takes its memory once.

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


def fuse_projections(blocks: nn.ModuleList) -> None:
    """Undo :func:`split_fused_projections`: the three layers become one again, with their weights of now."""
    for block in blocks:
        if isinstance(block, GPT2Block) and isinstance(split := block.attn.c_attn, SplitProjection):
            layers = (split.query, split.key, split.value)
            block.attn.c_attn = fused = Conv1D(3 * split.query.in_features, split.query.in_features)
            fused.weight.data = torch.cat([layer.weight.detach().T for layer in layers], dim=1).contiguous()
            fused.bias.data = torch.cat([layer.bias.detach() for layer in layers])


class _Recorder(nn.Module):
    """Stand in for a block in its model's forward pass: keep the arguments and pass the hidden states through."""

    def __init__(self, block: nn.Module, calls: list[Arguments] | None) -> None:
        super().__init__()
        self.__dict__.update(block=block, calls=calls)  # no child: it stays where it is

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.calls is not None:
            self.calls.append({**dict(zip(forward_parameters(self.block.__class__)[1:], args, strict=False)), **kwargs})
        return hidden


def _without_blocks(model: PreTrainedModel, parts: BlockParts, calls: list[Arguments] | None = None) -> Any:
    """Return a model that shares all modules with another but calls none of its blocks, nor its norm.

    If ``calls`` are wanted, nothing drops out either.
    """
    blocks = model.get_submodule(parts.blocks).children()
    shell = _replaced(model, parts.blocks, nn.ModuleList(_Recorder(block, calls) for block in blocks))
    if parts.norm is not None:
        shell = _replaced(shell, parts.norm, nn.Identity())
    return shell if calls is None else _without_dropout(shell)


def _replaced(module: nn.Module, name: str, part: nn.Module) -> nn.Module:
    """Return a module that shares all modules with another, but the one of a dotted name."""
    first, _, rest = name.partition(".")
    shell = copy.copy(module)
    shell._modules = {**module._modules, first: _replaced(module.get_submodule(first), rest, part) if rest else part}
    return shell


def _without_dropout(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.Dropout):
            module = _replaced(module, name, nn.Identity())
        elif any(isinstance(inner, nn.Dropout) for inner in child.modules()):
            module = _replaced(module, name, _without_dropout(child))
    return module


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    outputs, inputs = weight.shape
    linear = nn.Linear(inputs, outputs, device="meta")
    linear.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return linear
