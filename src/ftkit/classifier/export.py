"""Turn a trained classifier into a sequence-classification model of transformers, or an adapter of peft for one."""

from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from ftkit.classifier.text_classifier import TextClassifier
from ftkit.errors import InputError
from ftkit.models.adapters import merge
from ftkit.models.network import SequenceClassifier
from ftkit.models.sequence_classification import OWN_FORM, classifier_config, probe, sequence_classification
from ftkit.models.trainable import merge_published_lora


def sequence_classifier(model: TextClassifier, form: Literal["transformers", "peft"]) -> Any:
    """Return a classifier as a model of transformers with the same logits, to 1e-5.

    Args:
        model: The classifier, loaded on the CPU; ``transformers`` merges its adapters, which uses it up.
        form: ``transformers``, the whole model; or ``peft``, the base wrapped with adapter and head, of which
            ``save_pretrained`` writes these two.

    Raises:
        InputError: There is no such model; the message names the reason.
    """
    net, encoding = model.net, model.encoding
    assert net is not None, "it is loaded"
    assert encoding is not None
    _refuse(model, net, form)
    config = classifier_config(model.load_config(), encoding.labels, encoding.pad_id)
    wanted = probe(net.eval(), encoding.pad_id, encoding.max_length)
    if form == "peft":
        with torch.random.fork_rng():
            body = model.build_backbone()
        return sequence_classification(body, net.head, config, wanted, model.adapted)
    if model.adapter is not None:
        net.backbone.model = merge(net.backbone.model)
    merge_published_lora(net)
    return sequence_classification(net.backbone, net.head, config, wanted)


def exported_tokenizer(model: TextClassifier) -> PreTrainedTokenizerBase:
    """Return a classifier's tokenizer with the padding, the side and the greatest length of its training."""
    tokenizer = model.load_tokenizer()
    assert model.encoding is not None
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.encoding.pad_id)
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    tokenizer.model_max_length = model.encoding.max_length
    return tokenizer


def _refuse(model: TextClassifier, net: SequenceClassifier, form: str) -> None:
    """Refuse what neither transformers nor peft can hold, by the option that says so."""
    if form == "peft" and model.adapter is None:
        problem = "the run has no adapter of peft"
        raise InputError(problem, field="format", got=form, fix="use --format transformers")
    if form == "peft" and model.weights != "pretrained":
        problem = "an adapter alone needs a base that others have"
        raise InputError(problem, field="weights", got=model.weights, fix="use --format transformers")
    wrong = _wrong_option(model, net)
    if wrong is not None:
        field, got, problem, fix = wrong
        raise InputError(problem, field=field, got=got, fix=f"train with {fix}, or {OWN_FORM}")


def _wrong_option(model: TextClassifier, net: SequenceClassifier) -> tuple[str, Any, str, str] | None:
    """Return the option that transformers' models do not have: name, value, what is wrong with it, and another."""
    wanted = "first" if model.encoder else "last_real"
    if model.virtual_tokens:
        problem = "virtual tokens before a text cannot be merged, and peft reads a padded text elsewhere"
        return "adapter", type(model.adapter).__name__, problem, "peft.LoraConfig"
    if net.pooling != wanted:
        place = "an encoder at its first token" if model.encoder else "a decoder at its last token that is no padding"
        return "pooling", net.pooling, f"transformers reads {place}", f"pooling: {wanted}"
    if not (model.encoder or net.causal_mask):
        return "causal_mask", False, "transformers reads a decoder under its causal mask", "causal_mask: true"
    if model.quantization is not None:
        problem = "the head was trained on quantized weights, and full ones give other logits"
        return "quantization", model.quantization, problem, "quantization: null"
    if net.bf16_blocks:
        problem = "the frozen blocks run in bfloat16, and the others do not"
        return "frozen_dtype", "bfloat16", problem, "frozen_dtype: float32"
    return None
