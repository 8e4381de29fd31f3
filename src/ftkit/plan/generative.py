"""Plan the tuning of a generative model, with images or without: a step of each shape is traced on real batches."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig

from ftkit.errors import InputError
from ftkit.hub import load_pretrained
from ftkit.models.base_model import enable_checkpointing, locate, plain_model, prepare_layers
from ftkit.models.transformers_internals import fake_tensors_are_real
from ftkit.plan.packed import pack
from ftkit.plan.steps import Costs, Step, between, length, positions
from ftkit.plan.torch_internals import UNKNOWN, KnownValues, adaptable, fake_tensors
from ftkit.plan.trace import cast, total, traced
from ftkit.training.generative import GenerativeModule
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.model import VLMModule
from ftkit.vlm.pair_log_probs import answer_log_probs
from ftkit.vlm.reference import as_reference
from ftkit.vlm.vision import can_cache, is_frozen, with_features

_READ = 200  # batches of a split; they stand for those behind them
Timed = list[tuple[float, Step]]


class _Batches(NamedTuple):
    """Batches by the shape (B, T) of their tokens: how many there are, and the first of each."""

    widths: Counter[tuple[int, int]]
    first: dict[tuple[int, int], Any]

    @classmethod
    def read(cls, loader: Any) -> "_Batches":
        widths, first = Counter[tuple[int, int]](), dict[tuple[int, int], Any]()
        found = list(islice(loader, _READ))
        for batch in found:
            shape = tuple(batch["inputs"]["input_ids"].shape)
            widths[shape] += len(loader) / len(found)  # type: ignore[assignment]
            first.setdefault(shape, batch)
        return cls(widths, first)

    def steps(self, trace: Callable[[Any], Step]) -> Timed:
        """Return the steps of all batches; few are traced."""
        return between(self.widths, lambda size, width: trace(self.first[size, width]))


def plan_generative(model: GenerativeModule, data: Any, trainer: Any) -> Costs:
    """Return what the tuning of a generative model costs, with its evaluations.

    Args:
        model: The module, not built yet; its weights are neither read nor drawn.
        data: The data module.
        trainer: The trainer; it gets both.

    Raises:
        InputError: The step reads a number that only the weights decide.
    """
    trainer.strategy.connect(model)
    model.trainer = data.trainer = trainer
    data.prepare_data()
    data.setup("fit")
    train, val = _Batches.read(data.train_dataloader()), _Batches.read(data.val_dataloader())
    tested = dict(zip(data.evaluate_splits, map(_Batches.read, data.test_dataloader()), strict=True))
    mode = fake_tensors()
    with mode:
        _build(model, trainer)
        try:
            return _Tuning(model, trainer, KnownValues(mode)).costs(train, val, tested)
        except UNKNOWN as error:
            raise InputError(f"a step reads a number that weights decide ({error.func})", field="model") from error


def _build(model: GenerativeModule, trainer: Any) -> None:
    if model.adapter is not None:
        model.check_adapter(model.adapter)
    config = load_pretrained(AutoConfig, locate(model.base_model), revision=model.revision)
    kept = "float32" if model.dtype_name == "auto" and model.adapter is None else model.dtype_name
    dtype = (config.dtype or torch.float32) if kept == "auto" else getattr(torch, kept)
    with adaptable():
        base = model.auto_class.from_config(config, dtype=dtype).train()
        prepare_layers(base)
        model.net = model.with_trainable(base)
    if model.quantization is not None:
        pack(model.net, model.quantization, base.get_output_embeddings())
    if model.gradient_checkpointing:
        enable_checkpointing(model.net)
    cast(model.net, trainer)


class _Tuning:
    """A module whose steps are traced."""

    def __init__(self, model: Any, trainer: Any, numbers: KnownValues) -> None:
        self.model, self.trainer, self.numbers = model, trainer, numbers
        for name in ("log", "log_dict"):
            setattr(model, name, lambda *_, **__: None)
        self.compares = isinstance(model, VLMDPO)
        self.sees = isinstance(model, VLMModule) and model.cache_vision is not False and can_cache(model.net)

    def costs(self, train: _Batches, val: _Batches, tested: Mapping[str, _Batches]) -> Costs:
        """Return the costs of a training, with a validation after each epoch and a test of splits by name."""
        epochs, updates = length(self.trainer, round(train.widths.total()))
        trained = _repeated([(epochs, train)], self.training)
        steps, shared = list(trained), {}
        evaluated = [(int(epochs), val), *((1, batches) for batches in tested.values())]
        for run in (self.evaluation, self.answers_begun, self.answers_continued):
            steps += _repeated(evaluated, run)
        every = {"train": train, "val": val, **tested}  # each split once, also one that is tested besides
        once = [(1, batches) for batches in every.values()]
        lengths = [sorted(batches.widths.items()) for batches in every.values()]  # tell data apart
        name = f"{self.model.base_model} {self.trainer.precision} {lengths}"
        if self.sees:
            shared[f"images {name}"] = _repeated(once, self.tower)
        if self.compares and self.model.cache_reference:
            shared[f"reference {name} {self.model.quantization}"] = _repeated(once, self.reference)
        elif self.compares:
            steps += _repeated([(epochs, train), *evaluated], self.reference)
        rest: dict[str, Any] = {"steps": steps, "updates": updates, "shared": shared, "batch": max(train.widths)[0]}
        rest["positions"] = epochs * positions(train.widths) + int(epochs) * positions(val.widths)
        rest["copies"] = 1 + (self.compares and self.model.adapter is None)  # the reference is a model of its own
        return total(self.model.net, self.model.optimizer, (step for _, step in trained), **rest)

    def training(self, batch: Any) -> Step:
        """A step of the training, of cached images and reference where there are some."""
        self.model.restart_window()
        return self._traced(batch, lambda given: self.model.training_step(given, 0), training=True)

    def evaluation(self, batch: Any) -> Step:
        """The loss of a batch of evaluation."""
        run = self.model.compare if self.compares else lambda given: self.model.log_probs(given["inputs"])
        return self._traced(batch, run)

    def answers_begun(self, batch: Any) -> Step:
        """The prompts of a batch of evaluation, and the first token of their answers."""
        return self._traced(batch, self._begun) if "prompts" in batch else _NOTHING

    def answers_continued(self, batch: Any) -> Step:
        """All further tokens of the answers, as many as they may have; keys and values of earlier ones are not read."""
        if "prompts" not in batch:
            return _NOTHING
        further = self.model.max_new_tokens - 1
        step = self._traced(batch, self._continued)
        return Step(Counter({one: further * times for one, times in step.work.items()}), step.peak)

    def tower(self, batch: Any) -> Step:
        """The images of a batch."""
        return self._traced(batch, lambda given: with_features(self.model.net, given["inputs"]), seen=False)

    def reference(self, batch: Any) -> Step:
        """The reference of a batch of pairs."""

        def run(given: Any) -> Any:
            with as_reference(self.model.net) as net:
                return answer_log_probs(net, given["inputs"])

        return self._traced(batch, run, seen=is_frozen(self.model.net))  # with the features that the policy gets

    def _begun(self, given: Any) -> Any:
        inputs = self.model.model_inputs(given["prompts"])
        return plain_model(self.model.net)(**inputs, use_cache=True, logits_to_keep=1)

    def _continued(self, given: Any) -> Any:
        return plain_model(self.model.net)(input_ids=given["prompts"]["input_ids"][:, -1:])

    def _traced(
        self,
        batch: Any,
        run: Callable[..., Any],
        training: bool = False,
        seen: bool | None = None,
    ) -> Step:
        """Trace a pass; ``seen``: whether features of the images are there before, by default if they are cached."""
        tensors = {name: batch[name] for name in ("inputs", "prompts") if name in batch}
        with fake_tensors_are_real(), self.numbers:
            given = {"id": batch["id"], **self.numbers.known(tensors)}
            with torch.no_grad():
                if self.sees if seen is None else seen:
                    given |= {name: with_features(self.model.net, given[name]) for name in tensors}
                if self.compares:
                    given["reference"] = torch.zeros(len(given["inputs"]["labels"]))
            return traced(self.model.net, lambda: run(given), self.trainer, training)


def _repeated(batches: Iterable[tuple[float, _Batches]], trace: Callable[[Any], Step]) -> Timed:
    """Return the steps of batches, each as often as it says."""
    return [(often * times, step) for often, one in batches for times, step in one.steps(trace)]


_NOTHING = Step(Counter(), 0)
