"""Examples with images as a Lightning data module: read, split, sampled, measured and batched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import DataLoader

from ftkit.errors import InputError, at_least
from ftkit.examples.image_files import PREPARED_SUFFIX
from ftkit.examples.length import LengthRule, TooLong
from ftkit.examples.reader import Example, ImageReference, image_bytes, read_examples
from ftkit.examples.supervision import Supervise, turn_counts
from ftkit.normalize import normalize
from ftkit.results.classes import Classes
from ftkit.run_folder import SPLITS, SplitName
from ftkit.training.distributed import processes
from ftkit.training.order import SeededSampler, seeded_order
from ftkit.training.split_data import SplitDataModule
from ftkit.vlm.dataset import ExampleDataset, leave_out_unusable, split_by_images
from ftkit.vlm.encoder import ChatEncoder
from ftkit.vlm.sampling import OUTCOMES, YES_NO, outcomes_of_examples, read_outcomes, sample_examples

_CHANGED = {
    "cut": "with an answer that is cut",
    "skipped": "too long and left out",
    "equal": "pairs of equal answers left out",
}


class VLMDataModule(SplitDataModule):
    """Questions about images with their answers, for a vision-language model.

    Each source is a file of JSON lines or a folder that ``datasets.Dataset.save_to_disk`` wrote; the shapes of examples
    are those of :mod:`ftkit.examples.reader`. A model that learns from preferences gets the rejected answers too; pairs
    whose answers are the same, or are so when cut, teach nothing: they are left out and counted.

    Batches are dicts: ``inputs``, ``prompts`` (evaluation of answers only), ``id``, and for evaluation ``answer`` and
    ``columns``, see :class:`ftkit.training.generative.GenerativeModule`; and ``origin``, by which a model whose vision
    tower is frozen has the examples remembered, so that no image is opened twice, see
    :class:`ftkit.vlm.dataset.BatchOrigin`.

    Args:
        train: The examples to learn from; or all examples, if neither ``val`` nor ``test`` is given.
        val: The examples to validate on.
        test: The examples to test on.
        images: The folder that paths of images start from and may not leave; null takes that of each source.
        fractions: Where there is one source: parts for train and validation; the rest is for test. Examples that share
            an image stay together.
        split_seed: Seed of that split.
        max_length: Most tokens in a training example, image tokens included; null, as any larger number, is the model's
            context. Examples that may be longer are put through the processor once at the start.
        too_long: Whether to ``cut`` a training example's answer that is too long, or to ``skip`` the example. Prompts
            and images are never cut. Examples of val and test are never left out, and only the model's context cuts
            their answers.
        chat: Whether to use the processor's chat template; null uses it if there is one.
        supervise: Which turns of the assistant are learnt: the ``last`` one of each conversation, which is the answer,
            or ``all`` that answer something. In evaluation the last one is generated either way; the loss is that of
            the turns that are learnt.
        sample: Learn from so many of the train examples only; null for all.
        ratio: Of those, positives to negatives, such as [2, 1], where answers are the model's positive and negative
            one, or yes and no.
        outcomes: An earlier prediction file over the train examples, to sample by what became of them; examples are
            found in it by their id or by the path of their image.
        keep: The outcomes to sample from: tp, tn, fp, fn, neither.
        evaluation_batch_size: Examples in a batch of evaluation; null takes ``batch_size``.
        **options: See :class:`ftkit.training.split_data.SplitDataModule`.

    Raises:
        InputError: An argument, or a combination of arguments, makes no sense.
    """

    step_options = ("length", "chat", "supervise", "sample", "ratio", "keep")

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        images: str | None = None,
        fractions: tuple[float, float] = (0.8, 0.1),
        split_seed: int = 123,
        max_length: int | None = None,
        too_long: TooLong = "cut",
        chat: bool | None = None,
        supervise: Supervise = "last",
        sample: int | None = None,
        ratio: tuple[int, int] | None = None,
        outcomes: str | None = None,
        keep: list[str] | None = None,
        evaluation_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.sources = {"train": train, "val": val, "test": test}
        self.images, self.fractions, self.split_seed = images, (fractions[0], fractions[1]), split_seed
        self.length, self.chat = LengthRule(max_length, too_long), chat
        self.supervise: Supervise = supervise
        self.sample, self.ratio, self.outcomes = sample, ratio, outcomes
        self.keep = sorted(OUTCOMES if keep is None else set(keep))
        self.evaluation_batch_size = self.batch_size if evaluation_batch_size is None else evaluation_batch_size
        self._check_arguments()
        self._image_digests: dict[ImageReference, bytes] = {}
        self._prepared_for: tuple[Any, ...] | None = None  # a next stage need not measure the examples again

    @cached_property
    def examples(self) -> dict[str, list[Example]]:
        """The examples of each split, as read: neither sampled nor measured.

        Raises:
            InputError: A source cannot be read, or a split that is asked for has no examples.
        """
        given = {
            name: read_examples(source, self.images) for name, source in self.sources.items() if source is not None
        }
        fix = "give a file for it, or do not evaluate it"
        if len(given) == 1:
            given = split_by_images(given["train"], self.fractions, self.split_seed, self._image_sha256)
            fix = "give it a larger part in fractions (examples that share an image stay together), or a file"
        for name in ("train", *self.evaluate_splits):
            if not given.get(name):
                raise InputError("there are no examples for this split", field=name, fix=fix)
        return {name: given.get(name, []) for name in SPLITS}

    @cached_property
    def data_sha256(self) -> str:
        """The hash of examples and images, known before anything is encoded; ``report`` has the same.

        Raises:
            InputError: A source cannot be read.
        """
        return _content_sha256(self.examples, self._image_sha256, self.outcomes)

    def setup(self, stage: str) -> None:
        """Prepare the examples for the trainer's model."""
        assert self.trainer is not None, "Lightning calls it; without a trainer, call prepare"
        model: Any = self.trainer.lightning_module
        if not hasattr(model, "preference"):
            raise InputError("these examples are for a vision-language model", field="model", got=type(model).__name__)
        room = 1 if model.preference else model.max_new_tokens  # nothing is generated of pairs
        whole = LengthRule.for_evaluation(model.context_length, room)
        self.prepare(model.processor, model.preference, whole, _classes(model))

    def prepare(
        self,
        processor: Any,
        preference: bool = False,
        whole: LengthRule | None = None,
        classes: Classes | None = None,
    ) -> None:
        """Sample and measure the examples for a model; sets :attr:`datasets` and :attr:`report`.

        Args:
            processor: The model's processor.
            preference: Whether the model learns from preferences.
            whole: The rule of val and test, see :meth:`LengthRule.for_evaluation`, whose context holds in training as
                well; None does not measure examples unless ``max_length`` was given.
            classes: The two answers, of which every example has one; None if the model's answers are free, and then a
                sample counts yes and no.

        Raises:
            InputError: The examples, or their combination with the model, cannot be used.
        """
        wanted = (processor, preference, whole, classes)
        if self._prepared_for == wanted:
            return
        self.note_seed()
        if preference and self.supervise != "last":
            raise InputError(
                "a preference is one between last answers", field="supervise", got=self.supervise,
                fix="use supervise: last",
            )  # fmt: skip
        if classes is not None:
            for split in self.examples.values():
                _check_answers(split, classes)
        examples = {**self.examples, "train": self._sampled(self.examples["train"], classes or YES_NO)}
        self.report = {"source": self.sources["train"], "sha256": self.data_sha256}
        context = None if whole is None else whole.max_length
        rule = self.length if context is None else self.length.within(context)
        for name in SPLITS:
            length = rule if name == "train" else whole
            encoder = ChatEncoder(processor, length, self.chat, preference, self.supervise)
            kept, counts = leave_out_unusable(examples[name], encoder, name)
            for count, value in counts.items():
                self.report.setdefault(count, {})[name] = value
            self.datasets[name] = ExampleDataset(kept, encoder)
            if changed := ", ".join(f"{value:,} {_CHANGED[count]}" for count, value in counts.items() if value):
                rank_zero_warn(f"of {len(examples[name]):,} {name} examples: {changed}")
        turns = turn_counts(self.datasets["train"].examples, self.supervise)
        self.report["supervised_turns"] = {"supervise": self.supervise, **turns}
        self.report["sizes"] = {name: len(dataset) for name, dataset in self.datasets.items()}
        self._prepared_for = wanted

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the train split, in the order of the epoch; the last one may be smaller."""
        examples = len(self.datasets["train"])
        sharing: dict[str, Any] = {"batch_size": self.batch_size, **processes(self.trainer)}
        return self._training_loader(SeededSampler(examples, self._order_seed, **sharing))

    def _collate(self, split: SplitName, evaluation: bool) -> Callable[[Any], Any]:
        dataset: ExampleDataset = self.datasets[split]
        return dataset.evaluation_batch if evaluation else dataset.training_batch

    def _sampled(self, examples: list[Example], classes: Classes) -> list[Example]:
        if self.sample is None:
            return examples
        if self.ratio is not None or self.outcomes is not None:
            _check_answers(examples, classes)
        labels, found = [example.completion for example in examples], None
        if self.outcomes is not None:
            known = read_outcomes(self.outcomes, classes)
            found = outcomes_of_examples(
                [self._known_as(example, known) for example in examples], labels, known, classes
            )
        if self.ratio is None and found is None and OUTCOMES.issubset(self.keep):
            order = seeded_order(len(examples), self._order_seed, epoch=0)
            if self.sample > len(examples):
                raise InputError(f"there are {len(examples)} train examples", field="sample", got=self.sample)
            return [examples[index] for index in order[: self.sample].tolist()]
        places = sample_examples(labels, self.sample, self._order_seed, self.ratio, found, self.keep, classes)
        return [examples[place] for place in places]

    def _known_as(self, example: Example, known: Container[str]) -> str:
        """The example's id, or where no outcome has it, the path of its image below the data root."""
        root = Path(self.images or Path(self.sources["train"] or "").parent).expanduser().resolve()
        paths = [image for image in example.images if isinstance(image, Path) and image.is_relative_to(root)]
        names = [image.relative_to(root).as_posix() for image in paths]
        # Prepared images keep their names, with an ending behind the one that they had.
        originals = (PurePath(name.removesuffix(PREPARED_SUFFIX)) for name in names)
        names += [name.as_posix() for name in originals if name.suffix]
        return next((name for name in (example.id, *names) if name in known), example.id)

    def _image_sha256(self, image: ImageReference, example: Example) -> bytes:
        if image not in self._image_digests:
            try:
                self._image_digests[image] = hashlib.sha256(image_bytes(image)).digest()
            except InputError as error:
                raise example.error(f"an image cannot be used: {error}", field="images") from error
        return self._image_digests[image]

    def _check_arguments(self) -> None:
        at_least(1, evaluation_batch_size=self.evaluation_batch_size)
        if self.sample is None and (self.ratio, self.outcomes, self.keep) != (None, None, sorted(OUTCOMES)):
            raise InputError(
                "ratio, outcomes and keep choose a sample", field="sample", fix="say how many examples to use"
            )
        if self.sample is not None:
            at_least(1, sample=self.sample)
        if min(self.fractions) <= 0 or sum(self.fractions) > 1:
            raise InputError("must be two positive parts of at most 1 together", field="fractions", got=self.fractions)


def _classes(model: Any) -> Classes | None:
    """The two answers of a model that knows only two."""
    if (names := getattr(model, "class_names", None)) is None:
        return None
    negative, positive = map(normalize, names)
    return Classes(positive, negative, normalize=True)


def _check_answers(examples: list[Example], classes: Classes) -> None:
    for example in examples:
        if classes.code(example.completion) not in (0, 1):
            raise example.error(
                "the answer names neither class",
                got=example.completion,
                fix=f"use {classes.positive} or {classes.negative}",
            )


def _content_sha256(
    examples: dict[str, list[Example]], image_sha256: Callable[[ImageReference, Example], bytes], outcomes: str | None
) -> str:
    """The hash of what the examples hold, of their images' bytes, and of what they are sampled by."""
    digest = hashlib.sha256()
    for name, split in examples.items():
        for example in split:
            parts = (
                name,
                example.id,
                example.prompt,
                example.completion,
                example.rejected,
                sorted(example.columns.items()),
            )
            digest.update(repr((*parts, example.tools) if example.tools else parts).encode())
            for image in example.images:
                digest.update(image_sha256(image, example))
    if outcomes is not None:
        try:
            digest.update(Path(outcomes).read_bytes())
        except OSError as error:
            raise InputError(
                f"cannot be read: {error.strerror}",
                file=outcomes,
                field="outcomes",
                fix="predict the train examples first",
            ) from error
    return digest.hexdigest()
