"""Load a causal language model to be served: a folder or hub id, with an adapter, in 8 or 4 bits, on a device."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, TaskType
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ftkit.errors import EnvironmentFault, InputError, first_line
from ftkit.hub import load_pretrained
from ftkit.models.adapters import merge
from ftkit.models.base_files import refuse_other_base
from ftkit.models.base_model import Dtype, Quantization, base_files_of, load_base, load_processor, locate
from ftkit.models.virtual_tokens import has_virtual_tokens

_CLASSIFIES = "classifies in the form of transformers or peft, which is not served"
_SERVED = "serve the run itself, or push it without --format and serve that"


def load_generator(
    model: str,
    revision: str | None = None,
    adapter: Path | None = None,
    quantization: Quantization | None = None,
    dtype: Dtype = "auto",
    device_map: str | None = None,
) -> tuple[Any, Any]:
    """Load a model with its tokenizer, ready to generate.

    Args:
        model: Hub id, folder, GGUF file or ``demo``, see :func:`ftkit.models.base_model.locate`.
        revision: Hub revision.
        adapter: A folder with a peft adapter for it. It is merged into the weights unless they are quantized. A
            tokenizer in it takes precedence over the model's own.
        quantization: ``8bit`` or ``nf4``.
        dtype: Of the weights that are not quantized; ``auto`` is the checkpoint's own, but float32 on a CPU, where half
            precision is slow.
        device_map: ``auto`` spreads the model over the GPUs there are, ``cpu`` or ``cuda:0`` names one; None takes the
            GPU if there is one.

    Raises:
        InputError: A folder is damaged or is not a model, or the adapter was trained on another one.
        UnavailableError: The model is not in the cache and cannot be downloaded.
        EnvironmentFault: There is no such device.
    """
    place = chosen_device(device_map)
    _refuse_classifier(model, revision)
    if adapter is not None:
        refuse_other_base(adapter, base_files_of(model, revision))
    if dtype == "auto" and place == "cpu":
        dtype = "float32"
    if quantization is not None:
        device = torch.device("cuda" if place == "auto" else place)
        net: Any = load_base(AutoModelForCausalLM, model, revision, quantization, dtype, device)
    else:
        options = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype), "device_map": place}
        net = load_pretrained(
            AutoModelForCausalLM, locate(model), revision=revision, output_loading_info=True, **options
        )
    if adapter is not None:
        net = with_adapter(net, adapter, merged=quantization is None)
    if adapter is not None and (adapter / "tokenizer_config.json").is_file():  # with the template of its training
        model, revision = str(adapter), None
    return net.eval(), load_processor(AutoTokenizer, model, revision)


def with_adapter(net: Any, adapter: Path, merged: bool) -> Any:
    """Put the peft adapter in a folder on a model, or refuse a folder that holds none, or one for another model."""
    if not (adapter / "adapter_config.json").is_file():
        raise InputError("contains no adapter_config.json", file=adapter, fix="name the folder of a peft adapter")
    try:
        if PeftConfig.from_pretrained(str(adapter)).task_type == TaskType.SEQ_CLS:
            raise InputError(_CLASSIFIES, file=adapter, fix=_SERVED)
        adapted = PeftModel.from_pretrained(net, str(adapter))
    except InputError:
        raise
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(f"does not fit the model: {first_line(error)}", file=adapter) from error
    if has_virtual_tokens(adapted):
        raise InputError("virtual tokens are not served", file=adapter)
    return merge(adapted) if merged else adapted


def _refuse_classifier(model: str, revision: str | None) -> None:
    """Refuse a classifier, whose body would be taken for that of a language model, before weights are loaded."""
    kinds = load_pretrained(AutoConfig, locate(model), revision=revision).architectures or ()
    if any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise InputError(_CLASSIFIES, file=model, fix=_SERVED)


def chosen_device(device_map: str | None) -> str:
    """Return the device map to load with: ``auto`` means the CPU where there is no GPU.

    Raises:
        EnvironmentFault: A GPU was named and there is none.
        InputError: It names no device.
    """
    gpu = torch.cuda.is_available()
    if device_map in (None, "auto"):
        return "cpu" if not gpu else "auto" if device_map else "cuda:0"
    try:
        device = torch.device(str(device_map))
    except RuntimeError as error:
        raise InputError("no such device", field="device_map", got=device_map, fix="use auto, cpu or cuda:0") from error
    if device.type == "cuda" and not gpu:
        raise EnvironmentFault("there is no GPU", field="device_map", got=device_map, fix="use cpu")
    return str(device_map)
