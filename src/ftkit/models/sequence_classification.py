"""Turn a classifier into a sequence-classification model of transformers with the same logits, or a peft adapter."""

import copy
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from peft import PeftModel, PeftType, TaskType, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from ftkit.errors import InputError
from ftkit.models.adapters import refusals
from ftkit.models.backbone import Backbone
from ftkit.models.network import SequenceClassifier
from ftkit.models.peft_internals import adapted_layers, adapts
from ftkit.models.pooling import real_tokens

OWN_FORM = "leave out --format: ftkit's own format can hold every classifier"
TOLERANCE = 1e-5  # of logits, or of the largest one above 1
_SCALES = (1.0, 2.0**-16)  # of what runs through a head's activation: relu, gelu; tanh, which is linear near 0 alone
_LENGTHS = (1, 2, 5, 16)  # of the texts that are compared


class Probe(NamedTuple):
    """Hold texts and the logits that a model has to give for them.

    Args:
        input_ids: Token ids (B, T) int64, padded on the right.
        real: 1 for real tokens, 0 for padding (B, T) int64.
        logits: float32 (B, C).
    """

    input_ids: Tensor
    real: Tensor
    logits: Tensor


def classifier_config(config: PretrainedConfig, labels: Sequence[str], pad_id: int) -> PretrainedConfig:
    """Return the configuration of a model that tells classes apart by the last token that is no padding.

    Raises:
        InputError: transformers has no such model of this family.
    """
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        problem = "transformers has no sequence classification of this family"
        raise InputError(problem, field="base_model", got=config.model_type)
    config = copy.deepcopy(config)
    config.id2label = dict(enumerate(labels))  # num_labels follows
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type, config.pad_token_id = "single_label_classification", pad_id
    return config


@torch.no_grad()
def probe(net: SequenceClassifier, pad_id: int, longest: int) -> Probe:
    """Run a network in evaluation mode on made-up texts of several lengths, of at most ``longest`` tokens."""
    length = torch.tensor([min(size, longest) for size in _LENGTHS])
    vocabulary = net.backbone.config.get_text_config().vocab_size
    ids = torch.randint(0, vocabulary - 1, (len(length), int(length.max())), generator=torch.Generator().manual_seed(0))
    ids[ids >= pad_id] += 1  # no text holds the padding: transformers tells by the id where a text ends
    real = real_tokens(length, ids.shape[1])
    ids[real == 0] = pad_id
    return Probe(ids, real, net(ids, length))


def sequence_classification(
    body: Backbone, head: nn.Linear, config: PretrainedConfig, wanted: Probe, adapter: PeftModel | None = None
) -> Any:
    """Return transformers' model of a body and a head, in evaluation mode.

    What transformers computes behind the pooled state differs by family. One linear layer takes the head's weight; a
    bias that it lacks goes into that of the norm before it. Of two with an activation f between them, the first gives
    each logit x and -x, and the second takes f(x) - f(-x): that is x for relu and gelu, and 2x for tanh near 0.
    Whatever the family, the result is compared with what is wanted.

    Args:
        body: The body without adapters, in float32; its final norm may be changed.
        head: The head (C, D), whose bias may be missing.
        config: See :func:`classifier_config`.
        wanted: What the classifier computes.
        adapter: The body with its adapter, which the result gets too; the head is then saved with the adapter.

    Returns:
        The model, wrapped by peft if there is an adapter.

    Raises:
        InputError: transformers' model cannot compute the same.
    """
    norm = _give_bias_to_norm(body, head, config)
    apart = 0.0
    for scale in _SCALES:
        model = _with_head(body.plain, head, config, scale)
        if adapter is not None:
            model = _with_adapter(model, body.plain, adapter, norm)
        with torch.no_grad():
            found = model(input_ids=wanted.input_ids, attention_mask=wanted.real).logits
        apart = float((found - wanted.logits).abs().max() / wanted.logits.abs().max().clamp_min(1))
        if apart <= TOLERANCE:
            return model
    kind = type(model.get_base_model() if isinstance(model, PeftModel) else model).__name__
    problem = f"{kind} of transformers computes other logits, by {apart:.2g} of the largest"
    raise InputError(problem, field="format", fix=OWN_FORM)


def _give_bias_to_norm(body: Backbone, head: nn.Linear, config: PretrainedConfig) -> str:
    """Give the final norm the head's bias if transformers' head has none; return the norm's name if it was changed.

    Solved in float64: the norm's bias grows by d, the smallest with W d = b for the head's weight W and bias b.
    """
    with torch.device("meta"):
        empty: Any = AutoModelForSequenceClassification.from_config(config)
    layers = _own_layers(empty, body.plain)
    if head.bias is None or not head.bias.any() or len(layers) != 1 or layers[0][1].bias is not None:
        return ""
    norm: Any = body.norm
    if getattr(norm, "bias", None) is None:
        problem = f"{type(empty).__name__} of transformers has no bias in its head, nor in a norm before it"
        raise InputError(problem, field="head_bias", got=True, fix=f"train with head_bias: false, or {OWN_FORM}")
    weight, bias = head.weight.double(), head.bias.double()
    shift = torch.linalg.pinv(weight) @ bias
    if not torch.allclose(weight @ shift, bias, rtol=0, atol=TOLERANCE / 10):
        problem = f"{type(empty).__name__} of transformers has no bias in its head, whose weight is not of full rank"
        raise InputError(problem, field="head_bias", got=True, fix="train with head_bias: false")
    norm.bias.data.copy_(norm.bias.double() + shift)
    return next(name for name, module in body.plain.named_modules() if module is norm)


def _own_layers(model: PreTrainedModel, body: PreTrainedModel) -> list[tuple[str, Any]]:
    """Return the linear layers that a model has besides a body's, with their names."""
    known = {f"{model.base_model_prefix}.{name}" for name in body.state_dict()}
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return [(name, layer) for name, layer in layers if f"{name}.weight" not in known]


@torch.no_grad()
def _with_head(body: PreTrainedModel, head: nn.Linear, config: PretrainedConfig, scale: float) -> Any:
    """Return transformers' model with a body's weights, and those of a head where they fit."""
    with torch.random.fork_rng():
        model: Any = AutoModelForSequenceClassification.from_config(copy.deepcopy(config), dtype=torch.float32)
    model.base_model.load_state_dict(body.state_dict(), strict=False)
    layers = [layer for _, layer in _own_layers(model, body)]
    for layer in layers:
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
    classes = len(head.weight)
    if len(layers) == 1:
        layers[0].weight.copy_(head.weight)
    elif len(layers) == 2 and 2 * classes <= len(layers[0].weight):
        halves = 1 if scale == 1 else 2  # f(x) - f(-x) is 2x for tanh
        layers[0].weight[: 2 * classes] = torch.cat((head.weight, -head.weight)) * scale
        both = torch.eye(classes) / (scale * halves)
        layers[1].weight[:, : 2 * classes] = torch.cat((both, -both), dim=1)
    if layers and head.bias is not None and layers[-1].bias is not None:
        layers[-1].bias.copy_(head.bias)
    return model.eval()


def _with_adapter(model: Any, body: PreTrainedModel, adapter: PeftModel, norm: str) -> PeftModel:
    """Put a body's adapter on transformers' model of it; peft saves the head beside it, and a norm that was changed."""
    prefix, config = f"{model.base_model_prefix}.", copy.deepcopy(adapter.active_peft_config)
    state, got = get_peft_model_state_dict(adapter), type(config).__name__
    if not hasattr(config, "modules_to_save"):
        problem = "peft saves no head beside an adapter of this method"
        raise InputError(problem, field="adapter", got=got, fix="use --format transformers")
    if norm and any(f".{norm}." in name for name in state):
        problem, fix = "changes the last norm, which has to hold the head's bias", "train with head_bias: false"
        raise InputError(problem, field="adapter", got=got, fix=f"{fix}, or use --format transformers")
    own = [name for name, _ in _own_layers(model, body)]  # of a pooler in the body, or of a head outside it
    saved = [f"{prefix}{norm}"] * bool(norm) + [
        name if name.startswith(prefix) else name.partition(".")[0] for name in own
    ]
    if config.peft_type == PeftType.ADALORA and config.rank_pattern:  # LoRA's names are the ends of those of layers
        config.rank_pattern = {f"{prefix}{name}": kept for name, kept in config.rank_pattern.items()}
    config.task_type = TaskType.SEQ_CLS
    config.modules_to_save = [*(config.modules_to_save or []), *dict.fromkeys(saved)]
    _name_layers(model, config, {f"{prefix}{name}" for name in adapted_layers(adapter.get_base_model())})
    moved = {re.sub(r"^base_model\.model\.", rf"\g<0>{prefix}", name): value for name, value in state.items()}
    with torch.random.fork_rng(), refusals(config):
        wrapped = get_peft_model(model, config)
        fresh = get_peft_model_state_dict(wrapped)
        if strange := moved.keys() - fresh.keys():
            raise KeyError(f"no place for {min(strange)}")
        set_peft_model_state_dict(wrapped, fresh | moved)
    return wrapped.eval()


def _name_layers(model: PreTrainedModel, config: Any, layers: set[str]) -> None:
    """Have a method's configuration adapt just these layers: by the names that it has where they still fit."""
    if getattr(config, "target_modules", None) is None:
        return
    if {name for name, _ in model.named_modules() if adapts(config, name)} != layers:
        config.target_modules, config.exclude_modules = layers, None
        if hasattr(config, "layers_to_transform"):
            config.layers_to_transform = config.layers_pattern = None
