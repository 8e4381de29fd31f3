"""Choose the trainable parameters: the head, the last blocks, everything, or the published table's LoRA adapters."""

import math
import warnings
from typing import Any, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from ftkit.errors import InputError
from ftkit.models.adapters import is_linear
from ftkit.models.backbone import Backbone
from ftkit.models.peft_internals import lora_inputs, merge_layers
from ftkit.models.transformers_internals import fuse_projections, split_fused_projections

Trainable = Literal["last_layer", "last_block", "last_two_blocks", "all", "lora"]
_BLOCKS = {"last_layer": 0, "last_block": 1, "last_two_blocks": 2}


def trainable_blocks(trainable: Trainable | int, blocks: int) -> int:
    """Return how many blocks, counted from the last, are trainable.

    Args:
        trainable: The name of a choice, or a number of last blocks.
        blocks: How many blocks the backbone has.

    Raises:
        InputError: More blocks are asked for than there are, or fewer than one.

    Example:
        >>> [trainable_blocks(choice, 12) for choice in ("last_layer", "last_two_blocks", "all", 3)]
        [0, 2, 12, 3]
    """
    if trainable in ("all", "lora"):
        return blocks
    count = _BLOCKS[trainable] if isinstance(trainable, str) else trainable
    if trainable != "last_layer" and not 1 <= count <= blocks:
        raise InputError(
            f"the backbone has {blocks} blocks",
            field="trainable",
            got=trainable,
            fix=f"use 1 to {blocks}, or last_layer" if blocks else "use last_layer, all or lora",
        )
    return count


def choose_trainable(backbone: Backbone, head: nn.Module, trainable: Trainable | int) -> None:
    """Make the head and the last blocks trainable, and the final norm if a block is; freeze the rest.

    ``last_layer`` leaves the final norm frozen, and ``all`` includes the embeddings, as in the published table.
    """
    count = trainable_blocks(trainable, len(backbone.blocks))
    backbone.requires_grad_(trainable == "all")
    head.requires_grad_(True)
    if count:
        backbone.norm.requires_grad_(True)
        backbone.blocks[-count:].requires_grad_(True)


def frozen_parts(backbone: Backbone) -> list[list[nn.Parameter]]:
    """Return the leading frozen parts, each as its parameters: the embeddings, then block after block.

    The final norm follows the last block. Parts behind a trainable one do not count.
    """
    behind = [list(module.parameters()) for module in (*backbone.blocks, backbone.norm)]
    known = {id(parameter) for part in behind for parameter in part}
    embeddings = [parameter for parameter in backbone.parameters() if id(parameter) not in known]
    frozen = []
    for part in (embeddings, *behind):
        if any(parameter.requires_grad for parameter in part):
            break
        frozen.append(part)
    return frozen


def frozen_blocks(backbone: Backbone) -> int:
    """Return how many leading blocks are frozen together with everything before them."""
    embeddings_and_blocks = frozen_parts(backbone)[: 1 + len(backbone.blocks)]
    return max(len(embeddings_and_blocks) - 1, 0)


def add_published_lora(net: Any, rank: int, alpha: float) -> None:
    """Freeze the backbone and put the published table's LoRA adapters into it, in place. The head is trained in full.

    Every linear layer of every block and the head are adapted, query, key and value each with an adapter of its own:
    y = Wx + alpha (xA)B, with A uniform within 1/sqrt(rank) and B zero. No configuration of peft's says so: it adapts
    GPT-2's fused projection as one layer and draws A within 1/sqrt(inputs). Its factor is alpha / rank, so it is given
    ``lora_alpha = alpha * rank``.

    Args:
        net: A module with ``backbone`` and ``head``.
        rank: Rank of the adapters.
        alpha: The scale, see above.

    Source: Hu et al. 2021, arXiv:2106.09685; rasbt/LLMs-from-scratch, appendix E.
    """
    drawn_so_far = torch.get_rng_state()
    split_fused_projections(net.backbone.blocks)
    config = LoraConfig(r=rank, lora_alpha=alpha * rank, target_modules=_linear_layers(net))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # peft finds the layout of each layer itself
        inject_adapter_in_model(config, net)
    torch.set_rng_state(drawn_so_far)  # peft drew its own initial values in between
    _draw_published_adapters(net)
    net.head.base_layer.requires_grad_(True)


def merge_published_lora(net: Any) -> None:
    """Merge what :func:`add_published_lora` added into the weights, in place; do nothing where there is none."""
    merge_layers(net)
    fuse_projections(net.backbone.blocks)


def _linear_layers(net: nn.Module) -> list[str]:
    """Return the names of all layers with a weight matrix: linear ones and GPT-2's Conv1D, not embeddings or norms."""
    return [name for name, module in net.named_modules() if is_linear(module)]


def _draw_published_adapters(net: nn.Module) -> None:
    for matrix in lora_inputs(net):
        # Drawn on the transpose (inputs, rank), whose bound is 1/sqrt(rank): the published procedure stores it so.
        drawn = nn.init.kaiming_uniform_(torch.empty(matrix.in_features, matrix.out_features), a=math.sqrt(5))
        matrix.weight.data.copy_(drawn.T)
