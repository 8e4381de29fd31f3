"""The loss over supervised tokens, without the logits of the others."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftkit.models import losses
from ftkit.models.losses import IGNORE_INDEX, sequence_log_probs, supervised_log_probs, token_loss

BATCH, TOKENS, WIDTH, VOCABULARY = 3, 7, 5, 11


@pytest.fixture
def case() -> tuple[Tensor, Tensor, nn.Linear]:
    """Hidden states, labels with gaps (the last sequence has none) and a head."""
    torch.manual_seed(0)
    labels = torch.randint(0, VOCABULARY, (BATCH, TOKENS))
    labels[0, :3] = labels[1, 2:5] = labels[2] = IGNORE_INDEX
    return torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True), labels, nn.Linear(WIDTH, VOCABULARY)


def reference(hidden: Tensor, labels: Tensor, head: nn.Module) -> Tensor:
    """Transformers' way: all logits, shifted by one, summed."""
    logits = head(hidden)[:, :-1].flatten(0, 1)
    return F.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX, reduction="sum")


def gradients(loss: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, of))


@pytest.mark.parametrize("chunk", [losses.CHUNK, 3, 1])
def test_sum_and_gradients_are_those_of_all_logits(
    chunk: int, case: tuple[Tensor, Tensor, nn.Linear], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK", chunk)
    hidden, labels, head = case
    total, count = token_loss(supervised_log_probs(hidden, labels, head).log_probs)
    expected = reference(hidden, labels, head)
    assert count == 4 + 3  # sequence 0: labels 3 to 6; 1: labels 1, 5 and 6, for nothing predicts label 0
    torch.testing.assert_close(total, expected)
    for own, wanted in zip(
        gradients(total, hidden, head.weight), gradients(expected, hidden, head.weight), strict=True
    ):
        torch.testing.assert_close(own, wanted)


@pytest.mark.parametrize("chunk", [losses.CHUNK, 3])
def test_the_head_sees_supervised_positions_only(
    chunk: int, case: tuple[Tensor, Tensor, nn.Linear], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK", chunk)
    hidden, labels, head = case
    seen: list[tuple[int, ...]] = []

    def spied(states: Tensor) -> Tensor:
        seen.append(tuple(states.shape))
        return head(states)

    with torch.no_grad():
        supervised_log_probs(hidden, labels, spied)
    assert seen == [(7, WIDTH)] if chunk > 7 else [(3, WIDTH), (3, WIDTH), (1, WIDTH)]


def test_half_precision_logits_are_normalized_in_float32(case: tuple[Tensor, Tensor, nn.Linear]) -> None:
    hidden, labels, head = case
    log_probs = supervised_log_probs(hidden.bfloat16(), labels, head.bfloat16()).log_probs
    assert log_probs.dtype == torch.float32


def test_nothing_supervised_is_a_loss_of_zero_that_has_gradients(case: tuple[Tensor, Tensor, nn.Linear]) -> None:
    hidden, labels, head = case
    total, count = token_loss(supervised_log_probs(hidden, torch.full_like(labels, IGNORE_INDEX), head).log_probs)
    assert (total.item(), count) == (0.0, 0)
    assert gradients(total, hidden)[0].abs().sum() == 0


def test_sequences_are_summed_apart(case: tuple[Tensor, Tensor, nn.Linear]) -> None:
    hidden, labels, head = case
    sums, counts = sequence_log_probs(*supervised_log_probs(hidden, labels, head), batch_size=BATCH)
    expected = [-reference(hidden[row : row + 1], labels[row : row + 1], head) for row in range(BATCH)]
    torch.testing.assert_close(sums, torch.stack(expected))
    assert counts.tolist() == [4, 3, 0]
