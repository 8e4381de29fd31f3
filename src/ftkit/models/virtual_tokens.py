"""Virtual tokens: the trained prompts of peft's prompt, prefix and P-tuning, which stand before every text."""

from typing import Any

import torch
from peft import PeftConfig, PeftModel, PeftType
from torch import Tensor, nn

from ftkit.models.transformers_internals import cache_name, forward_parameters


def virtual_tokens(adapter: PeftConfig | None) -> int:
    """Return how many virtual tokens a method puts before each text; 0 for most methods.

    Example:
        >>> from peft import LoraConfig, PromptTuningConfig
        >>> virtual_tokens(PromptTuningConfig(num_virtual_tokens=8)), virtual_tokens(LoraConfig())
        (8, 0)
    """
    return adapter.num_virtual_tokens if adapter is not None and adapter.is_prompt_learning else 0


def has_virtual_tokens(model: nn.Module) -> bool:
    """Return whether a model is wrapped by peft with virtual tokens."""
    return isinstance(model, PeftModel) and virtual_tokens(model.active_peft_config) > 0


def with_virtual_tokens(model: PeftModel, inputs: dict[str, Any]) -> dict[str, Any]:
    """Put the virtual tokens of a text model before a batch, as peft's own ``forward`` does.

    Args:
        model: The wrapped model; :func:`has_virtual_tokens` holds.
        inputs: ``input_ids`` and perhaps ``attention_mask``, right padded (B, T) int64.

    Returns:
        Inputs of the plain model: embeddings (B, V + T, D) in the place of ids, or the ids with V cached keys and
        values in each layer.
    """
    ids: Tensor = inputs["input_ids"]
    rest = {name: value for name, value in inputs.items() if name != "input_ids"}
    if rest.get("attention_mask") is not None:
        ahead = rest["attention_mask"].new_ones(len(ids), virtual_tokens(model.active_peft_config))
        rest["attention_mask"] = torch.cat((ahead, rest["attention_mask"]), dim=1)
    prompt = model.get_prompt(len(ids))
    if model.active_peft_config.peft_type in (PeftType.PREFIX_TUNING, PeftType.CARTRIDGE):
        name = cache_name(forward_parameters(model.get_base_model().__class__))
        return {**rest, "input_ids": ids, name: prompt}
    embedded = model.word_embeddings(ids)
    return {**rest, "inputs_embeds": torch.cat((prompt.to(embedded.dtype), embedded), dim=1)}


def continued(model: PeftModel, prompt: Tensor, **options: Any) -> list[int]:
    """Generate behind virtual tokens; peft's own ``generate`` loses count of the positions.

    Args:
        model: The wrapped model; :func:`has_virtual_tokens` holds.
        prompt: Token ids (1, T) int64 without padding, which would come between the virtual tokens and the prompt.
        **options: Those of transformers' ``generate``.

    Returns:
        The new tokens.
    """
    inputs = with_virtual_tokens(model, {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)})
    if "input_ids" not in inputs:  # of embeddings nothing but new tokens is returned
        return model.get_base_model().generate(**inputs, **options)[0].tolist()
    width = inputs["attention_mask"].shape[1]  # transformers counts an id for each cached token
    ids = nn.functional.pad(prompt, (width - prompt.shape[1], 0))
    return model.get_base_model().generate(**inputs | {"input_ids": ids}, **options)[0, width:].tolist()
