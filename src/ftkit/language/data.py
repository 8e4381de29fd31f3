"""Examples of text as batches for a causal language model."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from ftkit.errors import InputError
from ftkit.examples.affixes import NO_AFFIXES, Affixes
from ftkit.examples.length import LengthRule, TooLong
from ftkit.examples.padding import Spans, prompt_batch, supervised_batch
from ftkit.examples.reader import Example, read_examples
from ftkit.examples.renderer import Renderer
from ftkit.examples.supervision import Supervise, turn_counts
from ftkit.run_folder import SPLITS, SplitName
from ftkit.training.distributed import processes
from ftkit.training.order import SeededSampler, seeded_order
from ftkit.training.split_data import SplitDataModule

_POOL = 50  # batches whose examples are sorted by length together


@dataclass(frozen=True)
class EncodedExample:
    """An example as token ids.

    Attributes:
        id: Its name.
        prompt: Token ids that are read only.
        completion: Token ids that are learnt.
        answer: The expected text.
        columns: Its further columns in the prediction file.
        turns: Where in the prompt earlier turns stand that are learnt, too.
        affixes: What the chat template writes around an answer; known where one is generated.
    """

    id: str
    prompt: list[int]
    completion: list[int]
    answer: str
    columns: dict[str, str]
    turns: Spans = ()
    affixes: Affixes = NO_AFFIXES

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


class ExamplesDataModule(SplitDataModule):
    """Examples of text for a causal language model; a subclass says where they come from.

    Batches are those of :class:`ftkit.training.generative.GenerativeModule`. The chat template, if the tokenizer has
    one, is the only formatter; only answers are supervised, their end among them.

    Args:
        bucket: Put examples of similar length into a batch: less padding, and still another order each epoch.
        max_length: Largest number of tokens of prompt and answer together in training; null takes the model's context.
        too_long: Whether to ``cut`` a training example's answer that is too long, or to ``skip`` the example. Examples
            of val and test are never left out, and only the model's context cuts their answers.
        chat: Whether to use the chat template; null uses it if there is one.
        supervise: Which turns of the assistant are learnt: the ``last`` one of each conversation, which is the answer,
            or ``all`` that answer something. In evaluation the last one is generated either way; the loss is that of
            the turns that are learnt.
        **options: See :class:`ftkit.training.split_data.SplitDataModule`.

    Raises:
        InputError: An argument makes no sense.
    """

    step_options = ("bucket", "max_length", "too_long", "chat", "supervise")

    # How a question becomes a prompt, see ftkit.examples.prompt_style.
    prompt_style: str | None = None
    spaced_digits: bool = False

    def __init__(
        self,
        bucket: bool = False,
        max_length: int | None = None,
        too_long: TooLong = "cut",
        chat: bool | None = None,
        supervise: Supervise = "last",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        LengthRule(max_length)
        self.bucket, self.max_length, self.too_long, self.chat = bucket, max_length, too_long, chat
        self.supervise: Supervise = supervise

    @property
    @abstractmethod
    def source(self) -> str:
        """The examples' origin in words."""

    @property
    @abstractmethod
    def data_sha256(self) -> str:
        """A hash of the examples, known before anything is encoded."""

    @abstractmethod
    def examples(self, split: SplitName) -> list[Example]:
        """The examples of a split; none if there is no such split."""

    def setup(self, stage: str) -> None:
        """Prepare the examples for the trainer's model."""
        assert self.trainer is not None, "Lightning calls it; without a trainer, call prepare"
        model: Any = self.trainer.lightning_module
        self.prepare(model.processor, model.context_length, model.max_new_tokens)

    def prepare(self, tokenizer: Any, context_length: int, max_new_tokens: int) -> None:
        """Render and encode the examples; sets :attr:`datasets` and :attr:`report`.

        Args:
            tokenizer: The model's.
            context_length: Largest number of tokens that the model takes.
            max_new_tokens: Room that an evaluated prompt leaves.

        Raises:
            InputError: An example is of no known shape, an evaluated prompt leaves no room for an answer, or no
                training example is left.
        """
        render = Renderer(tokenizer, self.chat, self.supervise)
        rule = LengthRule(min(self.max_length or context_length, context_length), self.too_long)
        whole = LengthRule.for_evaluation(context_length, max_new_tokens)
        self.pad_id = int(tokenizer.pad_token_id)
        self.note_seed()
        self.report = {"source": self.source, "sha256": self.data_sha256, "max_length": rule.max_length}
        for split in SPLITS:
            self._encode(split, render, rule if split == "train" else whole)
        if not self.datasets["train"]:
            raise InputError("no training example is left", field="max_length", got=rule.max_length)

    def _encode(self, split: SplitName, render: Renderer, rule: LengthRule) -> None:
        ready, kept, cut, examples = [], [], 0, self.examples(split)
        names = list(dict.fromkeys(name for example in examples for name in example.columns))
        for example in examples:
            encoded = render.encode(example)
            fitted = rule.fit(example, len(encoded.prompt), encoded.completion)
            if fitted is None:
                continue
            (completion,) = fitted
            cut += len(completion) < len(encoded.completion)
            columns = {name: example.columns.get(name, "") for name in names}
            answer, affixes = example.completion, NO_AFFIXES
            if split != "train" or "train" in self.evaluate_splits:
                affixes = render.affixes(example)
                answer = render.reference(example, affixes)
            ready.append(
                EncodedExample(example.id, encoded.prompt, completion, answer, columns, encoded.turns, affixes)
            )
            kept.append(example)
        self.datasets[split] = ready
        if split == "train":
            self.report["supervised_turns"] = {"supervise": self.supervise, **turn_counts(kept, self.supervise)}
        counts = {
            "sizes": len(ready),
            "tokens": sum(map(len, ready)),
            "supervised": sum(len(one.completion) for one in ready),
            "cut": cut,
            "skipped": len(examples) - len(ready),
        }
        for name, value in counts.items():
            self.report.setdefault(name, {})[split] = value

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the train split in another order each epoch."""
        encoded = self.datasets["train"]
        sharing: dict[str, Any] = {"batch_size": self.batch_size, **processes(self.trainer)}
        return self._training_loader(
            LengthSampler(list(map(len, encoded)), self._order_seed, **sharing)
            if self.bucket
            else SeededSampler(len(encoded), self._order_seed, **sharing)
        )

    def _collate(self, split: SplitName, evaluation: bool) -> Callable[[Any], Any]:
        return Collate(self.pad_id, evaluation)


class TextDataModule(ExamplesDataModule):
    """Examples of text from files of JSON lines, in the shapes of :mod:`ftkit.examples.reader`.

    Args:
        train: The file to learn from, or a folder that ``datasets`` saved.
        val: One to validate on.
        test: One to test on.
        **options: See :class:`ExamplesDataModule`.
    """

    def __init__(
        self, train: str | Path, val: str | Path | None = None, test: str | Path | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.files = {"train": train, "val": val, "test": test}
        self._examples: dict[str, list[Example]] = {}

    @property
    def source(self) -> str:
        """The train file."""
        return str(self.files["train"])

    @property
    def data_sha256(self) -> str:
        """A hash over what was read."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for example in self.examples(split):
                tools = [example.tools] if example.tools else []
                digest.update(repr((split, example.id, example.prompt, example.completion, *tools)).encode())
        return digest.hexdigest()

    def examples(self, split: SplitName) -> list[Example]:
        """The examples of a file, read once."""
        if split not in self._examples:
            path = self.files[split]
            self._examples[split] = [] if path is None else read_examples(path)
        return self._examples[split]


class Collate:
    """Examples as a batch, padded to its longest.

    Args:
        pad_id: Token id of the padding.
        evaluation: Whether prompts to generate from and what is expected belong to the batch.
    """

    def __init__(self, pad_id: int, evaluation: bool = False) -> None:
        self.pad_id, self.evaluation = pad_id, evaluation

    def __call__(self, encoded: Sequence[EncodedExample]) -> dict[str, Any]:
        """The batch."""
        batch: dict[str, Any] = {
            "inputs": supervised_batch(
                [(one.prompt, one.completion) for one in encoded],
                self.pad_id,
                [one.turns for one in encoded],
            ),
            "id": [one.id for one in encoded],
        }
        if self.evaluation:
            batch["prompts"] = prompt_batch([one.prompt for one in encoded], self.pad_id)
            batch["answer"] = [one.answer for one in encoded]
            batch["affixes"] = [one.affixes for one in encoded]
            batch["columns"] = {name: [one.columns[name] for one in encoded] for name in encoded[0].columns}
        return batch


class LengthSampler(SeededSampler):
    """Visits the examples so that a batch, cut from what comes one after the other, has examples of similar length.

    Some batches' worth of examples at a time are sorted by length and cut into batches, which come in random order:
    every example once an epoch, little padding, and still another grouping each time. A smaller batch is the last one.

    Args:
        lengths: Number of tokens of each example.
        seed: Seed of the orders.
        **sharing: See :class:`ftkit.training.order.SharedSampler`; with ``batch_size``.

    EncodedExample:
        >>> order = list(LengthSampler([9, 1, 8, 2], seed=1, batch_size=2))
        >>> sorted([sorted(order[:2]), sorted(order[2:])])
        [[0, 2], [1, 3]]
    """

    def __init__(self, lengths: Sequence[int], seed: int, **sharing: Any) -> None:
        super().__init__(len(lengths), seed, **sharing)
        self.lengths = lengths

    def order(self) -> list[int]:
        """The examples of the epoch, batch after batch."""
        size, order = self.batch_size * self.num_replicas, super().order()
        batches = []
        for start in range(0, self.n, _POOL * size):
            pool = sorted(order[start : start + _POOL * size], key=lambda example: self.lengths[example])
            batches += [pool[first : first + size] for first in range(0, len(pool), size)]
        whole = self.n // size
        places = [*seeded_order(whole, self.seed, self.epoch).tolist(), *range(whole, len(batches))]
        return [example for place in places for example in batches[place]]
