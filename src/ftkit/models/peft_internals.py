"""Internals of peft that ftkit relies on: how its layers hold adapters, which layers it adapts, and AdaLoRA's ranks.

No other file imports from a submodule of peft, and ``tests/models/test_peft_internals.py`` names each assumption.
"""

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import torch
from peft import AdaLoraConfig, PeftConfig, PeftModel
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

_ALLOCATOR_STATE = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # importance of each singular value, and its averages


def has_default_layers(config: PeftConfig, model_type: str) -> bool:
    """Return whether peft knows which layers a method adapts in a family, or the method has no such choice.

    Example:
        >>> from peft import LoraConfig
        >>> has_default_layers(LoraConfig(), "gpt2"), has_default_layers(LoraConfig(), "paligemma")
        (True, False)
    """
    return model_type in getattr(_tuner(config), "target_module_mapping", {model_type})


def adapts(config: PeftConfig, name: str) -> bool:
    """Return whether a method's ``target_modules`` name a layer."""
    return bool(check_target_module_exists(config, name))


def runs_by_layer(config: PeftConfig) -> bool:
    """Return whether a method lives in the layers, or in front of them, so that parts of a network can be run apart."""
    return config.is_prompt_learning or isinstance(config, AdaLoraConfig) or "forward" not in vars(_tuner(config))


def lora_inputs(module: nn.Module) -> Iterator[nn.Linear]:
    """Yield the first matrix (rank, inputs) of each LoRA adapter inside a module, in the order of its layers."""
    for layer in module.modules():
        if isinstance(layer, LoraLayer):
            yield from layer.lora_A.values()


def adapter_modules(module: nn.Module) -> Iterator[nn.Module]:
    """Yield what holds the adapters of each adapted layer inside a module, whatever their kind."""
    for layer in module.modules():
        if isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper):
            yield from (attrgetter(name)(layer) for name in layer.adapter_layer_names)


def adapted_layers(module: nn.Module) -> list[str]:
    """Return the names of the layers inside a module that have an adapter."""
    return [name for name, layer in module.named_modules() if isinstance(layer, BaseTunerLayer)]


def merge_layers(module: nn.Module) -> None:
    """Merge adapters that were put into the layers of a module, without a wrapper around it, in place."""
    for name in adapted_layers(module):
        layer: Any = module.get_submodule(name)
        layer.merge(safe_merge=True)
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, layer.get_base_layer())


def orthogonality_gradients(model: PeftModel) -> list[tuple[nn.Parameter, Tensor]]:
    """Return the gradient of AdaLoRA's regularization at each parameter that has one.

    peft adds the regularization to no loss but that which it computes itself.

    Source: Zhang et al. 2023, arXiv:2303.10512, equation 4; the mean of the norms, as in ``AdaLoraModel.forward``.
    """
    inward = [value for name, value in model.named_parameters() if "lora_A" in name]  # (rank, inputs)
    outward = [value for name, value in model.named_parameters() if "lora_B" in name]  # (outputs, rank)
    products = [value @ value.T for value in (*inward, *(value.T for value in outward))]
    norms = [torch.linalg.norm(product - torch.eye(len(product)).to(product)) for product in products]
    penalty: Tensor = model.active_peft_config.orth_reg_weight * torch.stack(norms).mean()
    parameters = [*inward, *outward]
    return list(zip(parameters, torch.autograd.grad(penalty, parameters), strict=True))


def plan_ranks(model: PeftModel, steps: int) -> None:
    """Let AdaLoRA allocate its ranks over a training of ``steps``."""
    model.base_model.rankallocator.set_total_step(steps)


def allocator_state(model: PeftModel) -> dict[str, Any]:
    """Return what AdaLoRA knows of the importance of its ranks, and which it keeps, as tensors and plain values."""
    allocator: Any = model.base_model.rankallocator
    state = {name: dict(getattr(allocator, name)) for name in _ALLOCATOR_STATE}
    return {**state, "rank_pattern": model.active_peft_config.rank_pattern}


def restore_allocator(model: PeftModel, state: dict[str, Any]) -> None:
    """Put back what :func:`allocator_state` returned."""
    model.active_peft_config.rank_pattern = state["rank_pattern"]
    for name in _ALLOCATOR_STATE:
        setattr(
            model.base_model.rankallocator, name, {key: value.to(model.device) for key, value in state[name].items()}
        )


def _tuner(config: PeftConfig) -> Any:
    return PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
