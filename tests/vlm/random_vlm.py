"""Random models of each family and batches for them, made without a processor."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    Gemma3Config,
    Idefics3Config,
    LlavaConfig,
    LlavaOnevisionConfig,
    PaliGemmaConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    SmolVLMConfig,
)

from ftkit.models.vision_families import family_of, vision_parts

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
FAMILIES = ["idefics3", "smolvlm", "paligemma", "paligemma2", "gemma3", "llava", "qwen2_5_vl", "qwen3_vl"]
SHARING = ["idefics3", "smolvlm", "paligemma", "paligemma2", "llava"]  # those that run both answers behind one prompt
ALL_FAMILIES = [*FAMILIES, "llava_onevision"]  # its features are not cached
# PaliGemma 2: every other layer sees a window that is shorter than the examples here, and caps keep logits small.
GEMMA2 = {"sliding_window": 8, "attn_logit_softcapping": 1.0, "final_logit_softcapping": 1.0}
_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
_CROPS = {"image_grid_pinpoints": [[32, 32], [32, 64], [64, 32]]}


def frozen(family: str, seed: int = 0, text: dict[str, Any] | None = None, **vision: Any) -> Any:
    """A random model in training mode whose vision tower and connector do not learn."""
    torch.manual_seed(seed)
    net = AutoModelForImageTextToText.from_config(_config(family, text or {}, vision))
    if family.startswith("qwen"):  # their towers begin so small that an image hardly counts
        for parameter in net.model.visual.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
    if family == "gemma3":
        nn.init.normal_(net.model.multi_modal_projector.mm_input_projection_weight, std=0.3)
    for parameter in net.model.parameters(recurse=False):
        parameter.requires_grad_(False)
    for part in vision_parts(net):
        part.requires_grad_(False)
    return net.train()


def _config(family: str, text: dict[str, Any], vision: dict[str, Any]) -> Any:
    sides = {**VISION, "image_size": 32, "patch_size": 8, **vision}
    if family.startswith("paligemma"):
        gemma = {"model_type": "gemma"} if family == "paligemma" else {"model_type": "gemma2", **GEMMA2}
        text = {**TEXT, **gemma, "head_dim": 16, **text}
        return PaliGemmaConfig(text_config=text, vision_config=sides, image_token_id=IMAGE, projection_dim=32)
    if family == "gemma3":
        shapes = {"text_config": {**TEXT, "head_dim": 16, **text}, "vision_config": sides}
        return Gemma3Config(**shapes, mm_tokens_per_image=4, image_token_index=IMAGE)
    if family.startswith("llava"):
        kind, own = (LlavaConfig, {}) if family == "llava" else (LlavaOnevisionConfig, _CROPS)
        tower = {"model_type": "siglip_vision_model", "vision_use_head": False, **sides}
        name = "llama" if family == "llava" else "qwen2"
        shapes = {"text_config": {**TEXT, "model_type": name, **text}, "vision_config": tower}
        return kind(
            **shapes, image_token_index=IMAGE, vision_feature_select_strategy="full", vision_feature_layer=-1, **own
        )
    if family.startswith("qwen"):
        tower = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8}
        tower |= {"out_hidden_size": 32, "spatial_merge_size": 2}
        own = {"fullatt_block_indexes": [1], "window_size": 32}
        if family == "qwen3_vl":
            own = {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
        shapes = {
            "text_config": {**TEXT, "head_dim": 16, **_MROPE, **text},
            "vision_config": {**tower, **own, **vision},
        }
        kind = {"qwen2_5_vl": Qwen2_5_VLConfig, "qwen3_vl": Qwen3VLConfig}[family]
        return kind(**shapes, image_token_id=IMAGE, video_token_id=4, vision_start_token_id=3)
    return {"idefics3": Idefics3Config, "smolvlm": SmolVLMConfig}[family](
        text_config={**TEXT, "model_type": "llama", "tie_word_embeddings": False, **text},
        vision_config=sides,
        scale_factor=2,
        image_token_id=IMAGE,
    )


def _images(family: str, generator: torch.Generator) -> tuple[list[list[int]], dict[str, Tensor]]:
    """The tokens of each image of two examples, and the tensors of all images."""
    if family in ("idefics3", "smolvlm"):
        pixels = torch.randn(2, 2, 3, 32, 32, generator=generator)
        mask = torch.ones(2, 2, 32, 32, dtype=torch.int64)
        mask[0, 1, 16:], pixels[0, 1, :, 16:] = 0, 0
        mask[1, 1], pixels[1, 1] = 0, 0
        return [[4, 4], [4]], {"pixel_values": pixels, "pixel_attention_mask": mask}
    if family.startswith("qwen"):
        grids = torch.tensor([[1, 4, 2], [1, 2, 2], [1, 2, 4]])
        pixels = torch.randn(20, 3 * 2 * 8 * 8, generator=generator)
        return [[2, 1], [2]], {"pixel_values": pixels, "image_grid_thw": grids}
    if family == "llava_onevision":  # one example with an image cut into crops, one with an image of one crop
        pixels = torch.randn(2, 3, 3, 32, 32, generator=generator)
        pixels[0, 2] = 0
        sizes, counts = torch.tensor([[32, 32], [32, 64]]), torch.tensor([1, 1])
        return [[36], [52]], {"pixel_values": pixels, "image_sizes": sizes, "batch_num_images": counts}
    tokens = 4 if family == "gemma3" else 16
    return [[tokens], [tokens]], {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator)}


def batch(family: str, seed: int = 0) -> dict[str, Tensor]:
    """Two examples, the first with two tiles where a family has them; of Idefics3 one of them is half padding."""
    generator = torch.Generator().manual_seed(seed)
    images, extra = _images(family, generator)
    # Images of an example are told apart by the text between them.
    prompts = [
        [1, *(token for tokens in example for token in [3] * family.startswith("qwen") + [IMAGE] * tokens)]
        for example in images
    ]
    width = max(map(len, prompts)) + 5
    input_ids = torch.full((2, width), PAD)
    attention_mask = torch.zeros(2, width, dtype=torch.int64)
    for example, prompt in enumerate(prompts):
        text = torch.randint(6, VOCAB, (4 + example,), generator=generator)
        ids = torch.cat([torch.tensor(prompt), text])
        input_ids[example, : len(ids)], attention_mask[example, : len(ids)] = ids, 1
    extra |= token_types(family, input_ids)
    if family.startswith("paligemma"):
        extra["token_type_ids"][:, 19:] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, **extra}


def token_types(family: str, input_ids: Tensor) -> dict[str, Tensor]:
    """The family's values of tokens, where all is a prompt."""
    names = family_of(_config(family, {}, {})).answer_values
    images = (input_ids == IMAGE).long() * (not family.startswith("paligemma"))
    return dict.fromkeys(names, images)


def image_tensors(family: str) -> tuple[str, ...]:
    """The names of the family's tensors of images."""
    return family_of(_config(family, {}, {})).images.tensors


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
    types = token_types(family, inputs["input_ids"])
    text = {
        name: torch.full((4, width), -100 if name == "labels" else 0)
        for name in ["input_ids", "attention_mask", "labels", *types]
    }
    for example, (prompt, answer) in enumerate(examples):
        start, end = len(prompt), len(prompt) + len(answer)
        text["input_ids"][example, :end] = torch.cat([prompt, answer])
        text["attention_mask"][example, :end] = 1
        text["labels"][example, start:end] = answer
        for name in types:
            text[name][example, :start] = types[name][example % 2][:start]
            text[name][example, start:end] = int(family.startswith("paligemma"))
    return {**text, **{name: value for name, value in inputs.items() if name not in text}}
