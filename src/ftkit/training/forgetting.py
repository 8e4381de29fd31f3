"""Measure what a language model forgets while it is tuned."""

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from ftkit.errors import InputError, at_least
from ftkit.models.base_model import plain_model
from ftkit.results.forgetting import write_losses
from ftkit.run_folder import losses_file
from ftkit.training.fingerprint import numerics, settings_of
from ftkit.training.generative import GenerativeModule
from ftkit.training.sharding import holds_whole_network
from ftkit.training.tensor_table import TensorTable
from ftkit.training.text_losses import Text, Window, read_texts, text_losses, windows_of


class Forgetting(L.Callback):
    """Measure in ``test`` how much worse the tuned model predicts held-out texts than its base model does.

    Logs ``test/NAME_loss``, the mean negative log-likelihood of a token in nats, and ``test/NAME_forgetting``, by how
    much it exceeds that of the base model; writes both by text to ``losses-NAME.tsv``. That of the base model is
    computed once and cached in ``$FTKIT_CACHE/features`` for all runs with the same texts and numerics; then the base
    model is loaded a second time.

    Args:
        text: The texts, see :func:`ftkit.training.text_losses.read_texts`; of examples the loss is that of the answers.
        name: What the figures are called.
        max_length: Most tokens that are read at a time, or the model's context if that is shorter. A longer text is
            read in windows, each half a window later than the one before; none of its tokens is scored twice.
        batch_size: Windows run at a time.

    Raises:
        InputError: An argument makes no sense.
    """

    def __init__(
        self,
        text: str | Path | list[dict[str, Any]],
        name: str = "retained",
        max_length: int = 1024,
        batch_size: int = 8,
    ) -> None:
        self.text, self.name, self.max_length, self.batch_size = text, name, max_length, batch_size
        at_least(2, max_length=max_length)
        at_least(1, batch_size=batch_size)
        if not re.fullmatch(r"\w+", name):
            raise InputError("must be letters, digits and underscores", field="name", got=name)
        self._means: dict[str, float] = {}

    @cached_property
    def texts(self) -> list[Text]:
        """The texts.

        Raises:
            InputError: They cannot be read.
        """
        return read_texts(self.text)

    @property
    def data_sha256(self) -> str:
        """The hash of the texts, by which the runs of an ablation are told apart."""
        return hashlib.sha256(repr(self.texts).encode()).hexdigest()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Read the texts before anything is trained.

        Raises:
            InputError: They cannot be read, others have their name, or the module or its strategy is none that can be
                measured.
        """
        field = "trainer.callbacks"
        names = [one.name for one in trainer.callbacks if isinstance(one, Forgetting)]  # type: ignore[attr-defined]
        if names.count(self.name) > 1:
            fix = "name each after its texts"
            raise InputError("two have this name", field=f"{field}.name", got=self.name, fix=fix)
        if not isinstance(pl_module, GenerativeModule):
            got = type(pl_module).__name__
            raise InputError("Forgetting is for language models", field=field, got=got, fix="leave it out")
        if not holds_whole_network(trainer):
            got = type(trainer.strategy).__name__
            raise InputError("Forgetting needs whole weights", field=field, got=got, fix="use ddp or one device")
        _ = self.texts

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute the losses, before the clock of the evaluation starts.

        Raises:
            InputError: No token of the texts can be scored.
        """
        assert isinstance(pl_module, GenerativeModule)
        size = min(self.max_length, pl_module.context_length)
        data: Any = getattr(trainer, "datamodule", None)
        chat = getattr(data, "chat", getattr(pl_module, "chat", None))
        windows = windows_of(self.texts, pl_module.processor, size, chat)
        with trainer.precision_plugin.forward_context():
            before = self._before(trainer, pl_module, windows)
            after, tokens = text_losses(pl_module.net, windows, len(self.texts), self.batch_size, pl_module.device)
        if not (total := int(tokens.sum())):
            raise InputError("no token can be scored: the texts are too short", field=f"trainer.callbacks.{self.name}")
        means = {"loss": after, "forgetting": after - before}
        self._means = {f"test/{self.name}_{kind}": float(sums.sum()) / total for kind, sums in means.items()}
        if trainer.is_global_zero:
            file = Path(trainer.default_root_dir) / losses_file(self.name)
            write_losses(file, tokens.tolist(), before.tolist(), after.tolist())

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the means."""
        for name, value in self._means.items():
            pl_module.log(name, value)

    def _before(self, trainer: L.Trainer, module: GenerativeModule, windows: list[Window]) -> Tensor:
        """Return the losses under the base model in the run's precision, cached or computed."""
        net = plain_model(module.net)
        made_of = {
            "output": "losses of held-out texts",
            "weights": module.fingerprint,
            "config": settings_of(net.config),
            "dtype": str(net.dtype),  # the trainer may have changed what the configuration says
            **numerics(module.device.type),
        }
        table = TensorTable(made_of)
        key = hashlib.sha256(repr((windows, self.batch_size)).encode()).digest()
        (kept,) = table.get([key])
        if kept is None:
            base = module.pretrained().eval()
            if not module.quantization:
                base = trainer.precision_plugin.convert_module(base).to(module.device)
            kept, _ = text_losses(base, windows, len(self.texts), self.batch_size, module.device)
            table.add([key], kept[None])
        return kept
