"""Find the largest micro-batch that fits into memory, with the result of the batch that was asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.utils.data import BatchSampler, IterableDataset
from torchmetrics import Metric

from ftkit.errors import EnvironmentFault, InputError, at_least
from ftkit.training import lightning_internals as internals
from ftkit.training.checkpoint import trainable_parameters
from ftkit.training.probe import silenced
from ftkit.training.recorder import add_to_result
from ftkit.training.windowed_module import WindowedModule

# What others than torch's own allocators say: the CPU's, CUDA's for pinned memory, cuBLAS's for its workspace.
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class FitBatch(L.Callback):
    """Halve the micro-batch until a step fits into memory, and accumulate gradients over as many more of them.

    What does not come out even is split further: 5 examples into 5 of one. Evaluation keeps its own batches.

    Before the first step the largest of some batches is tried, forwards and backwards, with room left for the
    optimizer's state. A later batch that does not fit ends the run: try more batches then.

    Examples, their order, and the number and size of the steps stay as they were asked for: micro-batches of unequal
    size are weighted by it where the loss is a mean. Modules that divide by what their window holds themselves
    (:class:`ftkit.training.windowed_module.WindowedModule`) are left to do so. What was found is in ``result.json`` as
    ``batch``, and a resumed run keeps it.

    It needs one process, automatic optimization, a data module with ``batch_size``, and examples that are counted.

    Args:
        probe_batches: Of how many batches the largest is tried. Messages padded to one length are all as large.
    """

    def __init__(self, probe_batches: int = 8) -> None:
        at_least(1, probe_batches=probe_batches)
        self.probe_batches = probe_batches
        self.asked = self.fitted = 0
        self._examples = self._accumulate = 0

    @property
    def factor(self) -> int:
        """Return the number of micro-batches in a batch."""
        return self.asked // self.fitted

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse what could not be split.

        Raises:
            InputError: There are several processes, or the module takes its steps itself.
        """
        if stage == "fit" and trainer.world_size > 1:
            raise InputError(
                "FitBatch finds the size for a single process, and several would each find their own",
                field="trainer.devices",
                got=trainer.world_size,
                fix="lower data.batch_size and raise trainer.accumulate_grad_batches instead",
            )
        if stage == "fit" and not pl_module.automatic_optimization:
            raise InputError("FitBatch needs a module with automatic optimization", field="trainer.callbacks")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the size and set up trainer and data for it.

        Raises:
            EnvironmentFault: Not even one example fits.
        """
        data: Any = getattr(trainer, "datamodule", None)
        if not isinstance(getattr(data, "batch_size", None), int):
            raise InputError("FitBatch needs a data module with batch_size", field="trainer.callbacks")
        loader = _loader(trainer)
        self.asked, self._accumulate = data.batch_size, trainer.accumulate_grad_batches
        self._examples = min(len(loader.sampler), int(trainer.num_training_batches) * self.asked)
        if not self.fitted or self.asked % self.fitted:
            self.fitted = self._largest(trainer, pl_module, data)
        if self.fitted < self.asked:
            self._split(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Split the batches of a loader that was made anew."""
        if self.fitted < self.asked and _loader(trainer).batch_sampler.batch_size != self.fitted:
            self._split(trainer)

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

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record what was found."""
        if self.fitted:
            found = {"asked": self.asked, "fitted": self.fitted, "accumulate": trainer.accumulate_grad_batches}
            add_to_result(trainer, batch=found)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the trainer as it was."""
        self._release(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the trainer as it was."""
        self._release(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the size that was found."""
        return {"fitted": self.fitted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the size that the run had."""
        self.fitted = state_dict["fitted"]

    def _release(self, trainer: L.Trainer) -> None:
        if self._accumulate:
            trainer.accumulate_grad_batches, self._accumulate = self._accumulate, 0

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
                size = self._smaller(size, error)
            finally:
                data.batch_size = self.asked
            # Outside of the handler, which holds on to the tensors of the step that failed.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _try(self, trainer: L.Trainer, module: L.LightningModule, data: Any, size: int) -> None:
        """Take one step, without the optimizer's, on the largest of some batches."""
        data.batch_size = size
        batches = islice(data.train_dataloader(), self.probe_batches)
        # Compared as the step gets them: one that was tried before may come without what is kept of it.
        batch = max((internals.as_the_step_gets_it(module, batch) for batch in batches), key=elements)
        batch = trainer.strategy.batch_to_device(batch)
        room = [torch.empty_like(p) for p in trainable_parameters(module).values() for _ in range(2)]  # AdamW's moments
        with trainer.precision_plugin.train_step_context():
            found: Any = module.training_step(batch, 0)
        loss = found["loss"] if isinstance(found, dict) else found
        if loss is not None:
            loss.backward()
        del room

    def _smaller(self, size: int, error: BaseException) -> int:
        """Return at most half of a size that did not fit, a divisor of what was asked for."""
        if size == 1:
            raise EnvironmentFault(
                "out of memory with a single example",
                field="data.batch_size",
                fix="cut the examples, use a smaller model, or gradient_checkpointing",
            ) from error
        return next(smaller for smaller in range(size // 2, 0, -1) if self.asked % smaller == 0)

    def _split(self, trainer: L.Trainer) -> None:
        """Let the data come in micro-batches: the same examples in the same order, in as many steps."""
        _loader(trainer).batch_sampler.batch_size = self.fitted
        trainer.accumulate_grad_batches = self._accumulate * self.factor
        batches = -(-self._examples // self.fitted)
        internals.set_batches_of_an_epoch(trainer, batches)
        if isinstance(trainer.val_check_interval, int):
            every = trainer.val_check_interval * self.factor
            trainer.val_check_batch = every if trainer.check_val_every_n_epoch is None else min(every, batches)
        elif trainer.val_check_batch is not None:
            trainer.val_check_batch = max(1, int(batches * trainer.val_check_interval))
        rank_zero_info(f"A batch of {self.asked} does not fit: {self.factor} micro-batches of {self.fitted} instead")


def _loader(trainer: L.Trainer) -> Any:
    """Return the loader of the training examples."""
    loaders = internals.training_loaders(trainer)
    sampler = getattr(loaders[0], "batch_sampler", None) if len(loaders) == 1 else None
    if type(sampler) is not BatchSampler or isinstance(loaders[0].dataset, IterableDataset):
        raise InputError("FitBatch needs one training loader, of examples that are counted", field="trainer.callbacks")
    return loaders[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there is too little memory, on a GPU or not."""
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in _OUT_OF_MEMORY)


def elements(batch: Any) -> int:
    """Count the elements of all tensors in a batch."""
    if isinstance(batch, Tensor):
        return batch.numel()
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list | tuple) else ()
    return sum(map(elements, parts))


@contextmanager
def _without_trace(module: Any) -> Iterator[None]:
    """Let a step be tried that leaves no gradient, metric, logged value or random draw behind."""
    try:
        with silenced(module), torch.random.fork_rng():
            yield
    finally:
        for part in module.modules():
            if isinstance(part, Metric):
                part.reset()
        if isinstance(module, WindowedModule):
            module.restart_window()
