"""Load what a classifier is built from: base model, configuration, backbone and tokenizer."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from ftkit.errors import InputError
from ftkit.models import loading
from ftkit.models.backbone import Backbone, Weights
from ftkit.models.base_files import BaseFiles, Location
from ftkit.models.base_model import Quantization, locate, locate_processor, quantization_options
from ftkit.models.trainable import Trainable, trainable_blocks
from ftkit.models.transformers_internals import is_encoder
from ftkit.training.evaluation_metrics import MeasuredModule


class PretrainedClassifier(MeasuredModule):
    """A classifier over a decoder or encoder of any family; a subclass with a preset says where its base model is."""

    base_model: str
    weights: Weights
    dropout: float
    seed: int
    trainable: Trainable | int
    causal_mask: bool
    quantization: Quantization | None
    tokenizer_source: str | None  # in place of the base model's own

    @property
    def base_options(self) -> dict[str, Any]:
        """Return the options that identify the backbone."""
        identity = {"source": self.base_model, "weights": self.weights, "revision": self.revision}
        return identity if self.weights == "pretrained" else {**identity, "seed": self.seed}

    @property
    def base_name(self) -> str:
        """Return the hub id, the folder or the file that ``base_model`` means."""
        return locate(self.base_model)

    @property
    def base_files(self) -> BaseFiles:
        """Return where backbone and tokenizer are loaded from."""
        named = self.tokenizer_source
        tokenizer = Location(locate_processor(named)) if named else Location(self.tokenizer_name, self.revision)
        return BaseFiles(Location(self.base_name, self.revision), tokenizer, self.weights == "pretrained")

    @property
    def tokenizer_name(self) -> str:
        """Return the hub id, the folder or the file of the base model's tokenizer."""
        return locate_processor(self.base_model)

    @property
    def context_length(self) -> int:
        """Return the largest number of tokens in a text."""
        return loading.context_length(self.load_config())

    def load_config(self) -> PretrainedConfig:
        """Load the configuration of the backbone."""
        return loading.load_config(self.base_name, self.revision)

    @cached_property
    def encoder(self) -> bool:
        """Return whether the base model is an encoder."""
        return is_encoder(self.load_config())

    def build_backbone(self) -> Backbone:
        """Load or draw the backbone; called once, with the global generator seeded."""
        config = self.load_config()
        options = self._quantization_options(config)
        model = loading.load_body(self.base_name, config, self.weights, self.revision, self.dropout, **options)
        return Backbone(model, self.causal_mask)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer of the base model, or the one named."""
        return loading.load_tokenizer(*self.base_files.tokenizer, encoder=self.encoder)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the backbone's tokenizer, once."""
        return self.load_tokenizer()

    def _quantization_options(self, config: PretrainedConfig) -> dict[str, Any]:
        """Return the arguments with which ``from_pretrained`` quantizes frozen weights; none without quantization."""
        if self.quantization is None:
            return {}
        if self.weights != "pretrained":
            raise InputError("only pretrained weights can be quantized", field="weights", got=self.weights)
        blocks = loading.block_names(config)
        unquantized = 0 if self.trainable == "lora" else trainable_blocks(self.trainable, len(blocks))
        return quantization_options(self.quantization, self.root_device, blocks[len(blocks) - unquantized :])
