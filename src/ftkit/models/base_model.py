"""Load pretrained generative models in full, 8-bit or 4-bit, and split them into body and head."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from ftkit.errors import InputError
from ftkit.hub import is_local, load_pretrained
from ftkit.models.base_files import BaseFiles, Location
from ftkit.models.losses import Head
from ftkit.models.transformers_internals import NewGELUActivation
from ftkit.models.virtual_tokens import has_virtual_tokens, with_virtual_tokens

Quantization = Literal["8bit", "nf4"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

# What families call a factor on their logits: Cohere, Granite, Falcon-H1, Muse.
_HEAD_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
_DEMO = re.compile(r"demo(?:-(small|medium|large|xl))?")


def locate(model: str, field: str = "base_model") -> str:
    """Return the hub id, the folder or the file that a model's name means.

    Args:
        model: A hub id, a folder in transformers format, the path of a GGUF file (``pip install 'ftkit[gguf]'``), or
            ``demo``, ``demo-small``, ``demo-medium``, ``demo-large`` or ``demo-xl`` for the small GPT-2 models that
            ftkit carries.
        field: What an error names as its place.

    Raises:
        InputError: It looks like a path, and there is no such folder.

    Example:
        >>> locate("HuggingFaceTB/SmolLM2-135M"), Path(locate("demo")).name
        ('HuggingFaceTB/SmolLM2-135M', 'small')
    """
    if match := _DEMO.fullmatch(model):
        return str(files("ftkit") / "assets" / "gpt2-demo" / (match[1] or "small"))
    path = str(Path(model).expanduser()) if model.startswith("~") else model
    if (model.startswith(("/", ".", "~")) or model.count("/") > 1) and not is_local(path):
        raise InputError("no such folder", field=field, got=model, fix="use a hub id or a folder")
    return path


def is_demo(model: str) -> bool:
    """Return whether a model's name is that of one that ftkit carries."""
    return _DEMO.fullmatch(model) is not None


def load_base(
    auto_class: Any,
    model: str,
    revision: str | None = None,
    quantization: Quantization | None = None,
    dtype: Dtype = "auto",
    device: torch.device | None = None,
) -> PreTrainedModel:
    """Load a pretrained model, in training mode.

    Args:
        auto_class: ``AutoModelForCausalLM``, ``AutoModelForImageTextToText`` or a model's own class.
        model: Its name, see :func:`locate`.
        revision: The hub revision to pin; None takes the current one.
        quantization: ``8bit`` or ``nf4`` (4-bit, double quantization, bfloat16 compute), by bitsandbytes; None for
            neither, which a GGUF file needs. The output head stays as it is.
        dtype: Of what is not quantized; ``auto`` takes the checkpoint's own.
        device: Where a quantized model is put together, for moving it later can undo that.

    Raises:
        UnavailableError: It is neither in the cache nor to be downloaded, or needs access.
        InputError: The folder or file is damaged or lacks weights, or a GGUF file is to be quantized.
    """
    options = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if quantization is not None:
        options |= quantization_options(quantization, device)
    loaded = load_pretrained(auto_class, locate(model), revision=revision, output_loading_info=True, **options)
    prepare_layers(loaded)
    return loaded.train()  # transformers returns evaluation mode, and Lightning would keep it: no dropout


def quantization_options(
    kind: Quantization, device: torch.device | None, unquantized: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the options of ``from_pretrained`` that quantize a model.

    Args:
        kind: ``8bit`` or ``nf4``, see :func:`load_base`.
        device: Where the model is put together; None is the CPU.
        unquantized: Names of trainable parts that stay as they are besides the output head.
    """
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # it reports each 8-bit product
    bits: dict[str, Any] = {"load_in_8bit": True}
    if kind == "nf4":
        bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        bits["bnb_4bit_compute_dtype"] = torch.bfloat16
    # Its name says 8 bits, but it holds for 4 too; left out, transformers finds the output head itself.
    skipped = {"llm_int8_skip_modules": list(unquantized)} if unquantized else {}
    return {"quantization_config": BitsAndBytesConfig(**bits, **skipped), "device_map": {"": device or "cpu"}}


def prepare_layers(model: nn.Module) -> None:
    """Prepare the layers of a model, loaded or drawn, for what ftkit does with them.

    4-bit layers stay as they were loaded. One kernel computes GPT-2's GELU in the place of seven: the same function, to
    3e-7.
    """
    _keep_arranged(model)
    _fuse_activations(model)


def _keep_arranged(model: nn.Module) -> None:
    """Keep evaluated 4-bit layers from rearranging their weights, as on some CPUs: no gradient passes then."""
    layers: Iterable[Any] = model.modules()
    for layer in layers:
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def _fuse_activations(model: nn.Module) -> None:
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def locate_processor(model: str) -> str:
    """Return the hub id, the folder or the file of the tokenizer or processor of a model, named as in :func:`locate`.

    A folder without a tokenizer may have one in ``tokenizer`` beside it.
    """
    name = locate(model)
    beside = Path(name).parent / "tokenizer"
    alone = Path(name).is_dir() and not (Path(name) / "tokenizer_config.json").is_file()
    return str(beside) if alone and beside.is_dir() else name


def base_files_of(model: str, revision: str | None) -> BaseFiles:
    """Return where a model of that name, see :func:`locate`, and its tokenizer or processor lie."""
    return BaseFiles(Location(locate(model), revision), Location(locate_processor(model), revision))


def load_processor(auto_class: Any, model: str, revision: str | None = None) -> Any:
    """Load the tokenizer or processor that belongs to a model; a missing padding token becomes the end token.

    Args:
        auto_class: ``AutoTokenizer`` or ``AutoProcessor``.
        model: The model's name, see :func:`locate_processor`.
        revision: The hub revision to pin.

    Raises:
        UnavailableError: It is neither in the cache nor to be downloaded, or needs access.
        InputError: The folder holds none.
    """
    name = locate_processor(model)
    processor = load_pretrained(auto_class, name, revision=revision)
    tokenizer = getattr(processor, "tokenizer", processor)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers builds this if GPT-2's files are missing
        raise InputError("contains no tokenizer", file=name, fix="add tokenizer.json, or name the tokenizer's folder")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def enable_checkpointing(model: nn.Module) -> None:
    """Recompute activations in the backward pass (gradient checkpointing): less memory, about a third more time.

    Non-reentrant, so that the gradients reach adapters above a frozen embedding.
    """
    plain_model(model).activation_checkpointing_enable({"use_reentrant": False})


def plain_model(model: nn.Module) -> Any:
    """Return the transformers model itself, out of its peft wrapper if it has one; its adapters stay active."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def hidden_states_and_head(model: nn.Module) -> tuple[Callable[..., Tensor], Head]:
    """Take a generative model apart, so that its head need not run at every position.

    Args:
        model: A transformers model with an output head, plain or wrapped by peft.

    Returns:
        A function from the model's inputs to its last hidden states (B, T, D), without those of virtual tokens, and one
        from hidden states (..., D) to logits (..., V). One after the other they give the model's own logits.

    Raises:
        InputError: The model has no output head on a body, or does more between them than is known here.
    """
    body = plain_model(model).base_model
    head, cap = _head_and_cap(model)

    def hidden_states(**inputs: Any) -> Tensor:
        return body(**inputs, use_cache=False)[0]

    def behind_virtual_tokens(**inputs: Any) -> Tensor:
        return hidden_states(**with_virtual_tokens(model, inputs))[:, -inputs["input_ids"].shape[1] :]

    run = behind_virtual_tokens if has_virtual_tokens(model) else hidden_states
    return run, partial(_logits, head=head, cap=cap)


def token_logits(model: nn.Module, states: Tensor, tokens: Sequence[int]) -> Tensor:
    """Return the logits of a few tokens in float32 (N, number of tokens), whatever the model's precision.

    In bfloat16 a logit between 8 and 16 is a multiple of 1/16, so that the scores of different examples come out equal.
    A head with adapters of its own computes in its own precision.

    Args:
        model: A transformers model with an output head, plain or wrapped by peft.
        states: What the head reads (N, D).
        tokens: Token ids.

    Raises:
        InputError: See :func:`hidden_states_and_head`.
    """
    few = list(tokens)
    head, cap = _head_and_cap(model)
    if type(head) is not nn.Linear:
        return _logits(states, head, cap)[:, few].float()
    weight, bias = head.weight[few].float(), None if head.bias is None else head.bias[few].float()
    with torch.autocast(states.device.type, enabled=False):
        return _logits(states.float(), partial(nn.functional.linear, weight=weight, bias=bias), cap)


def _head_and_cap(model: nn.Module) -> tuple[nn.Module, float | None]:
    """Return the output head, and what the family caps its logits at."""
    whole = plain_model(model)
    head = whole.get_output_embeddings()
    if head is None or whole.base_model is whole:
        raise InputError(
            "the model has no language head on top of a separate body", field="model", got=type(whole).__name__
        )
    config = whole.config.get_text_config()
    if {getattr(config, name, None) or 1.0 for name in _HEAD_SCALES} != {1.0}:
        raise InputError(
            "the family scales its logits in its own way, which is not supported", field="model", got=config.model_type
        )
    return head, getattr(config, "final_logit_softcapping", None)


def _logits(states: Tensor, head: Head, cap: float | None) -> Tensor:
    logits = head(states)
    return logits if cap is None else torch.tanh(logits / cap) * cap  # the Gemma family
