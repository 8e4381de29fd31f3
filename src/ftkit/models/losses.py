"""Compute losses over supervised tokens without ever holding the logits of the others."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

IGNORE_INDEX = -100
CHUNK = 1024  # positions whose logits exist at a time: 200 MB of them for a vocabulary of 50,000

Head = Callable[[Tensor], Tensor]


class SupervisedLogProbs(NamedTuple):
    """Hold the log-probabilities of a batch's supervised next tokens, float32 ``(N,)``, in the order of the tokens.

    The ``sequence`` that each belongs to is int64 ``(N,)``.
    """

    log_probs: Tensor
    sequence: Tensor


def supervised_log_probs(hidden: Tensor, labels: Tensor, head: Head) -> SupervisedLogProbs:
    """Return the log-probabilities of the supervised tokens, each given what stands before it.

    The head runs only at positions whose next label is supervised. That is exact, and where a prompt or an image is
    long it saves most of the memory and time of a large vocabulary. Beyond ``CHUNK`` of them their logits are made,
    and in the backward pass made again, a chunk at a time.

    Args:
        hidden: The last hidden states (B, T, D).
        labels: int64 (B, T); ``IGNORE_INDEX`` where a token is not supervised. The label of a position is the token at
            that position, as in transformers: position t predicts ``labels[:, t + 1]``.
        head: Maps hidden states (N, D) to logits (N, V).

    Example:
        >>> hidden = torch.eye(3)[None]  # a sequence of three positions; the head is the identity
        >>> found = supervised_log_probs(hidden, torch.tensor([[0, IGNORE_INDEX, 1]]), head=lambda states: states)
        >>> found.sequence.tolist(), [round(value, 4) for value in found.log_probs.exp().tolist()]
        ([0], [0.5761])
    """
    sequence, position, target = supervised_tokens(labels)
    return SupervisedLogProbs(target_log_probs(hidden[sequence, position], target, head), sequence)


def supervised_tokens(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the supervised tokens are predicted, sequence by sequence and in the order of the tokens.

    Args:
        labels: int64 (B, T), see :func:`supervised_log_probs`.

    Returns:
        int64 (N,) each: the sequence, the position that predicts the token, which is the one before it, and the token.

    Example:
        >>> [found.tolist() for found in supervised_tokens(torch.tensor([[-100, 7, 2], [-100, -100, 3]]))]
        [[0, 0, 1], [0, 1, 1], [7, 2, 3]]
    """
    following = labels[:, 1:]
    sequence, position = (following != IGNORE_INDEX).nonzero(as_tuple=True)
    return sequence, position, following[sequence, position]


def target_log_probs(states: Tensor, target: Tensor, head: Head) -> Tensor:
    """Return the log-probabilities of given tokens (N,) float32, each at a position of its own.

    Args:
        states: Hidden states (N, D).
        target: int64 (N,).
        head: Maps hidden states (N, D) to logits (N, V).
    """
    if len(target) <= CHUNK:
        return _log_probs(states, target, head)
    chunks = zip(states.split(CHUNK), target.split(CHUNK), strict=True)
    if torch.is_grad_enabled():
        parts = [checkpoint(_log_probs, part, tokens, head, use_reentrant=False) for part, tokens in chunks]
    else:
        parts = [_log_probs(part, tokens, head) for part, tokens in chunks]
    return torch.cat(parts)


def token_loss(log_probs: Tensor) -> tuple[Tensor, int]:
    """Return the summed negative log-likelihood of supervised tokens, and their number, of log-probabilities ``(N,)``.

    A mean over micro-batches of means would weigh a token by the company it happens to be in; sums add up.
    """
    return -log_probs.sum(), log_probs.numel()


def sequence_log_probs(log_probs: Tensor, sequence: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return the log-probability (B,) of each sequence's supervised tokens together, and their numbers (B,) int64.

    Both are zero where a sequence has none.

    Args:
        log_probs: ``(N,)`` of :func:`supervised_log_probs`.
        sequence: int64 ``(N,)``, which sequence each belongs to.
        batch_size: The number of sequences B.

    Example:
        >>> sequence_log_probs(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([0, 0, 2]), batch_size=3)
        (tensor([-3.,  0., -4.]), tensor([2, 0, 1]))
    """
    sums = log_probs.new_zeros(batch_size).index_add(0, sequence, log_probs)
    counts = sequence.new_zeros(batch_size).index_add(0, sequence, torch.ones_like(sequence))
    return sums, counts  # bincount would wait for the device


def _log_probs(states: Tensor, target: Tensor, head: Head) -> Tensor:
    return -F.cross_entropy(head(states).float(), target, reduction="none")
