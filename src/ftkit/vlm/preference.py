"""Losses of direct preference optimization, on the log-probabilities of whole answers.

Every function works on sums of log-probabilities over an answer's tokens, (B,) each, and returns one value a pair: the
mean over a batch, or over several, is the caller's.
"""

from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn import functional as F

PreferenceLoss = Literal["sigmoid", "ipo"]


class DPOLosses(NamedTuple):
    """Hold the losses and the rewards, detached, of :func:`dpo_loss` for B pairs, (B,) each."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
    loss: PreferenceLoss = "sigmoid",
    chosen_tokens: Tensor | None = None,
    rejected_tokens: Tensor | None = None,
) -> DPOLosses:
    """Return the loss of each pair, and the implicit rewards of its answers.

    ``sigmoid`` is equation 7 of Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly a
    Reward Model" (2023), https://arxiv.org/abs/2305.18290; with ``label_smoothing`` it is the conservative form of
    Mitchell, "A note on DPO with noisy preferences & relationship to IPO" (2023),
    https://ericmitchell.ai/cdpo.pdf. ``ipo`` is equation 17 of Azar et al., "A General Theoretical Paradigm to
    Understand Learning from Human Preferences" (2023), https://arxiv.org/abs/2310.12036, with ``beta`` for the paper's
    tau and log-ratios averaged over an answer's tokens, as its authors ran it.

    Args:
        policy_chosen: Log-probabilities of the chosen answers under the policy, (B,) float.
        policy_rejected: The same of the rejected answers.
        reference_chosen: Log-probabilities of the chosen answers under the reference, (B,) float.
        reference_rejected: The same of the rejected answers.
        beta: Weight of the log-ratio to the reference; small values let the policy move further from it.
        label_smoothing: Probability that the two labels of a pair are swapped, for ``sigmoid``.
        loss: ``sigmoid`` or ``ipo``.
        chosen_tokens: Tokens of the chosen answers, (B,); ``ipo`` needs them.
        rejected_tokens: Tokens of the rejected answers, (B,); ``ipo`` needs them.

    Returns:
        Losses and rewards, (B,) each; a reward is ``beta`` times the log-ratio to the reference.

    Raises:
        ValueError: ``ipo`` without the numbers of tokens.

    Example:
        >>> import torch
        >>> same = torch.tensor([-3.0])
        >>> round(dpo_loss(same, same - 1, same, same - 1, beta=0.1).losses.item(), 6)  # ln 2 at the start
        0.693147
    """
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    if loss == "sigmoid":
        margin = beta * (chosen - rejected)
        losses = -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    else:
        if chosen_tokens is None or rejected_tokens is None:
            raise ValueError("loss='ipo' averages over the tokens of an answer: give chosen_tokens and rejected_tokens")
        losses = (chosen / chosen_tokens - rejected / rejected_tokens - 1 / (2 * beta)) ** 2
    return DPOLosses(losses, (beta * chosen).detach(), (beta * rejected).detach())


def preference_metrics(losses: DPOLosses, policy: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Return what to monitor in preference tuning, by metric name, one value a pair.

    ``drift/chosen`` is how far the chosen answers' log-probability has moved from the reference, ``drift/rejected`` how
    far that of the rejected ones. A margin can grow while both fall, the rejected one faster.

    Args:
        losses: Of :func:`dpo_loss`.
        policy: Log-probabilities under the model, (2B,): the chosen answers, then the rejected ones.
        reference: The same under the reference, (2B,).

    Returns:
        (B,) float each: ``rewards/chosen``, ``rewards/rejected``, ``rewards/margin``, ``accuracy`` (1 where the
        chosen answer's reward is the higher one, 0.5 for a tie, which every pair is before training),
        ``logps/chosen``, ``logps/rejected``, ``drift/chosen``, ``drift/rejected``.
    """
    (chosen, rejected), (reference_chosen, reference_rejected) = policy.detach().chunk(2), reference.chunk(2)
    margin = losses.chosen_rewards - losses.rejected_rewards
    return {
        "rewards/chosen": losses.chosen_rewards,
        "rewards/rejected": losses.rejected_rewards,
        "rewards/margin": margin,
        "accuracy": (margin.sign() + 1) / 2,
        "logps/chosen": chosen,
        "logps/rejected": rejected,
        "drift/chosen": chosen - reference_chosen,
        "drift/rejected": rejected - reference_rejected,
    }
