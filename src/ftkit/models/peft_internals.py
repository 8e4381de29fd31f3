"""Internals of peft that ftkit relies on: how its layers hold adapters, and which layers it adapts.

No other file imports from a submodule of peft, and ``tests/models/test_peft_internals.py`` names each assumption.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn


def default_lora_targets(model_type: str) -> list[str] | None:
    """Return the names of the layers that peft's LoRA adapts by default in a family; None if it has no default.

    Example:
        >>> default_lora_targets("gpt2"), default_lora_targets("llama")
        (['c_attn'], ['q_proj', 'v_proj'])
    """
    found = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model_type)
    return None if found is None else list(found)


def lora_inputs(module: nn.Module) -> Iterator[nn.Linear]:
    """Yield the first matrix (rank, inputs) of each LoRA adapter inside a module, in the order of its layers."""
    for layer in module.modules():
        if isinstance(layer, LoraLayer):
            yield from layer.lora_A.values()


def adapter_modules(module: nn.Module) -> Iterator[nn.Module]:
    """Yield what holds the adapters of each adapted layer inside a module, whatever their kind."""
    for layer in module.modules():
        if isinstance(layer, BaseTunerLayer):
            yield from (getattr(layer, name) for name in layer.adapter_layer_names)
