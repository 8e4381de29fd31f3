"""Tiny image-text models with processors as folders, and pictures with questions."""

import json
from pathlib import Path
from typing import Any

WIDTH, VISION_WIDTH, IMAGE_SIZE, PATCH = 64, 32, 32, 8
ANSWERS = ("red", "green", "blue")
# SmolVLM's own template in short: the generation prompt is what stands before every answer.
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def byte_tokenizer(special: dict[str, str], **options: Any) -> Any:
    """A tokenizer of single bytes with the special tokens given by their parts, in this order."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    symbols = [*special.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    named = {part: token for part, token in special.items() if part.endswith("_token")}
    others = [token for part, token in special.items() if not part.endswith("_token")]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **named, additional_special_tokens=others, padding_side="left", **options
    )


def chat_tokenizer() -> Any:
    places = {f"row{row}{column}": f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)}
    special = {"unk_token": "<|endoftext|>", "bos_token": "<|im_start|>", "pad_token": "<|im_end|>"}
    special |= {"eos_token": "<end_of_utterance>", "fake": "<fake_token_around_image>", "image": "<image>"}
    return byte_tokenizer(special | {"global": "<global-img>"} | places)


def randomised(model: Any) -> Any:
    """Every parameter random, norms and biases too, so that leaving one out shows."""
    import torch

    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        is_scale = "norm" in name and name.endswith("weight") and "gemma" not in type(model).__name__.lower()
        torch.nn.init.normal_(parameter, mean=float(is_scale), std=0.15, generator=generator)
    return model


def to_be_trained(model: Any) -> Any:
    """Matrices large enough that a small model of few layers learns in minutes; the usual 0.02 suits wide ones."""
    import torch

    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.08, generator=generator)
    return model


def vision_config(**options: Any) -> dict[str, Any]:
    shape = {"hidden_size": VISION_WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {**shape, "image_size": IMAGE_SIZE, "patch_size": PATCH, **options}


def text_config(tokenizer: Any, **options: Any) -> dict[str, Any]:
    shape = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    shape |= {"num_key_value_heads": 1, "max_position_embeddings": 512, "vocab_size": len(tokenizer)}
    return {**shape, **ids, **options}


def build_idefics3(folder: Path, smolvlm: bool = False, tiles: int = 2, spread: bool = True) -> Path:
    """A tiny Idefics3, or SmolVLM, whose processor cuts a picture into up to ``tiles`` x ``tiles`` tiles.

    Its weights are spread out, so that mistakes show, or else initialised to be trained.
    """
    import transformers as tf

    family = "SmolVLM" if smolvlm else "Idefics3"
    tokenizer = chat_tokenizer()
    size = {"size": {"longest_edge": tiles * IMAGE_SIZE}, "max_image_size": {"longest_edge": IMAGE_SIZE}}
    image_processor = getattr(tf, f"{family}ImageProcessorPil")(**size, do_image_splitting=tiles > 1)
    parts = {"image_processor": image_processor, "tokenizer": tokenizer, "image_seq_len": 4}
    if smolvlm:
        from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

        parts["video_processor"] = SmolVLMVideoProcessor(**size)
    getattr(tf, f"{family}Processor")(**parts, chat_template=CHAT_TEMPLATE).save_pretrained(folder)
    config = getattr(tf, f"{family}Config")(
        text_config=text_config(tokenizer, model_type="llama", tie_word_embeddings=False),
        vision_config=vision_config(),
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")},
    )
    model = getattr(tf, f"{family}ForConditionalGeneration")(config)
    (randomised if spread else to_be_trained)(model).save_pretrained(folder)
    return folder


def build_paligemma(folder: Path, gemma2: bool = False) -> Path:
    """A tiny PaliGemma, or PaliGemma 2 with a short sliding window: 4 tokens a picture of 16 x 16."""
    import transformers as tf

    own = {"model_type": "gemma2", "sliding_window": 8} if gemma2 else {"model_type": "gemma"}
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    tokenizer = byte_tokenizer(special)
    image_processor = tf.SiglipImageProcessorPil(size={"height": 16, "width": 16})
    image_processor.image_seq_length = (16 // PATCH) ** 2
    processor = tf.PaliGemmaProcessor(image_processor=image_processor, tokenizer=tokenizer)
    processor.save_pretrained(folder)
    config = tf.PaliGemmaConfig(
        text_config=text_config(tokenizer, **own, head_dim=32),
        vision_config=vision_config(model_type="siglip_vision_model", image_size=16, projection_dim=WIDTH),
        projection_dim=WIDTH,
        hidden_size=WIDTH,
        image_token_index=processor.image_token_id,
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")},
    )
    randomised(tf.PaliGemmaForConditionalGeneration(config)).save_pretrained(folder)
    return folder


def build_gemma3(folder: Path) -> Path:
    """A tiny Gemma 3, a family that nothing here knows by name but for its token types: 4 tokens a picture."""
    import transformers as tf

    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    images = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = byte_tokenizer(special | images, extra_special_tokens=images)
    image_processor = tf.Gemma3ImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    template = (
        "{% for message in messages %}{{ '<bos>' + message['role'] }}: {% for part in message['content'] %}"
        "{{ '<start_of_image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
        "{{ '<eos>' if message['role'] == 'assistant' }}{% endfor %}"
        "{{ '<bos>assistant: ' if add_generation_prompt }}"
    )
    processor = tf.Gemma3Processor(image_processor, tokenizer, chat_template=template, image_seq_length=4)
    processor.save_pretrained(folder)
    config = tf.Gemma3Config(
        text_config=text_config(tokenizer, head_dim=32),
        vision_config=vision_config(),
        mm_tokens_per_image=4,
        **{
            f"{name}_token_index": tokenizer.convert_tokens_to_ids(images[f"{name}_token"])
            for name in ("boi", "eoi", "image")
        },
    )
    randomised(tf.Gemma3ForConditionalGeneration(config)).save_pretrained(folder)
    return folder


def draw_pictures(folder: Path) -> None:
    """Six pictures of one colour each, which differ in size and so in tiles."""
    from PIL import Image

    sizes = ((32, 32), (64, 20), (20, 64), (64, 64), (64, 32), (33, 50))
    for number, size in enumerate(sizes):
        colour = tuple(255 * (channel == number % 3) for channel in range(3))
        Image.new("RGB", size, colour).save(folder / f"{number}.png")


def row_about(shape: str, number: int) -> dict[str, Any]:
    """A row on the drawn pictures, whose colour is the answer; for the shapes see the fixture ``vlm_examples``."""
    names, answer = [f"{number % 6}.png"], ANSWERS[number % 3]
    question = "What colour?" if number % 4 else "Which colour is this?"
    if shape == "prefix":
        return {"id": f"p{number}", "prefix": question, "suffix": answer, "image": names[0]}
    if number % 4 == 3:
        names.append(f"{(number + 1) % 6}.png")
    asked = [{"role": "user", "content": question}]
    if shape == "preference":
        wrong = ANSWERS[(number + 1) % 3]
        return {"id": f"d{number}", "prompt": asked, "chosen": answer, "rejected": wrong, "images": names}
    told = {"role": "assistant", "content": answer}
    return {"id": f"m{number}", "messages": [*asked, told], "images": names, "kind": f"k{number % 2}"}


def write_rows(folder: Path, shape: str) -> Path:
    """Write 12 rows about the pictures of a folder as JSON lines into it."""
    path = folder / f"{shape}.jsonl"
    path.write_text("".join(f"{json.dumps(row_about(shape, number))}\n" for number in range(12)), encoding="utf-8")
    return path
