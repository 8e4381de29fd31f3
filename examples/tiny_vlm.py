"""A vision-language model of random weights, small enough to be trained on a CPU in a notebook, and pictures for it.

It knows nothing: it stands for a model such as SmolVLM, whose architecture it has, where there is no network.
"""

from pathlib import Path

import torch
import transformers as tf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

COLORS = {"red": (200, 30, 30), "blue": (30, 30, 200)}
SPECIAL = ["<|pad|>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>"]
CHAT = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def build(folder: str) -> str:
    """Write model and processor to a folder in transformers format, and return the folder."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate([*SPECIAL, *letters])}, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    named = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=False))
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=bpe, **named, additional_special_tokens=SPECIAL[3:], padding_side="left"
    )
    sizes = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}}
    image_processor = tf.Idefics3ImageProcessorPil(**sizes, do_image_splitting=False)
    tf.Idefics3Processor(
        image_processor=image_processor, tokenizer=tokenizer, image_seq_len=4, chat_template=CHAT
    ).save_pretrained(folder)
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    text = {**shape, **tokens, "num_key_value_heads": 1, "vocab_size": len(tokenizer), "max_position_embeddings": 256}
    config = tf.Idefics3Config(
        text_config={**text, "model_type": "llama", "tie_word_embeddings": False},
        vision_config={**shape, "hidden_size": 32, "image_size": 32, "patch_size": 8},
        scale_factor=2,
        image_token_id=SPECIAL.index("<image>"),
        tie_word_embeddings=False,
        **tokens,
    )
    draws = torch.Generator().manual_seed(1)
    model = tf.Idefics3ForConditionalGeneration(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:  # larger than usual: so few and narrow layers learn faster
            torch.nn.init.normal_(parameter, std=0.08, generator=draws)
    model.save_pretrained(folder)
    return folder


def draw(folder: str, count: int) -> list[tuple[str, str]]:
    """Draw pictures of one color each, in shades that differ; return their paths and colors."""
    draws = torch.Generator().manual_seed(2)
    Path(folder).mkdir(exist_ok=True)
    pictures = []
    for number in range(count):
        color = list(COLORS)[number % 2]
        noise = torch.randint(-25, 26, (32, 32, 3), generator=draws)
        pixels = (torch.tensor(COLORS[color]) + noise).clamp(0, 255).to(torch.uint8)
        path = f"{folder}/{number:03}.png"
        Image.fromarray(pixels.numpy()).save(path)
        pictures.append((path, color))
    return pictures
