"""A module whose network may have an adapter of any peft method."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from peft import AdaLoraConfig, PeftConfig, PeftModel
from torch.optim import Optimizer

from ftkit.errors import InputError
from ftkit.models.adapter_option import Adapter, adapter_to_dict, load_weights, read_adapter
from ftkit.models.base_files import refuse_other_base
from ftkit.models.file_hash import file_sha256
from ftkit.models.peft_internals import allocator_state, orthogonality_gradients, plan_ranks, restore_allocator
from ftkit.models.virtual_tokens import virtual_tokens
from ftkit.training.trained_state import TrainedStateModule


class AdaptedModule(TrainedStateModule):
    """Train an adapter of any peft method, or weights of the network itself; AdaLoRA's ranks are allocated on the way.

    Attributes:
        adapter: The method; None where there is no adapter.
    """

    adapter: PeftConfig | None
    _adapter_folder: str | None

    @property
    @abstractmethod
    def adapted(self) -> PeftModel:
        """The model with its adapter."""

    def take_adapter(self, given: Adapter | Mapping[str, Any] | None) -> None:
        """Keep the option ``adapter``, in plain values among the hyperparameters.

        Raises:
            InputError: See :func:`ftkit.models.adapter_option.read_adapter`.
        """
        self.adapter = read_adapter(given)
        self._adapter_folder = given if isinstance(given, str) else None
        if isinstance(given, PeftConfig):
            self.hparams["adapter"] = adapter_to_dict(self.adapter)

    @property
    def virtual_tokens(self) -> int:
        """How many trained tokens stand before each text."""
        return virtual_tokens(self.adapter)

    @property
    def started_from(self) -> dict[str, str]:
        """The SHA-256 of each file of the adapter that training goes on from; none where it starts anew."""
        files = Path(self._adapter_folder).glob("adapter_*") if self._adapter_folder else ()
        return {file.name: file_sha256(file) for file in sorted(files)}

    def start_adapter(self) -> None:
        """Take the weights of the adapter that training goes on from, if there is one; called once it is in place.

        Raises:
            InputError: It was trained on another base model, or does not fit.
        """
        if self._adapter_folder is not None:
            refuse_other_base(Path(self._adapter_folder), self.base_files)
            load_weights(self.adapted, self._adapter_folder)

    def on_fit_start(self) -> None:
        """Plan AdaLoRA's ranks for the steps of this training, whatever ``total_step`` says; not in a fast_dev_run.

        Raises:
            InputError: It has no step between ``tinit`` and ``tfinal``.
        """
        super().on_fit_start()
        if not isinstance(self.adapter, AdaLoraConfig) or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        steps, kept = self.trainer.estimated_stepping_batches, self.adapter.tinit + self.adapter.tfinal
        if not kept < steps < math.inf:
            problem, fix = f"leave no step of {steps} to allocate ranks in", "lower them, or train for more steps"
            raise InputError(problem, field="adapter: tinit and tfinal", got=kept, fix=fix)
        if self.adapter.total_step != steps:
            rank_zero_info(f"AdaLoRA's total_step is {steps}, that of this training, not {self.adapter.total_step}")
        plan_ranks(self.adapted, int(steps))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Add the gradient of AdaLoRA's regularization, which is no part of the loss that is logged."""
        super().on_before_optimizer_step(optimizer)
        if isinstance(self.adapter, AdaLoraConfig):
            for parameter, gradient in orthogonality_gradients(self.adapted):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def make_optimizer(self, parameters: Any) -> Optimizer:
        """Make the optimizer; AdaLoRA allocates its ranks by the gradients of a step, before they are freed."""
        made = super().make_optimizer(parameters)
        if isinstance(self.adapter, AdaLoraConfig):
            allocate: Any = self.adapted.update_and_allocate
            made.register_step_post_hook(lambda *_: allocate(self.trainer.global_step + 1))
        return made

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the method, whatever becomes of a folder that it was read from, and AdaLoRA's ranks."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["adapter"] = adapter_to_dict(self.adapter)
        if isinstance(self.adapter, AdaLoraConfig):
            checkpoint["ranks"] = allocator_state(self.adapted)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse what does not fit, and take AdaLoRA's ranks."""
        super().on_load_checkpoint(checkpoint)
        if "ranks" in checkpoint:
            restore_allocator(self.adapted, checkpoint["ranks"])

    @classmethod
    def _built(cls, checkpoint: dict[str, Any], device: torch.device | str, **changes: Any) -> Any:
        stored = checkpoint.get("hyper_parameters")
        if stored is not None and "adapter" in checkpoint:  # the method itself, whatever became of its folder
            checkpoint = {**checkpoint, "hyper_parameters": {**stored, "adapter": checkpoint["adapter"]}}
        return super()._built(checkpoint, device, **changes)
