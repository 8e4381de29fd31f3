"""Chat templates of the kinds that there are, and tiny models that have them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlm_folders import byte_tokenizer, text_config

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The end of a turn is text, no token; the tokenizer's end token is not in the template.
PLAIN_TEXT = (
    "{% for message in messages %}### {{ message.role }}:\n{{ message.content }}\n### End\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)
# Qwen3's, in short: tools in the system turn, thoughts of the last answer only, be they empty.
QWEN3 = (
    "{%- set ns = namespace(last=0) -%}"
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}"
    "{%- if tools -%}{{ '<|im_start|>system\n' }}"
    "{%- if messages[0].role == 'system' -%}{{ messages[0].content + '\n\n' }}{%- endif -%}"
    "{{ '<tools>' }}{%- for tool in tools -%}{{ '\n' + (tool | tojson) }}{%- endfor -%}{{ '\n</tools><|im_end|>\n' }}"
    "{%- elif messages[0].role == 'system' -%}{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
    "{%- endif -%}"
    "{%- for m in messages -%}"
    "{%- if m.role == 'user' -%}{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' -%}"
    "{%- set content = m.content -%}{%- set thoughts = '' -%}"
    "{%- if '</think>' in content -%}"
    "{%- set thoughts = content.split('</think>')[0].split('<think>')[-1].strip('\n') -%}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') -%}"
    "{%- endif -%}"
    "{{ '<|im_start|>assistant\n' }}"
    "{%- if loop.index0 > ns.last -%}{{ '<think>\n' + thoughts + '\n</think>\n\n' }}{%- endif -%}"
    "{{ content + '<|im_end|>\n' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
ENDED_BY_TEMPLATE = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "start": "<|im_start|>"}
ENDED_BY_OTHER = {"pad_token": "<pad>", "eos_token": "<|endoftext|>"}
FULL_STOP = CHATML.replace("content }}", "content }}{{ '.' if message.role == 'assistant' }}")
TEMPLATES = {
    "qwen3": (QWEN3, ENDED_BY_TEMPLATE),
    "chatml": (CHATML, ENDED_BY_TEMPLATE),
    "chatml, its tokens unknown": (CHATML, ENDED_BY_OTHER),
    "plain text": (PLAIN_TEXT, ENDED_BY_OTHER),
    "full stop": (FULL_STOP, ENDED_BY_TEMPLATE),
}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def tokenizer_of(template: str | None, special: dict[str, str]) -> Any:
    """A tokenizer of single bytes with special tokens and a template."""
    tokenizer = byte_tokenizer(special | {"bos_token": "<s>"})
    tokenizer.chat_template = template
    return tokenizer


def for_parts(template: str) -> str:
    """A template of texts as one of parts, as processors have them."""
    joined = (
        "{% set flat = namespace(messages=[]) %}{% for m in messages %}{% set text %}{% for part in m.content %}"
        "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}{% endset %}"
        "{% set flat.messages = flat.messages + [{'role': m.role, 'content': text | string}] %}{% endfor %}"
        "{% set messages = flat.messages %}"
    )
    return joined + template


def build_chat_model(folder: Path, template: str | None, special: dict[str, str]) -> Path:
    """A tiny Llama whose tokenizer has a template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer_of(template, special)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**text_config(tokenizer))).save_pretrained(folder)
    return folder


def perfectly_tuned(module: Any) -> None:
    """Let a module's network generate just what it was taught to: the answers that the batch is supervised by."""
    import torch

    taught: list[Any] = []
    evaluated: Callable[..., Any] = module.predictions

    def predictions(batch: dict[str, Any]) -> dict[str, Any]:
        taught[:] = [labels[labels != -100] for labels in batch["inputs"]["labels"]]
        return evaluated(batch)

    def generate(input_ids: Any, pad_token_id: int, eos_token_id: list[int], **options: Any) -> Any:
        answers = [one.tolist() for one in taught]
        ended = [ids[: next(n for n, token in enumerate(ids) if token in eos_token_id) + 1] for ids in answers]
        width = max(map(len, ended))
        new = torch.tensor([[*ids, *[pad_token_id] * (width - len(ids))] for ids in ended])
        return type("Output", (), {"sequences": torch.cat([input_ids, new], 1)})

    module.predictions = predictions
    configure = module.configure_model

    def configure_model() -> None:
        configure()
        module.net.generate = generate

    module.configure_model = configure_model
