"""Describe the families of vision-language models: the one place that knows what sets each apart.

:data:`FAMILIES` has an entry for each; another one is described by adding to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ftkit.errors import InputError
from ftkit.models.base_model import plain_model
from ftkit.models.image_layouts import Crops, Images, Patches, Tiles
from ftkit.models.transformers_internals import BaseModelOutputWithPooling

FEATURES = "image_features"  # key of a batch: (N, D), a vector for each image token in their order


@dataclass(frozen=True)
class Family:
    """Hold what sets a family of vision-language models apart.

    Attributes:
        processor: The name of its processor's class in transformers.
        parts: The names of vision tower and connector among the parts of the model without its head.
        images: How the processor lays out the images of a batch.
        answer_values: Of tensors with one value for each token, by name: what an answer's tokens get. Padding gets 0.
        pooled: Whether image features enter the model as one tensor, not as a list of them.
        deepstack: Whether image features come on several levels.
        shares_prompts: Whether it passes positions and masks of four dimensions to its text model unchanged.
        not_cached: Why the features of an image cannot be cached; empty where they can, because they depend on their
            own tile only.
    """

    processor: str
    parts: tuple[str, ...]
    images: Images = field(default_factory=Images)
    answer_values: Mapping[str, int] = field(default_factory=dict)
    pooled: bool = False
    deepstack: bool = False
    shares_prompts: bool = False
    not_cached: str = ""


_TOWER = ("vision_tower", "multi_modal_projector")
_IDEFICS3: Any = {"parts": ("vision_model", "connector"), "images": Tiles(), "shares_prompts": True}
# 1 is an image, whose tokens have positions of two dimensions.
_QWEN: Any = {"parts": ("visual",), "images": Patches(), "answer_values": {"mm_token_type_ids": 0}}

FAMILIES: dict[str, Family] = {  # by model type
    "idefics3": Family("Idefics3Processor", **_IDEFICS3),
    "smolvlm": Family("SmolVLMProcessor", **_IDEFICS3),
    # 0 sees everything before the answer, 1 only what is before it.
    "paligemma": Family(
        "PaliGemmaProcessor", _TOWER, answer_values={"token_type_ids": 1}, pooled=True, shares_prompts=True
    ),
    # 1 is an image, whose tokens see each other.
    "gemma3": Family("Gemma3Processor", _TOWER, answer_values={"token_type_ids": 0}, pooled=True),
    "llava": Family("LlavaProcessor", _TOWER, shares_prompts=True),
    "llava_onevision": Family(
        "LlavaOnevisionProcessor", _TOWER, Crops(), not_cached="its features depend on the other images of an example"
    ),
    "qwen2_5_vl": Family("Qwen2_5_VLProcessor", **_QWEN),
    "qwen3_vl": Family("Qwen3VLProcessor", **_QWEN, deepstack=True),
}


def family_of(config: Any) -> Family:
    """Return the family of a model by its configuration.

    Raises:
        InputError: It is not described.
    """
    if (family := FAMILIES.get(config.model_type)) is None:
        raise _not_described("base_model", config.model_type)
    return family


def family_of_processor(processor: Any) -> Family:
    """Return the family of a model by its processor.

    Raises:
        InputError: It is not described.
    """
    name = type(processor).__name__
    if (found := next((family for family in FAMILIES.values() if family.processor == name), None)) is None:
        raise _not_described("processor", name)
    return found


def vision_parts(net: nn.Module) -> list[nn.Module]:
    """Return the vision tower and the connector of a model, plain or wrapped by peft; nothing of a model of text."""
    model = plain_model(net)
    family = FAMILIES.get(model.config.model_type)
    return [] if family is None else [getattr(model.base_model, name) for name in family.parts]


def vision_parameters(net: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that image features are made with, those in no module of their own among them."""
    own = plain_model(net).base_model.parameters(recurse=False)
    return [*own, *(parameter for part in vision_parts(net) for parameter in part.parameters())]


def image_features(net: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """Run tower and connector on the images of a batch, with gradients if they are on.

    Args:
        net: The model, plain or wrapped by peft.
        inputs: The processor's tensors.

    Returns:
        (N, D), the vectors that take the places of image tokens, in their order; those of all levels side by side where
        there are several. None if there are no images.
    """
    model = plain_model(net)
    family = family_of(model.config)
    device = next(vision_parts(net)[0].parameters()).device
    images = {name: inputs[name].to(device) for name in family.images.tensors if name in inputs}
    if family.images.absent(images):
        return None
    out = model.get_image_features(**images, return_dict=True)
    levels = [out.pooler_output, *(out.deepstack_features if family.deepstack else [])]
    return torch.cat([_flat(level) for level in levels], dim=-1)


def to_model(net: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the network's inputs, in training and in ``generate``, for a batch with features in place of pixels."""
    if FEATURES not in inputs:
        return inputs
    config = plain_model(net).config
    family = family_of(config)
    rest = {name: value for name, value in inputs.items() if name != FEATURES}
    first, *others = inputs[FEATURES].split(config.get_text_config().hidden_size, dim=-1)
    output = BaseModelOutputWithPooling(pooler_output=first if family.pooled else [first])
    if family.deepstack:
        output.deepstack_features = [[level] for level in others]
    return {**rest, "mm_encoder_outputs": {"image": output}}


def without_pixels(family: Family, inputs: dict[str, Any], features: Tensor | None) -> dict[str, Any]:
    """Return a batch with features (N, D) in place of its pixels; with None, without both."""
    gone = set(family.images.tensors) - set(family.images.beside)
    rest = {name: value for name, value in inputs.items() if name not in gone}
    return rest if features is None else {**rest, FEATURES: features}


def _flat(level: Any) -> Tensor:
    parts = [level] if isinstance(level, Tensor) else level
    return torch.cat([part.flatten(0, -2) for part in parts])


def _not_described(field: str, got: str) -> InputError:
    return InputError(
        f"this family of vision-language models is not described; those are {', '.join(sorted(FAMILIES))}",
        field=field,
        got=got,
        fix="use one of them, or add it to ftkit.models.vision_families.FAMILIES: documentation, 'Describe a family'",
    )
