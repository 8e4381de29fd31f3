"""Random models of each family and batches for them, made without a processor."""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

IMAGE, PAD, VOCAB = 5, 0, 64
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES = ["idefics3", "smolvlm", "paligemma", "paligemma2"]
# PaliGemma 2: every other layer sees a window that is shorter than the examples here, and caps keep logits small.
GEMMA2 = {"sliding_window": 8, "attn_logit_softcapping": 1.0, "final_logit_softcapping": 1.0}


def frozen(family: str, seed: int = 0, text: dict[str, Any] | None = None, **vision: Any) -> Any:
    """A random model in training mode whose vision tower and connector do not learn."""
    torch.manual_seed(seed)
    sides = {"image_size": 32, "patch_size": 8, **vision}
    if family.startswith("paligemma"):
        gemma = {"model_type": "gemma"} if family == "paligemma" else {"model_type": "gemma2", **GEMMA2}
        text = {**TEXT, **gemma, "head_dim": 16, **(text or {})}
        config = PaliGemmaConfig(
            text_config=text, vision_config={**VISION, **sides}, image_token_id=IMAGE, projection_dim=32
        )
        net = PaliGemmaForConditionalGeneration(config)
        parts = [net.model.vision_tower, net.model.multi_modal_projector]
    else:
        make = {"idefics3": Idefics3Config, "smolvlm": SmolVLMConfig}[family]
        config = make(
            text_config={**TEXT, "model_type": "llama", "tie_word_embeddings": False, **(text or {})},
            vision_config={**VISION, **sides},
            scale_factor=2,
            image_token_id=IMAGE,
        )
        net = {"idefics3": Idefics3ForConditionalGeneration, "smolvlm": SmolVLMForConditionalGeneration}[family](config)
        parts = [net.model.vision_model, net.model.connector]
    for part in parts:
        part.requires_grad_(False)
    return net.train()


def batch(family: str, seed: int = 0) -> dict[str, Tensor]:
    """Two examples; with Idefics3 and SmolVLM the first has two tiles, one of them half padding, the second has one."""
    generator = torch.Generator().manual_seed(seed)
    if family.startswith("paligemma"):
        pixels = torch.randn(2, 3, 32, 32, generator=generator)
        tiles, per_tile = [1, 1], 16
        extra = {"pixel_values": pixels}
    else:
        pixels = torch.randn(2, 2, 3, 32, 32, generator=generator)
        mask = torch.ones(2, 2, 32, 32, dtype=torch.int64)
        mask[0, 1, 16:], pixels[0, 1, :, 16:] = 0, 0
        mask[1, 1], pixels[1, 1] = 0, 0
        tiles, per_tile = [2, 1], 4
        extra = {"pixel_values": pixels, "pixel_attention_mask": mask}
    width = max(tiles) * per_tile + 6
    input_ids = torch.full((2, width), PAD)
    attention_mask = torch.zeros(2, width, dtype=torch.int64)
    for example, count in enumerate(tiles):
        text = torch.randint(6, VOCAB, (4 + example,), generator=generator)
        ids = torch.cat([torch.tensor([1]), torch.full((count * per_tile,), IMAGE), text])
        input_ids[example, : len(ids)], attention_mask[example, : len(ids)] = ids, 1
    if family.startswith("paligemma"):
        extra["token_type_ids"] = torch.zeros_like(input_ids)
        extra["token_type_ids"][:, 19:] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, **extra}


def pairs(family: str, seed: int = 0) -> dict[str, Tensor]:
    """Two pairs on the images of :func:`batch`: two chosen answers, then two rejected ones of other lengths."""
    inputs = batch(family, seed)
    generator = torch.Generator().manual_seed(100 + seed)
    examples = []
    for example in range(4):
        prompt = inputs["input_ids"][example % 2][inputs["attention_mask"][example % 2].bool()]
        answer = torch.randint(6, VOCAB, (2 + example,), generator=generator)
        examples.append((prompt, answer))
    width = max(len(prompt) + len(answer) for prompt, answer in examples)
    names = ["input_ids", "attention_mask", "labels", *(["token_type_ids"] if "token_type_ids" in inputs else [])]
    text = {name: torch.full((4, width), -100 if name == "labels" else 0) for name in names}
    for example, (prompt, answer) in enumerate(examples):
        start, end = len(prompt), len(prompt) + len(answer)
        text["input_ids"][example, :end] = torch.cat([prompt, answer])
        text["attention_mask"][example, :end] = 1
        text["labels"][example, start:end] = answer
        if "token_type_ids" in text:
            text["token_type_ids"][example, start:end] = 1
    return {**text, **{name: value for name, value in inputs.items() if name.startswith("pixel")}}
