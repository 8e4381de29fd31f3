"""A linear model, or any estimator, over the features of a frozen base model."""

from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from ftkit.baselines.classifier import BaselineClassifier
from ftkit.models import gpt2
from ftkit.models.backbone import Weights
from ftkit.models.network import SequenceClassifier
from ftkit.models.pooling import Pooling, unpadded
from ftkit.training.evaluation_metrics import Metrics
from ftkit.training.frozen_prefix import FrozenPrefix
from ftkit.training.lightning_internals import attached_trainer
from ftkit.training.pretrained import PretrainedClassifier


class FrozenFeatureClassifier(PretrainedClassifier, BaselineClassifier):
    """An estimator over the pooled hidden states of a frozen base model, by default logistic regression.

    The texts are encoded, padded and pooled as those of :class:`ftkit.TextClassifier`, and the outputs are cached on
    disk: with the same pooling both read the same entries.

    Args:
        base_model: See :class:`ftkit.TextClassifier`.
        size: Of GPT-2, see :class:`ftkit.GPT2Classifier`; null of any other model.
        weights: ``pretrained``, or ``random`` or ``random_transformers`` as a control.
        revision: Hub revision to pin.
        pooling: See :class:`ftkit.TextClassifier`; null takes a decoder's ``last_real``, an encoder's ``first``.
        causal_mask: See :class:`ftkit.TextClassifier`.
        mask_padding: See :class:`ftkit.TextClassifier`.
        tokenizer: Folder or hub id of the tokenizer; null takes the one that belongs to the weights.
        features: Changes the features before they are fitted on; by default each gets mean 0 and variance 1.
        estimator: Is fitted on them; by default logistic regression.
        search: Values to try of settings; by default of the regularization, ``estimator__C``, if no estimator is named.
        seed: See :class:`ftkit.BaselineClassifier`; of random weights, too.
        metrics: See :class:`ftkit.BaselineClassifier`.

    Raises:
        InputError: A setting of ``search`` does not exist.
    """

    reads_texts: ClassVar[bool] = False
    decoder_pooling: ClassVar[Pooling] = "last_real"
    strengths: ClassVar[list[float]] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]  # 1 / strength of the penalty

    def __init__(
        self,
        base_model: str,
        size: gpt2.Size | None = None,
        weights: Weights = "pretrained",
        revision: str | None = None,
        pooling: Pooling | None = None,
        causal_mask: bool = True,
        mask_padding: bool = False,
        tokenizer: str | None = None,
        features: BaseEstimator | None = None,
        estimator: BaseEstimator | None = None,
        search: dict[str, list[Any]] | None = None,
        seed: int | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        chosen = {"estimator__C": self.strengths} if search is None and estimator is None else search
        super().__init__(features=features, estimator=estimator, search=chosen, seed=seed, metrics=metrics)
        self.base_model, self.size, self.weights, self.revision = base_model, size, weights, revision
        self.asked_pooling, self.asked_causal_mask, self.asked_mask_padding = pooling, causal_mask, mask_padding
        self.tokenizer_source, self.quantization, self.dropout, self.trainable = tokenizer, None, 0.0, "last_layer"
        self.net: SequenceClassifier | None = None

    def default_features(self) -> BaseEstimator:
        """Return what changes the features if nothing is named."""
        return StandardScaler()

    def default_estimator(self) -> BaseEstimator:
        """Return what is fitted if nothing is named."""
        return LogisticRegression(max_iter=10_000)

    def configure_model(self) -> None:
        """Build the frozen backbone, once. The global random state is left as it was."""
        if self.net is not None:
            return
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            backbone = self.build_backbone()
            self.net = SequenceClassifier(backbone, self.pooling, self.mask_padding)
        self.net.head = nn.Identity()  # type: ignore[assignment]  # so that it returns what is pooled
        self.net.requires_grad_(False)
        self.keep_fingerprint()

    def setup(self, stage: str) -> None:
        """Take over the classes; weights and texts may have changed since the last stage."""
        super().setup(stage)
        self.prefix = None

    @torch.no_grad()
    def inputs(self, batch: dict[str, Any]) -> np.ndarray:
        """Return the features (B, D) of a batch, float64."""
        assert self.net is not None, "configure_model comes first"
        if self.prefix is None and (trainer := attached_trainer(self)) is not None:
            self.prefix = self._open_prefix(self.net, trainer)
        batch = self.net.trim(batch)
        batch = batch if self.prefix is None else self.prefix.attach(batch)
        tensors = (batch["input_ids"], batch["length"], batch.get("features"))
        ids, length, known = (None if one is None else one.to(self.device) for one in tensors)
        return self.net(ids, length, known, batch.get("depth", 0)).double().cpu().numpy()

    def _open_prefix(self, net: SequenceClassifier, trainer: Any) -> FrozenPrefix:
        data = trainer.datamodule
        net.pooling = self.pooling if data.encoding.pad_to_max else unpadded(self.pooling)
        return FrozenPrefix(net, data.datasets, data.batch_size, trainer.precision_plugin.forward_context)
