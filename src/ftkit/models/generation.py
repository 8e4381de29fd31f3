"""Generate greedy answers, many prompts at a time."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ftkit.models.base_model import plain_model
from ftkit.models.virtual_tokens import continued, has_virtual_tokens

# A checkpoint may recommend these for chatting (Qwen2.5: a repetition penalty), and then the likeliest token loses.
_AS_THE_MODEL_SAYS = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0, "min_new_tokens": None}
UNFINISHED = "…"  # behind an answer that met the limit of tokens before its end


class Answers(NamedTuple):
    """Hold generated answers, one entry for each prompt.

    Attributes:
        texts: The answers without special tokens and outer blanks; an unfinished one ends in ``UNFINISHED``.
        stopped: Whether the model ended the answer itself.
        first_states: What the output head read for the first token of each answer, behind its opening, (B, D); None if
            not asked for.
    """

    texts: list[str]
    stopped: list[bool]
    first_states: Tensor | None = None


def end_tokens(net: Any, tokenizer: Any) -> list[int]:
    """Return the ids of the tokens that end an answer: the tokenizer's, and those of the model's configuration."""
    configured = plain_model(net).generation_config.eos_token_id
    configured = configured if isinstance(configured, list) else [configured]
    return sorted({tokenizer.eos_token_id, *(token for token in configured if token is not None)})


def text_until_end(tokens: list[int], ends: Collection[int], tokenizer: Any) -> tuple[str, bool]:
    """Decode tokens up to the first end token, without special tokens; also return whether there is one.

    Blanks stay as they are: some tokenizers take away those before punctuation, and no answer with one could be right.
    """
    end = next((place for place, token in enumerate(tokens) if token in ends), None)
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    return tokenizer.decode(tokens[:end], **options), end is not None


@torch.no_grad()
def greedy_answers(
    net: Any,
    tokenizer: Any,
    inputs: dict[str, Any],
    max_new_tokens: int,
    openings: Sequence[list[int]] | None = None,
) -> Answers:
    """Continue each prompt with the likeliest token, until an end token or ``max_new_tokens``.

    Args:
        net: The model, plain or wrapped by peft; its adapters are at work.
        tokenizer: Its tokenizer.
        inputs: Left padded ``input_ids`` and ``attention_mask`` (B, T) int64, and what else the model takes.
        max_new_tokens: The limit.
        openings: The token ids that each answer may begin with, as the chat template has them written; what the output
            head reads behind them is kept, or what it reads first where the model writes something else. None keeps
            nothing.
    """
    ends = end_tokens(net, tokenizer)
    read: list[Tensor] = []
    with nullcontext() if openings is None else _head_watched(plain_model(net), read):
        new = _continued(
            net,
            inputs,
            do_sample=False,
            num_beams=1,
            **_AS_THE_MODEL_SAYS,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )
    texts, stopped = zip(*(_answer(tokens, ends, tokenizer) for tokens in new), strict=True)
    if openings is None:
        return Answers(list(texts), list(stopped))
    begun = [tokens[: len(opening)] == opening for tokens, opening in zip(new, openings, strict=True)]
    steps = [len(opening) if written else 0 for opening, written in zip(openings, begun, strict=True)]
    states = [read[step if step < len(read) else 0][row] for row, step in enumerate(steps)]
    return Answers(list(texts), list(stopped), torch.stack(states))


def _continued(net: Any, inputs: dict[str, Any], **options: Any) -> list[list[int]]:
    """Return the tokens behind each prompt: behind virtual tokens one by one, since padding would come between."""
    ids = inputs["input_ids"]
    if not has_virtual_tokens(net):
        written = plain_model(net).generate(**inputs, **options, return_dict_in_generate=True)
        return written.sequences[:, ids.shape[1] :].tolist()
    prompts = [row[seen.bool()][None] for row, seen in zip(ids, inputs["attention_mask"], strict=True)]
    return [continued(net, prompt, **options) for prompt in prompts]


@contextmanager
def _head_watched(model: Any, read: list[Tensor]) -> Iterator[None]:
    """Keep what the output head reads for each new token, (B, D)."""
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda head, states: read.append(states[0][:, -1])  # (B, T, D): T positions in the beginning, then 1
    )
    try:
        yield
    finally:
        hook.remove()


def _answer(tokens: list[int], ends: Collection[int], tokenizer: Any) -> tuple[str, bool]:
    text, ended = text_until_end(tokens, ends, tokenizer)
    return (text.strip(), True) if ended else (text.strip() + UNFINISHED, False)
