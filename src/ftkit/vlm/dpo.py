"""Direct preference optimization of a vision-language model, as a Lightning module."""

import hashlib
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from peft import PeftConfig
from torch import Tensor, nn

from ftkit.errors import InputError, at_least
from ftkit.models.adapter_option import changes_base
from ftkit.models.base_model import load_base, plain_model
from ftkit.results.preferences import CHOSEN, MEASURES, REJECTED, TIE
from ftkit.run_folder import SplitName
from ftkit.training.distributed import summed
from ftkit.training.sharding import holds_whole_network
from ftkit.vlm.model import VLMModule
from ftkit.vlm.pair_log_probs import answer_log_probs, corrupted_log_probs
from ftkit.vlm.preference import (
    DPOLosses,
    Drift,
    anchor_losses,
    check_loss,
    dpo_loss,
    drift_warning,
    image_losses,
    preference_metrics,
)
from ftkit.vlm.reference import CachedReference, as_reference
from ftkit.vlm.vision import is_frozen, with_features

_IMAGE_MARGINS = "image/margins"
_PREDICTIONS = {0.0: REJECTED, 0.5: TIE, 1.0: CHOSEN}  # by the accuracy of a pair


class VLMDPO(VLMModule):
    """A vision-language model that is trained to prefer one answer to another.

    Batches hold B pairs: ``inputs`` has 2B examples, all chosen answers and then all rejected ones, and the images of
    the first B only; the vision tower runs once a pair, and so does what both sequences begin with, wherever one
    example can hold both answers (:mod:`ftkit.vlm.shared_prompt`). The reference is the same model with its adapters
    off, or, where all weights are trained, a frozen copy of the base. Its log-probabilities are computed once and
    cached on disk for all epochs, seeds, rates and betas.

    A step averages over the pairs of its whole window of micro-batches. Watch ``rewards/margins`` together with
    ``drift/chosen``: the margin also grows while both answers become unlikely. An epoch after which the chosen answers
    are clearly less likely than under the reference ends with a warning.

    In evaluation a pair is one example of the prediction file, laid out as in :mod:`ftkit.results.preferences`:
    its label is ``chosen``, its prediction the answer that has the higher reward, or ``tie``; the score is the margin
    of the rewards, which are sums over tokens for every loss, as in TRL. ``sigmoid`` trains it as the model's log-odds
    that the chosen answer is the better one (Bradley and Terry); for other losses it need not be that: ``ipo`` and
    ``sigmoid_norm`` train a difference of means over tokens. The accuracy counts a tie as half: before training every
    pair is one, and the accuracy that of chance, 50%.

    Args:
        beta: Weight of the log-ratios to the reference; small values let the model move further from it.
        loss: ``sigmoid``, ``hinge``, ``ipo``, ``robust``, ``sigmoid_norm`` (length-normalized), ``exo_pair``,
            ``nca_pair``, ``sppo_hard``, ``apo_zero`` or ``apo_down``, see :func:`ftkit.vlm.preference.dpo_loss`.
        label_smoothing: Probability that a preference is the wrong way round: ``sigmoid``, ``robust``, ``exo_pair``.
        rpo_alpha: Weight of an SFT term, the mean cross-entropy of each chosen answer's tokens (Pang et al. 2024,
            https://arxiv.org/abs/2404.19733); 0 is none.
        reference_free: Whether the reference finds all answers equally likely: none is computed, and there is no drift.
        image_weight: Weight of mDPO's conditional term, which punishes chosen answers that are as likely with a
            corrupted image (https://arxiv.org/abs/2406.11839), in which each vector of an example's images is their
            mean; 0 is none. It takes another pass over the chosen answers. mDPO itself has 1, and 1 as
            ``anchor_weight``.
        anchor_weight: Weight of mDPO's anchor, which punishes chosen answers that become less likely; 0 is none.
        cache_reference: Whether the reference's log-probabilities are cached in ``$FTKIT_CACHE/features``. The
            results stay the same.
        **options: Those of :class:`ftkit.vlm.model.VLMModule`.
    """

    preference = True
    accuracy_name = "preference accuracy"
    score_name = f"log_odds:{CHOSEN}"

    def __init__(
        self,
        beta: float = 0.1,
        loss: str = "sigmoid",
        label_smoothing: float = 0.0,
        rpo_alpha: float = 0.0,
        reference_free: bool = False,
        image_weight: float = 0.0,
        anchor_weight: float = 0.0,
        cache_reference: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.beta, self.loss, self.label_smoothing = beta, loss, label_smoothing
        self.rpo_alpha, self.reference_free = rpo_alpha, reference_free
        self.image_weight, self.anchor_weight = image_weight, anchor_weight
        self.cache_reference = cache_reference and not reference_free
        self._drift = Drift()
        self._base_net: list[Any] = []  # a list, so that it is neither saved nor counted
        self.kept: CachedReference | None = None
        check_loss(loss, beta, label_smoothing)
        at_least(0, rpo_alpha=rpo_alpha, image_weight=image_weight, anchor_weight=anchor_weight)
        if reference_free and (image_weight or anchor_weight):
            problem, fix = "mDPO's terms compare with the reference", "leave them out, or reference_free"
            raise InputError(problem, field="reference_free", got=True, fix=fix)
        if self._adapter_folder is not None:
            problem, fix = (
                "the reference would be the base model without this adapter",
                "merge it into the base model first, with ftkit push --format transformers",
            )
            raise InputError(problem, field="adapter", got=self._adapter_folder, fix=fix)

    @property
    def reference_net(self) -> Any:
        """Return the network that :func:`ftkit.vlm.reference.as_reference` turns into the reference.

        Where all weights are trained it is read from the base when it is first needed, onto the CPU, and is no part of
        this module.
        """
        if self.adapter is not None:
            return self.net
        if not self._base_net:
            dtype: Any = str(self.net.dtype).removeprefix("torch.")
            base = load_base(self.auto_class, self.base_model, self.revision, dtype=dtype)
            self._base_net.append(base.requires_grad_(False))
        return self._base_net[0]

    def check_adapter(self, adapter: PeftConfig) -> None:
        """Refuse an adapter that leaves no reference behind when it is switched off, too.

        Raises:
            InputError: See :meth:`ftkit.vlm.model.VLMModule.check_adapter`.
        """
        if changes_base(adapter):
            problem, fix = (
                "changes weights of the base model, which is the reference",
                "use other initial values and bias: none",
            )
            raise InputError(problem, field="adapter", got=type(adapter).__name__, fix=fix)
        super().check_adapter(adapter)

    def setup(self, stage: str) -> None:
        """Start a stage: the weights may have changed."""
        super().setup(stage)
        self.kept = None

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Add cached image features and reference log-probabilities."""
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        if not self.cache_reference or not holds_whole_network(self.trainer):
            return batch
        first = self.kept is None
        if self.kept is None:
            context = self.trainer.precision_plugin.forward_context
            self.kept = CachedReference(self.reference_net, context, device=self.device)
        keys = self.kept.keys(batch["inputs"])
        if self.image_weight:  # and, of the chosen answers, with corrupted images
            keys = keys + [hashlib.sha256(f"{key} corrupted".encode()).hexdigest() for key in keys[: len(keys) // 2]]
        found = self.kept.get(keys)
        if first and found is not None:  # an earlier run has computed it: the weights were needed to know that
            self._base_net.clear()
        return {**batch, "reference_keys": keys, **({} if found is None else {"reference": found})}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the summed loss of a micro-batch of pairs; log means per pair of the step so far."""
        losses, metrics = self.compare(batch)
        self._log("train", losses, metrics)
        if "drift/chosen" in metrics:
            self._drift.add(metrics["drift/chosen"])
        return self.window_loss(losses.losses.sum(), len(losses.losses))

    def on_train_epoch_end(self) -> None:
        """Warn if the epoch's chosen answers, on all processes, are less likely than under the reference."""
        if warning := drift_warning(*summed(self.trainer, *self._drift.moments()).tolist()):
            rank_zero_warn(warning)

    def evaluated(self, split: SplitName, batch: dict[str, Any]) -> dict[str, Any]:
        """Log the loss and the metrics of a batch of a split; return its predictions."""
        losses, metrics = self.compare(batch)
        self._log(split, losses, metrics)
        return _predictions(batch, metrics)

    def predictions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the predictions of a batch of pairs."""
        return _predictions(batch, self.compare(batch)[1])

    def compare(self, batch: dict[str, Any]) -> tuple[DPOLosses, dict[str, Tensor]]:
        """Return loss and metrics of each pair of a batch.

        Returns:
            What :func:`ftkit.vlm.preference.dpo_loss` and :func:`ftkit.vlm.preference.preference_metrics` return; with
            ``image_weight`` also ``image/margins``, (B,) float, NaN for a pair without images.
        """
        inputs = batch["inputs"]
        if "pixel_values" in inputs and is_frozen(self.net):  # policy and reference see the same images
            inputs = with_features(self.net, inputs)
        policy, tokens = self._answers(self.net, inputs)
        pairs = len(tokens) // 2
        reference = torch.zeros_like(policy) if self.reference_free else self._reference(batch, inputs)
        (chosen, rejected, *corrupted), of_reference = policy.split(pairs), reference.split(pairs)
        losses = dpo_loss(
            chosen,
            rejected,
            of_reference[0],
            of_reference[1],
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            loss=self.loss,
            chosen_tokens=tokens[:pairs],
            rejected_tokens=tokens[pairs:],
        )
        own, total = chosen - of_reference[0], losses.losses
        if self.rpo_alpha:
            total = total - self.rpo_alpha * chosen / tokens[:pairs]
        if self.anchor_weight:
            total = total + self.anchor_weight * anchor_losses(own, self.beta)
        metrics = preference_metrics(
            losses, policy[: 2 * pairs], None if self.reference_free else reference[: 2 * pairs]
        )
        if corrupted:
            others, shown = corrupted[0] - of_reference[2], self._with_images(inputs)[:pairs]
            total = total + self.image_weight * image_losses(own, others, self.beta) * shown
            metrics[_IMAGE_MARGINS] = (self.beta * (own - others)).detach().masked_fill(~shown, torch.nan)
        return losses._replace(losses=total), metrics

    def _answers(self, net: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of the answers of B pairs and their tokens, (2B,) each.

        With ``image_weight``, those of the chosen answers with corrupted images are behind them, (3B,).
        """
        if not self.image_weight:
            return answer_log_probs(net, inputs)
        inputs = with_features(net, inputs)  # once for both
        log_probs, tokens = answer_log_probs(net, inputs)
        return torch.cat([log_probs, corrupted_log_probs(net, inputs)]), tokens

    def _with_images(self, inputs: dict[str, Any]) -> Tensor:
        """Return whether each example has an image, bool (2B,)."""
        return (inputs["input_ids"] == plain_model(self.net).config.image_token_id).any(1)

    def _reference(self, batch: dict[str, Any], inputs: dict[str, Any]) -> Tensor:
        """Return what :meth:`_answers` finds under the reference, cached or computed."""
        if "reference" in batch:
            return batch["reference"]
        reference = self.reference_net
        if reference.device != self.device:
            reference.to(self.device)
        with as_reference(reference) as net:
            log_probs, _ = self._answers(net, inputs)
        if self.kept is not None and "reference_keys" in batch:
            self.kept.add(batch["reference_keys"], log_probs)
        return log_probs

    def _log(self, split: SplitName, losses: DPOLosses, metrics: dict[str, Tensor]) -> None:
        figures = {"loss": losses.losses.detach()}
        # Each logged figure costs about a millisecond: those of steps that no logger sees are left out.
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if split != "train" or (every and (self.trainer.global_step + 1) % every == 0):
            figures |= metrics
        parts = [_total_and_count(name, values) for name, values in figures.items()]
        sizes: list[int] | None = None
        if split == "train":  # a step averages over its whole window on all processes, and so do its figures
            totals, counts = self.over_window(*(part for kind in zip(*parts, strict=True) for part in kind)).chunk(2)
            means = list(totals / counts)
        else:
            sizes = [int(count) for _, count in parts]
            means = [total / max(size, 1) for (total, _), size in zip(parts, sizes, strict=True)]
        for place, (name, mean) in enumerate(zip(figures, means, strict=True)):
            options: dict[str, Any] = {} if sizes is None else {"batch_size": sizes[place], "sync_dist": True}
            self.log(f"{split}/{name}", mean, prog_bar=name == "loss" and self.shows_progress, **options)


def _total_and_count(name: str, values: Tensor) -> tuple[Tensor, Tensor | int]:
    """Return the sum of a figure of B pairs, (B,), and of how many of them it is."""
    if name != _IMAGE_MARGINS:
        return values.sum(), len(values)
    return values.nansum(), (~values.isnan()).sum()


def _predictions(batch: dict[str, Any], metrics: dict[str, Tensor]) -> dict[str, Any]:
    accuracy = metrics["rewards/accuracies"].tolist()
    measured = {name: metrics[name.replace("_", "/")] for name in MEASURES if name.replace("_", "/") in metrics}
    columns = {name: list(map(str, values.tolist())) for name, values in measured.items()}
    return {
        "id": batch["id"],
        "label": [CHOSEN] * len(accuracy),
        "prediction": [_PREDICTIONS[one] for one in accuracy],
        "score": metrics["rewards/margins"],
        "columns": {**batch.get("columns", {}), **columns},
    }
