"""Choose PyTorch's attention kernel for a training step on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

SHORT = 192  # positions; at 256 both ways take as long


@contextmanager
def quick_attention(block: nn.Module, hidden: Tensor) -> Iterator[None]:
    """Take the kernel with the fastest forward and backward pass for a block on hidden states (B, T, D).

    In bfloat16 on a CPU the fused kernel goes back slowly through short sequences: 12 heads over 8 x 120 positions take
    17 ms there and 4 ms as plain matrix products, which is a sixth of a training step of GPT-2 small. Everything else
    is left to PyTorch: float32, long sequences, GPUs, whatever needs no gradient, and blocks that run again when going
    back.
    """
    in_bf16 = hidden.dtype is torch.bfloat16 or (
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    )
    short = hidden.device.type == "cpu" and hidden.shape[1] <= SHORT
    if not (in_bf16 and short and _goes_back(block, hidden)):
        yield
        return
    # Else the products would be made in float32. The setting has "cuda" in its name, and holds for CPUs too.
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


def _goes_back(block: nn.Module, hidden: Tensor) -> bool:
    if not torch.is_grad_enabled() or getattr(block, "gradient_checkpointing", False):
        return False
    return hidden.requires_grad or any(parameter.requires_grad for parameter in block.parameters())
