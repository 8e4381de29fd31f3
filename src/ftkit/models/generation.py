"""Greedy answers of a generative model, many prompts at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ftkit.models.base_model import plain_model

# A checkpoint may recommend these for chatting (Qwen2.5: a repetition penalty), and then the likeliest token loses.
_AS_THE_MODEL_SAYS = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0, "min_new_tokens": None}
UNFINISHED = "…"  # behind an answer that met the limit of tokens before its end


class Answers(NamedTuple):
    """What a model wrote, one entry a prompt.

    Attributes:
        texts: The answers without special tokens and outer blanks; an unfinished one ends in ``UNFINISHED``.
        stopped: Whether the model ended the answer itself.
        first_states: What the output head read for each answer's first token, (B, D); None if not asked for.
    """

    texts: list[str]
    stopped: list[bool]
    first_states: Tensor | None = None


def end_tokens(net: Any, tokenizer: Any) -> list[int]:
    """Ids of the tokens that end an answer: the tokenizer's, and those that the model's configuration adds."""
    configured = plain_model(net).generation_config.eos_token_id
    configured = configured if isinstance(configured, list) else [configured]
    return sorted({tokenizer.eos_token_id, *(token for token in configured if token is not None)})


@torch.no_grad()
def greedy_answers(
    net: Any, tokenizer: Any, inputs: dict[str, Any], max_new_tokens: int, first_states: bool = False
) -> Answers:
    """Go on from each prompt with the likeliest token, until an end token or ``max_new_tokens``.

    Args:
        net: The model, plain or wrapped by peft; its adapters are at work.
        tokenizer: Its tokenizer.
        inputs: Left padded ``input_ids`` and ``attention_mask`` (B, T) int64, and what else the model takes.
        max_new_tokens: The limit.
        first_states: Keep what the output head reads for each answer's first token.
    """
    ends = end_tokens(net, tokenizer)
    read: list[Tensor] = []
    with _head_watched(plain_model(net), read) if first_states else nullcontext():
        written = plain_model(net).generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            **_AS_THE_MODEL_SAYS,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
            return_dict_in_generate=True,
        )
    new = written.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    texts, stopped = zip(*(_answer(tokens, ends, tokenizer) for tokens in new), strict=True)
    return Answers(list(texts), list(stopped), read[0][:, -1] if first_states else None)


@contextmanager
def _head_watched(model: Any, read: list[Tensor]) -> Iterator[None]:
    """Keep what the output head reads (B, T, D) when it runs for the first time."""
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda head, states: None if read else read.extend(states)
    )
    try:
        yield
    finally:
        hook.remove()


def _answer(tokens: list[int], ends: Collection[int], tokenizer: Any) -> tuple[str, bool]:
    end = next((place for place, token in enumerate(tokens) if token in ends), None)
    text = tokenizer.decode(tokens[:end], skip_special_tokens=True).strip()
    return (text + UNFINISHED, False) if end is None else (text, True)
