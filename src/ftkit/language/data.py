"""Examples of text as batches for a causal language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Sampler

from ftkit.errors import InputError
from ftkit.examples.affixes import NO_AFFIXES, Affixes
from ftkit.examples.length import LengthRule
from ftkit.examples.padding import Spans, prompt_batch, supervised_batch
from ftkit.examples.reader import Example, read_examples
from ftkit.examples.renderer import Renderer
from ftkit.run_folder import SPLITS, SplitName
from ftkit.training.example_data import ExampleDataModule
from ftkit.training.samplers import SeededSampler, seeded_order

_POOL = 50  # batches whose examples are sorted by length together


@dataclass(frozen=True)
class EncodedExample:
    """An example as token ids.

    Attributes:
        id: Its name.
        prompt: Token ids of the prompt.
        completion: Token ids of the answer; they are supervised.
        answer: The expected text.
        columns: Its further columns in the prediction file.
        turns: Where in the prompt earlier supervised turns stand.
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


class LanguageDataModule(ExampleDataModule):
    """Examples of text for a causal language model; a subclass says where they come from.

    Args:
        bucket: Put examples of similar length into a batch: less padding, and still another order each epoch.
        **options: See :class:`ftkit.training.example_data.ExampleDataModule`.

    Raises:
        InputError: An argument makes no sense.
    """

    step_options = ("bucket", *ExampleDataModule.step_options)

    # How a question becomes a prompt, see ftkit.examples.prompt_style.
    prompt_style: str | None = None
    spaced_digits: bool = False

    def __init__(self, bucket: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.bucket = bucket

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
        rule = self.length.within(context_length)
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
        self._count(
            split,
            kept,
            tokens=sum(map(len, ready)),
            supervised=sum(len(one.completion) for one in ready),
            cut=cut,
            skipped=len(examples) - len(ready),
        )

    def _training_sampler(self, **sharing: Any) -> Sampler[int]:
        if not self.bucket:
            return super()._training_sampler(**sharing)
        return LengthSampler(list(map(len, self.datasets["train"])), self._order_seed, **sharing)

    def _collate(self, split: SplitName, evaluation: bool) -> Callable[[Any], Any]:
        return Collate(self.pad_id, evaluation)


class TextDataModule(LanguageDataModule):
    """Examples of text from files of JSON lines, in the shapes of :mod:`ftkit.examples.reader`.

    Args:
        train: The file to train on, or a folder that ``datasets`` saved.
        val: One to validate on.
        test: One to test on.
        **options: See :class:`LanguageDataModule`.
    """

    def __init__(
        self, train: str | Path, val: str | Path | None = None, test: str | Path | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.files = {"train": train, "val": val, "test": test}
        self._examples: dict[str, list[Example]] = {}

    @property
    def source(self) -> str:
        """Return the name of the train file."""
        return str(self.files["train"])

    def examples(self, split: SplitName) -> list[Example]:
        """Return the examples of a file, which is read once."""
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
        """Return the batch."""
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
        **sharing: See :class:`ftkit.training.samplers.SharedSampler`; with ``batch_size``.

    Example:
        >>> order = list(LengthSampler([9, 1, 8, 2], seed=1, batch_size=2))
        >>> sorted([sorted(order[:2]), sorted(order[2:])])
        [[0, 2], [1, 3]]
    """

    def __init__(self, lengths: Sequence[int], seed: int, **sharing: Any) -> None:
        super().__init__(len(lengths), seed, **sharing)
        self.lengths = lengths

    def order(self) -> list[int]:
        """Return the examples of the epoch, batch after batch."""
        size, order = self.batch_size * self.num_replicas, super().order()
        batches = []
        for start in range(0, self.n, _POOL * size):
            pool = sorted(order[start : start + _POOL * size], key=lambda example: self.lengths[example])
            batches += [pool[first : first + size] for first in range(0, len(pool), size)]
        whole = self.n // size
        places = [*seeded_order(whole, self.seed, self.epoch).tolist(), *range(whole, len(batches))]
        return [example for place in places for example in batches[place]]
