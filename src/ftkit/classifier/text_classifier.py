"""The classifier as a Lightning module, over any decoder or encoder."""

from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from peft import PeftModel
from torch import Tensor
from torchmetrics import MeanMetric

from ftkit.classifier.encoded_classifier import EncodedClassifier
from ftkit.classifier.loss import balanced_weights, class_loss, summed_weight
from ftkit.errors import InputError, at_least, below_one
from ftkit.models.adapter_option import Adapter
from ftkit.models.backbone import Weights
from ftkit.models.base_model import Quantization
from ftkit.models.network import FrozenDtype, SequenceClassifier
from ftkit.models.pooling import Pooling
from ftkit.models.trainable import Trainable, add_published_lora, choose_trainable, frozen_blocks
from ftkit.training.adapted_module import AdaptedModule
from ftkit.training.dataset import MessageDataset
from ftkit.training.distributed import summed
from ftkit.training.evaluation_metrics import Metrics
from ftkit.training.frozen_prefix import FrozenPrefix
from ftkit.training.lightning_internals import attached_trainer
from ftkit.training.optimizer import Interval, Scheduler
from ftkit.training.sharding import holds_whole_network, shard


class TextClassifier(AdaptedModule, EncodedClassifier):
    """A decoder or encoder of any family as a text classifier.

    The classes are those of the data module, or of the checkpoint.

    Batches are dicts: ``input_ids`` (B, T) int64 right padded, ``length`` (B,) int64, ``label`` (B,) int64, ``id`` list
    of B strings; a training batch that is a smaller part of its step than others says how small, as ``share``.

    Args:
        base_model: Where configuration, tokenizer and pretrained weights come from: a hub id, a folder in transformers
            format, a GGUF file (``pip install 'ftkit[gguf]'``), whose weights are dequantized to float32, or ``demo``,
            see :func:`ftkit.models.base_model.locate`.
        weights: ``pretrained``, ``random`` (PyTorch's default initialization, as in the published table) or
            ``random_transformers`` (N(0, 0.02)); the random ones take only the configuration from the base model.
        revision: Hub revision to pin.
        dropout: Dropout wherever the family has some: GPT-2 and BERT in embeddings, attention and residual paths, most
            other decoders on the attention weights only.
        trainable: Which parameters are trainable: ``last_layer`` (the head only), ``last_block``, ``last_two_blocks``,
            a number of last blocks, ``all``, or ``lora``, the adapters of the published table: every linear layer and
            the head, GPT-2's query, key and value apart. The final norm is trainable whenever a block is.
        adapter: Any peft method, such as ``peft.LoraConfig``, or the folder of an adapter to continue: it is trained
            with the head, in the place of what ``trainable`` says. Without ``target_modules`` it adapts the layers that
            peft chooses in the family, and where peft knows none, every linear layer of the blocks.
        pooling: Which hidden state is classified: ``first``, ``last`` (padding or not), ``last_real``, ``mean``,
            ``mean_real``. Of an encoder ``first`` or ``mean``, which leaves padding out. Null takes a decoder's last,
            an encoder's first.
        causal_mask: Whether a token attends only to itself and earlier ones. Not every decoder works without it, and no
            encoder has one.
        head_bias: Whether the head has a bias. That of transformers' Llama, Qwen and their kin has none, so without one
            a run can be pushed as a model of theirs.
        mask_padding: Whether attention ignores padding. The published table never masks it; an encoder's always does.
        lora_rank: Rank of the published table's adapters.
        lora_alpha: Their scale: alpha itself, where peft's ``LoraConfig`` scales by alpha / rank.
        ignore_index: A label that the loss ignores; the classes are counted from 0, so the default ignores none.
        class_weights: Weight of each class in the loss, in the order of the classes (of two the negative one first);
            ``balanced`` is inversely proportional to how often the class comes in the train split.
        label_smoothing: Share of each target that is spread over all classes, in training alone.
        seed: Seed of random weights, head and adapters; null takes the one that ``seed_everything`` set.
        quantization: ``8bit`` or ``nf4`` quantizes the frozen weights by bitsandbytes: less memory, approximate.
        tokenizer: Folder or hub id of the tokenizer; null takes the one that belongs to the weights.
        cache_frozen: Whether the outputs of the frozen layers are computed once for each message and cached in
            ``$FTKIT_CACHE/features``, for all epochs, runs and rows that share them. The results stay the same.
        frozen_dtype: ``float32`` is exact. ``bfloat16`` is approximate: the leading frozen blocks run under bf16
            autocast, about twice as fast, cached or not, in training and inference; trainable parts are computed as
            before. It has no effect where no block is frozen.
        optimizer: Builds the optimizer from the trainable parameters.
        scheduler: ``cosine``, ``linear`` or ``constant``; or builds a learning-rate scheduler from the optimizer.
        scheduler_interval: Whether the scheduler is stepped with each optimizer ``step`` or after each ``epoch``.
        warmup: How long a named schedule raises the rate from 0: a fraction of the steps below 1, or a number of steps.
        metrics: What is logged besides loss and accuracy, in validation by default: the macro F1, or of two classes all
            figures of ``ftkit.BinaryEvaluator``, see :class:`ftkit.training.evaluation_metrics.MeasuredModule`.
    """

    default_epochs: ClassVar[int] = 5  # the published table's

    def __init__(
        self,
        base_model: str,
        weights: Weights = "pretrained",
        revision: str | None = None,
        dropout: float = 0.0,
        trainable: Trainable | int = "last_block",
        adapter: Adapter | None = None,
        pooling: Pooling | None = None,
        causal_mask: bool = True,
        mask_padding: bool = False,
        head_bias: bool = True,
        lora_rank: int = 16,
        lora_alpha: float = 16.0,
        ignore_index: int = -100,
        class_weights: list[float] | Literal["balanced"] | None = None,
        label_smoothing: float = 0.0,
        seed: int | None = None,
        quantization: Quantization | None = None,
        tokenizer: str | None = None,
        cache_frozen: bool = True,
        frozen_dtype: FrozenDtype = "float32",
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=5e-5, weight_decay=0.1, fused=True),
        scheduler: Scheduler = None,
        scheduler_interval: Interval = "step",
        warmup: float = 0.0,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__(metrics)
        self.asked_pooling, self.asked_causal_mask, self.asked_mask_padding = pooling, causal_mask, mask_padding
        # Those of the subclass too.
        self.save_hyperparameters(ignore=["optimizer", "scheduler", "scheduler_interval", "warmup", "metrics"])
        self.base_model, self.weights, self.revision, self.dropout = base_model, weights, revision, dropout
        self.head_bias = head_bias
        self.trainable, self.lora_rank, self.lora_alpha = trainable, lora_rank, lora_alpha
        self.take_adapter(adapter)
        self.ignore_index = ignore_index
        self.balanced = class_weights == "balanced"
        given = None if class_weights is None or self.balanced else torch.tensor(class_weights)
        self.register_buffer("class_weights", given, persistent=False)  # on the device: a copy a step would wait for it
        self.label_smoothing = label_smoothing
        self.seed = torch.initial_seed() if seed is None else seed
        self.quantization = quantization
        self.tokenizer_source = tokenizer
        self.hparams["seed"] = self.seed  # a checkpoint keeps the number, not "whatever was seeded"
        self.cache_frozen, self.frozen_dtype = cache_frozen, frozen_dtype
        self.optimizer, self.scheduler = optimizer, scheduler
        self.scheduler_interval, self.warmup = scheduler_interval, warmup
        self.net: SequenceClassifier | None = None
        self.encoding = None
        self._check_arguments()
        self.val_accuracy = MeanMetric(nan_strategy="disable")

    def configure_model(self) -> None:
        """Build backbone, head and adapters, once. The global random state is left as it was."""
        if self.net is not None:
            return
        with torch.random.fork_rng():
            self.net = self.build_network()
        self.start_adapter()
        self.keep_fingerprint()
        shard(self, self.net)

    def build_network(self) -> SequenceClassifier:
        """Return backbone, head and adapters; the global generator is seeded, and left behind what is drawn."""
        torch.manual_seed(self.seed)
        backbone = self.build_backbone()
        torch.manual_seed(self.seed)
        net = SequenceClassifier(backbone, self._pooling, self.mask_padding, len(self.class_names), self.head_bias)
        if self.adapter is not None:
            backbone.add_adapter(self.adapter)
        elif self.trainable == "lora":
            add_published_lora(net, self.lora_rank, self.lora_alpha)
        else:
            choose_trainable(backbone, net.head, self.trainable)
        if self.frozen_dtype == "bfloat16":
            if not backbone.splits:
                raise InputError(
                    "needs a model that can be split into blocks", field="frozen_dtype", got=self.frozen_dtype
                )
            net.bf16_blocks = frozen_blocks(backbone)
        return net

    @property
    def adapted(self) -> PeftModel:
        """Return the backbone's model with its adapter."""
        assert self.net is not None, "configure_model comes first"
        return self.net.backbone.model

    @property
    def steps_join(self) -> bool:
        """Return whether one larger batch makes the same step as its messages one by one, and costs no more.

        Nothing is drawn, the loss is a plain mean, and only the last block holds activations for gradients.
        """
        little = self.adapter is None and self.trainable in ("last_layer", "last_block", 1)
        return little and not self.dropout and self.class_weights is None and not self.balanced

    def setup(self, stage: str) -> None:
        """Take over from the data module the classes and how texts become batches, also for later inference.

        Raises:
            InputError: An option does not fit the number of classes.
        """
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        encoding = getattr(datamodule, "encoding", self.encoding)
        if self.net is not None and self.encoding is not None and encoding is not None:
            self.refuse_other_classes(self.encoding.labels, encoding.labels)
        self.encoding = encoding
        classes = len(self.class_names)
        self._check_classes(classes)
        self.measure_classes(classes)
        if self.balanced and stage == "fit":
            if not isinstance(train := getattr(datamodule, "datasets", {}).get("train"), MessageDataset):
                raise InputError("needs the labels of a data module", field="class_weights", got="balanced")
            self.class_weights = balanced_weights(train.label, classes)
        if stage == "fit" and self.steps_join and hasattr(datamodule, "join_steps"):
            datamodule.join_steps(self.trainer)
        self.prefix = None  # weights and messages may have changed since the last stage

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Leave out the columns that nothing reads, and add cached outputs of frozen layers."""
        assert self.net is not None, "configure_model comes first"
        if self.cache_frozen and self.prefix is None:
            self.prefix = self._open_prefix(self.net)
        batch = self.net.trim(batch)
        return batch if self.prefix is None else self.prefix.attach(batch)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Return the logits (B, C) of a batch; of two classes column 1 is the positive one."""
        assert self.net is not None, "configure_model comes first"
        return self.net(batch["input_ids"], batch["length"], batch.get("features"), batch.get("depth", 0))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the mean cross-entropy, weighted so that averaged gradients are those of all processes."""
        label = batch["label"]
        loss = mean = class_loss(self(batch), label, self.class_weights, self.ignore_index, self.label_smoothing)
        if (trainer := attached_trainer(self)) is not None and trainer.world_size > 1:
            weight = summed_weight(label, self.class_weights, self.ignore_index)
            total, weights = summed(trainer, loss * weight, weight)
            loss, mean = loss * (weight * trainer.world_size / weights), total / weights
        self.log("train/loss", mean, batch_size=len(label))
        return loss * batch.get("share", 1.0)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Log ``val/loss`` and ``val/accuracy``; return the predictions."""
        logits, label = self(batch), batch["label"]
        self.val_accuracy((logits.argmax(-1) == label).float())
        loss = class_loss(logits, label, self.class_weights, self.ignore_index)
        self.log("val/loss", loss, batch_size=len(label), sync_dist=True)
        self.log("val/accuracy", self.val_accuracy, batch_size=len(label), prog_bar=True)
        return self._predictions(batch, logits)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Log ``test/loss`` and ``test/accuracy`` of the test split; return the predictions.

        :class:`ftkit.training.recorder.RunRecorder` counts and keeps those of every split that ``test`` runs over.
        """
        logits, label = self(batch), batch["label"]
        if self.is_test_split(dataloader_idx):
            figures = {"loss": class_loss(logits, label, self.class_weights, self.ignore_index)}
            figures["accuracy"] = (logits.argmax(-1) == label).float().mean()
            logged = {f"test/{name}": value for name, value in figures.items()}
            self.log_dict(logged, batch_size=len(label), sync_dist=True, add_dataloader_idx=False)
        return self._predictions(batch, logits)

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return the predictions of a batch."""
        return self._predictions(batch, self(batch))

    def _open_prefix(self, net: SequenceClassifier) -> FrozenPrefix | None:
        """Return the cache for the data module's messages; None where they or the whole network are not at hand."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if not getattr(data, "datasets", None) or not holds_whole_network(self.trainer):
            return None
        return FrozenPrefix(net, data.datasets, data.batch_size, self.trainer.precision_plugin.forward_context)

    def _predictions(self, batch: dict[str, Any], logits: Tensor) -> dict[str, Any]:
        probability = logits.detach().float().softmax(-1)
        if probability.shape[1] == 2:  # of the positive class alone
            probability = probability[:, 1]
        found = {"id": batch["id"], "label": batch["label"], "prediction": logits.argmax(-1)}
        return {**found, "probability": probability, "columns": batch.get("columns", {})}

    def _check_arguments(self) -> None:
        weights = self.class_weights
        self._check_classes(2 if weights is None else max(len(weights), 2))  # once there are data, their number counts
        if weights is not None and not bool((weights > 0).all()):
            raise InputError("takes one positive weight a class", field="class_weights", got=weights.tolist())
        at_least(1, lora_rank=self.lora_rank)
        below_one(dropout=self.dropout, label_smoothing=self.label_smoothing)
        if self.quantization is not None and self.adapter is None and self.trainable in ("all", "lora"):
            problem = "quantized weights cannot be trained, nor split as the published adapters need it"
            raise InputError(problem, field="quantization", got=self.quantization, fix="use an adapter")
