"""The base of all vision-language modules: frozen vision towers, and cached image features."""

from typing import Any, ClassVar

from peft import PeftConfig
from transformers import AutoModelForImageTextToText

from ftkit.errors import InputError
from ftkit.training.generative import GenerativeModule
from ftkit.training.sharding import holds_whole_network
from ftkit.vlm.dataset import ORIGIN
from ftkit.vlm.vision import FrozenVision, is_frozen, to_model, vision_parts

VISION_PARTS = ("vision_model", "connector", "vision_tower", "multi_modal_projector")  # SmolVLM's and PaliGemma's names


class VLMModule(GenerativeModule):
    """Tune a vision-language model; subclasses say by which loss.

    Args:
        freeze_vision: Whether vision tower and connector are frozen. They are adapted only where this is false and the
            adapter's ``target_modules`` name layers of theirs.
        cache_vision: Whether a frozen tower's features of each image are computed once and cached on disk, in
            ``$FTKIT_CACHE/features``, for all epochs, runs and seeds. The results are the same.
        **options: Those of :class:`ftkit.training.generative.GenerativeModule`.
    """

    auto_class: ClassVar[Any] = AutoModelForImageTextToText
    preference: ClassVar[bool] = False  # whether a batch needs the rejected answers too

    def __init__(self, freeze_vision: bool = True, cache_vision: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.frozen_towers = VISION_PARTS if freeze_vision else ()
        self.cache_vision = cache_vision
        self.vision: FrozenVision | None = None

    @property
    def frozen_seconds(self) -> float:
        """Return the seconds of this stage that went into computing or reading image features."""
        return 0.0 if self.vision is None else self.vision.seconds

    def with_trainable(self, net: Any) -> Any:
        """Choose the trainable parameters; a frozen tower has no dropout, whether its features are cached or not.

        A tower that is to be frozen, and is not there, is refused.
        """
        names = {name.rpartition(".")[2] for name, _ in net.named_modules()}
        # An adapter without names of layers is on the text model alone.
        elsewhere = getattr(self.adapter, "target_modules", "all") is not None
        if self.frozen_towers and elsewhere and not names.intersection(self.frozen_towers):
            raise InputError(
                f"no part of the model is named like a vision tower ({', '.join(self.frozen_towers)})",
                field="freeze_vision",
                got=type(net).__name__,
                fix="use freeze_vision: false, or an adapter without target_modules, which is on the text model alone",
            )
        net = super().with_trainable(net)
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
        if self.vision is None and self.cache_vision and holds_whole_network(self.trainer) and is_frozen(self.net):
            self.vision = FrozenVision(self.net, self.trainer.precision_plugin.forward_context)
        if self.vision is not None:
            batch = self.vision.attach(batch)
        elif ORIGIN in batch:
            batch = batch[ORIGIN].with_pixels(batch)
        return {name: value for name, value in batch.items() if name != ORIGIN}

    def model_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the network's inputs: pixels, or the features of a frozen tower in their place."""
        return to_model(inputs)
