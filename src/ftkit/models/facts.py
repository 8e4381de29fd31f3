"""Describe a model without loading its weights: architecture, checkpoint, parameters."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml  # type: ignore[import-untyped]
from huggingface_hub import metadata_load
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ftkit.errors import FtkitError, InputError
from ftkit.hub import commit_of, is_gguf, load_pretrained, repository_cache
from ftkit.models.adapters import is_linear, linear_layers
from ftkit.models.base_model import load_processor, locate
from ftkit.models.loading import known_context
from ftkit.models.transformers_internals import is_encoder

SAMPLE = [{"role": "user", "content": "What is 12 + 7?"}, {"role": "assistant", "content": "19"}]
_SHAPE = ("vocab_size", "num_hidden_layers", "hidden_size", "num_attention_heads")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_PARTS = (  # the first that matches a parameter's dotted name
    ("vision tower", re.compile(r"\b(vision_tower|vision_model|visual|image_encoder)\b")),
    ("connector", re.compile(r"\b(connector|multi_modal_projector|modality_projection)\b")),
    ("embeddings", re.compile(r"\b(wte|wpe|embed_tokens|embed_positions|word_embeddings|embeddings)\b")),
    ("attention", re.compile(r"\b(attn|attention|self_attn|self_attention)\b")),
    ("MLP", re.compile(r"\b(mlp|feed_forward|ffn|fc1|fc2)\b")),
    ("norms", re.compile(r"(norm|\bln_\w+|layernorm)")),
    ("head", re.compile(r"\b(lm_head|score|classifier|head)\b")),
)


@dataclass(frozen=True)
class ModelFacts:
    """Hold facts about a model from its configuration and the files beside it.

    Attributes:
        architecture: The class whose shape it has, and its family.
        config: The transformers configuration, of the text part where there are several.
        commit: The hub commit in the cache; None for a folder or file.
        weight_files: Files of the checkpoint with their bytes.
        dtype: Of the checkpoint, as its configuration says; of a GGUF file, what it is unpacked to.
        parameters: Number of parameters by part; shared ones count once.
        linear: Parameters of the linear layers that quantization reaches.
        tied: Whether the output head shares the embeddings' weight.
        lora_targets: The linear layers of the text model, which LoRA may adapt, and the parameters that rank 1 adds.
        card: The header of the model card (license, gating, base model), or nothing.
        packed: Number of tensors of a GGUF file by their type; nothing for other checkpoints.
    """

    name: str
    architecture: tuple[str, str]
    config: Any
    commit: str | None
    weight_files: dict[str, int]
    dtype: torch.dtype
    parameters: dict[str, int]
    linear: int
    tied: bool
    lora_targets: tuple[list[str], int]
    card: dict[str, Any]
    packed: dict[str, int]

    @property
    def total(self) -> int:
        """Return the number of parameters."""
        return sum(self.parameters.values())

    @property
    def context(self) -> int | None:
        """Return the largest number of tokens, if the configuration has one."""
        return known_context(self.config)

    @property
    def cache_bytes_per_token(self) -> int:
        """Return the bytes of keys and values that one token of one sequence takes during generation."""
        heads = self.config.num_attention_heads
        per_head = getattr(self.config, "head_dim", None) or self.config.hidden_size // heads
        shared = getattr(self.config, "num_key_value_heads", None) or heads
        return 2 * self.config.num_hidden_layers * shared * per_head * self.dtype.itemsize


def model_facts(name: str, revision: str | None = None) -> ModelFacts:
    """Gather what is known of a model. Its weights are not loaded: the network is built without memory.

    Args:
        name: See :func:`ftkit.models.base_model.locate`; one on the hub is downloaded if it is not in the cache.
        revision: The hub revision; None takes the current one.

    Raises:
        UnavailableError: Its configuration is neither in the cache nor to be downloaded, or cannot be read here.
        InputError: The folder or file holds no model, one that is not of transformers itself, or no language model.
    """
    source = locate(name, field="model")
    config = load_pretrained(AutoConfig, source, revision)
    text = config.get_text_config()
    if missing := [field for field in _SHAPE if not hasattr(text, field)]:
        raise InputError(
            "is not a language model built of attention layers: its configuration lacks this key",
            file=name,
            field=missing[0],
            got=config.model_type,
        )
    model = empty_model(config, source)
    folder = Path(source) if Path(source).is_dir() else _snapshot(source, revision)
    files = {} if folder is None else _weight_files(folder)
    packed: dict[str, int] = {}
    card = {} if folder is None else read_card_header(folder)
    if is_gguf(source):
        files = {Path(source).name: Path(source).stat().st_size}
        packed, card = read_gguf_facts(Path(source))
    head = model.get_output_embeddings()
    return ModelFacts(
        name=name,
        architecture=(type(model).__name__, config.model_type),
        config=text,
        commit=commit_of(source, revision),
        weight_files=files,
        dtype=config.dtype or text.dtype or torch.float32,
        parameters=parameters_by_part(model),
        linear=sum(_size(layer) for _, layer in model.named_modules() if is_linear(layer) and layer is not head),
        tied=head is not None and head.weight is model.get_input_embeddings().weight,
        lora_targets=_lora_targets(model),
        card=card,
        packed=packed,
    )


def empty_model(config: Any, name: str) -> PreTrainedModel:
    """Build the network that a configuration describes on the meta device: shapes, no weights.

    Raises:
        InputError: The configuration names no class of transformers.
    """
    if is_gguf(name):  # it names a family and no class; only text models are kept so
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    names = config.architectures or []
    kind = next((getattr(transformers, name) for name in names if hasattr(transformers, name)), None)
    if kind is None:
        raise InputError("names no architecture of transformers", file=name, field="architectures", got=names)
    with torch.device("meta"):
        return kind(config)


def parameters_by_part(model: torch.nn.Module) -> dict[str, int]:
    """Count the parameters by part; a shared one counts where it comes first."""
    counts = Counter[str]()
    for name, parameter in model.named_parameters():
        counts[next((part for part, pattern in _PARTS if pattern.search(name)), "other")] += parameter.numel()
    return dict(counts)


def read_card_header(folder: Path) -> dict[str, Any]:
    """Return the YAML header of a folder's model card; empty without one, or with a damaged one."""
    try:
        return metadata_load(folder / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):  # a card is for people: it hides nothing else
        return {}


def read_gguf_facts(path: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """Read the header of a GGUF file that a configuration could be read from.

    Returns:
        Number of tensors by their type, such as ``{"Q4_1": 210, "F32": 61}``, most frequent first; and of what the
        header of a model card would hold, the license, as far as the file names it.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)
    packed = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    named = {key: reader.get_field(f"general.{key}") for key in ("license", "license_name", "license_link")}
    return dict(packed.most_common()), {key: field.contents() for key, field in named.items() if field is not None}


def tokenizer_of(name: str, revision: str | None = None) -> Any | None:
    """Return the tokenizer of a model; None where there is none, such as in a folder of weights."""
    try:
        return load_processor(AutoTokenizer, name, revision)
    except FtkitError:
        return None


def _snapshot(name: str, revision: str | None) -> Path | None:
    commit = commit_of(name, revision)
    return None if commit is None else repository_cache(name) / "snapshots" / commit


def _weight_files(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for pattern in _WEIGHTS for file in sorted(folder.glob(pattern))}


def _lora_targets(model: PreTrainedModel) -> tuple[list[str], int]:
    """Return the linear layers of the text model, and the parameters of a rank 1 adapter: inputs + outputs a layer."""
    encoder = is_encoder(model.config)
    if not encoder and model.get_output_embeddings() is None:
        return [], 0
    text: Any = model.base_model if encoder else model
    names = linear_layers(text)
    layers = [layer for name, layer in text.get_decoder().named_modules() if name.rpartition(".")[2] in names]
    return names, sum(sum(layer.weight.shape) for layer in layers if is_linear(layer))


def _size(layer: torch.nn.Module) -> int:
    return int(layer.weight.numel())  # type: ignore[operator]
