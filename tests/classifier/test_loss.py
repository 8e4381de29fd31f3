"""The classifier's loss in numbers worked by hand."""

import math

import pytest
import torch
from torch import Tensor

from ftkit.classifier.loss import class_loss, summed_weight

# Probabilities of the two classes: (1/2, 1/2), (1/4, 3/4), (1/5, 4/5).
LOGITS = torch.tensor([[0.0, 0.0], [0.0, math.log(3)], [0.0, math.log(4)]])


@pytest.mark.parametrize(
    ("label", "class_weights", "ignore_index", "parts", "divisor"),
    [
        ([0, 1, 0], None, -100, [math.log(2), math.log(4 / 3), math.log(5)], 3.0),
        ([0, 1, 0], [3.0, 1.0], -100, [3 * math.log(2), math.log(4 / 3), 3 * math.log(5)], 7.0),
        ([0, 1, 9], None, 9, [math.log(2), math.log(4 / 3)], 2.0),
        ([9, 1, 9], [3.0, 0.5], 9, [0.5 * math.log(4 / 3)], 0.5),
    ],
)
def test_the_mean_and_what_it_divides_by(
    label: list[int], class_weights: list[float] | None, ignore_index: int, parts: list[float], divisor: float
) -> None:
    weights = None if class_weights is None else torch.tensor(class_weights)
    told: tuple[Tensor, Tensor | None, int] = (torch.tensor(label), weights, ignore_index)
    assert summed_weight(*told) == divisor
    assert class_loss(LOGITS, *told).item() == pytest.approx(sum(parts) / divisor)
