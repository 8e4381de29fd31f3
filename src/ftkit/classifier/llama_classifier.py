"""A Llama-like decoder as a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ftkit.classifier import llama
from ftkit.classifier.backbone import Backbone
from ftkit.classifier.module import DecoderClassifier


class LlamaClassifier(DecoderClassifier):
    """A Llama-like decoder, SmolLM2 or a relative, as a two-class text classifier.

    Args:
        source: Where configuration, tokenizer and pretrained weights come from: a hub id, a folder in transformers
            format, or a GGUF file (``pip install 'ftkit[gguf]'``), whose weights are dequantised to float32.
        **options: The options of every decoder, see :class:`~ftkit.classifier.module.DecoderClassifier`.

    Raises:
        InputError: An argument, or a combination of arguments, makes no sense.
    """

    def __init__(self, source: str = "HuggingFaceTB/SmolLM2-135M", **options: Any) -> None:
        super().__init__(**options)
        self.source = source

    @property
    def hub_id(self) -> str | None:
        """The source, if it is neither a folder nor a file."""
        return None if Path(self.source).expanduser().exists() or self.weights != "pretrained" else self.source

    @property
    def context_length(self) -> int:
        """Number of positions."""
        return llama.load_config(self.source, self.revision).max_position_embeddings

    def build_backbone(self) -> Backbone:
        """Load or draw a Llama."""
        layers = llama.load_config(self.source, self.revision).num_hidden_layers
        options = self.quantised([f"layers.{index}" for index in range(layers)])
        return llama.LlamaBackbone(
            llama.load_llama(self.source, self.weights, self.revision, self.causal_mask, self.dropout, **options)
        )

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer of the source, or the one named."""
        named = self.tokenizer_source
        return llama.load_tokenizer(named or self.source, None if named else self.revision)
