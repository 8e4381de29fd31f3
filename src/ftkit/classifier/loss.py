"""The classifier's loss, and the divisor of its mean over a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ftkit.classifier.network import CLASSES


def class_loss(logits: Tensor, label: Tensor, class_weights: Tensor | None, ignore_index: int) -> Tensor:
    """Return the mean cross-entropy of a batch.

    Args:
        logits: (B, 2).
        label: (B,) int64.
        class_weights: (2,), the weight of each class in the mean; None weighs them the same.
        ignore_index: A label that the mean leaves out.

    Returns:
        A scalar; not a number where every label is left out.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0], [9.0, 9.0]])
        >>> class_loss(logits, torch.tensor([0, 1]), None, -100).exp()
        tensor(2.)
    """
    weights = None if class_weights is None else class_weights.to(logits)
    return F.cross_entropy(logits, label, weight=weights, ignore_index=ignore_index)


def summed_weight(label: Tensor, class_weights: Tensor | None, ignore_index: int) -> Tensor:
    """Return the divisor of the mean of :func:`class_loss`: the summed weights of the labels that count.

    Example:
        >>> summed_weight(torch.tensor([0, 1, 1, 7]), torch.tensor([3.0, 1.0]), 7)
        tensor(5.)
    """
    weights = torch.ones(CLASSES) if class_weights is None else class_weights
    return weights.to(label.device)[label[label != ignore_index]].sum()
