"""Run a module on one batch for the checks of :mod:`ftkit.training.checks`.

Modules are known by what they do: a generative one has ``log_probs`` and batches with ``inputs``; a classifier takes
``input_ids``, ``length`` and ``label``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ftkit.errors import InputError
from ftkit.models.base_model import hidden_states_and_head
from ftkit.models.evaluation_mode import evaluating
from ftkit.models.image_layouts import Images
from ftkit.models.vision_families import FAMILIES, image_features
from ftkit.training.checkpoint import trainable_parameters


class Probe:
    """Hold a module, set up for training, and a batch on its device, cut to some examples, for the checks.

    Raises:
        InputError: The module is of neither kind.
    """

    def __init__(self, module: Any, batch: dict[str, Any], examples: int = 4) -> None:
        self.module = module
        self.generative = hasattr(module, "log_probs")
        keys = {"inputs", "id"} if self.generative else {"input_ids", "length", "label"}
        if not (hasattr(module, "net") and isinstance(batch, dict) and keys <= batch.keys()):
            raise InputError(
                "only generative modules (`log_probs`; batches with `inputs` and `id`) and classifiers (batches with"
                " `input_ids`, `length` and `label`) can be checked, with their network as `net`",
                field="model",
                got=type(module).__name__,
                fix="try a step with `ftkit fit --trainer.max_steps 1`",
            )
        inputs = batch["inputs"] if self.generative else batch
        self.size = len(batch["id"]) if self.generative else len(inputs["input_ids"])
        self.pairs = self.generative and len(inputs["input_ids"]) != self.size
        self.batch = batch
        if self.size > examples and self.separable:
            self.batch, self.size = self.examples(range(examples)), examples

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Return the tensors that the network reads."""
        return self.batch["inputs"] if self.generative else self.batch

    @property
    def separable(self) -> bool:
        """Return whether the first dimension of every tensor but images counts examples, so that some can be picked."""
        tensors = (value for value in self._of_examples(self.inputs).values() if isinstance(value, Tensor))
        return all(len(value) in (self.size, 2 * self.size if self.pairs else self.size) for value in tensors)

    @property
    def context(self) -> int:
        """Return the largest number of tokens that an example may have."""
        config = getattr(self.module.net, "config", None)
        config = getattr(config, "text_config", config)
        known = getattr(config, "max_position_embeddings", None)
        own = None if self.generative else getattr(self.module, "context_length", None)
        return int(own or known or 10**9)

    def image_places(self) -> list[int] | None:
        """Return the number of image tokens of each example; None if the model has no image token."""
        config = getattr(self.module.net, "config", None)
        image_id = getattr(config, "image_token_id", getattr(config, "image_token_index", None))
        return None if image_id is None else (self.inputs["input_ids"] == image_id).sum(1).tolist()

    def image_vectors(self) -> list[int]:
        """Return how many vectors the model makes of the images of each example, each run by itself."""
        found = []
        for example in range(self.size):
            with torch.no_grad():
                features = image_features(self.module.net, self.examples([example])["inputs"])
            found.append(0 if features is None else len(features))
        return found

    def examples(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return the batch of some of the examples."""
        if not self.generative:
            return _picked(self.batch, list(indices), self.size)
        batch = _picked({**self.batch, "inputs": self._of_examples(self.inputs)}, list(indices), self.size)
        images = self._images
        if images is not None and "pixel_values" in self.inputs:
            places = (self.image_places() or [])[: self.size]
            batch["inputs"] |= images.examples(self.inputs, places, indices)
        return batch

    @property
    def _images(self) -> Images | None:
        """Return how images are laid out in a batch; None for a model of text."""
        family = FAMILIES.get(getattr(getattr(self.module.net, "config", None), "model_type", ""))
        return None if family is None else family.images

    def _of_examples(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs without the tensors of images."""
        gone = () if self._images is None else self._images.tensors
        return {name: value for name, value in inputs.items() if name not in gone}

    def outputs(self, batch: dict[str, Any]) -> Tensor:
        """Return logits (B, 2) of a classifier, log-probabilities (N,) of tokens, or losses (B,) of pairs."""
        with torch.no_grad():
            if self.pairs:
                return self.module.compare(batch)[0].losses
            return self.module.log_probs(batch["inputs"]).log_probs if self.generative else self.module(batch)

    def hidden_states(self) -> Callable[[Tensor], Tensor] | None:
        """Return what maps token ids to hidden states (B, T, D), all else as in the batch; None if there is none."""
        if self.generative:
            if self.pairs:
                return None
            run, _ = hidden_states_and_head(self.module.net)
            others = {k: v for k, v in self.inputs.items() if k not in ("labels", "input_ids")}
            prepare = getattr(self.module, "model_inputs", lambda inputs: inputs)
            return lambda ids: run(**prepare({**others, "input_ids": ids}))
        net = self.module.net
        if not hasattr(net, "hidden_states"):
            return None
        return lambda ids: net.hidden_states(ids, self.batch["length"])

    def gradients(self, batches: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the gradients of one optimizer step over micro-batches, as the trainer would take it."""
        trainer = self.module.trainer
        accumulate, trainer.accumulate_grad_batches = trainer.accumulate_grad_batches, len(batches)
        self.module.zero_grad(set_to_none=True)
        try:
            for batch_idx, batch in enumerate(batches):
                found = self.module.training_step(batch, batch_idx)
                loss = found["loss"] if isinstance(found, dict) else found
                (loss / len(batches)).backward()
            if self.generative:
                self.module.on_before_optimizer_step(trainer.optimizers[0])
        finally:
            trainer.accumulate_grad_batches = accumulate
        return {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            for name, parameter in trainable_parameters(self.module).items()
        }


@contextmanager
def silenced(module: Any) -> Iterator[None]:
    """Let a module take steps without logging anything; no gradient is left behind."""
    module.log = module.log_dict = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del module.log, module.log_dict
        module.zero_grad(set_to_none=True)


@contextmanager
def deterministic(module: Any) -> Iterator[None]:
    """Run a module without dropout, and without anything logged."""
    with evaluating([module]), silenced(module):
        yield


def _picked(value: Any, indices: list[int], size: int) -> Any:
    if isinstance(value, dict):
        return {key: _picked(part, indices, size) for key, part in value.items()}
    if isinstance(value, Tensor):
        if value.dim() and len(value) == 2 * size:  # all chosen answers, then all rejected ones
            indices = [*indices, *(size + index for index in indices)]
        return value[indices] if value.dim() and len(value) in (size, 2 * size) else value
    return [value[index] for index in indices] if isinstance(value, list) and len(value) == size else value
