"""What a text classifier knows of its texts: how they are encoded and padded, and which classes they have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftkit.errors import InputError, at_least
from ftkit.models.network import SequenceClassifier
from ftkit.models.pooling import Pooling, reads_padding, unpadded
from ftkit.training.encoding import Encoding
from ftkit.training.evaluation_metrics import Metrics
from ftkit.training.pretrained import PretrainedClassifier


class EncodedClassifier(PretrainedClassifier):
    """A classifier that encodes texts as its data module did.

    Args:
        metrics: See :class:`ftkit.training.evaluation_metrics.MeasuredModule`.
        pooling: See :class:`ftkit.classifier.text_classifier.TextClassifier`, as the others.
        causal_mask: What was asked for; whether it holds depends on the base model.
        mask_padding: What was asked for.
    """

    net: SequenceClassifier | None
    ignore_index: int
    balanced: bool
    class_weights: Tensor | None

    def __init__(self, metrics: Metrics | None, pooling: Pooling | None, causal_mask: bool, mask_padding: bool) -> None:
        super().__init__(metrics)
        self._asked = pooling, causal_mask, mask_padding

    @property
    def pooling(self) -> Pooling:
        """Return which hidden state is classified; the mean over an encoder's text is that over real tokens.

        Raises:
            InputError: It is the last one of an encoder.
        """
        asked, *_ = self._asked
        if not self.encoder:
            return asked or "last"
        if asked in ("last", "last_real"):
            raise InputError(
                "an encoder is not read at its last token", field="pooling", got=asked, fix="use first or mean"
            )
        return unpadded(asked or "first")

    @property
    def causal_mask(self) -> bool:  # type: ignore[override]
        """Return whether a token attends only to itself and earlier ones.

        Raises:
            InputError: It was turned off for an encoder, which has none.
        """
        if self.encoder and not self._asked[1]:
            raise InputError(
                "an encoder has no causal mask to turn off", field="causal_mask", got=False, fix="leave the option out"
            )
        return self._asked[1] and not self.encoder

    @property
    def mask_padding(self) -> bool:
        """Return whether attention ignores padding; an encoder's always does."""
        return self._asked[2] or self.encoder

    @property
    def encoding(self) -> Encoding | None:
        """Return how texts become batches; None until a data module or a checkpoint sets it."""
        return self._encoding

    @encoding.setter
    def encoding(self, encoding: Encoding | None) -> None:
        self._encoding = encoding
        if self.net is not None:
            self.net.pooling = self._pooling

    @property
    def _pooling(self) -> Pooling:
        """Return ``pooling``, or what equals it for texts trained without padding in a batch that has some."""
        padded = self.encoding is None or self.encoding.pad_to_max
        return self.pooling if padded else unpadded(self.pooling)

    @property
    def sees_padding(self) -> bool:
        """Return whether real tokens attend to right padding, which changes predictions whatever the pooling."""
        return not (self.causal_mask or self.mask_padding)

    @property
    def reads_padding(self) -> bool:
        """Return whether right padding can change a prediction."""
        return reads_padding(self.pooling, self.causal_mask, self.mask_padding)

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the names of the classes; of two the negative one first."""
        return ("0", "1") if self.encoding is None else self.encoding.labels

    @torch.inference_mode()
    def classify(self, texts: list[str], batch_size: int = 8) -> list[dict[str, Any]]:
        """Label texts, encoded and padded as in training.

        Args:
            texts: The texts.
            batch_size: Texts run together; one at a time where padding could change a result and training used none.

        Returns:
            For each text ``label`` (class name) and ``probability`` (of that label).

        Raises:
            InputError: The model was never trained, so how texts become batches is not known; or ``texts`` is one text,
                whose letters would be labelled one by one.
        """
        if isinstance(texts, str):
            raise InputError("must be a list of texts", field="texts", got=texts, fix="put the text into a list")
        at_least(1, batch_size=batch_size)
        if self.encoding is None:
            raise InputError("how texts are encoded is unknown before training", fix="train it, or load a checkpoint")
        self.configure_model()
        assert self.net is not None
        was_training = self.training
        self.eval()
        encoded = self.encoding.encode(self.tokenizer, texts)
        results = []
        for batch in map(self.net.trim, self.encoding.batches(encoded, batch_size)):
            probabilities = self({key: value.to(self.device) for key, value in batch.items()}).softmax(-1)
            for probability, index in zip(*(column.tolist() for column in probabilities.max(-1)), strict=True):
                results.append({"label": self.encoding.labels[index], "probability": probability})
        self.train(was_training)
        return results

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was trained, the base's identity and how texts are encoded."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["encoding"] = None if self.encoding is None else self.encoding.to_dict()
        checkpoint["class_weights"] = None if self.class_weights is None else self.class_weights.tolist()

    def pin_base(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the classes of a checkpoint, too, before the network is built."""
        super().pin_base(checkpoint)
        if checkpoint.get("encoding"):
            self.encoding = Encoding(**checkpoint["encoding"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model, base or set of classes."""
        stored = Encoding(**checkpoint["encoding"]) if checkpoint.get("encoding") else None
        self._refuse_other_classes(stored, self.encoding, self._file_of(checkpoint))
        super().on_load_checkpoint(checkpoint)
        if stored is not None:
            self.encoding = stored
        if self.balanced and checkpoint.get("class_weights"):
            self.class_weights = torch.tensor(checkpoint["class_weights"])

    @staticmethod
    def _refuse_other_classes(trained: Encoding | None, now: Encoding | None, file: str | Path | None = None) -> None:
        if trained is not None and now is not None and trained.labels != now.labels:
            raise InputError(
                f"was trained on the classes {', '.join(trained.labels)}",
                file=file,
                field="data" if file is None else None,
                got=", ".join(now.labels),
                fix="use data of these classes, in the same order (labels)",
            )

    def _check_classes(self, classes: int) -> None:
        """Refuse options that do not fit a number of classes, and a head of another size."""
        if self.ignore_index in range(classes):
            raise InputError("is the label of a class", field="ignore_index", got=self.ignore_index)
        if self.class_weights is not None and not self.balanced and len(self.class_weights) != classes:
            raise InputError(
                "takes one positive weight a class",
                field="class_weights",
                got=self.class_weights.tolist(),
                fix=f"there are {classes}: {', '.join(self.class_names)}",
            )
        if self.net is not None and self.net.classes != classes:
            raise InputError(
                f"the model was built for {self.net.classes} classes",
                field="data",
                got=", ".join(self.class_names),
                fix="let the trainer build the model, which knows the data's classes then",
            )
