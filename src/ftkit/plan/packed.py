"""Stand in for linear layers of 4 and 8 bits: what they hold, what they read, and products in bfloat16."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftkit.models.adapters import is_linear
from ftkit.models.base_model import Quantization
from ftkit.models.memory import NF4_BYTES

COUNTED = "counted"  # attribute of a packed parameter: how many weights it holds
_BYTES = {"nf4": NF4_BYTES, "8bit": 1.0}


def pack(net: nn.Module, kind: Quantization, head: nn.Module | None) -> None:
    """Replace the frozen linear layers of a network, but its output head, by packed ones of fake tensors."""
    for parent in list(net.modules()):
        for name, layer in parent.named_children():
            if is_linear(layer) and layer is not head and not layer.weight.requires_grad:
                setattr(parent, name, _Packed(layer, kind))


class _Packed(nn.Module):
    """A linear layer whose weights are unpacked whenever they are used."""

    def __init__(self, layer: Any, kind: Quantization) -> None:
        super().__init__()
        transposed = not isinstance(layer, nn.Linear)
        self.shape = layer.weight.shape[:: -1 if transposed else 1]  # (out, in)
        size = self.shape.numel()
        self.weight = nn.Parameter(torch.empty(int(size * _BYTES[kind]), dtype=torch.uint8), requires_grad=False)
        setattr(self.weight, COUNTED, size)
        self.bias = layer.bias
        self.read = size // 2 if kind == "nf4" else size

    def forward(self, hidden: Tensor) -> Tensor:
        weight = self.weight[: self.read]
        made = _Unpacked.apply(hidden.to(torch.bfloat16), weight, self.shape).to(hidden.dtype)
        return made if self.bias is None else made + self.bias


class _Unpacked(torch.autograd.Function):
    """A product that keeps the packed weights for the way back, and unpacks them again."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, packed: Tensor, shape: torch.Size) -> Tensor:
        ctx.packed, ctx.shape = packed, shape
        return F.linear(hidden, _unpacked(packed, shape))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient @ _unpacked(ctx.packed, ctx.shape), None, None


def _unpacked(packed: Tensor, shape: torch.Size) -> Tensor:
    """Return weights in bfloat16: one operator that reads what is packed and writes two bytes a weight."""
    return packed.repeat(2 * shape.numel() // packed.numel()).view(torch.bfloat16).view(shape)
