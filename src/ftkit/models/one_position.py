"""Run a transformer block for one position of each sequence, where nothing reads its output anywhere else."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from ftkit.models import transformers_internals as internals


def runs_at_one_position(model: PreTrainedModel, block: nn.Module) -> bool:
    """Return whether a block may run for one position of each sequence as things stand.

    Other attention implementations, quantized and sharded weights, dropout and gradient checkpointing need the whole.
    """
    if not internals.is_block(block) or not internals.takes_mask_4d(model.config):
        return False
    if block.training and (block.gradient_checkpointing or internals.drops_out(block)):
        return False
    return all(type(parameter) is nn.Parameter for parameter in block.parameters())


def run_block_at(block: Any, hidden: Tensor, arguments: Mapping[str, Any], position: Tensor) -> Tensor:
    """Run a block for one position of each sequence: query, attention, output projection and MLP see no other.

    Keys and values are computed for all positions and given to the block in transformers' own cache. The block adds
    those of its one position once more, and the mask hides them.

    Args:
        block: A block of GPT-2, or one whose attention is Llama's: ``input_layernorm`` before separate projections,
            whole heads rotated, no norms on queries and keys.
        hidden: Hidden states before it (B, T, D).
        arguments: Its arguments, see :func:`ftkit.models.transformers_internals.block_arguments`.
        position: The position of each sequence, (B,) int64.

    Returns:
        Hidden states behind the block at ``position`` (B, D).

    Raises:
        AttributeError: The block is built otherwise. Others that are built otherwise give other hidden states, so
            compare before use.
    """
    if isinstance(block, internals.GPT2Block) and type(block.attn.c_attn) is internals.Conv1D:
        return _run_gpt2_block_at(block, hidden, arguments, position)
    rows = torch.arange(len(hidden), device=hidden.device)
    known, layer = (
        DynamicCache(),
        block.attn.layer_idx if isinstance(block, internals.GPT2Block) else block.self_attn.layer_idx,
    )
    known.update(*_keys_and_values(block, hidden, arguments), layer)
    there = _arguments_at(arguments, position, hidden.shape[1])
    mask = there["attention_mask"]
    hides = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    there["attention_mask"] = nn.functional.pad(mask, (0, 1), value=hides)
    there[internals.cache_name(arguments)] = known
    return internals.run_block(block, hidden[rows, position][:, None], there)[:, 0]


def _arguments_at(arguments: Mapping[str, Any], position: Tensor, positions: int) -> dict[str, Any]:
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
    if isinstance(block, internals.GPT2Block):
        projection, normed, attention = block.attn.c_attn, block.ln_1(hidden), block.attn
        if isinstance(projection, internals.SplitProjection):
            key, value = projection.key(normed), projection.value(normed)
        else:  # an adapter over the fused layer
            _, key, value = projection(normed).chunk(3, dim=-1)
    else:
        attention, normed = block.self_attn, block.input_layernorm(hidden)
        key, value = attention.k_proj(normed), attention.v_proj(normed)
    heads = (*hidden.shape[:2], -1, attention.head_dim)
    key, value = key.view(heads).transpose(1, 2), value.view(heads).transpose(1, 2)
    if isinstance(block, internals.GPT2Block):
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
