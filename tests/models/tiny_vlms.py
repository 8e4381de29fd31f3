"""Tiny random Idefics3 and PaliGemma 2 with made-up inputs; no processor, no files."""

from typing import Any

import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PreTrainedModel,
)

VISION = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGE = 90  # token id


def tiny_idefics3() -> tuple[PreTrainedModel, dict[str, Any]]:
    text = {
        "model_type": "llama", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    vision = {**VISION, "image_size": 32, "patch_size": 8}
    config = Idefics3Config(
        text_config=text, vision_config=vision, scale_factor=2, image_token_id=IMAGE, tie_word_embeddings=True
    )
    pixels = torch.rand(2, 1, 3, 32, 32)
    return Idefics3ForConditionalGeneration(config), {**_inputs(4), "pixel_values": pixels}


def tiny_paligemma() -> tuple[PreTrainedModel, dict[str, Any]]:
    text = {
        "model_type": "gemma2", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "pad_token_id": 0,
        "final_logit_softcapping": 3.0,
    }  # fmt: skip
    vision = {"model_type": "siglip_vision_model", **VISION, "image_size": 32, "patch_size": 16, "projection_dim": 64}
    config = PaliGemmaConfig(
        text_config=text, vision_config=vision, image_token_id=IMAGE, projection_dim=64, hidden_size=64
    )
    inputs = {**_inputs(4), "pixel_values": torch.rand(2, 3, 32, 32)}
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    inputs["token_type_ids"][:, 6:] = 1
    return PaliGemmaForConditionalGeneration(config), inputs


def _inputs(image_tokens: int) -> dict[str, Any]:
    input_ids = torch.randint(3, 80, (2, 10))
    input_ids[:, :image_tokens] = IMAGE
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 8:] = 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}
