"""Examples of text as batches for a causal language model."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

from torch.utils.data import Sampler

from ftkit.errors import InputError
from ftkit.examples.encoder import Encoder, column_names
from ftkit.examples.length import LengthRule
from ftkit.examples.reader import Example, read_examples
from ftkit.run_folder import SPLITS, SplitName
from ftkit.training.example_data import ExampleDataModule
from ftkit.training.samplers import SeededSampler, seeded_order
from ftkit.training.source_data import SourceDataModule

_POOL = 50  # batches whose examples are sorted by length together


class LanguageDataModule(ExampleDataModule):
    """Encode examples of text for a causal language model; a subclass says where they come from.

    Args:
        bucket: Put examples of similar length into a batch: less padding, and still another order each epoch.
        **options: See :class:`ftkit.training.example_data.ExampleDataModule`.
    """

    step_options = ("bucket", *ExampleDataModule.step_options)
    near_duplicates = False  # a question with another number is another question

    # How a question becomes a prompt, see ftkit.examples.prompt_style.
    prompt_style: str | None = None
    spaced_digits: bool = False

    def __init__(self, bucket: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.bucket = bucket
        self._encoders: dict[str, Encoder] = {}

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
        rule = self.length.within(context_length)
        whole = LengthRule.for_evaluation(context_length, max_new_tokens)
        self.note_seed()
        self.report = self.identity() | {"max_length": rule.max_length}
        for split in SPLITS:
            self._encode(split, Encoder(tokenizer, rule if split == "train" else whole, self.chat, self.supervise))
        if not self.datasets["train"]:
            raise InputError("no training example is left", field="max_length", got=rule.max_length)
        self.note_duplicates({split: self._labeled(one.example for one in self.datasets[split]) for split in SPLITS})

    def _encode(self, split: SplitName, encoder: Encoder) -> None:
        encoded = [encoder.encode(example) for example in self.examples(split)]
        kept = [one for one in encoded if one.answers is not None]
        self.datasets[split], self._encoders[split] = kept, encoder
        self._count(
            split,
            [one.example for one in kept],
            tokens=sum(map(len, kept)),
            supervised=sum(len(one) - len(one.prompt) for one in kept),
            cut=sum(one.cut for one in kept),
            skipped=len(encoded) - len(kept),
        )

    def _training_sampler(self, **sharing: Any) -> Sampler[int]:
        if not self.bucket:
            return super()._training_sampler(**sharing)
        return LengthSampler(list(map(len, self.datasets["train"])), self._order_seed, **sharing)

    def _collate(self, split: SplitName, evaluation: bool) -> Callable[[Any], Any]:
        columns = column_names(one.example for one in self.datasets[split]) if evaluation else None
        return partial(self._encoders[split].batch, columns=columns)


class TextDataModule(SourceDataModule, LanguageDataModule):
    """Read examples of text in the shapes of :mod:`ftkit.examples.reader`.

    Of what is held out of train, examples with the same prompt stay together.

    Args:
        **options: See :class:`ftkit.training.source_data.SourceDataModule` and :class:`LanguageDataModule`.
    """

    @cached_property
    def _examples(self) -> dict[str, list[Example]]:
        return self.read_splits(
            lambda source, split: read_examples(source, images=False, repeated_ids=split == "train"),
            lambda example: [repr(example.prompt)],
        )

    def examples(self, split: SplitName) -> list[Example]:
        """Return the examples of a split, as read.

        Raises:
            InputError: A source cannot be used.
        """
        return self._examples.get(split, [])


class LengthSampler(SeededSampler):
    """Visits the examples so that a batch, cut from what comes one after the other, has examples of similar length.

    Some batches' worth of examples at a time are sorted by their number of tokens and cut into batches, which come in
    random order: every example once an epoch, little padding, and still another grouping each time. A smaller batch is
    the last one.

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
