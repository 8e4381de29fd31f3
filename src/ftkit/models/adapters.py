"""Put an adapter of any peft method on a model, and merge it into its weights."""

import copy
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from peft import (
    PeftConfig,
    PeftModel,
    PeftType,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import nn
from transformers import PreTrainedModel

from ftkit.errors import InputError, first_line
from ftkit.models.base_model import plain_model
from ftkit.models.peft_internals import adapts, has_default_layers
from ftkit.models.transformers_internals import Conv1D, block_parts

Task = Literal["CAUSAL_LM", "FEATURE_EXTRACTION"]
_REFUSALS = (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, RuntimeError, AssertionError)


def add_adapter(model: PreTrainedModel, adapter: PeftConfig, task: Task, exclude: Collection[str] = ()) -> PeftModel:
    """Freeze a model and put a trainable adapter on it.

    What is drawn comes from the global generator.

    Args:
        model: The model, quantized or not, or one on the meta device, to find out whether peft can adapt it. An output
            head that is adapted and shares its weight with the embeddings gets a weight of its own, since merging would
            change the embeddings too.
        adapter: The method; it stays as it is. Without ``target_modules`` it adapts the layers that peft chooses in
            this family, and where peft knows none, all attention and MLP projections of the text model.
        task: ``CAUSAL_LM`` of a model with an output head, ``FEATURE_EXTRACTION`` of one without.
        exclude: Names of the parts that stay without, such as a vision tower.

    Returns:
        The wrapped model, in the mode it was in.

    Raises:
        InputError: peft cannot adapt this model by this method, or so.
    """
    config: Any = copy.deepcopy(adapter)
    config.task_type, config.inference_mode = TaskType(task), False
    for name in getattr(config, "modules_to_save", None) or ():  # peft would leave it out without a word
        if not any(place.rpartition(".")[2] == name for place, _ in model.named_modules()):
            raise InputError("names no part of the model", field="adapter.modules_to_save", got=name)
    with refusals(adapter):
        if hasattr(config, "target_modules"):
            _choose_layers(model, config, exclude)
            _untie_head(model, config)
        wrapped = get_peft_model(model, config)
    if not any(parameter.requires_grad for parameter in wrapped.parameters()):
        got, fix = type(adapter).__name__, "use a method that changes its layers, such as peft.LoraConfig"
        raise InputError("leaves nothing to train in this model", field="adapter", got=got, fix=fix)
    return wrapped


def check_adapter(empty: PreTrainedModel, adapter: PeftConfig, task: Task, exclude: Collection[str] = ()) -> None:
    """Refuse what :func:`add_adapter` would, before weights are loaded.

    Args:
        empty: The model on the meta device; it is changed. What needs the values of weights is not found out there.
        adapter: See :func:`add_adapter`, as the rest.
        task: The same.
        exclude: The same.

    Raises:
        InputError: peft cannot adapt such a model by this method, or so.
    """
    try:
        with torch.random.fork_rng():
            add_adapter(empty, adapter, task, exclude)
    except InputError as error:
        if not isinstance(error.__cause__, RuntimeError):  # there are no values
            raise


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Return the names of the linear layers of the text model's blocks, each once.

    Args:
        model: A text or vision-language model, plain or wrapped by peft.
    """
    whole = plain_model(model)
    head = whole.get_output_embeddings()
    names = [name for name, layer in whole.get_decoder().named_modules() if is_linear(layer) and layer is not head]
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))


def is_linear(layer: nn.Module) -> bool:
    """Return whether a layer is linear, quantized (a subclass) or of GPT-2's transposed kind."""
    return isinstance(layer, nn.Linear | Conv1D)


def merged(model: PeftModel, base: PreTrainedModel) -> Any:
    """Merge an adapter into its base, as a plain transformers model.

    Args:
        model: The tuned model. It is not changed.
        base: Its base, loaded anew and not quantized, since rounding a merged weight to 4 bits again would spoil it;
            it becomes the result.

    Returns:
        ``base`` with the adapter in its weights, in evaluation mode.

    Raises:
        InputError: The method changes more than weights.
    """
    config = model.active_peft_config
    wrapped = add_adapter(base, config, config.task_type)
    loaded = set_peft_model_state_dict(wrapped, get_peft_model_state_dict(model))
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    return merge(wrapped)


def merge(model: PeftModel) -> Any:
    """Merge an adapter into the weights that it is on, which are not quantized; return the plain model to evaluate.

    Raises:
        InputError: The method changes more than weights.
    """
    config = model.active_peft_config
    if config.is_prompt_learning:
        raise InputError("virtual tokens cannot be merged into weights", field="adapter", got=type(config).__name__)
    with refusals(config):
        return model.merge_and_unload(safe_merge=True).eval()


@contextmanager
def refusals(adapter: PeftConfig) -> Iterator[None]:
    """Turn what peft raises into what to tell the user; leave out what it says of its own repairs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # peft finds the layout of each layer itself
        warnings.filterwarnings("ignore", message="You have passed exclude_modules")
        warnings.filterwarnings("ignore", message="The following rank_pattern keys")  # AdaLoRA's, which are no patterns
        warnings.filterwarnings("ignore", message="Unsupported layer type")  # norms, for LN tuning
        try:
            yield
        except _REFUSALS as error:
            if isinstance(error, InputError):
                raise
            problem = f"peft refuses it for this model: {first_line(error)}"
            raise InputError(problem, field="adapter", got=type(adapter).__name__) from error


def _choose_layers(model: PreTrainedModel, config: Any, exclude: Collection[str]) -> None:
    """Leave out the layers of some parts; where neither the user nor peft names layers, name the text model's.

    peft finds the number of a block behind two names; a model without a head has but one before it.
    """
    if getattr(config, "layers_to_transform", None) is not None and not config.layers_pattern:
        parts = block_parts(model)
        config.layers_pattern = parts and parts.blocks.rpartition(".")[2]
    left_out = [rf"{re.escape(name)}\..*" for name, _ in model.named_modules() if name.rpartition(".")[2] in exclude]
    unnamed = config.target_modules is None and getattr(config, "target_parameters", None) is None
    family = model.config.model_type
    if unnamed and config.peft_type != PeftType.LN_TUNING and not has_default_layers(config, family):
        config.target_modules = set(linear_layers(model))
        left_out += _beside_text_model(model)
    if not left_out:
        return
    if own := config.exclude_modules:
        left_out.append(own if isinstance(own, str) else rf"(.*\.)?({'|'.join(map(re.escape, own))})")
    config.exclude_modules = "|".join(left_out)


def _beside_text_model(model: PreTrainedModel) -> list[str]:
    """Return a pattern of the names of all layers outside the text model; none where there is no other model."""
    text = model.get_decoder()
    name = next(name for name, part in model.named_modules() if part is text)
    return [] if text is model.base_model else [rf"(?!{re.escape(name)}\.).*"]


def _untie_head(model: PreTrainedModel, config: Any) -> None:
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    name = next((name for name, layer in model.named_modules() if layer is head), "")
    if head is None or config.target_modules is None or not adapts(config, name):
        return
    if head.weight is not embeddings.weight:
        return
    head.weight = nn.Parameter(head.weight.detach().clone())
    for part in {id(part): part for part in (model.config, model.config.get_text_config())}.values():
        part.tie_word_embeddings = False
