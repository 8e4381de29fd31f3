"""Linear layers that bitsandbytes has quantized, made on the CPU without a checkpoint."""

from typing import Any

from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from torch import Tensor

KINDS = ("nf4", "8bit")


def quantized(weight: Tensor, kind: str) -> Any:
    """A frozen layer without bias of this weight (outputs, inputs)."""
    outputs, inputs = weight.shape
    if kind == "8bit":
        layer: Any = Linear8bitLt(inputs, outputs, bias=False, has_fp16_weights=False)
        layer.weight = Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        layer = Linear4bit(inputs, outputs, bias=False, quant_type="nf4", compress_statistics=True)
        layer.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True)
        layer.support_avx512bf16_for_cpu = False  # as ftkit.models.base_model.prepare_layers has it
    return layer.to("cpu")
