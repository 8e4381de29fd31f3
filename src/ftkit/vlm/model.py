"""The base of all vision-language modules: frozen vision towers, and cached image features."""

from functools import cached_property
from typing import Any, ClassVar

from peft import PeftConfig
from transformers import AutoConfig, AutoModelForImageTextToText

from ftkit.errors import InputError
from ftkit.hub import load_pretrained
from ftkit.models.base_model import locate
from ftkit.models.vision_families import Family, family_of, to_model, vision_parameters, vision_parts
from ftkit.training.generative import GenerativeModule
from ftkit.training.sharding import holds_whole_network
from ftkit.vlm.dataset import ORIGIN
from ftkit.vlm.vision import FrozenVision, can_cache, is_frozen


class VLMModule(GenerativeModule):
    """Tune a vision-language model; subclasses say by which loss.

    Args:
        freeze_vision: Whether vision tower and connector are frozen. They are adapted only where this is false and the
            adapter's ``target_modules`` name layers of theirs.
        cache_vision: Whether a frozen tower's features of each image are computed once and cached on disk, in
            ``$FTKIT_CACHE/features``, for all epochs, runs and seeds. The results are the same. Null caches where the
            family allows it.
        **options: Those of :class:`ftkit.training.generative.GenerativeModule`.
    """

    auto_class: ClassVar[Any] = AutoModelForImageTextToText
    preference: ClassVar[bool] = False  # whether a batch needs the rejected answers too

    def __init__(self, freeze_vision: bool = True, cache_vision: bool | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.freeze_vision, self.cache_vision = freeze_vision, cache_vision
        self.vision: FrozenVision | None = None

    @cached_property
    def family(self) -> Family:
        """Return what sets the model's family apart; its configuration alone says which it is.

        Raises:
            InputError: The family is not described, or its features cannot be cached as asked.
        """
        config = load_pretrained(AutoConfig, locate(self.base_model), revision=self.revision)
        family = family_of(config)
        if self.cache_vision and family.not_cached:
            raise InputError(
                f"image features of {config.model_type} cannot be cached: {family.not_cached}",
                field="cache_vision", got=True, fix="leave it out",
            )  # fmt: skip
        return family

    @property
    def frozen_towers(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the names of the parts that stay as they are."""
        return self.family.parts if self.freeze_vision else ()

    def configure_model(self) -> None:
        """Load the model and add the adapter, once; a family that is not described is refused before.

        Raises:
            InputError: See :attr:`family`.
        """
        _ = self.family
        super().configure_model()

    @property
    def frozen_seconds(self) -> float:
        """Return the seconds of this stage that went into computing or reading image features."""
        return 0.0 if self.vision is None else self.vision.seconds

    def with_trainable(self, net: Any) -> Any:
        """Choose the trainable parameters; a frozen tower has no dropout, whether its features are cached or not."""
        net = super().with_trainable(net)
        if self.freeze_vision and self.adapter is None:
            for parameter in vision_parameters(net):
                parameter.requires_grad_(False)
        if is_frozen(net):
            for part in vision_parts(net):
                part.eval()
        return net

    def check_adapter(self, adapter: PeftConfig) -> None:
        """Refuse virtual tokens too: images are told from text by its ids.

        Raises:
            InputError: See :meth:`ftkit.training.generative.GenerativeModule.check_adapter`.
        """
        if self.virtual_tokens:
            problem = "virtual tokens are supported for text models only"
            raise InputError(problem, field="adapter", got=type(adapter).__name__, fix="use another method")
        super().check_adapter(adapter)

    def setup(self, stage: str) -> None:
        """Start a stage anew: weights and images may have changed since the last one."""
        self.vision = None

    def teardown(self, stage: str) -> None:
        """End a stage; whoever reads the data afterwards gets the images again."""
        if self.vision is not None:
            self.vision.forget()

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Replace the images' pixels by cached features."""
        if (
            self.vision is None
            and self.cache_vision is not False
            and holds_whole_network(self.trainer)
            and can_cache(self.net)
        ):
            self.vision = FrozenVision(self.net, self.trainer.precision_plugin.forward_context)
        if self.vision is not None:
            batch = self.vision.attach(batch)
        elif ORIGIN in batch:
            batch = batch[ORIGIN].with_pixels(batch)
        return {name: value for name, value in batch.items() if name != ORIGIN}

    def model_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the network's inputs: pixels, or the features of a frozen tower in their place."""
        return to_model(self.net, inputs)
