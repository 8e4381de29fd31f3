"""The largest micro-batch that fits into memory, with the result of the batch that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torchmetrics import Metric

from ftkit.errors import EnvironmentFault, InputError
from ftkit.training.checkpoint import trainable_parameters
from ftkit.training.recorder import add_to_result
from ftkit.training.window import WindowedModule


class FitBatch(L.Callback):
    """Halves the micro-batch until a step fits into memory, and accumulates gradients over as many more of them.

    Before the first step the largest of some batches is tried, forwards and backwards, with room left for the
    optimizer's state. Examples, their order, and the number and size of the steps stay as they were asked for: micro-
    batches of unequal size are weighted by it where the loss is a mean. Modules that divide by what their window holds
    themselves (:class:`ftkit.training.window.WindowedModule`) are left to do so. What was found is in
    ``result.json`` as ``batch``, and a resumed run keeps it.

    It needs a data module with ``batch_size``.

    Args:
        probe_batches: Of how many batches the largest is tried. Later ones may be larger; those of messages padded to
            one length are not.
    """

    def __init__(self, probe_batches: int = 8) -> None:
        self.probe_batches = probe_batches
        self.asked = self.fitted = 0
        self._examples = 0

    @property
    def factor(self) -> int:
        """Micro-batches that make a batch."""
        return self.asked // self.fitted

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the size and set up trainer and data for it.

        Raises:
            InputError: The data module does not say its batch size.
            EnvironmentFault: Not even one example fits.
        """
        data: Any = getattr(trainer, "datamodule", None)
        if not isinstance(getattr(data, "batch_size", None), int):
            raise InputError("FitBatch needs a data module with batch_size", field="trainer.callbacks")
        self.asked = data.batch_size
        if not self.fitted:
            self.fitted = self._largest(trainer, pl_module, data)
        if self.fitted < self.asked:
            self._split(trainer, data)
            rank_zero_info(
                f"A batch of {self.asked} does not fit: {self.factor} micro-batches of {self.fitted} instead"
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note which micro-batch comes."""
        self._batch_idx = batch_idx

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Weight a micro-batch's mean by its part of the examples of its batch."""
        if self.fitted == self.asked or isinstance(pl_module, WindowedModule):
            return
        size = min(self.fitted, self._examples - self._batch_idx * self.fitted)
        whole = min(self.asked, self._examples - self._batch_idx // self.factor * self.asked)
        if size * self.factor != whole:
            loss.register_hook(lambda gradient: gradient * (size * self.factor / whole))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Record what was found."""
        if stage == "fit" and self.fitted:
            found = {"asked": self.asked, "fitted": self.fitted, "accumulate": trainer.accumulate_grad_batches}
            add_to_result(trainer, batch=found)

    def state_dict(self) -> dict[str, Any]:
        """The size that was found."""
        return {"fitted": self.fitted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the size that the run began with."""
        self.fitted = state_dict["fitted"]

    def _largest(self, trainer: L.Trainer, module: L.LightningModule, data: Any) -> int:
        size = self.asked
        while True:
            try:
                with _without_trace(module):
                    self._try(trainer, module, data, size)
                return size
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise EnvironmentFault(
                        "out of memory with a single example",
                        field="data.batch_size",
                        fix="cut the examples, use a smaller model, or gradient_checkpointing",
                    ) from error
            finally:
                data.batch_size = self.asked
            # Outside of the handler, which holds on to the tensors of the step that failed.
            size = next(smaller for smaller in range(size // 2, 0, -1) if self.asked % smaller == 0)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _try(self, trainer: L.Trainer, module: L.LightningModule, data: Any, size: int) -> None:
        """One step without its end on the largest of some batches."""
        data.batch_size = size
        batches = islice(data.train_dataloader(), self.probe_batches)
        # Compared as the step gets them: one that was tried before may come without what is kept of it.
        batch = max((module._on_before_batch_transfer(batch, dataloader_idx=0) for batch in batches), key=elements)
        batch = trainer.strategy.batch_to_device(batch)
        room = [torch.empty_like(p) for p in trainable_parameters(module).values() for _ in range(2)]  # AdamW's moments
        with trainer.precision_plugin.train_step_context():
            found: Any = module.training_step(batch, 0)
        loss = found["loss"] if isinstance(found, dict) else found
        if loss is not None:
            loss.backward()
        del room

    def _split(self, trainer: L.Trainer, data: Any) -> None:
        """Let the data come in micro-batches: the same examples in the same order, in as many steps."""
        loop: Any = trainer.fit_loop
        (before,) = loop._combined_loader.flattened
        batches = int(trainer.num_training_batches)
        self._examples = min(len(before.sampler), batches * self.asked)
        trainer.accumulate_grad_batches *= self.factor
        if isinstance(trainer.val_check_interval, int):
            trainer.val_check_interval *= self.factor
        trainer.limit_train_batches = -(-self._examples // self.fitted)
        data.batch_size = self.fitted
        loop._combined_loader = None
        loop.setup_data()
        data.batch_size = self.asked
        (now,) = loop._combined_loader.flattened
        now.batch_sampler.sampler = before.sampler  # an order may depend on the number of batches


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, on a GPU or not."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def elements(batch: Any) -> int:
    """Elements of all tensors in a batch.

    Example:
        >>> elements({"inputs": {"input_ids": torch.zeros(2, 3)}, "id": ["a", "b"]})
        6
    """
    if isinstance(batch, Tensor):
        return batch.numel()
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list | tuple) else ()
    return sum(map(elements, parts))


@contextmanager
def _without_trace(module: Any) -> Iterator[None]:
    """Let a step be tried that leaves no gradient, metric, logged value or random draw behind."""
    module.log = module.log_dict = lambda *args, **kwargs: None
    try:
        with torch.random.fork_rng():
            yield
    finally:
        del module.log, module.log_dict
        module.zero_grad(set_to_none=True)
        for part in module.modules():
            if isinstance(part, Metric):
                part.reset()
        if isinstance(module, WindowedModule):
            module.restart_window()
