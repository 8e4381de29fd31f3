"""Hold how a classifier encodes and pads texts, and the names of their classes."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor

from ftkit.errors import InputError, at_least
from ftkit.models.evaluation_mode import evaluating
from ftkit.models.network import SequenceClassifier
from ftkit.models.pooling import Pooling, unpadded
from ftkit.training.encoding import Encoding
from ftkit.training.pretrained import PretrainedClassifier
from ftkit.training.stored_options import read_options


class EncodedClassifier(PretrainedClassifier):
    """A classifier that encodes texts as its data module did."""

    decoder_pooling: ClassVar[Pooling] = "last"
    net: SequenceClassifier | None
    ignore_index: int
    balanced: bool
    class_weights: Tensor | None

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
            For each text ``label`` (class name) and ``probability`` (of that label); of two classes also the
            ``log_odds`` of the positive one.

        Raises:
            InputError: The model was never trained, so how texts become batches is not known; or ``texts`` is one text.
        """
        if isinstance(texts, str):
            raise InputError("must be a list of texts", field="texts", got=texts, fix="put the text into a list")
        at_least(1, batch_size=batch_size)
        if self.encoding is None:
            raise InputError("how texts are encoded is unknown before training", fix="train it, or load a checkpoint")
        self.configure_model()
        assert self.net is not None
        encoded = self.encoding.encode(self.tokenizer, texts)
        results: list[dict[str, Any]] = []
        with evaluating([self]):
            for batch in map(self.net.trim, self.encoding.batches(encoded, batch_size)):
                logits = self({key: value.to(self.device) for key, value in batch.items()})
                results += self._results(logits)
        return results

    def _results(self, logits: Tensor) -> list[dict[str, Any]]:
        """Return what :meth:`classify` does of each text, for logits (B, C)."""
        assert self.encoding is not None
        probable = zip(*(column.tolist() for column in logits.softmax(-1).max(-1)), strict=True)
        found = [{"label": self.encoding.labels[index], "probability": probability} for probability, index in probable]
        if logits.shape[1] == 2:
            odds = (logits[:, 1] - logits[:, 0]).tolist()
            found = [{**result, "log_odds": value} for result, value in zip(found, odds, strict=True)]
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was trained, the base's identity and how texts are encoded."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["encoding"] = None if self.encoding is None else asdict(self.encoding)
        checkpoint["class_weights"] = None if self.class_weights is None else self.class_weights.tolist()

    def pin_base(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over the classes of a checkpoint, too, before the network is built."""
        super().pin_base(checkpoint)
        self.encoding = self._stored_encoding(checkpoint) or self.encoding

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model, base or set of classes."""
        stored = self._stored_encoding(checkpoint)
        if stored is not None and self.encoding is not None:
            self.refuse_other_classes(stored.labels, self.encoding.labels, self._file_of(checkpoint))
        super().on_load_checkpoint(checkpoint)
        if stored is not None:
            self.encoding = stored
        if self.balanced and checkpoint.get("class_weights"):
            self.class_weights = torch.tensor(checkpoint["class_weights"])

    def _stored_encoding(self, checkpoint: Mapping[str, Any]) -> Encoding | None:
        stored = checkpoint.get("encoding")
        return Encoding(**read_options(Encoding, stored, self._file_of(checkpoint), "encoding")) if stored else None

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
