"""GPT-2 as a classifier."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from ftkit.classifier import gpt2
from ftkit.classifier.text_classifier import TextClassifier


class GPT2Classifier(TextClassifier):
    """GPT-2 by size as a two-class text classifier: the preset of the published table.

    Args:
        size: ``small`` (124M), ``medium`` (355M), ``large`` (774M) or ``xl`` (1,558M); null takes a folder's model as
            it is.
        source: Where configuration, tokenizer and pretrained weights come from: ``hub``, ``demo`` (the small models
            that ftkit carries) or a folder in transformers format, holding one model or one folder a size.
        **options: The options of every decoder, see :class:`~ftkit.classifier.text_classifier.TextClassifier`.

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
        super().__init__(source, **options)
        self.size = size

    @property
    def base(self) -> dict[str, Any]:
        """Where the backbone came from, as plain values."""
        return {**super().base, "size": self.size}

    @property
    def base_name(self) -> str:
        """The hub id or the folder that source and size mean."""
        return gpt2.locate(self.source, self.size)

    @property
    def hub_id(self) -> str | None:
        """The name of the size on the hub."""
        return self.base_name if self.source == "hub" and self.weights == "pretrained" else None

    def load_config(self) -> PretrainedConfig:
        """Load the configuration; that of a size on the hub is known without the network."""
        return gpt2.load_config(self.source, self.size, self.revision)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the byte-level BPE of the source, or the one named."""
        named = self.tokenizer_source
        return gpt2.load_tokenizer(
            named or gpt2.tokenizer_name(self.source, self.size), None if named else self.revision
        )
