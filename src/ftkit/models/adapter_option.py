"""Read the option ``adapter``: a peft method, or the folder of an adapter to continue from."""

import json
from argparse import ArgumentError
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import peft
from jsonargparse import ArgumentParser
from peft import PeftConfig, PeftModel, PeftType, load_peft_weights, set_peft_model_state_dict

from ftkit.errors import InputError, first_line
from ftkit.hub import ADAPTER_FILE
from ftkit.models.peft_internals import runs_by_layer

Adapter: TypeAlias = PeftConfig | str

_OF_SEVERAL_TASKS = (PeftType.CPT, PeftType.MULTITASK_PROMPT_TUNING)  # their examples say which task they are of
_WITH_A_LOSS = ("kasa_config", "monteclora_config")  # peft leaves it to the training
_STARTS = ("eva", "corda", "lora_ga", "loftq", "pissa_niter")  # need examples, a quantization, or draw anew when loaded


def read_adapter(given: Adapter | Mapping[str, Any] | None) -> PeftConfig | None:
    """Return the peft method that the option ``adapter`` means; None for none.

    Args:
        given: A method, the folder of an adapter that peft or ftkit has saved, or what :func:`adapter_to_dict` made.

    Raises:
        InputError: The folder holds no adapter, or one that cannot be trained further; or ftkit cannot train by the
            method as peft means it.
    """
    if given is None:
        return None
    if isinstance(given, str):
        given = _in_folder(Path(given))
    elif isinstance(given, Mapping):
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--adapter", type=PeftConfig)
        try:
            given = parser.instantiate(parser.parse_object({"adapter": dict(given)})).adapter
        except (ArgumentError, TypeError, ValueError) as error:
            raise InputError(f"is no method of peft: {' '.join(str(error).split())}", field="adapter") from error
    _refuse_unsupported(given)
    return given


def changes_base(adapter: PeftConfig) -> bool:
    """Return whether a model whose adapter is switched off is another than the base: biases or residual weights.

    Example:
        >>> from peft import LoraConfig
        >>> changes_base(LoraConfig()), changes_base(LoraConfig(init_lora_weights="pissa"))
        (False, True)
    """
    start, bias = getattr(adapter, "init_lora_weights", True), getattr(adapter, "bias", "none")
    return start in ("pissa", "olora") or bias != "none" or adapter.peft_type == PeftType.OSF


def adapter_to_dict(adapter: PeftConfig | None) -> dict[str, Any] | None:
    """Return a method as plain values, in the form of a config file."""
    if adapter is None:
        return None
    kind = type(adapter)
    options = json.loads(json.dumps(adapter.to_dict(), default=sorted))  # sets
    place = "peft" if hasattr(peft, kind.__name__) else kind.__module__
    return {"class_path": f"{place}.{kind.__name__}", "init_args": options}


def load_weights(model: PeftModel, folder: str) -> None:
    """Put the weights of a saved adapter on a model with an adapter like it.

    Raises:
        InputError: They are of another shape, or of other layers, or not of all.
    """
    try:
        found = set_peft_model_state_dict(model, load_peft_weights(folder, device=str(model.device)))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"does not fit the model: {first_line(error)}", file=folder) from error
    if unexpected := found.unexpected_keys:
        raise InputError(f"has weights of layers that the model lacks: {unexpected[0]}", file=folder)
    missing, named = set(found.missing_keys), list(model.named_parameters(remove_duplicate=False))
    loaded = {id(parameter) for name, parameter in named if name not in missing}  # one that layers share, once
    lacking = [name for name, parameter in named if parameter.requires_grad and id(parameter) not in loaded]
    if lacking:  # of a deeper model, say
        raise InputError(f"lacks weights of adapted layers: {lacking[0]}", file=folder)


def _in_folder(folder: Path) -> PeftConfig:
    if not (folder / ADAPTER_FILE).is_file():
        fix = "name a folder that ftkit push or peft wrote, or a class such as peft.LoraConfig"
        raise InputError(f"contains no {ADAPTER_FILE}", file=folder, field="adapter", fix=fix)
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"cannot be read: {error}", file=folder / ADAPTER_FILE, field="adapter") from error
    if config.is_prompt_learning:
        raise InputError(
            "peft saves virtual tokens for inference only, so they cannot be trained further",
            file=folder,
            field="adapter",
        )
    if config.peft_type == PeftType.ADALORA and config.rank_pattern:
        raise InputError(
            "peft saves AdaLoRA's pruned ranks for inference only, so they cannot be trained further",
            file=folder,
            field="adapter",
        )
    config.inference_mode = False
    return config


def _refuse_unsupported(adapter: PeftConfig) -> None:
    got = type(adapter).__name__
    if adapter.peft_type in _OF_SEVERAL_TASKS or not runs_by_layer(adapter):
        problem = "the method needs more than a text: a task of each example, or a forward pass of its own"
        raise InputError(problem, field="adapter", got=got)
    for name in _WITH_A_LOSS:
        if getattr(adapter, name, None) is not None:
            raise InputError("ftkit does not add this method's own term to the loss", field=f"adapter.{name}", got=got)
    if getattr(adapter, "megatron_config", None) is not None:  # peft imports whatever module it names
        raise InputError("Megatron's layers are not supported", field="adapter.megatron_config", got=got)
    start = getattr(adapter, "init_lora_weights", None)
    if isinstance(start, str) and start.startswith(_STARTS):
        fix = "use true, gaussian, orthogonal, pissa or olora"
        problem = "starts from examples or from a quantization, or differs each time it is loaded"
        raise InputError(problem, field="adapter.init_lora_weights", got=start, fix=fix)
