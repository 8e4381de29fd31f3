"""Pooling: which hidden state of a sequence is classified."""

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["first", "last", "last_real", "mean", "mean_real"]


def real_tokens(length: Tensor, positions: int) -> Tensor:
    """Mark the real tokens of right-padded sequences, of ``length`` (B,) int64: 1, and 0 for padding, (B, T) int64.

    Example:
        >>> real_tokens(torch.tensor([1, 3]), 3).tolist()
        [[1, 0, 0], [1, 1, 1]]
    """
    return (torch.arange(positions, device=length.device) < length[:, None]).long()


def pool(hidden: Tensor, length: Tensor, pooling: Pooling) -> Tensor:
    """Reduce right-padded hidden states to one vector a sequence.

    Args:
        hidden: Hidden states (B, T, D).
        length: Number of real tokens, at least 1, (B,) int64. It comes from the tokenizer, never from comparing ids
            with the padding id: a text may hold that id itself.
        pooling: ``first``, ``last`` (padding or not), ``last_real`` (the published table calls it flexible), ``mean``
            over all positions, or ``mean_real`` over the real tokens.

    Returns:
        The pooled hidden states (B, D).

    Example:
        >>> hidden = torch.tensor([[[1.0], [2.0], [6.0]]])
        >>> [pool(hidden, torch.tensor([2]), how).item() for how in ("first", "last", "last_real", "mean", "mean_real")]
        [1.0, 6.0, 2.0, 3.0, 1.5]
    """
    if pooling == "first":
        return hidden[:, 0]
    if pooling == "last":
        return hidden[:, -1]
    if pooling == "last_real":
        return hidden[torch.arange(len(hidden), device=hidden.device), length - 1]
    if pooling == "mean":
        return hidden.mean(dim=1)
    weights = real_tokens(length, hidden.shape[1])[..., None].to(hidden.dtype)  # (B, T, 1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def unpadded(pooling: Pooling) -> Pooling:
    """Return the pooling that gives the same result for texts without padding, also in a padded batch.

    All positions of such a text are real tokens: its last one is its last real one.

    Example:
        >>> [unpadded(how) for how in ("first", "last", "mean")]
        ['first', 'last_real', 'mean_real']
    """
    renamed: dict[Pooling, Pooling] = {"last": "last_real", "mean": "mean_real"}
    return renamed.get(pooling, pooling)


def pooled_position(length: Tensor, positions: int, pooling: Pooling) -> Tensor | None:
    """Return the one position that :func:`pool` reads, (B,) int64; None if it averages.

    Example:
        >>> [pooled_position(torch.tensor([2, 3]), 4, how).tolist() for how in ("first", "last", "last_real")]
        [[0, 0], [3, 3], [1, 2]]
    """
    if pooling == "first":
        return torch.zeros_like(length)
    if pooling == "last":
        return torch.full_like(length, positions - 1)
    return length - 1 if pooling == "last_real" else None


def needed_positions(length: Tensor, positions: int, pooling: Pooling, causal_mask: bool, mask_padding: bool) -> Tensor:
    """Return how many of the first positions of each sequence can change the pooled vector, (B,) int64 from 1 to T.

    Example:
        >>> needed_positions(torch.tensor([2, 3]), 4, "last_real", causal_mask=True, mask_padding=False).tolist()
        [2, 3]
    """
    if reads_padding(pooling, causal_mask, mask_padding):
        return torch.full_like(length, positions)
    return torch.ones_like(length) if pooling == "first" and causal_mask else length


def reads_padding(pooling: Pooling, causal_mask: bool, mask_padding: bool) -> bool:
    """Return whether right padding can change the pooled vector.

    Example:
        >>> reads_padding("last_real", causal_mask=True, mask_padding=False)
        False
        >>> reads_padding("last_real", causal_mask=False, mask_padding=False)
        True
    """
    if pooling in ("last", "mean"):
        return True
    return not (causal_mask or mask_padding)
