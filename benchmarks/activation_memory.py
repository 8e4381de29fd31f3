"""How many bytes of activations a training step holds at its peak, counted on shapes alone: no weights, no device."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoModelForImageTextToText, PreTrainedConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ftkit.models.adapters import add_adapter, linear_layers
from ftkit.models.base_model import enable_checkpointing, hidden_states_and_head, plain_model
from ftkit.models.losses import target_log_probs
from ftkit.models.vision_families import family_of

FUSED = "fused-shapes"  # an attention that keeps what fused kernels keep


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that come into being under it and are alive, and their peak.

    PyTorch's own ``torch.distributed._tools.MemTracker`` does the same by module, but takes no frozen parameters.
    Storages are counted once, however many tensors look at them; those of ``held`` are not counted.
    """

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in held}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 1  # the masks ask whether the whole row is one text: yes
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


class _FusedShapes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        return tuple(torch.empty_like(kept) for kept in ctx.saved_tensors[:3])


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    return _FusedShapes.apply(query, key, value).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(FUSED, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(FUSED, flash_attention_mask)


def shapes_only(config: PreTrainedConfig, rank: int, checkpointing: bool) -> nn.Module:
    """A model with adapters on its text part, in bfloat16 on the meta device, ready to train.

    Adapters are in bfloat16, as autocast sees them. Gemma 2 caps its attention scores, which no fused kernel does.
    """
    kernel = "eager" if config.get_text_config().model_type == "gemma2" else FUSED
    with torch.device("meta"):
        net = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16, attn_implementation=kernel)
        lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=linear_layers(net))
        tuned: nn.Module = add_adapter(net, lora, "CAUSAL_LM", family_of(net.config).parts).to(torch.bfloat16)
    if checkpointing:
        enable_checkpointing(tuned)
    return tuned.train()


def step_bytes(net: nn.Module, batch: int, length: int, supervised: int) -> int:
    """Bytes at the peak of a forward and a backward pass, the gradients of the adapters included.

    Args:
        net: A model whose text part learns; its image features are taken as given. Of its device and dtype.
        batch: Rows.
        length: Tokens of a row, those of its images included.
        supervised: Tokens of a row that are learnt: the head runs at these alone.
    """
    text = _part(net, "text_model", "language_model")
    _, head = hidden_states_and_head(net)
    weight = next(text.parameters())
    like = {"device": weight.device, "dtype": weight.dtype}
    embeddings = torch.zeros(batch, length, text.config.hidden_size, **like)
    with PeakBytes((embeddings, *net.parameters(), *net.buffers())) as counted:
        hidden = text(inputs_embeds=embeddings, use_cache=False)[0]
        states = hidden[:, -supervised:].flatten(0, 1)
        target = torch.zeros(len(states), dtype=torch.long, device=weight.device)
        target_log_probs(states, target, head).sum().backward()
    return counted.peak


def tower_bytes(net: nn.Module, tiles: int) -> int:
    """Bytes at the peak of the vision tower's encoder over one picture of so many tiles; nothing is kept."""
    tower = _part(net, "vision_model", "vision_tower")
    config, weight = tower.config, next(tower.parameters())
    patches = (config.image_size // config.patch_size) ** 2
    embeddings = torch.zeros(tiles, patches, config.hidden_size, device=weight.device, dtype=weight.dtype)
    with torch.no_grad(), PeakBytes((embeddings, *net.parameters(), *net.buffers())) as counted:
        tower.encoder(inputs_embeds=embeddings)
    return counted.peak


def _part(net: nn.Module, *names: str) -> Any:
    body = plain_model(net).base_model
    return next(getattr(body, name) for name in names if hasattr(body, name))
