"""Add LoRA adapters to a generative model, and merge them into its weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel

from ftkit.errors import InputError
from ftkit.models.base_model import plain_model
from ftkit.models.transformers_internals import Conv1D


def add_adapters(
    model: PreTrainedModel,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: list[str] | None = None,
    exclude: Collection[str] = (),
) -> PeftModel:
    """Freeze a model and put trainable LoRA adapters on some of its linear layers.

    The update ``alpha / rank * B A`` starts at zero: A is drawn from the global generator, B is zero.

    Args:
        model: The model, quantized or not. An output head that is a target and shares its weight with the embeddings
            gets a weight of its own, since merging would change the embeddings too.
        rank: Rank of the adapters.
        alpha: Their scale.
        dropout: Dropout on their input.
        targets: Names of the layers that get one, in whichever part of the model; None takes all of the text model's
            attention and MLP projections and no layer of the same name elsewhere.
        exclude: Names of the parts that stay without, such as a vision tower.

    Returns:
        The wrapped model, in the mode it was in.

    Raises:
        InputError: A target is no linear layer of the model, or there is none.
    """
    chosen = linear_layers(model) if targets is None else targets
    if not chosen:
        raise InputError("names no layer", field="lora_targets", got=targets, fix="null takes those of the text model")
    outside = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in exclude]
    there = {
        name.rpartition(".")[2]
        for name, layer in model.named_modules()
        if is_linear(layer) and not any(name.startswith(f"{tower}.") for tower in outside)
    }
    if unknown := set(chosen) - there:
        raise InputError(
            "no linear layer of the model",
            field="lora_targets",
            got=sorted(unknown),
            fix=f"choose from {', '.join(sorted(there))}",
        )
    _untie_head(model, chosen)
    left_out = [rf"{re.escape(name)}\..*" for name in outside]
    if targets is None:
        left_out += _beside_text_model(model)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias="none",
        target_modules=list(chosen),
        exclude_modules="|".join(left_out) or None,
        fan_in_fan_out=_is_transposed(model),
    )
    return get_peft_model(model, config)


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Return the names of the linear layers of the text model's blocks, each once: what LoRA adapts by default.

    Args:
        model: A text or vision-language model, plain or wrapped by peft.
    """
    whole = plain_model(model)
    head = whole.get_output_embeddings()
    names = [name for name, layer in whole.get_decoder().named_modules() if is_linear(layer) and layer is not head]
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))


def _beside_text_model(model: PreTrainedModel) -> list[str]:
    """Return a pattern of the names of all layers outside the text model; none where there is no other model."""
    text = model.get_decoder()
    name = next(name for name, part in model.named_modules() if part is text)
    return [] if text is model.base_model else [rf"(?!{re.escape(name)}\.).*"]


def is_linear(layer: nn.Module) -> bool:
    """Return whether LoRA can adapt a layer: linear, quantized (a subclass) or GPT-2's transposed kind."""
    return isinstance(layer, nn.Linear | Conv1D)


def merged(model: PeftModel, base: PreTrainedModel) -> Any:
    """Merge adapters into their base, as a plain transformers model.

    Args:
        model: The tuned model. It is not changed.
        base: Its base, loaded anew and not quantized, since rounding a merged weight to 4 bits again would spoil it;
            it becomes the result.

    Returns:
        ``base`` with the adapters in its weights, in evaluation mode.
    """
    config = copy.deepcopy(model.peft_config[model.active_adapter])
    config.fan_in_fan_out = _is_transposed(base)  # a quantized layer is not
    config.base_model_name_or_path = None
    _untie_head(base, config.target_modules)
    wrapped = get_peft_model(base, config)
    loaded = set_peft_model_state_dict(wrapped, get_peft_model_state_dict(model))
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    return wrapped.merge_and_unload(safe_merge=True).eval()


def _is_transposed(model: nn.Module) -> bool:
    return any(isinstance(layer, Conv1D) for layer in model.modules())


def _untie_head(model: PreTrainedModel, targets: Collection[str]) -> None:
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    name = next((name for name, layer in model.named_modules() if layer is head), "")
    if head is None or name.rpartition(".")[2] not in targets or head.weight is not embeddings.weight:
        return
    head.weight = nn.Parameter(head.weight.detach().clone())
    for config in {id(part): part for part in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
