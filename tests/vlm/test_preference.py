"""The losses of preference learning against numbers worked out by hand and against torch's own formulas."""

import math
from statistics import stdev

import pytest
import torch
from torch.nn import functional as F

from ftkit.vlm.preference import Drift, anchor_losses, dpo_loss, drift_warning, image_losses, preference_metrics


def drawn(seed: int = 0, pairs: int = 6) -> list[torch.Tensor]:
    """Log-probabilities of the policy and the reference, chosen and rejected, (B,) each."""
    generator = torch.Generator().manual_seed(seed)
    return [-10 * torch.rand(pairs, generator=generator, dtype=torch.float64) for _ in range(4)]


def test_by_hand() -> None:
    # log-ratios: chosen -2 - -4 = 2, rejected -5 - -4 = -1; margin 0.5 * 3 = 1.5
    got = dpo_loss(*(torch.tensor([value]) for value in (-2.0, -5.0, -4.0, -4.0)), beta=0.5)
    assert got.losses.item() == pytest.approx(math.log1p(math.exp(-1.5)), abs=1e-7)
    assert got.chosen_rewards.item() == pytest.approx(1.0)
    assert got.rejected_rewards.item() == pytest.approx(-0.5)
    smoothed = dpo_loss(
        *(torch.tensor([value]) for value in (-2.0, -5.0, -4.0, -4.0)), beta=0.5, label_smoothing=0.2
    ).losses.item()
    assert smoothed == pytest.approx(0.8 * math.log1p(math.exp(-1.5)) + 0.2 * math.log1p(math.exp(1.5)), abs=1e-7)


def test_ipo_by_hand() -> None:
    # log-ratios a token: 2 / 4 = 0.5 and -1 / 2 = -0.5; target 1 / (2 * 0.25) = 2; (1 - 2)^2 = 1
    values = [torch.tensor([value]) for value in (-2.0, -5.0, -4.0, -4.0)]
    tokens = {"chosen_tokens": torch.tensor([4]), "rejected_tokens": torch.tensor([2])}
    assert dpo_loss(*values, beta=0.25, loss="ipo", **tokens).losses.item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="chosen_tokens"):
        dpo_loss(*values, beta=0.25, loss="ipo")


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_sigmoid_is_binary_cross_entropy_on_the_margin(smoothing: float) -> None:
    policy_chosen, policy_rejected, chosen, rejected = drawn()
    got = dpo_loss(policy_chosen, policy_rejected, chosen, rejected, beta=0.3, label_smoothing=smoothing)
    margin = 0.3 * ((policy_chosen - policy_rejected) - (chosen - rejected))
    wanted = F.binary_cross_entropy_with_logits(margin, torch.full_like(margin, 1 - smoothing), reduction="none")
    torch.testing.assert_close(got.losses, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("beta", [0.01, 0.1, 0.5, 5.0])
def test_it_starts_at_ln_2_for_every_beta(beta: float) -> None:
    chosen, rejected, *_ = drawn()
    for smoothing in (0.0, 0.3):
        got = dpo_loss(chosen, rejected, chosen, rejected, beta=beta, label_smoothing=smoothing)
        torch.testing.assert_close(got.losses, torch.full_like(chosen, math.log(2)), atol=1e-12, rtol=0)
        assert not got.chosen_rewards.any()
        assert not got.rejected_rewards.any()


def test_swapping_the_answers_negates_the_margin() -> None:
    policy_chosen, policy_rejected, chosen, rejected = drawn()
    forth = dpo_loss(policy_chosen, policy_rejected, chosen, rejected, beta=0.1)
    back = dpo_loss(policy_rejected, policy_chosen, rejected, chosen, beta=0.1)
    torch.testing.assert_close(
        forth.chosen_rewards - forth.rejected_rewards, back.rejected_rewards - back.chosen_rewards, atol=0, rtol=0
    )
    margin = forth.chosen_rewards - forth.rejected_rewards
    torch.testing.assert_close(back.losses - forth.losses, margin, atol=1e-12, rtol=0)  # -ln s(-m) + ln s(m) = m


def test_rewards_carry_no_gradient_and_the_reference_gets_none() -> None:
    values = [value.requires_grad_() for value in drawn()]
    got = dpo_loss(*values[:2], *(value.detach() for value in values[2:]), beta=0.1)
    got.losses.sum().backward()
    assert not got.chosen_rewards.requires_grad
    assert not got.rejected_rewards.requires_grad
    assert (values[0].grad < 0).all()  # more likely chosen answers lower the loss
    assert torch.equal(values[0].grad, -values[1].grad)


def test_large_margins_stay_finite() -> None:
    got = dpo_loss(*(torch.tensor([value]) for value in (-5000.0, 0.0, 0.0, -5000.0)), beta=1.0)
    assert got.losses.item() == pytest.approx(10000.0)


def test_metrics_a_pair() -> None:
    policy, reference = torch.tensor([-2.0, -4.0, -5.0, -1.0]), torch.tensor([-4.0, -4.0, -4.0, -1.0])
    losses = dpo_loss(*policy.chunk(2), *reference.chunk(2), beta=0.5)
    got = {name: value.tolist() for name, value in preference_metrics(losses, policy, reference).items()}
    assert got == {
        "rewards/chosen": [1.0, 0.0],
        "rewards/rejected": [-0.5, 0.0],
        "rewards/margins": [1.5, 0.0],
        "rewards/accuracies": [1.0, 0.5],  # no preference at all is worth a coin
        "logps/chosen": [-2.0, -4.0],
        "logps/rejected": [-5.0, -1.0],
        "drift/chosen": [2.0, 0.0],
        "drift/rejected": [-1.0, 0.0],
    }


def test_losses_by_hand() -> None:
    """Log-ratios 2 and -1, beta 0.5: the margin is 1.5, a token's margin 2 / 4 + 1 / 2 = 1."""

    def found(loss: str, smoothing: float = 0.0) -> float:
        values = [torch.tensor([value], dtype=torch.float64) for value in (-2.0, -5.0, -4.0, -4.0)]
        return dpo_loss(*values, 0.5, smoothing, loss, torch.tensor([4]), torch.tensor([2])).losses.item()

    def log_s(x: float) -> float:
        return -math.log1p(math.exp(-x))

    assert found("hinge") == 0.0
    assert found("sigmoid_norm") == pytest.approx(-log_s(0.5))
    assert found("robust", 0.1) == pytest.approx((-0.9 * log_s(1.5) + 0.1 * log_s(-1.5)) / 0.8)
    assert found("sppo_hard") == pytest.approx((2 - 1) ** 2 + (-1 + 1) ** 2)
    assert found("apo_zero") == pytest.approx(1 - math.exp(log_s(1.0)) + math.exp(log_s(-0.5)))
    assert found("apo_down") == pytest.approx(math.exp(log_s(1.0)) + 1 - math.exp(log_s(1.5)))


def test_terms_of_mdpo_by_hand() -> None:
    own, corrupted = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0])
    seen = image_losses(own, corrupted, beta=0.5)
    torch.testing.assert_close(seen, torch.tensor([math.log1p(math.exp(-0.5)), math.log(2)]))
    torch.testing.assert_close(anchor_losses(own, 0.5), torch.tensor([math.log1p(math.exp(-1)), math.log(2)]))


def test_the_warning_is_of_chosen_answers_that_clearly_fall() -> None:
    drift = Drift()
    assert drift_warning(*drift.moments()) is None
    for values, warned in (
        ([-2.0, -2.2, -1.9], True),
        ([-0.5, -0.6, 0.2], False),
        ([2.0, 2.1, 1.9], False),
        ([-9.0], False),
    ):
        for value in values:
            drift.add(torch.tensor([value]))
        assert (drift_warning(*drift.moments()) is not None) == warned
    drift.add(torch.tensor([-2.0, -2.2, -1.8]))
    pairs, total, squares = drift.moments()
    assert (pairs, total, squares) == (3, pytest.approx(-6), pytest.approx(4 + 4.84 + 3.24))
    said = str(drift_warning(pairs, total, squares))
    assert "2 nats less likely than under the reference, on the mean of the epoch's 3 pairs" in said
    assert "the margin can grow all the same, if the rejected ones fall further" in said  # it has not looked at them
    assert drift.moments() == (0, 0, 0)  # a new epoch


@pytest.mark.parametrize("values", [[-2.0, -1.5, -0.2, -0.9], [-2.0, -1.5, 0.9, -0.9]])
def test_the_warning_is_at_three_standard_errors(values: list[float]) -> None:
    drift = Drift()
    drift.add(torch.tensor(values, dtype=torch.float64))
    pairs, total, squares = drift.moments()
    errors = stdev(values) / len(values) ** 0.5
    shift = -3 * errors - total / pairs  # to where the mean lies exactly there
    for more, warned in ((-1e-6, True), (1e-6, False)):
        by = shift + more
        moved = (pairs, total + pairs * by, squares + 2 * by * total + pairs * by**2)
        assert (drift_warning(*moved) is not None) == warned
