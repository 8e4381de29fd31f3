"""GPT-2 as a classifier."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from ftkit.classifier.text_classifier import TextClassifier
from ftkit.models import gpt2
from ftkit.models.base_files import BaseFiles


class GPT2Classifier(TextClassifier):
    """GPT-2 by size as a text classifier: the preset of the published table.

    Args:
        size: ``small`` (124M), ``medium`` (355M), ``large`` (774M) or ``xl`` (1,558M); null takes a folder's model as
            it is.
        base_model: Where configuration, tokenizer and pretrained weights come from: ``hub``, ``demo`` (the small models
            that ftkit carries) or a folder in transformers format, holding one model or one folder a size.
        **options: The options of every decoder, see :class:`~ftkit.classifier.text_classifier.TextClassifier`.

    Raises:
        InputError: An argument, or a combination of arguments, makes no sense.

    Example:
        >>> import torch
        >>> model = GPT2Classifier(base_model="demo", trainable="last_block", seed=123)
        >>> model.configure_model()
        >>> batch = {"input_ids": torch.tensor([[5, 6, 7]]), "length": torch.tensor([3])}
        >>> model(batch).shape
        torch.Size([1, 2])
    """

    def __init__(self, size: gpt2.Size | None = "small", base_model: str = "hub", **options: Any) -> None:
        super().__init__(base_model, **options)
        self.size = size

    @property
    def base_options(self) -> dict[str, Any]:
        """Return the options that identify the backbone."""
        return {**super().base_options, "size": self.size}

    @property
    def base_name(self) -> str:
        """Return the hub id or the folder that ``base_model`` and ``size`` mean."""
        return gpt2.locate(self.base_model, self.size)

    @property
    def base_files(self) -> BaseFiles:
        """Return where weights and tokenizer are loaded from; random weights of a hub size need the tokenizer only."""
        files = super().base_files
        known = self.base_model == "hub" and self.weights != "pretrained"
        return replace(files, model=None) if known else files

    @property
    def tokenizer_name(self) -> str:
        """Return the hub id or the folder of the base model's tokenizer."""
        return gpt2.tokenizer_name(self.base_model, self.size)

    def load_config(self) -> PretrainedConfig:
        """Load the configuration; that of a size on the hub is known without the network."""
        return gpt2.load_config(self.base_model, self.size, self.revision)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the byte-level BPE of the base model, or the one named."""
        return gpt2.load_tokenizer(*self.base_files.tokenizer)
