"""Token ids as padded batches: right padded to train on, left padded to generate from."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ftkit.errors import InputError
from ftkit.models.losses import IGNORE_INDEX

Spans = Sequence[tuple[int, int]]  # starts and stops


def padded(values: Sequence[Sequence[int]], padding: int, side: Literal["left", "right"] = "right") -> Tensor:
    """Return sequences of integers as one tensor (B, T) int64.

    Example:
        >>> padded([[5, 6], [7]], 0, "left").tolist()
        [[5, 6], [0, 7]]
    """
    tensors = [torch.tensor(one, dtype=torch.int64) for one in values]
    return pad_sequence(tensors, batch_first=True, padding_value=padding, padding_side=side)


def supervised_batch(
    examples: Sequence[tuple[list[int], list[int]]], pad_id: int, turns: Sequence[Spans] | None = None
) -> dict[str, Tensor]:
    """Return prompts with their answers as a right padded batch.

    Args:
        examples: Token ids of the prompt and of the answer, a pair an example.
        pad_id: Token id of the padding; it may be that of the end token.
        turns: Where in each example's prompt earlier supervised turns stand; None for none.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each (B, T) int64; labels are -100 except at the answer and at
        those turns.

    Raises:
        InputError: An example has no supervised token, or no other.

    Example:
        >>> supervised_batch([([5, 6], [7, 2]), ([5], [2])], pad_id=2)["labels"].tolist()
        [[-100, -100, 7, 2], [-100, 2, -100, -100]]
    """
    input_ids, labels = [], []
    for (prompt, answer), spans in zip(examples, turns or [()] * len(examples), strict=True):
        if not answer:
            raise InputError("an example has no supervised token: nothing would be trained on it", got=prompt)
        if not prompt:
            raise InputError("all tokens of an example are supervised: the prompt is empty", got=answer)
        ids = [*prompt, *answer]
        supervised = [IGNORE_INDEX] * len(ids)
        for start, stop in (*spans, (len(prompt), len(ids))):
            supervised[start:stop] = ids[start:stop]
        input_ids.append(ids)
        labels.append(supervised)
    mask = padded([[1] * len(ids) for ids in input_ids], 0)
    return {"input_ids": padded(input_ids, pad_id), "attention_mask": mask, "labels": padded(labels, IGNORE_INDEX)}


def prompt_batch(prompts: Sequence[list[int]], pad_id: int) -> dict[str, Tensor]:
    """Return prompts as a left padded batch, to generate from: ``input_ids`` and ``attention_mask``, each (B, T) int64.

    Example:
        >>> prompt_batch([[5, 6], [7]], pad_id=0)["attention_mask"].tolist()
        [[1, 1], [0, 1]]
    """
    mask = padded([[1] * len(prompt) for prompt in prompts], 0, "left")
    return {"input_ids": padded(prompts, pad_id, "left"), "attention_mask": mask}
