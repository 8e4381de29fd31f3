"""Make the models of bench_vlm.py: SmolVLM in three sizes, Qwen2.5-VL and Gemma 3 small, with processors of bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

_SCALE_FACTOR = 4
_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def smolvlm(side: int, text: dict[str, Any], vision: dict[str, Any]) -> tuple[Any, Any]:
    """Configuration and processor of an Idefics3 for pictures of one tile."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import (
        Idefics3Config,
        Idefics3ImageProcessorPil,
        Idefics3Processor,
        PreTrainedTokenizerFast,
    )

    named = {"unk_token": "<|endoftext|>", "bos_token": "<|im_start|>", "pad_token": "<|im_end|>"}
    named |= {"eos_token": "<end_of_utterance>"}
    others = ["<fake_token_around_image>", "<image>", "<global-img>"]
    symbols = [*named.values(), *others, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bpe = Tokenizer(BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **named, additional_special_tokens=others)
    size = {"size": {"longest_edge": side}, "max_image_size": {"longest_edge": side}, "do_image_splitting": False}
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(**size),
        tokenizer=tokenizer,
        image_seq_len=(side // vision["patch_size"] // _SCALE_FACTOR) ** 2,
        chat_template=_TEMPLATE,
    )
    ids = _ids(tokenizer)
    text = {"model_type": "llama", "vocab_size": len(tokenizer), "max_position_embeddings": 2048, **text, **ids}
    config = Idefics3Config(
        text_config={**text, "tie_word_embeddings": False},
        vision_config={**vision, "image_size": side},
        scale_factor=_SCALE_FACTOR,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
        **ids,
    )
    return config, processor


def qwen2_5_vl(side: int) -> tuple[Any, Any]:
    """Configuration and processor: Qwen2.5-VL-3B with widths an eighth, layers a sixth, and patches of 2 x 2 pixels."""
    import transformers as tf

    from vlm_family_folders import SPECIAL, byte_tokenizer, chat_template

    images = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    marks = {"start": "<|vision_start|>", "end": "<|vision_end|>"}
    tokenizer = byte_tokenizer(SPECIAL | images | marks, extra_special_tokens=images)
    sizes: dict[str, Any] = {"patch_size": 2, "size": {"shortest_edge": side * side, "longest_edge": side * side}}
    processor = tf.Qwen2_5_VLProcessor(
        tf.Qwen2VLImageProcessorPil(**sizes),
        tokenizer,
        tf.Qwen2VLVideoProcessor(**sizes),
        chat_template=chat_template("<|vision_start|><|image_pad|><|vision_end|>"),
    )
    text = {"hidden_size": 256, "intermediate_size": 1376, "num_hidden_layers": 6, "num_attention_heads": 8}
    text |= {"num_key_value_heads": 2, "vocab_size": 18992, "head_dim": 32}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
    vision = {"depth": 5, "hidden_size": 160, "intermediate_size": 428, "num_heads": 5, "patch_size": 2}
    vision |= {"out_hidden_size": 256, "window_size": 16, "fullatt_block_indexes": [2, 4]}
    config = tf.Qwen2_5_VLConfig(
        text_config={**text, **_ids(tokenizer), "rope_parameters": rope, "max_position_embeddings": 2048},
        vision_config=vision,
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in images.items()},
        **{f"vision_{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in marks.items()},
    )
    return config, processor


def gemma3(side: int) -> tuple[Any, Any]:
    """Configuration and processor: Gemma 3 4B with widths an eighth, layers a sixth, and half the patches on a side."""
    import transformers as tf

    from vlm_folders import byte_tokenizer

    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    images = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = byte_tokenizer(special | images, extra_special_tokens=images)
    from vlm_family_folders import chat_template

    processor = tf.Gemma3Processor(
        tf.Gemma3ImageProcessorPil(size={"height": side, "width": side}),
        tokenizer,
        chat_template=chat_template("<start_of_image>"),
        image_seq_length=64,
    )
    text = {"hidden_size": 320, "intermediate_size": 1280, "num_hidden_layers": 6, "num_attention_heads": 8}
    text |= {"num_key_value_heads": 4, "vocab_size": 32776, "head_dim": 32, "max_position_embeddings": 2048}
    vision = {"hidden_size": 144, "intermediate_size": 538, "num_hidden_layers": 5, "num_attention_heads": 16}
    names = {f"{name}_token_index": images[f"{name}_token"] for name in ("boi", "eoi", "image")}
    config = tf.Gemma3Config(
        text_config={**text, **_ids(tokenizer)},
        vision_config={**vision, "image_size": side, "patch_size": 2},
        mm_tokens_per_image=64,
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()},
    )
    return config, processor


def _ids(tokenizer: Any) -> dict[str, int]:
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}


# The side of the pictures, and what makes configuration and processor for them. Sizes of SmolVLM-256M are from its
# published configuration. ``eighth`` is the same made small: widths, sides and vocabulary an eighth, layers a sixth,
# and as many heads, patches and image tokens. ``tiny`` has a small tower.
SHAPES: dict[str, tuple[int, Callable[[int], tuple[Any, Any]]]] = {
    "qwen2_5_vl": (64, qwen2_5_vl),
    "gemma3": (64, gemma3),
    "tiny": (
        128,
        partial(
            smolvlm,
            text={"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4},
            vision={"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
            | {"patch_size": 8},
        ),
    ),
    "eighth": (
        64,
        partial(
            smolvlm,
            text={"hidden_size": 72, "intermediate_size": 192, "num_hidden_layers": 5, "num_attention_heads": 9}
            | {"num_key_value_heads": 3, "vocab_size": 6160},
            vision={"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 12}
            | {"patch_size": 2},
        ),
    ),
    "256m": (
        512,
        partial(
            smolvlm,
            text={"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
            | {"num_key_value_heads": 3, "vocab_size": 49280},
            vision={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
            | {"patch_size": 16},
        ),
    ),
}
