"""Labeled messages, split, encoded and batched for a text classifier."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ftkit.classifier.dataset import MessageDataset, as_it_is, with_share
from ftkit.classifier.encoding import Encoding
from ftkit.classifier.messages import Messages
from ftkit.classifier.samplers import EpochSampler, Order
from ftkit.classifier.source import DEMO_LABELS, Source
from ftkit.classifier.splits import PUBLISHED_FRACTIONS, PUBLISHED_SEED, balanced_split, stratified_split
from ftkit.errors import InputError
from ftkit.run_folder import SPLITS, SplitName
from ftkit.training.distributed import processes
from ftkit.training.split_data import SplitDataModule

_UNCUT = 2**31
_TOGETHER = 8  # largest batch that replaces batches of 1


class SpamDataModule(SplitDataModule):
    """Messages labeled ham or spam, or with any other two classes, for a text classifier.

    Args:
        source: ``demo`` (made-up messages that ftkit writes), ``uci`` (downloads the SMS Spam Collection), or
            the path of a file with a label and a text in each line.
        split: ``published`` (balanced; the messages, draws and sizes of the published table), ``balanced`` (the
            larger class drawn down to the smaller one) or ``all`` (every message, both classes in the same
            proportions everywhere).
        fractions: Parts of the messages for train and validation; the rest is for test.
        split_seed: Seed of the split.
        padding: ``longest`` (pad and cut to the longest train message), ``context`` (to the model's context),
            a number of tokens, or ``none`` (each message at its own length; in a batch, that of the longest). Messages
            without padding are evaluated several at a time, unless the model would attend to the padding; and training
            with batch size 1 and accumulated gradients uses larger batches that make the same steps.
        drop_last: Leave out the last, smaller batch of a training epoch.
        order: Order of the training messages: ``seeded`` by (seed, epoch), or ``published``, the published
            script's draws.
        labels: Names of the negative and the positive class.
        normalize_labels: Read labels in a file in any spelling, see :func:`ftkit.normalize.normalize`.
        **options: See :class:`ftkit.training.split_data.SplitDataModule`.

    Raises:
        InputError: An argument, or a combination of arguments, makes no sense.

    Example:
        >>> from tokenizers.pre_tokenizers import ByteLevel
        >>> from transformers import GPT2Tokenizer
        >>> symbols = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
        >>> tokenizer = GPT2Tokenizer(vocab=dict(zip(symbols, range(257))), merges=[])
        >>> data = SpamDataModule(batch_size=4)
        >>> data.prepare(tokenizer, context_length=64)
        >>> next(iter(data.train_dataloader()))["input_ids"].shape
        torch.Size([4, 64])
        >>> data.report["sizes"]
        {'train': 1045, 'val': 149, 'test': 300}
    """

    step_options = ("split", "fractions", "split_seed", "padding", "drop_last", "order", "labels")

    def __init__(
        self,
        source: str | Path = "demo",
        split: Literal["published", "balanced", "all"] = "published",
        fractions: tuple[float, float] = PUBLISHED_FRACTIONS,
        split_seed: int = PUBLISHED_SEED,
        padding: Literal["longest", "context", "none"] | int = "longest",
        drop_last: bool = True,
        order: Order = "seeded",
        labels: tuple[str, str] = DEMO_LABELS,
        normalize_labels: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.split, self.split_seed = split, split_seed
        self.fractions, self.labels = (fractions[0], fractions[1]), (labels[0], labels[1])
        self.padding, self.drop_last, self.order = padding, drop_last, order
        self._check_arguments()
        quoting: Literal["published", "literal"] = "published" if split == "published" else "literal"
        self.source = Source(str(source), quoting, self.labels, normalize_labels)
        self.encoding: Encoding | None = None
        self._by_length = False  # whether messages are evaluated in the order of their length
        self._joined = 1

    @property
    def data_sha256(self) -> str:
        """Return the hash of the source, known before anything is downloaded or encoded; ``report`` has the same.

        Raises:
            InputError: The file cannot be read.
        """
        return self.source.sha256

    def prepare_data(self) -> None:
        """Download the messages, on one process only, if the source is ``uci``."""
        self.source.fetch()

    def setup(self, stage: str) -> None:
        """Prepare the messages for the trainer's model."""
        assert self.trainer is not None, "Lightning calls it; without a trainer, call prepare"
        model: Any = self.trainer.lightning_module
        self.prepare(model.load_tokenizer(), model.context_length, model.reads_padding, model.sees_padding)
        self._joined = 1

    def prepare(
        self,
        tokenizer: PreTrainedTokenizerBase,
        context_length: int,
        reads_padding: bool = False,
        sees_padding: bool = False,
    ) -> None:
        """Read, split and encode the messages; sets :attr:`datasets`, :attr:`encoding` and :attr:`report`.

        Args:
            tokenizer: Encodes without special tokens. Its end of text is the padding, as GPT-2 has no padding token.
            context_length: Largest number of tokens that the model takes.
            reads_padding: Whether padding could change what the model predicts.
            sees_padding: Whether it could although the position that decides is no padding, since others attend to it.

        Raises:
            InputError: The file, or its combination with the model, cannot be used.
            UnavailableError: The download failed.
        """
        self._check_padding(context_length, reads_padding)
        messages = self.source.read()
        rows = self._rows(messages)
        pad = int(tokenizer.eos_token_id)
        uncut = Encoding(self.labels, max_length=_UNCUT, pad_to_max=False, pad_id=pad, single=False)
        texts = {name: [messages.texts[row] for row in rows[name]] for name in SPLITS}
        encoded = {name: uncut.encode(tokenizer, texts[name]) for name in SPLITS}
        self.encoding = replace(
            uncut,
            max_length=self._max_length(encoded["train"], context_length),
            pad_to_max=self.padding != "none",
            single=self.padding == "none" and sees_padding,
        )
        # Where no padding is needed, or none is read, the model computes each batch to its longest message only.
        self._by_length = not (reads_padding if self.encoding.pad_to_max else self.encoding.single)
        if self.padding == "none" and not sees_padding and self.batch_size == 1:
            self.evaluation_batch_size = _TOGETHER
        width = min(max(map(len, encoded["train"])), self.encoding.max_length)
        for name in SPLITS:
            ids = [messages.ids[row] for row in rows[name]]
            target = [self.labels.index(messages.labels[row]) for row in rows[name]]
            cut = [tokens[: self.encoding.max_length] for tokens in encoded[name]]
            self.datasets[name] = MessageDataset(ids, target, cut, self.encoding, name, width)
        self.report = {"source": self.source.title, "sha256": messages.sha256, "max_length": self.encoding.max_length}
        self.report |= _statistics(self.datasets, texts, encoded, self.encoding.max_length)
        if empty := sum(self.report["empty"].values()):
            warnings.warn(f"{empty} empty messages in {self.source.name}: each counts as one token", stacklevel=2)
        self.note_seed()

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of the train split, in the order of the epoch."""
        messages, sharing = len(self.datasets["train"]), processes(self.trainer)
        rounding = math.floor if self.drop_last else math.ceil
        batches = rounding(messages / (self.batch_size * sharing.get("num_replicas", 1)))
        sharing |= {"batch_size": self.batch_size, "drop_last": self.drop_last}
        sampler = EpochSampler(messages, batches, self._order_seed, self.order, **sharing)
        drop_last = self.drop_last and self._joined == 1  # one by one, no message is left over
        return self._loader("train", self.batch_size * self._joined, sampler, evaluation=False, drop_last=drop_last)

    def join_steps(self, trainer: L.Trainer) -> None:
        """Replace batches of 1 with accumulated gradients by larger batches that make the same steps.

        The trainer accumulates that much less. Where padding would be attended to, nothing is changed; nor where
        processes share the steps, or where the trainer was told to count batches that would not come out even.

        Args:
            trainer: Before its training starts; for a model whose steps may be joined.
        """
        assert self.encoding is not None, "setup comes first"
        scheduled = any(isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        alone = self.batch_size == 1 and not (self.encoding.pad_to_max or self.encoding.single)
        if not alone or scheduled or trainer.limit_train_batches != 1.0 or trainer.world_size > 1:
            return
        counts = [trainer.accumulate_grad_batches]
        if trainer.val_check_interval != 1.0:
            if not isinstance(trainer.val_check_interval, int) or trainer.check_val_every_n_epoch is None:
                return
            counts.append(trainer.val_check_interval)
        self._join(trainer, max(n for n in range(1, _TOGETHER + 1) if not any(count % n for count in counts)))

    def teardown(self, stage: str) -> None:
        """Let the trainer count single messages again."""
        if self.trainer is not None:
            self._join(self.trainer, 1)

    def on_exception(self, exception: BaseException) -> None:
        """Do the same for a stage that fails, after which Lightning tears no data module down."""
        self.teardown("")

    def _join(self, trainer: L.Trainer, messages: int) -> None:
        """Have batches of so many messages, and the trainer count them."""
        trainer.accumulate_grad_batches = trainer.accumulate_grad_batches * self._joined // messages
        if isinstance(trainer.val_check_interval, int):
            trainer.val_check_interval = trainer.val_check_interval * self._joined // messages
        self._joined = messages

    def _evaluation_order(self, split: SplitName) -> Sequence[int]:
        """Return the examples as they come; or by length, where a batch costs as much as its longest message."""
        if not self._by_length:
            return super()._evaluation_order(split)
        return self.datasets[split].length.argsort(stable=True).tolist()

    def _collate(self, split: SplitName, evaluation: bool) -> Callable[[Any], Any]:
        return as_it_is if evaluation or self._joined == 1 else partial(with_share, size=self._joined)

    def _rows(self, messages: Messages) -> dict[str, list[int]]:
        """Return the indices of each split's messages."""
        divide = stratified_split if self.split == "all" else balanced_split
        target = [self.labels.index(label) for label in messages.labels]
        rows = {name: part.tolist() for name, part in divide(target, self.fractions, self.split_seed).items()}
        if self.drop_last and len(rows["train"]) < self.batch_size:
            raise InputError(
                f"0 batches: {len(rows['train'])} train messages fill none, and a smaller batch is left out",
                field="batch_size",
                got=self.batch_size,
                fix="use a smaller batch_size, or drop_last: false",
            )
        return rows

    def _max_length(self, train: list[list[int]], context_length: int) -> int:
        if self.padding == "longest":
            return min(max(map(len, train)), context_length)
        return self.padding if isinstance(self.padding, int) else context_length

    def _check_arguments(self) -> None:
        if isinstance(self.padding, int) and self.padding < 1:
            raise InputError("must be at least 1 token", field="padding", got=self.padding)
        if self.split == "published" and (self.fractions, self.split_seed) != (
            PUBLISHED_FRACTIONS,
            PUBLISHED_SEED,
        ):
            raise InputError(
                f"published means fractions {list(PUBLISHED_FRACTIONS)} and split_seed {PUBLISHED_SEED}",
                field="split",
                got=[*self.fractions, self.split_seed],
                fix="use split: balanced",
            )

    def _check_padding(self, context_length: int, reads_padding: bool) -> None:
        if isinstance(self.padding, int) and self.padding > context_length:
            raise InputError(
                f"{self.padding} tokens in a context of {context_length}",
                field="padding",
                fix=f"use at most {context_length}",
            )
        if self.padding == "none" and reads_padding and self.batch_size > 1:
            raise InputError(
                f"no padding with batch size {self.batch_size}: messages of one batch are padded to one "
                "length, and that would change this model's predictions",
                field="padding",
                fix=f"batch_size 1 with accumulate_grad_batches {self.batch_size}, or pooling last_real",
            )


def _statistics(
    datasets: dict[str, MessageDataset],
    texts: dict[SplitName, list[str]],
    encoded: dict[SplitName, list[list[int]]],
    max_length: int,
) -> dict[str, dict[str, Any]]:
    """Return by split: messages, positive ones, lengths in tokens before cutting, messages cut, messages empty."""
    lengths = {name: [len(ids) for ids in encoded[name]] for name in SPLITS}
    return {
        "sizes": {name: len(datasets[name]) for name in SPLITS},
        "positive": {name: int(datasets[name].label.sum()) for name in SPLITS},
        "longest": {name: max(lengths[name]) for name in SPLITS},
        "mean_length": {name: round(sum(lengths[name]) / len(lengths[name]), 2) for name in SPLITS},
        "truncated": {name: sum(length > max_length for length in lengths[name]) for name in SPLITS},
        "empty": {name: sum(not text.strip() for text in texts[name]) for name in SPLITS},
    }
