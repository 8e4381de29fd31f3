"""Labelled texts of any source and any number of classes, split, encoded and batched for a text classifier."""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ftkit.classifier.joined_steps import TOGETHER, count_together, joinable
from ftkit.classifier.labeled_examples import Example, example_counts, labeled_texts, labels_of, token_lengths
from ftkit.classifier.labels import ClassName, class_names, codes_of
from ftkit.classifier.records import Messages, labelled, messages_of
from ftkit.classifier.samplers import EpochSampler, Order
from ftkit.classifier.splits import Split, divide_grouped, divide_stratified, draw_down
from ftkit.errors import InputError
from ftkit.examples.duplicates import find_duplicates
from ftkit.examples.sources import open_source
from ftkit.results.duplicates import LabeledText
from ftkit.run_folder import SPLITS, UNLABELED, SplitName
from ftkit.training.dataset import MessageDataset, TextDataset, as_it_is, with_share
from ftkit.training.distributed import processes
from ftkit.training.encoding import Encoding, ends_of
from ftkit.training.source_data import SourceDataModule
from ftkit.training.split_data import ImageKey
from ftkit.training.splits import hold_out

_UNCUT = 2**31
_TEXTS_TOGETHER = 256  # evaluated, where texts are no tokens


class TextClassificationDataModule(SourceDataModule):
    """Texts with one label each, of any number of classes, for a text classifier.

    The records have the columns ``text`` and ``label``, or others of usual names such as ``sentence`` and
    ``sentiment``, or those that ``columns`` names; and perhaps ``id``. Their other columns come into the prediction
    files. What is held out of train has the classes in the same proportions.

    Args:
        train: The source to train on; with ``dataset`` the name of a split.
        split: ``all`` examples, or ``balanced``: of train, before anything is held out of it, each class is drawn down
            to the smallest one; or ``grouped``: duplicates and near-duplicates are held out together, or not at all.
        labels: The classes in their order, of two the negative one first; null takes those of the train data, sorted,
            in pairs such as no and yes the positive comes last. YAML's no, yes, 0 and 1 may stand without quotes.
        normalize_labels: Read labels in any spelling, see :func:`ftkit.normalize.normalize`.
        sampling: ``balanced`` trains on all classes alike: an epoch has as many examples as without, but those of small
            classes come several times and some of large ones not at all; null takes each example once.
        padding: ``longest`` (pad and cut to the longest train text), ``context`` (to the model's context),
            a number of tokens, or ``none`` (each text at its own length; in a batch, that of the longest). Texts
            without padding are evaluated several at a time, unless the model would attend to the padding; and training
            with batch size 1 and accumulated gradients uses larger batches that make the same steps.
        drop_last: Leave out the last, smaller batch of a training epoch.
        predict: Texts for ``ftkit predict``, which need no labels; null predicts the test split.
        **options: See :class:`ftkit.training.source_data.SourceDataModule`.

    Example:
        >>> from tokenizers.pre_tokenizers import ByteLevel
        >>> from transformers import GPT2Tokenizer
        >>> symbols = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
        >>> tokenizer = GPT2Tokenizer(vocab=dict(zip(symbols, range(257))), merges=[])
        >>> rows = [{"sentence": f"{n}", "rating": n % 3} for n in range(30)]
        >>> data = TextClassificationDataModule(rows)
        >>> data.prepare(tokenizer, context_length=64)
        >>> data.encoding.labels, data.report["sizes"]
        (('0', '1', '2'), {'train': 24, 'val': 3, 'test': 3})
    """

    step_options = ("split", "fractions", "split_seed", "padding", "drop_last", "order", "labels", "sampling")
    order: Order = "seeded"
    split: str

    def __init__(
        self,
        train: str | Path | list[dict[str, Any]] | None = None,
        split: Literal["all", "balanced", "grouped"] = "all",
        labels: Sequence[ClassName] | None = None,
        normalize_labels: bool = False,
        sampling: Literal["balanced"] | None = None,
        padding: Literal["longest", "context", "none"] | int = "longest",
        drop_last: bool = True,
        predict: str | Path | list[dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(train=train, **options)
        self.predict = predict
        self.predicted_split = "test" if predict is None else "predict"  # for RunRecorder
        self.split, self.normalize_labels = split, normalize_labels
        self.labels = None if labels is None else tuple(labels)
        self.sampling, self.padding, self.drop_last = sampling, padding, drop_last
        if isinstance(padding, int) and padding < 1:
            raise InputError("must be at least 1 token", field="padding", got=padding)
        self.encoding: Encoding | None = None
        self.class_names: tuple[str, ...] | None = None  # once the texts are prepared
        self._by_length = False  # whether texts are evaluated in the order of their length
        self._joined = 1

    @cached_property
    def data_sha256(self) -> str:
        """Return the hash of the data, known before anything is downloaded or encoded; ``report`` has the same."""
        hashes = [source.sha256 for source in self.sources.values()]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    def setup(self, stage: str) -> None:
        """Prepare the texts for the trainer's model."""
        assert self.trainer is not None, "Lightning calls it; without a trainer, call prepare"
        model: Any = self.trainer.lightning_module
        if getattr(model, "reads_texts", False):
            self.prepare_texts()
        else:
            padding = model.reads_padding, model.sees_padding
            self.prepare(model.tokenizer, model.context_length, *padding, encoder=getattr(model, "encoder", False))
            self._joined = 1
        if stage == "predict" and self.predict is not None:
            self._predict_unlabeled(getattr(model, "tokenizer", None))

    def prepare(
        self,
        tokenizer: PreTrainedTokenizerBase,
        context_length: int,
        reads_padding: bool = False,
        sees_padding: bool = False,
        encoder: bool = False,
    ) -> None:
        """Read, split and encode the texts; sets :attr:`datasets`, :attr:`encoding` and :attr:`report`.

        Args:
            tokenizer: Encodes without special tokens. Its end of text is the padding, as GPT-2 has no padding token.
                That of an encoder adds its special tokens and pads with its own padding token.
            context_length: Largest number of tokens that the model takes.
            reads_padding: Whether padding could change what the model predicts.
            sees_padding: Whether it could although the position that decides is no padding, since others attend to it.
            encoder: Whether the model is an encoder.

        Raises:
            InputError: A source, or its combination with the model, cannot be used.
            UnavailableError: The data cannot be had.
        """
        self._check_padding(context_length, reads_padding, tokenizer.num_special_tokens_to_add() if encoder else 0)
        classes, splits = self.examples()
        self.class_names = classes
        pad, ends = (tokenizer.pad_token_id, ends_of(tokenizer)) if encoder else (tokenizer.eos_token_id, None)
        uncut = Encoding(classes, max_length=_UNCUT, pad_to_max=False, pad_id=int(pad), single=False, ends=ends)
        encoded = {name: uncut.encode(tokenizer, [one.text for one in splits[name]]) for name in SPLITS}
        self.encoding = replace(
            uncut,
            max_length=self._max_length(encoded["train"], context_length),
            pad_to_max=self.padding != "none",
            single=self.padding == "none" and sees_padding,
        )
        # Where no padding is needed, or none is read, the model computes each batch to its longest message only.
        self._by_length = not (reads_padding if self.encoding.pad_to_max else self.encoding.single)
        if self.padding == "none" and not sees_padding and self.batch_size == 1:
            self.evaluation_batch_size = TOGETHER
        width = min(max(map(len, encoded["train"])), self.encoding.max_length)
        for name in SPLITS:
            ids, label = [example.id for example in splits[name]], [example.label for example in splits[name]]
            cut = [self.encoding.cut(tokens) for tokens in encoded[name]]
            columns = [example.columns for example in splits[name]]
            self.datasets[name] = MessageDataset(ids, label, cut, self.encoding, name, width, columns)
        self.report = {"max_length": self.encoding.max_length, **token_lengths(encoded, self.encoding.max_length)}
        self._report(classes, splits)
        if empty := sum(self.report["empty"].values()):
            left = "special tokens alone" if ends else "one token"
            warnings.warn(f"{empty} empty messages in {self.source}: each counts as {left}", stacklevel=2)

    def prepare_texts(self) -> None:
        """Read and split the texts for a model that reads them as they are; sets what :meth:`prepare` does."""
        classes, splits = self.examples()
        self.class_names, self.report, self._by_length = classes, {}, False
        self.evaluation_batch_size = max(self.batch_size, _TEXTS_TOGETHER)
        for name in SPLITS:
            ids, texts, label, columns = map(list, zip(*splits[name], strict=True)) if splits[name] else ([],) * 4
            self.datasets[name] = TextDataset(ids, label, texts, name, columns)
        self._report(classes, splits)

    def _predict_unlabeled(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """Put the texts to predict in the place of the test split."""
        columns = {ours: theirs for ours, theirs in (self.columns or {}).items() if ours != "label"}
        found = messages_of(labelled(open_source(self.predict, columns or None), ("text",)), labeled=False)
        labels = [UNLABELED] * len(found)
        if self.encoding is None:
            self.datasets["test"] = TextDataset(found.ids, labels, found.texts, "test", found.columns)
            return
        assert tokenizer is not None, "it encoded the other texts"
        encoded, width = self.encoding.encode(tokenizer, found.texts), self.datasets["test"].input_ids.shape[1]
        self.datasets["test"] = MessageDataset(found.ids, labels, encoded, self.encoding, "test", width, found.columns)

    def _report(self, classes: tuple[str, ...], splits: dict[str, list[Example]]) -> None:
        """Add to :attr:`report` what does not depend on the model, and decide the order of the training examples."""
        self.report |= {"source": self.source, "sha256": self.data_sha256}
        self.report |= {"held_out": self.held_out} if self.held_out else {}
        self.report |= example_counts(classes, splits)
        self.note_duplicates(labeled_texts(classes, splits))
        self.note_seed()

    def labeled_texts(self, image_key: ImageKey) -> Mapping[SplitName, Iterable[LabeledText]]:
        """Return the texts of each split with their labels."""
        return labeled_texts(*self.examples())

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of the train split, in the order of the epoch."""
        messages, sharing = len(self.datasets["train"]), dict[str, Any](processes(self.trainer))
        rounding = math.floor if self.drop_last else math.ceil
        batches = rounding(messages / (self.batch_size * sharing.get("num_replicas", 1)))
        sharing |= {"batch_size": self.batch_size, "drop_last": self.drop_last}
        sharing |= {"label": self.datasets["train"].label} if self.sampling == "balanced" else {}
        sampler = EpochSampler(messages, batches, self._order_seed, self.order, **sharing)
        drop_last = self.drop_last and self._joined == 1  # one by one, no message is left over
        return self._loader("train", self.batch_size * self._joined, sampler, evaluation=False, drop_last=drop_last)

    def join_steps(self, trainer: L.Trainer) -> None:
        """Replace batches of 1 by larger ones that make the same steps, see :mod:`ftkit.classifier.joined_steps`.

        Where padding would be attended to, nothing is changed.
        """
        assert self.encoding is not None, "setup comes first"
        if self.batch_size == 1 and not (self.encoding.pad_to_max or self.encoding.single):
            self._join(trainer, joinable(trainer))

    def teardown(self, stage: str) -> None:
        """Let the trainer count single messages again."""
        if self.trainer is not None:
            self._join(self.trainer, 1)

    def on_exception(self, exception: BaseException) -> None:
        """Do the same for a stage that fails, after which Lightning tears no data module down."""
        self.teardown("")

    def _join(self, trainer: L.Trainer, messages: int) -> None:
        """Have batches of so many messages, and the trainer count them."""
        count_together(trainer, self._joined, messages)
        self._joined = messages

    def _evaluation_order(self, split: SplitName) -> Sequence[int]:
        """Return the examples as they come; or by length, where a batch costs as much as its longest message."""
        if not self._by_length:
            return super()._evaluation_order(split)
        return self.datasets[split].length.argsort(stable=True).tolist()

    def _collate(self, split: SplitName, evaluation: bool) -> Callable[[Any], Any]:
        return as_it_is if evaluation or self._joined == 1 else partial(with_share, size=self._joined)

    def examples(self) -> tuple[tuple[str, ...], dict[str, list[Example]]]:
        """Return the names of the classes, and the examples of each split; none if there is no such split.

        Raises:
            InputError: A source cannot be used, or its labels are no classes of which train has examples.
        """
        read = self.read()
        classes = class_names(read["train"], self.labels, self.normalize_labels)
        given = {}
        for name, messages in read.items():
            codes = codes_of(messages, classes, self.normalize_labels, training=name == "train")
            given[name] = list(map(Example, messages.ids, messages.texts, codes, messages.columns))
        if self.split == "balanced":
            given["train"] = [given["train"][place] for place in draw_down(labels_of(given["train"]), self.split_seed)]
        splits, self.held_out = hold_out(given, self.fractions, self.split_seed, self.divide)
        if self.split == "grouped" and not self.held_out:
            fix = "use split: all; ftkit data audit shows the duplicates between splits that are given"
            raise InputError("nothing is held out of train", field="split", got=self.split, fix=fix)
        splits = {name: splits.get(name, []) for name in SPLITS}
        if self.drop_last and len(splits["train"]) < self.batch_size:
            raise InputError(
                f"0 batches: {len(splits['train'])} train messages fill none, and a smaller batch is left out",
                field="batch_size",
                got=self.batch_size,
                fix="use a smaller batch_size, or drop_last: false",
            )
        return classes, splits

    def read(self) -> dict[str, Messages]:
        """Return the labelled texts of train, and of the other splits that are given."""
        return {name: messages_of(labelled(source)) for name, source in self.sources.items()}

    def divide(self, examples: list[Example], parts: dict[str, float], seed: int) -> dict[str, list[Example]]:
        """Divide examples into parts of such sizes, each with the classes in the same proportions."""
        if self.split == "grouped":
            texts = tuple(example.text for example in examples)
            places = _grouped(texts, tuple(labels_of(examples)), tuple(parts.items()), seed)
        else:
            places = divide_stratified(labels_of(examples), parts, seed)
        return {name: [examples[place] for place in chosen] for name, chosen in places.items()}

    def _max_length(self, train: list[list[int]], context_length: int) -> int:
        if self.padding == "longest":
            return min(max(map(len, train)), context_length)
        return self.padding if isinstance(self.padding, int) else context_length

    def _check_padding(self, context_length: int, reads_padding: bool, special: int) -> None:
        if isinstance(self.padding, int) and self.padding <= special:
            raise InputError(
                f"leaves no room for a text between {special} special tokens", field="padding", got=self.padding
            )
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


@lru_cache(1)  # fit, test and the runs of an ablation ask for the same
def _grouped(texts: tuple[str, ...], labels: tuple[int, ...], parts: tuple[tuple[str, float], ...], seed: int) -> Split:
    """Divide texts with their duplicates, see :func:`ftkit.classifier.splits.divide_grouped`."""
    groups = find_duplicates({"train": [LabeledText("", text) for text in texts]}).examples["near"].cluster
    return divide_grouped(labels, groups.tolist(), dict(parts), seed)
