"""The classifier's loss, and the divisor of its mean over a batch."""

import torch
from torch import Tensor
from torch.nn import functional as F


def class_loss(
    logits: Tensor, label: Tensor, class_weights: Tensor | None, ignore_index: int, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy of a batch, a scalar; not a number where every label is left out.

    Args:
        logits: (B, C).
        label: (B,) int64.
        class_weights: (C,), the weight of each class in the mean; None weighs them the same.
        ignore_index: A label that the mean leaves out.
        label_smoothing: Share of the target that is spread evenly over all classes, in [0, 1).
    """
    weights = None if class_weights is None else class_weights.to(logits)
    return F.cross_entropy(logits, label, weight=weights, ignore_index=ignore_index, label_smoothing=label_smoothing)


def summed_weight(label: Tensor, class_weights: Tensor | None, ignore_index: int) -> Tensor:
    """Return the divisor of the mean of :func:`class_loss`: the summed weights of the labels that count.

    Example:
        >>> summed_weight(torch.tensor([0, 1, 1, 7]), torch.tensor([3.0, 1.0]), 7)
        tensor(5.)
    """
    counted = label[label != ignore_index]
    if class_weights is None:
        return torch.ones_like(counted, dtype=torch.float32).sum()
    return class_weights.to(label.device)[counted].sum()


def balanced_weights(label: Tensor, classes: int) -> Tensor:
    """Return the weight of each class, N / (C x its examples), (C,) float32: 1 on average.

    Args:
        label: (N,) int64, those of the training examples.
        classes: C.

    Example:
        >>> balanced_weights(torch.tensor([0, 0, 0, 1]), 2)
        tensor([0.6667, 2.0000])
    """
    return len(label) / (classes * label.bincount(minlength=classes).float())
