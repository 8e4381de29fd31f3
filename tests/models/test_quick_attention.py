"""Short sequences learn in bf16 on a CPU without the fused kernel; everything else goes through it as before."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2Model

from ftkit.models.attention import SHORT
from ftkit.models.backbone import Backbone


class Kernels(TorchDispatchMode):
    """Notes which kernels run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func._schema.name)
        return func(*args, **(kwargs or {}))


FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 40, "n_positions": 2 * SHORT, "is_causal": True}
    return Backbone(GPT2Model(GPT2Config(**shape, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)))


def states(backbone: Backbone, positions: int = 24, bf16: bool = True) -> tuple[torch.Tensor, bool]:
    """The hidden states of a batch, and whether the fused kernel took part."""
    ids = torch.arange(2 * positions).view(2, -1) % 40
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), Kernels() as kernels:
        hidden = backbone.embed(ids)
        hidden = backbone.norm(backbone.run_blocks(hidden, backbone.block_arguments(hidden, None)))
    return hidden.float(), FUSED in kernels.names


def test_products_take_the_place_of_the_fused_kernel_and_come_to_the_same(backbone: Backbone) -> None:
    quick, fused = states(backbone)
    assert not fused
    with torch.no_grad():
        exact, fused = states(backbone, bf16=False)
        usual, _ = states(backbone)
    assert fused
    assert (quick - exact).abs().max() < 2 * (usual - exact).abs().max() < 0.1
    quick.sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.blocks.parameters())


@pytest.mark.parametrize("case", ["float32", "no gradient", "frozen", "long", "runs again"])
def test_the_fused_kernel_stays_where_it_is_quick(case: str, backbone: Backbone) -> None:
    if case == "runs again":
        backbone.model.activation_checkpointing_enable({"use_reentrant": False})
    if case == "frozen":
        backbone.requires_grad_(False)
    with torch.set_grad_enabled(case != "no gradient"):
        _, fused = states(backbone, SHORT + 1 if case == "long" else 24, bf16=case != "float32")
    assert fused


def test_torchs_settings_are_as_they_were(backbone: Backbone) -> None:
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    states(backbone)
    assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed() is before
    assert torch.backends.cuda.flash_sdp_enabled()
