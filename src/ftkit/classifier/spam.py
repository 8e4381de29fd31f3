"""Spam or not: labelled messages, split, encoded and batched for a classifier."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ftkit.classifier import download
from ftkit.classifier.dataset import Batch, MessageDataset, message_loader
from ftkit.classifier.demo_corpus import demo_messages
from ftkit.classifier.encoding import Encoding
from ftkit.classifier.messages import Messages, content_sha256, read_bytes, read_messages
from ftkit.classifier.order import EpochSampler, Order
from ftkit.classifier.splits import (
    PUBLISHED_FRACTIONS,
    PUBLISHED_SEED,
    balanced_split,
    stratified_split,
)
from ftkit.errors import InputError
from ftkit.run_folder import SPLITS, SplitName
from ftkit.training.distributed import processes
from ftkit.training.order import evaluation_sampler

_DEMO_LABELS = ("ham", "spam")
_UNCUT = 2**31


class SpamDataModule(L.LightningDataModule):
    """Messages labelled ham or spam, or of any other two classes, for a text classifier.

    Args:
        source: ``demo`` (made-up messages that ftkit writes), ``uci`` (downloads the SMS Spam Collection), or
            the path of a file with a label and a text a row.
        split: ``published`` (balanced; the rows, draws and sizes of the published table), ``balanced`` (the
            larger class drawn down to the smaller one) or ``all`` (every message, both classes in the same
            proportions everywhere).
        fractions: Parts of the messages for train and validation; the rest is for test.
        split_seed: Seed of the split.
        padding: ``longest`` (pad and cut to the longest train message), ``context`` (to the model's context),
            a number of tokens, or ``none`` (each message at its own length; in a batch, that of the longest).
        batch_size: Messages in a batch of one process; several processes multiply it.
        drop_last: Leave out the last, smaller batch of a training epoch.
        order: Order of the training messages: ``seeded`` by (seed, epoch), or ``published``, the published
            script's draws.
        seed: Seed of that order; null takes the one that ``seed_everything`` set.
        evaluate_splits: The splits that ``test`` runs over, one data loader each.
        labels: Names of the negative and the positive class.
        normalize_labels: Ignore case and surrounding spaces of labels in a file.
        num_workers: Processes that load batches.

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

    def __init__(
        self,
        source: str | Path = "demo",
        split: Literal["published", "balanced", "all"] = "published",
        fractions: tuple[float, float] = PUBLISHED_FRACTIONS,
        split_seed: int = PUBLISHED_SEED,
        padding: Literal["longest", "context", "none"] | int = "longest",
        batch_size: int = 8,
        drop_last: bool = True,
        order: Order = "seeded",
        seed: int | None = None,
        evaluate_splits: Sequence[SplitName] = ("test",),
        labels: tuple[str, str] = _DEMO_LABELS,
        normalize_labels: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.source, self.split, self.split_seed = str(source), split, split_seed
        self.fractions = (fractions[0], fractions[1])
        self.padding, self.batch_size, self.drop_last = padding, batch_size, drop_last
        self.order, self.seed = order, seed
        self.evaluate_splits = tuple(evaluate_splits)
        self.labels, self.normalize_labels = (labels[0], labels[1]), normalize_labels
        self.num_workers = num_workers
        self._check_arguments()
        self.datasets: dict[str, MessageDataset] = {}
        self.encoding: Encoding | None = None
        # source, sha256, max_length; and by split what _statistics counts
        self.report: dict[str, Any] = {}

    @property
    def data_sha256(self) -> str:
        """The hash of the source, known before anything is downloaded or encoded; ``report`` has the same.

        Raises:
            InputError: The file cannot be read.
        """
        if self.source == "uci":
            return download.MEMBER_SHA256
        if self.source == "demo":
            return _demo_sha256(demo_messages())
        return content_sha256(read_bytes(self._file()))

    def prepare_data(self) -> None:
        """Download the messages, on one process only, if the source is ``uci``."""
        if self.source == "uci":
            download.fetch_sms_spam()

    def setup(self, stage: str) -> None:
        """Prepare the messages for the trainer's model."""
        assert self.trainer is not None, "Lightning calls it; without a trainer, call prepare"
        model: Any = self.trainer.lightning_module
        self.prepare(model.load_tokenizer(), model.context_length, reads_padding=model.reads_padding)

    def prepare(
        self,
        tokenizer: PreTrainedTokenizerBase,
        context_length: int,
        pad_id: int | None = None,
        reads_padding: bool = False,
    ) -> None:
        """Read, split and encode the messages; sets :attr:`datasets`, :attr:`encoding` and :attr:`report`.

        Args:
            tokenizer: Encodes without special tokens.
            context_length: Largest number of tokens that the model takes.
            pad_id: Token id of the padding; None takes the tokenizer's end of text, as GPT-2 has no padding
                token.
            reads_padding: Whether padding could change what the model predicts.

        Raises:
            InputError: The file, or its combination with the model, cannot be used.
            UnavailableError: The download failed.
        """
        self._check_padding(context_length, reads_padding)
        messages = self._read()
        rows = self._rows(messages)
        pad = int(tokenizer.eos_token_id) if pad_id is None else pad_id
        uncut = Encoding(self.labels, max_length=_UNCUT, pad_to_max=False, pad_id=pad, single=False)
        texts = {name: [messages.texts[row] for row in rows[name]] for name in SPLITS}
        encoded = {name: uncut.encode(tokenizer, texts[name]) for name in SPLITS}
        self.encoding = replace(
            uncut,
            max_length=self._max_length(encoded["train"], context_length),
            pad_to_max=self.padding != "none",
            single=self.padding == "none" and reads_padding,
        )
        width = min(max(map(len, encoded["train"])), self.encoding.max_length)
        for name in SPLITS:
            ids = [messages.ids[row] for row in rows[name]]
            target = [self.labels.index(messages.labels[row]) for row in rows[name]]
            cut = [tokens[: self.encoding.max_length] for tokens in encoded[name]]
            self.datasets[name] = MessageDataset(ids, target, cut, self.encoding, name, width)
        self.report = {"source": self._source_name(), "sha256": messages.sha256}
        self.report |= {"max_length": self.encoding.max_length}
        self.report |= _statistics(self.datasets, texts, encoded, self.encoding.max_length)
        if empty := sum(self.report["empty"].values()):
            warnings.warn(f"{empty} empty messages in {self.source}: each counts as one token", stacklevel=2)
        # Read here, before a model that is built draws from, or seeds, the global generator.
        self._order_seed = torch.initial_seed() if self.seed is None else self.seed

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the train split, in the order of the epoch."""
        dataset, sharing = self.datasets["train"], processes(self.trainer)
        rounding = math.floor if self.drop_last else math.ceil
        batches = rounding(len(dataset) / (self.batch_size * sharing.get("num_replicas", 1)))
        sharing |= {"batch_size": self.batch_size, "drop_last": self.drop_last}
        sampler = EpochSampler(len(dataset), batches, self._order_seed, self.order, **sharing)
        return message_loader(dataset, self.batch_size, self.num_workers, sampler, self.drop_last)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the validation split, in order and with nothing dropped."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader for each of ``evaluate_splits``, in order and with nothing dropped."""
        return [self._evaluation_loader(name) for name in self.evaluate_splits]

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Batches of the test split, in order and with nothing dropped."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, name: str) -> DataLoader[Batch]:
        dataset = self.datasets[name]
        sampler = evaluation_sampler(len(dataset), self.batch_size, self.trainer)
        return message_loader(dataset, self.batch_size, self.num_workers, sampler)

    def _read(self) -> Messages:
        if self.source == "demo":
            pairs = demo_messages()
            return Messages.from_rows(pairs, _demo_sha256(pairs))
        path = download.fetch_sms_spam() if self.source == "uci" else self._file()
        quoting: Literal["published", "literal"] = "published" if self.split == "published" else "literal"
        return read_messages(path, quoting, self.labels, self.normalize_labels)

    def _file(self) -> Path:
        path = Path(self.source).expanduser()
        if not path.is_file():
            raise InputError(
                "there is no such file",
                field="source",
                got=self.source,
                fix="use demo, uci, or the path of a file with a label and a text a row",
            )
        return path

    def _rows(self, messages: Messages) -> dict[str, list[int]]:
        """The places of each split's messages."""
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

    def _source_name(self) -> str:
        names = {"demo": "made-up demo messages", "uci": "SMS Spam Collection (UCI data set 228)"}
        return names.get(self.source, self.source)

    def _max_length(self, train: list[list[int]], context_length: int) -> int:
        if self.padding == "longest":
            return min(max(map(len, train)), context_length)
        return self.padding if isinstance(self.padding, int) else context_length

    def _check_arguments(self) -> None:
        for field, smallest in (("batch_size", 1), ("num_workers", 0)):
            if (value := getattr(self, field)) < smallest:
                raise InputError(f"must be at least {smallest}", field=field, got=value)
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
        if not self.evaluate_splits or len(set(self.evaluate_splits)) < len(self.evaluate_splits):
            raise InputError("name one or more splits, each once", field="evaluate_splits", got=self.evaluate_splits)
        if unknown := set(self.evaluate_splits) - set(SPLITS):
            raise InputError(
                "unknown split", field="evaluate_splits", got=unknown.pop(), fix=f"use {', '.join(SPLITS)}"
            )
        if len({label.strip().casefold() for label in self.labels}) != 2:
            raise InputError(
                "must be two different class names, negative and positive", field="labels", got=self.labels
            )
        if self.source == "demo" and self.labels != _DEMO_LABELS:
            raise InputError("the demo messages are labelled ham and spam", field="labels", got=self.labels)

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
    texts: dict[str, list[str]],
    encoded: dict[str, list[list[int]]],
    max_length: int,
) -> dict[str, dict[str, Any]]:
    """By split: messages, positive ones, lengths in tokens before cutting, messages cut, messages empty."""
    lengths = {name: [len(ids) for ids in encoded[name]] for name in SPLITS}
    return {
        "sizes": {name: len(datasets[name]) for name in SPLITS},
        "positive": {name: int(datasets[name].label.sum()) for name in SPLITS},
        "longest": {name: max(lengths[name]) for name in SPLITS},
        "mean_length": {name: round(sum(lengths[name]) / len(lengths[name]), 2) for name in SPLITS},
        "truncated": {name: sum(length > max_length for length in lengths[name]) for name in SPLITS},
        "empty": {name: sum(not text.strip() for text in texts[name]) for name in SPLITS},
    }


def _demo_sha256(pairs: list[tuple[str, str]]) -> str:
    return hashlib.sha256("".join(f"{label}\t{text}\n" for label, text in pairs).encode()).hexdigest()
