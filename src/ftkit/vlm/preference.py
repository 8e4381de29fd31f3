"""Losses of direct preference optimization, on the log-probabilities of whole answers.

Every function works on sums of log-probabilities over an answer's tokens, (B,) each, and returns one value a pair: the
mean over a batch, or over several, is the caller's. :data:`LOSSES` has all losses; another one is a function there.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import logsigmoid

from ftkit.errors import InputError, positive


class Ratios(NamedTuple):
    """Hold what losses are made of, for B pairs.

    Attributes:
        chosen: Log-probabilities of the chosen answers minus those under the reference, (B,).
        rejected: The same of the rejected answers.
        chosen_tokens: Tokens of the chosen answers, (B,); None where nobody counted.
        rejected_tokens: Tokens of the rejected answers.
        beta: Weight of the log-ratios.
        smoothing: Probability that the two labels of a pair are swapped.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor | None
    rejected_tokens: Tensor | None
    beta: float
    smoothing: float

    @property
    def margin(self) -> Tensor:
        """Return the margin of the rewards, (B,)."""
        return self.beta * (self.chosen - self.rejected)

    @property
    def token_margin(self) -> Tensor:
        """Return the difference of the log-ratios averaged over an answer's tokens, (B,)."""
        if self.chosen_tokens is None or self.rejected_tokens is None:
            raise ValueError("the loss averages over the tokens of an answer: give chosen_tokens and rejected_tokens")
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens


class PairLoss(NamedTuple):
    """Hold the formula of a loss, and whether it reads ``smoothing``."""

    formula: Callable[[Ratios], Tensor]
    smoothed: bool = False


def _sigmoid(r: Ratios) -> Tensor:
    return -(1 - r.smoothing) * logsigmoid(r.margin) - r.smoothing * logsigmoid(-r.margin)


def _robust(r: Ratios) -> Tensor:
    kept, swapped = (1 - r.smoothing) * logsigmoid(r.margin), r.smoothing * logsigmoid(-r.margin)
    return (swapped - kept) / (1 - 2 * r.smoothing)


def _exo_pair(r: Ratios) -> Tensor:
    """With log(1 - e) and log(e) for the smoothed labels, e of which must be above 0."""
    kept, swapped = math.log(1 - r.smoothing), math.log(r.smoothing)
    ahead, behind = logsigmoid(r.margin), logsigmoid(-r.margin)
    return ahead.exp() * (ahead - kept) + behind.exp() * (behind - swapped)


def _nca_pair(r: Ratios) -> Tensor:
    chosen, rejected = r.beta * r.chosen, r.beta * r.rejected
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


LOSSES: dict[str, PairLoss] = {  # by the names of TRL
    "sigmoid": PairLoss(_sigmoid, smoothed=True),
    "hinge": PairLoss(lambda r: (1 - r.margin).relu()),
    "ipo": PairLoss(lambda r: (r.token_margin - 1 / (2 * r.beta)) ** 2),
    "robust": PairLoss(_robust, smoothed=True),
    "sigmoid_norm": PairLoss(lambda r: -logsigmoid(r.beta * r.token_margin)),
    "exo_pair": PairLoss(_exo_pair, smoothed=True),
    "nca_pair": PairLoss(_nca_pair),
    "sppo_hard": PairLoss(lambda r: (r.chosen - 0.5 / r.beta) ** 2 + (r.rejected + 0.5 / r.beta) ** 2),
    "apo_zero": PairLoss(lambda r: (-r.beta * r.chosen).sigmoid() + (r.beta * r.rejected).sigmoid()),
    "apo_down": PairLoss(lambda r: (r.beta * r.chosen).sigmoid() + (-r.margin).sigmoid()),
}


def check_loss(loss: str, beta: float, label_smoothing: float) -> None:
    """Refuse a loss that does not exist, and settings that it does not take.

    Raises:
        InputError: One of them cannot be used.
    """
    positive(beta=beta)
    if not 0 <= label_smoothing < 0.5:
        raise InputError("must be a probability below 0.5", field="label_smoothing", got=label_smoothing)
    if loss not in LOSSES:
        raise InputError("no such loss", field="loss", got=loss, fix=f"use {', '.join(LOSSES)}")
    if label_smoothing and not LOSSES[loss].smoothed:
        smoothed = ", ".join(name for name, one in LOSSES.items() if one.smoothed)
        raise InputError(f"applies to {smoothed} only", field="label_smoothing", got=label_smoothing)
    if loss == "exo_pair" and not label_smoothing:
        raise InputError("must be above 0 for exo_pair", field="label_smoothing", got=label_smoothing)


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
    loss: str = "sigmoid",
    chosen_tokens: Tensor | None = None,
    rejected_tokens: Tensor | None = None,
) -> DPOLosses:
    """Return the loss of each pair, and the implicit rewards of its answers.

    ``sigmoid`` is equation 7 of Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, and with smoothing Mitchell's
    conservative form, https://ericmitchell.ai/cdpo.pdf. ``hinge``: Zhao et al. 2023 (SLiC), https://arxiv.org/abs/2305.10425.
    ``ipo``: equation 17 of Azar et al. 2023, https://arxiv.org/abs/2310.12036, with ``beta`` for tau, averaged over an
    answer's tokens as its authors ran it. ``robust``: Chowdhury et al. 2024, https://arxiv.org/abs/2403.00409.
    ``sigmoid_norm`` averages over tokens as Meng et al. 2024 (SimPO) do, https://arxiv.org/abs/2405.14734. ``exo_pair``
    is equation 16 of Ji et al. 2024, https://arxiv.org/abs/2402.00856. ``nca_pair``: Chen et al. 2024,
    https://arxiv.org/abs/2402.05369. ``sppo_hard``: Wu et al. 2024, https://arxiv.org/abs/2405.00675. ``apo_zero`` and
    ``apo_down``: equations 7 and 8 of D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266.

    Args:
        policy_chosen: Log-probabilities of the chosen answers under the policy, (B,) float.
        policy_rejected: The same of the rejected answers.
        reference_chosen: Log-probabilities of the chosen answers under the reference, (B,) float.
        reference_rejected: The same of the rejected answers.
        beta: Weight of the log-ratio to the reference; small values let the policy move further from it.
        label_smoothing: Probability that the two labels of a pair are swapped, for losses that read it.
        loss: A name in :data:`LOSSES`.
        chosen_tokens: Tokens of the chosen answers, (B,); ``ipo`` and ``sigmoid_norm`` need them.
        rejected_tokens: Tokens of the rejected answers, (B,); the same.

    Returns:
        Losses and rewards, (B,) each; a reward is ``beta`` times the log-ratio to the reference.

    Raises:
        ValueError: The numbers of tokens are needed.

    Example:
        >>> import torch
        >>> same = torch.tensor([-3.0])
        >>> round(dpo_loss(same, same - 1, same, same - 1, beta=0.1).losses.item(), 6)  # ln 2 at the start
        0.693147
    """
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    ratios = Ratios(chosen, rejected, chosen_tokens, rejected_tokens, beta, label_smoothing)
    return DPOLosses(LOSSES[loss].formula(ratios), (beta * chosen).detach(), (beta * rejected).detach())


def image_losses(own: Tensor, corrupted: Tensor, beta: float) -> Tensor:
    """Return how little the chosen answers depend on their images, (B,).

    The conditional term of mDPO, Wang et al. 2024, https://arxiv.org/abs/2406.11839: an answer is to be more likely
    with its image than with a corrupted one.

    Args:
        own: Log-ratios of the chosen answers to the reference, (B,).
        corrupted: The same where policy and reference see a corrupted image.
        beta: Weight of the log-ratios.
    """
    return -logsigmoid(beta * (own - corrupted))


def anchor_losses(own: Tensor, beta: float) -> Tensor:
    """Return how far the chosen answers have become less likely, (B,): mDPO's anchor, with delta 0.

    Args:
        own: Log-ratios of the chosen answers to the reference, (B,).
        beta: Weight of the log-ratios.
    """
    return -logsigmoid(beta * own)


class Drift:
    """Collect how far the chosen answers of an epoch's pairs have moved from the reference."""

    def __init__(self) -> None:
        self._drifts: list[Tensor] = []  # on the device, which is read once an epoch

    def add(self, drift: Tensor) -> None:
        """Add the drifts of some pairs' chosen answers, (B,)."""
        self._drifts.append(drift.detach())

    def moments(self) -> tuple[int, float, float]:
        """Return the number of pairs, the sum of their drifts and that of the squares; begin anew."""
        values = [value for drift in self._drifts for value in drift.tolist()]
        self._drifts.clear()
        return len(values), math.fsum(values), math.fsum(value**2 for value in values)


def drift_warning(pairs: float, total: float, squares: float) -> str | None:
    """Return the warning of falling chosen answers, if their mean drift lies below 0 by three standard errors.

    Args:
        pairs: The number of pairs of an epoch, on all processes.
        total: The sum of their drifts, in nats.
        squares: The sum of the squares of their drifts.

    Example:
        >>> print(drift_warning(3, 0.3, 0.2))
        None
    """
    if pairs < 2:
        return None
    mean = total / pairs
    variance = max(squares - pairs * mean**2, 0) / (pairs - 1)
    if mean + 3 * (variance / pairs) ** 0.5 >= 0:
        return None
    return (
        f"the chosen answers are {-mean:.3g} nats less likely than under the reference, on the mean of the epoch's "
        f"{pairs:,.0f} pairs: the margin can grow all the same, if the rejected ones fall further; a larger beta, "
        "rpo_alpha or anchor_weight holds them up"
    )


def preference_metrics(losses: DPOLosses, policy: Tensor, reference: Tensor | None) -> dict[str, Tensor]:
    """Return what to monitor in preference tuning, by metric name, one value a pair; the names are TRL's, and drift.

    ``drift/chosen`` is how far the chosen answers' log-probability has moved from the reference, ``drift/rejected`` how
    far that of the rejected ones. A margin can grow while both fall, the rejected one faster. Rewards are sums over
    tokens for every loss, also for those that train means over tokens, as in TRL.

    Args:
        losses: Of :func:`dpo_loss`.
        policy: Log-probabilities under the model, (2B,): the chosen answers, then the rejected ones.
        reference: The same under the reference, (2B,); None without one, and then there is no drift.

    Returns:
        (B,) float each: ``rewards/chosen``, ``rewards/rejected``, ``rewards/margins``, ``rewards/accuracies`` (1 where
        the chosen answer's reward is the higher one, 0.5 for a tie, which every pair is before training),
        ``logps/chosen``, ``logps/rejected``, ``drift/chosen``, ``drift/rejected``.
    """
    chosen, rejected = policy.detach().chunk(2)
    margin = losses.chosen_rewards - losses.rejected_rewards
    found = {
        "rewards/chosen": losses.chosen_rewards,
        "rewards/rejected": losses.rejected_rewards,
        "rewards/margins": margin,
        "rewards/accuracies": (margin.sign() + 1) / 2,
        "logps/chosen": chosen,
        "logps/rejected": rejected,
    }
    if reference is not None:
        found["drift/chosen"], found["drift/rejected"] = (policy.detach() - reference).chunk(2)
    return found
