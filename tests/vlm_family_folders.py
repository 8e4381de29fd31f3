"""Tiny models of further families with real processors, as folders in transformers format."""

from pathlib import Path
from typing import Any

from vlm_folders import IMAGE_SIZE, PATCH, VISION_WIDTH, WIDTH, byte_tokenizer, randomised, text_config, vision_config

SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}


def chat_template(image: str) -> str:
    """A template in which an answer begins behind ``assistant: `` and ends with the end token."""
    return (
        "{% for message in messages %}{{ '<bos>' + message['role'] }}: {% for part in message['content'] %}"
        f"{{{{ '{image}' if part['type'] == 'image' else part['text'] }}}}{{% endfor %}}"
        "{{ '<eos>' if message['role'] == 'assistant' }}{% endfor %}"
        "{{ '<bos>assistant: ' if add_generation_prompt }}"
    )


def build_llava(folder: Path) -> Path:
    """A tiny LLaVA-1.5: a CLIP tower whose first vector is left out, 16 tokens a picture."""
    import transformers as tf

    tokenizer = byte_tokenizer(SPECIAL | {"image_token": "<image>"})
    square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    image_processor = tf.CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=square)
    tf.LlavaProcessor(
        image_processor, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=chat_template("<image>"),
    ).save_pretrained(folder)  # fmt: skip
    config = tf.LlavaConfig(
        text_config=text_config(tokenizer, model_type="llama"),
        vision_config=vision_config(model_type="clip_vision_model", projection_dim=VISION_WIDTH),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
    )
    randomised(tf.LlavaForConditionalGeneration(config)).save_pretrained(folder)
    return folder


def build_llava_onevision(folder: Path) -> Path:
    """A tiny LLaVA-OneVision: a picture alone is cut into up to two crops."""
    import transformers as tf

    tokenizer = byte_tokenizer(SPECIAL | {"image_token": "<image>", "video_token": "<video>"})
    sides: dict[str, Any] = {
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "image_grid_pinpoints": [[IMAGE_SIZE, IMAGE_SIZE], [IMAGE_SIZE, 2 * IMAGE_SIZE], [2 * IMAGE_SIZE, IMAGE_SIZE]],
    }
    tf.LlavaOnevisionProcessor(
        tf.LlavaOnevisionImageProcessorPil(**sides), tokenizer, tf.LlavaOnevisionVideoProcessor(size=sides["size"]),
        num_image_tokens=(IMAGE_SIZE // PATCH) ** 2, vision_feature_select_strategy="full",
        chat_template=chat_template("<image>"),
    ).save_pretrained(folder)  # fmt: skip
    config = tf.LlavaOnevisionConfig(
        text_config=text_config(tokenizer, model_type="qwen2"),
        vision_config=vision_config(model_type="siglip_vision_model", vision_use_head=False),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=sides["image_grid_pinpoints"],
    )
    randomised(tf.LlavaOnevisionForConditionalGeneration(config)).save_pretrained(folder)
    return folder


def build_qwen(folder: Path, family: str = "Qwen2_5_VL") -> Path:
    """A tiny Qwen2.5-VL, or another of its line: as many tokens as a picture has squares of 16 x 16, at least 4."""
    import transformers as tf

    images = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    marks = {"start": "<|vision_start|>", "end": "<|vision_end|>"}
    tokenizer = byte_tokenizer(SPECIAL | images | marks, extra_special_tokens=images)
    sides: dict[str, Any] = {"patch_size": PATCH, "size": {"shortest_edge": 32 * 32, "longest_edge": 48 * 48}}
    video = tf.Qwen3VLVideoProcessor if family == "Qwen3VL" else tf.Qwen2VLVideoProcessor
    template = chat_template("<|vision_start|><|image_pad|><|vision_end|>")
    getattr(tf, f"{family}Processor")(
        tf.Qwen2VLImageProcessorPil(**sides), tokenizer, video(**sides), chat_template=template
    ).save_pretrained(folder)
    tower = {"depth": 2, "hidden_size": VISION_WIDTH, "intermediate_size": 64, "num_heads": 2, "patch_size": PATCH}
    own = {"fullatt_block_indexes": [1], "window_size": 32}
    if family == "Qwen3VL":
        own = {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    if family == "Qwen2VL":
        tower, own = (
            {"depth": 2, "embed_dim": VISION_WIDTH, "num_heads": 2, "patch_size": PATCH},
            {"hidden_size": WIDTH},
        )
    config = getattr(tf, f"{family}Config")(
        text_config=text_config(tokenizer, head_dim=32, rope_parameters=MROPE),
        vision_config={"out_hidden_size": WIDTH, **tower, **own},
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in images.items()},
        **{f"vision_{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in marks.items()},
    )
    randomised(getattr(tf, f"{family}ForConditionalGeneration")(config)).save_pretrained(folder)
    return folder
