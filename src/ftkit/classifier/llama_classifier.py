"""A Llama-like decoder as a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ftkit.classifier import llama
from ftkit.classifier.backbone import Backbone
from ftkit.classifier.module import DecoderClassifier
from ftkit.errors import below_one


class LlamaClassifier(DecoderClassifier):
    """A Llama-like decoder, SmolLM2 or a relative, as a two-class text classifier.

    Args:
        source: Where configuration, tokenizer and pretrained weights come from: a hub id, a folder in transformers
            format, or a GGUF file (``pip install 'ftkit[gguf]'``), whose weights are dequantised to float32.
        weights: ``pretrained``, ``random`` (PyTorch's default initialisation, as in the published table) or
            ``random_transformers`` (N(0, 0.02)); the random ones take only the configuration from the source.
        revision: Hub revision to pin.
        dropout: Dropout on the attention weights, the only one in this family.
        **options: The options of every decoder, see :class:`~ftkit.classifier.module.DecoderClassifier`.

    Raises:
        InputError: An argument, or a combination of arguments, makes no sense.
    """

    def __init__(
        self,
        source: str = "HuggingFaceTB/SmolLM2-135M",
        weights: llama.Weights = "pretrained",
        revision: str | None = None,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        below_one(dropout=dropout)
        self.source, self.weights, self.revision, self.dropout = source, weights, revision, dropout

    @property
    def base(self) -> dict[str, Any]:
        """Where the backbone came from, as plain values."""
        identity = {"source": self.source, "weights": self.weights, "revision": self.revision}
        return identity if self.weights == "pretrained" else {**identity, "seed": self.seed}

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
        options = self.quantised(self.weights, [f"layers.{index}" for index in range(layers)])
        return llama.LlamaBackbone(
            llama.load_llama(self.source, self.weights, self.revision, self.causal_mask, self.dropout, **options)
        )

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer of the source, or the one named."""
        named = self.tokenizer_source
        return llama.load_tokenizer(named or self.source, None if named else self.revision)
