"""GPT-2 as a classifier."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from ftkit.classifier import gpt2
from ftkit.classifier.backbone import Backbone
from ftkit.classifier.module import DecoderClassifier


class GPT2Classifier(DecoderClassifier):
    """GPT-2 as a two-class text classifier.

    Args:
        size: ``small`` (124M), ``medium`` (355M), ``large`` (774M) or ``xl`` (1,558M); null takes a folder's model as
            it is.
        source: Where configuration, tokenizer and pretrained weights come from: ``hub``, ``demo`` (the small models
            that ftkit carries) or a folder in transformers format, holding one model or one folder a size.
        **options: The options of every decoder, see :class:`~ftkit.classifier.module.DecoderClassifier`.

    Raises:
        InputError: An argument, or a combination of arguments, makes no sense.

    Example:
        >>> import torch
        >>> model = GPT2Classifier(source="demo", trainable="last_block", seed=123)
        >>> model.configure_model()
        >>> batch = {"input_ids": torch.tensor([[5, 6, 7]]), "length": torch.tensor([3])}
        >>> model(batch).shape
        torch.Size([1, 2])
    """

    def __init__(self, size: gpt2.Size | None = "small", source: str = "hub", **options: Any) -> None:
        super().__init__(**options)
        self.size, self.source = size, source

    @property
    def base(self) -> dict[str, Any]:
        """Where the backbone came from, as plain values."""
        return {**super().base, "size": self.size}

    @property
    def hub_id(self) -> str | None:
        """The name of the size on the hub."""
        return gpt2.locate(self.source, self.size) if self.source == "hub" and self.weights == "pretrained" else None

    @property
    def context_length(self) -> int:
        """Number of positions."""
        return gpt2.load_config(self.source, self.size, self.revision).n_positions

    def build_backbone(self) -> Backbone:
        """Load or draw a GPT-2."""
        layers = gpt2.load_config(self.source, self.size, self.revision).n_layer
        options = self.quantised([f"h.{index}" for index in range(layers)])
        return gpt2.GPT2Backbone(
            gpt2.load_gpt2(
                self.source, self.size, self.weights, self.revision, self.causal_mask, self.dropout, **options
            )
        )

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the byte-level BPE of the source, or the one named."""
        named = self.tokenizer_source
        return gpt2.load_tokenizer(
            named or gpt2.tokenizer_name(self.source, self.size), None if named else self.revision
        )
