"""Fine-tune a generative model: the LightningModule that the vision-language and the language tasks share."""

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from peft import PeftConfig, PeftModel, PeftType
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from ftkit.errors import InputError, at_least
from ftkit.examples.affixes import NO_AFFIXES, Affixes
from ftkit.examples.supervision import examples_lines
from ftkit.hub import load_pretrained
from ftkit.models.adapter_option import Adapter
from ftkit.models.adapters import add_adapter, check_adapter, merged
from ftkit.models.base_files import BaseFiles, write_fingerprint
from ftkit.models.base_model import (
    Dtype,
    Quantization,
    base_files_of,
    enable_checkpointing,
    hidden_states_and_head,
    load_base,
    load_processor,
    locate,
    plain_model,
)
from ftkit.models.generation import Answers, end_tokens, greedy_answers
from ftkit.models.loading import context_length
from ftkit.models.losses import SupervisedLogProbs, supervised_log_probs, token_loss
from ftkit.run_folder import SplitName
from ftkit.storage import new_folder
from ftkit.training.adapted_module import AdaptedModule
from ftkit.training.optimizer import Interval, Scheduler
from ftkit.training.sharding import gathered, shard
from ftkit.training.windowed_module import WindowedModule


class GenerativeModule(AdaptedModule, WindowedModule):
    """A pretrained generative model that is tuned on answers to prompts, in full or by an adapter.

    A subclass names the transformers class that loads the model (``auto_class``), and the parts that stay as they are
    (``frozen_towers``). Batches are dicts: ``inputs`` with ``input_ids``, ``attention_mask`` and ``labels``, each
    (B, T) int64 and right padded, labels -100 where a token is not supervised, and every tensor that the processor
    makes; ``id`` list of B strings; for evaluation also ``prompts`` (the same keys without labels, left padded),
    ``answer`` (the expected texts), possibly ``affixes`` (what the chat template writes around each, list of B
    :class:`ftkit.examples.affixes.Affixes`), and possibly ``columns`` (list of B strings by name) for the prediction
    file.

    A step divides the summed loss by the supervised tokens of its whole window of micro-batches, on all processes. So
    8 micro-batches of 1 make the same step as 1 batch of 8, whatever their lengths.

    Args:
        base_model: Hub id, folder or GGUF file, or ``demo``, see :func:`ftkit.models.base_model.locate`.
        revision: Hub revision to pin.
        quantization: ``8bit`` or ``nf4`` for the frozen base; null for neither.
        dtype: Of the weights; ``auto`` is the checkpoint's own, but float32 where all weights are trainable, for
            small steps are lost in 16 bits.
        adapter: Any peft method, such as ``peft.LoraConfig``, or the folder of an adapter to continue from; null trains
            all weights. Without ``target_modules`` it adapts the layers that peft chooses in the family, and where peft
            knows none, all attention and MLP projections of the text model.
        gradient_checkpointing: Make activations again in the backward pass: less memory, a third more time.
        max_new_tokens: Longest answer in evaluation, with what the chat template writes around it.
        seed: Seed of the adapter; null takes the one that ``seed_everything`` set.
        optimizer: Makes the optimizer from the trainable parameters.
        scheduler: ``cosine``, ``linear`` or ``constant``; or makes a learning-rate scheduler from the optimizer.
        scheduler_interval: Whether the scheduler is stepped with each optimizer ``step`` or after each ``epoch``.
        warmup: How long a named schedule raises the rate from 0: a fraction of the steps below 1, or a number of steps.
    """

    auto_class: ClassVar[Any]
    accuracy_name: ClassVar[str] = "exact match"  # what the share of right predictions is
    frozen_towers: tuple[str, ...] = ()
    score_name: str | None = None  # of a ``score`` in the predictions, see RunRecorder

    def __init__(
        self,
        base_model: str,
        revision: str | None = None,
        quantization: Quantization | None = None,
        dtype: Dtype = "auto",
        adapter: Adapter | None = None,
        gradient_checkpointing: bool = False,
        max_new_tokens: int = 32,
        seed: int | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-4),
        scheduler: Scheduler = None,
        scheduler_interval: Interval = "step",
        warmup: float = 0.0,
    ) -> None:
        super().__init__()
        # Those of the subclass too.
        self.save_hyperparameters(ignore=["optimizer", "scheduler", "scheduler_interval", "warmup", "metrics"])
        self.base_model, self.revision = base_model, revision
        self.quantization, self.dtype_name = quantization, dtype
        self.take_adapter(adapter)
        self.gradient_checkpointing = gradient_checkpointing
        self.max_new_tokens = max_new_tokens
        self.seed = torch.initial_seed() if seed is None else seed
        self.hparams["seed"] = self.seed  # a run's result and card name the number, not "whatever was seeded"
        self.optimizer, self.scheduler = optimizer, scheduler
        self.scheduler_interval, self.warmup = scheduler_interval, warmup
        self._check_arguments()
        self.net: Any = None

    @property
    def base_options(self) -> dict[str, Any]:
        """The base model's name and revision."""
        return {"model": self.base_model, "revision": self.revision}

    @property
    def base_files(self) -> BaseFiles:
        """Where model and processor are loaded from."""
        return base_files_of(self.base_model, self.revision)

    @cached_property
    def context_length(self) -> int:
        """Largest number of tokens that the model takes; its configuration alone says so.

        Raises:
            InputError: It does not.
        """
        config = load_pretrained(AutoConfig, locate(self.base_model), revision=self.revision).get_text_config()
        return context_length(config) - self.virtual_tokens

    @cached_property
    def processor(self) -> Any:
        """The tokenizer or processor that belongs to the model."""
        images = self.auto_class is AutoModelForImageTextToText
        return load_processor(AutoProcessor if images else AutoTokenizer, self.base_model, self.revision)

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer, or the processor if it is one."""
        return getattr(self.processor, "tokenizer", self.processor)

    def configure_model(self) -> None:
        """Load the model and add the adapter, once. The global random state is left as it was."""
        if self.net is not None:
            return
        if self.adapter is not None:
            self.check_adapter(self.adapter)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.net = self.with_trainable(self.pretrained())
        self.start_adapter()
        self.keep_fingerprint()
        if self.gradient_checkpointing:
            enable_checkpointing(self.net)
        shard(self, plain_model(self.net))

    def pretrained(self) -> Any:
        """Load the base model in the precision in which it is tuned."""
        dtype = "float32" if self.dtype_name == "auto" and self.adapter is None else self.dtype_name
        base = (self.auto_class, self.base_model, self.revision, self.quantization, dtype, self.root_device)
        return load_base(*base)

    def with_trainable(self, net: Any) -> Any:
        """Choose the trainable parameters of a model that was just loaded; add the adapter."""
        if self.adapter is not None:
            return add_adapter(net, self.adapter, "CAUSAL_LM", self.frozen_towers)
        for name, part in net.named_modules():
            if name.rpartition(".")[2] in self.frozen_towers:
                part.requires_grad_(False)
        return net

    @property
    def adapted(self) -> PeftModel:
        """The model with its adapter."""
        return self.net

    def check_adapter(self, adapter: PeftConfig) -> None:
        """Refuse an adapter that does not fit the model, before weights are loaded.

        Raises:
            InputError: It does not.
        """
        config = load_pretrained(AutoConfig, locate(self.base_model), revision=self.revision)
        with torch.device("meta"):
            empty = self.auto_class.from_config(config)
        check_adapter(empty, adapter, "CAUSAL_LM", self.frozen_towers)

    def model_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return what the network takes, from the ``inputs`` or ``prompts`` of a batch; asked just before it runs."""
        return inputs

    def log_probs(self, inputs: dict[str, Tensor]) -> SupervisedLogProbs:
        """Return the log-probabilities of the supervised tokens of a batch's ``inputs``."""
        return gathered(plain_model(self.net), self._log_probs, inputs)

    def _log_probs(self, inputs: dict[str, Tensor]) -> SupervisedLogProbs:
        hidden_states, head = hidden_states_and_head(self.net)
        read = {name: value for name, value in inputs.items() if name != "labels"}
        if "token_type_ids" not in read:  # no token sees what is behind it, such as padding: any kernel will do
            read.pop("attention_mask", None)
        return supervised_log_probs(hidden_states(**self.model_inputs(read)), inputs["labels"], head)

    def on_fit_start(self) -> None:
        """Say how the examples are written and which turns are supervised; apply a learning rate that was found."""
        super().on_fit_start()
        report = getattr(getattr(self.trainer, "datamodule", None), "report", {})
        for line in examples_lines(report):
            rank_zero_info(line)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the summed loss of a micro-batch; log the mean per token of the step so far as ``train/loss``."""
        total, count = token_loss(self.log_probs(batch["inputs"]).log_probs)
        everywhere, tokens = self.over_window(total, count)
        loss = self.window_loss(total, count)
        if self._window or self.trainer.world_size > 1:  # to read ``tokens`` would be to wait for the device
            self.log("train/loss", everywhere / tokens.clamp_min(1), prog_bar=self.shows_progress)
        return loss

    @property
    def shows_progress(self) -> bool:
        """Whether somebody watches: what a progress bar shows is read every batch, and the device is waited for."""
        return self.trainer.progress_bar_callback is not None

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Log ``val/loss`` and, where there are prompts, ``val/accuracy`` (exact match); return the predictions."""
        return self.evaluated("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Do the same for ``test``, see :class:`ftkit.training.recorder.RunRecorder`."""
        return self.evaluated("test", batch)

    def evaluated(self, split: SplitName, batch: dict[str, Any]) -> dict[str, Any]:
        """Log the figures of a batch of a split; return its predictions."""
        self._log_loss(f"{split}/loss", batch)
        found = self.predictions(batch)
        if found:
            right = [label == said for label, said in zip(found["label"], found["prediction"], strict=True)]
            accuracy = sum(right) / len(right)
            self.log(f"{split}/accuracy", accuracy, batch_size=len(right), prog_bar=True, sync_dist=True)
        return found

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return the predictions of a batch."""
        return self.predictions(batch)

    def predictions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch's predictions: greedy answers; none where it has no ``prompts``.

        Besides the batch's own columns there is ``stopped``: whether the model ended the answer itself. An answer that
        never ended carries a mark and so equals no label.
        """
        if "prompts" not in batch:
            return {}
        return self.answered(batch, self.generate(batch["prompts"]))

    def answered(self, batch: dict[str, Any], answers: Answers) -> dict[str, Any]:
        """Return the predictions for answers to a batch's ``prompts``.

        What the chat template writes around an answer is no part of the prediction, as it is none of the label.
        """
        stopped = ["yes" if ended else "no" for ended in answers.stopped]
        return {
            "id": batch["id"],
            "label": [answer.strip() for answer in batch["answer"]],
            "prediction": self.bare(answers.texts, batch.get("affixes", [NO_AFFIXES] * len(answers.texts))),
            "columns": {**batch.get("columns", {}), "stopped": stopped},
        }

    def bare(self, texts: list[str], affixes: list[Affixes]) -> list[str]:
        """Strip generated answers of what the chat template writes around each."""
        ends = end_tokens(self.net, self.tokenizer)
        written = {one: one.generated(self.tokenizer, ends) for one in set(affixes)}
        return [written[one].taken_off(text) for text, one in zip(texts, affixes, strict=True)]

    def generate(self, prompts: dict[str, Tensor]) -> Answers:
        """Generate greedy answers to a batch of left padded prompts, all at once."""
        return greedy_answers(self.net, self.tokenizer, self.model_inputs(prompts), self.max_new_tokens)

    def export(self, folder: str | Path, merge: bool = False) -> None:
        """Write the tuned model for transformers and peft: safetensors, configuration, tokenizer or processor.

        Args:
            folder: Where to; it is created.
            merge: Whether the adapter is merged into the base, which is loaded anew and not quantized. Otherwise it is
                written alone. Without an adapter the whole model is written in either case.

        Raises:
            InputError: The adapter cannot be merged.
            EnvironmentFault: The disk is full, or the folder cannot be written.
        """
        self.configure_model()
        net = self.net
        if self.adapter is not None and merge:
            net = merged(net, load_base(self.auto_class, self.base_model, self.revision, None, self.dtype_name))
        elif self.adapter is not None:
            config = net.peft_config[net.active_adapter]
            config.base_model_name_or_path = self.base_model
            config.revision = self.fingerprint.get("commit", self.revision)
        with new_folder(folder) as new:
            if self.adapter is not None and not merge:
                write_fingerprint(self.fingerprint, new)
            net.save_pretrained(new)
            self.processor.save_pretrained(new)

    def _log_loss(self, name: str, batch: dict[str, Any]) -> None:
        total, count = token_loss(self.log_probs(batch["inputs"]).log_probs)
        if count:
            self.log(name, total / count, batch_size=count, sync_dist=True)

    def _check_arguments(self) -> None:
        at_least(1, max_new_tokens=self.max_new_tokens)
        if self.quantization is not None and self.adapter is None:
            raise InputError("quantized weights cannot be trained", field="quantization", fix="use an adapter")
        prefix = self.adapter is not None and self.adapter.peft_type in (PeftType.PREFIX_TUNING, PeftType.CARTRIDGE)
        if prefix and self.gradient_checkpointing:
            problem = "a prefix is cached keys and values, which checkpointing leaves out"
            raise InputError(problem, field="gradient_checkpointing", got=True, fix="use false")
