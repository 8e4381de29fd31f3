"""Load what a classifier is built from: base model, configuration, backbone and tokenizer."""

from functools import cached_property
from typing import Any, ClassVar

from peft import PeftConfig
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from ftkit.errors import InputError
from ftkit.models import gpt2, loading
from ftkit.models.adapters import check_adapter
from ftkit.models.backbone import Backbone, Weights
from ftkit.models.base_files import BaseFiles, Location
from ftkit.models.base_model import Quantization, locate, locate_processor, quantization_options
from ftkit.models.pooling import Pooling, reads_padding, unpadded
from ftkit.models.trainable import Trainable, trainable_blocks
from ftkit.models.transformers_internals import is_encoder
from ftkit.models.virtual_tokens import virtual_tokens
from ftkit.training.evaluation_metrics import MeasuredModule
from ftkit.training.frozen_prefix import FrozenPrefix


class PretrainedClassifier(MeasuredModule):
    """A classifier over a decoder or encoder of any family, or over GPT-2 by size."""

    decoder_pooling: ClassVar[Pooling]  # if none is asked for; an encoder's is its first token
    asked_pooling: Pooling | None
    asked_causal_mask: bool
    asked_mask_padding: bool
    base_model: str
    size: gpt2.Size | None = None  # of GPT-2, whose base model is then named as in gpt2.locate
    weights: Weights
    dropout: float
    seed: int
    trainable: Trainable | int
    adapter: PeftConfig | None = None
    quantization: Quantization | None
    tokenizer_source: str | None  # in place of the base model's own
    prefix: FrozenPrefix | None = None  # the cached outputs of frozen layers, while a stage reads some

    @property
    def frozen_seconds(self) -> float:
        """Return the seconds of this stage spent on computing or opening cached outputs of frozen layers."""
        return 0.0 if self.prefix is None else self.prefix.seconds

    @property
    def base_options(self) -> dict[str, Any]:
        """Return the options that identify the backbone."""
        identity = {"source": self.base_model, "weights": self.weights, "revision": self.revision}
        identity |= {} if self.size is None else {"size": self.size}
        return identity if self.weights == "pretrained" else {**identity, "seed": self.seed}

    @property
    def base_name(self) -> str:
        """Return the hub id, the folder or the file that ``base_model`` and ``size`` mean."""
        return locate(self.base_model) if self.size is None else gpt2.locate(self.base_model, self.size)

    @property
    def _hub_size(self) -> gpt2.Size | None:
        return self.size if self.base_model == "hub" else None

    @property
    def base_files(self) -> BaseFiles:
        """Return where backbone and tokenizer are loaded from; random weights of a hub size need the tokenizer only."""
        named, pretrained = self.tokenizer_source, self.weights == "pretrained"
        own = Location(locate_processor(self.base_name), self.revision)
        tokenizer = Location(locate_processor(named)) if named else own
        model = Location(self.base_name, self.revision) if pretrained or self._hub_size is None else None
        return BaseFiles(model, tokenizer, pretrained)

    @property
    def context_length(self) -> int:
        """Return the largest number of tokens in a text; virtual tokens before it take up room."""
        return loading.context_length(self.load_config()) - virtual_tokens(self.adapter)

    def load_config(self) -> PretrainedConfig:
        """Load the configuration of the backbone."""
        if self._hub_size is not None:
            return gpt2.published_config(self._hub_size)
        return loading.load_config(self.base_name, self.revision)

    @cached_property
    def encoder(self) -> bool:
        """Return whether the base model is an encoder."""
        return is_encoder(self.load_config())

    @property
    def pooling(self) -> Pooling:
        """Return which hidden state is classified; the mean over an encoder's text is that over real tokens.

        Raises:
            InputError: It is the last one of an encoder.
        """
        asked = self.asked_pooling
        if not self.encoder:
            return asked or self.decoder_pooling
        if asked in ("last", "last_real"):
            problem, fix = "an encoder is not read at its last token", "use first or mean"
            raise InputError(problem, field="pooling", got=asked, fix=fix)
        return unpadded(asked or "first")

    @property
    def causal_mask(self) -> bool:
        """Return whether a token attends only to itself and earlier ones.

        Raises:
            InputError: It was turned off for an encoder, which has none.
        """
        if self.encoder and not self.asked_causal_mask:
            problem, fix = "an encoder has no causal mask to turn off", "leave the option out"
            raise InputError(problem, field="causal_mask", got=False, fix=fix)
        return self.asked_causal_mask and not self.encoder

    @property
    def mask_padding(self) -> bool:
        """Return whether attention ignores padding; an encoder's always does."""
        return self.asked_mask_padding or self.encoder

    @property
    def sees_padding(self) -> bool:
        """Return whether real tokens attend to right padding, which changes predictions whatever the pooling."""
        return not (self.causal_mask or self.mask_padding)

    @property
    def reads_padding(self) -> bool:
        """Return whether right padding can change a prediction."""
        return reads_padding(self.pooling, self.causal_mask, self.mask_padding)

    def build_backbone(self) -> Backbone:
        """Load or draw the backbone; called once, with the global generator seeded."""
        config = self.load_config()
        options = self._quantization_options(config)
        if self.adapter is not None:
            check_adapter(loading.empty_body(config), self.adapter, "FEATURE_EXTRACTION")
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
        unquantized = 0 if self.adapter is not None else trainable_blocks(self.trainable, len(blocks))
        return quantization_options(self.quantization, self.root_device, blocks[len(blocks) - unquantized :])
