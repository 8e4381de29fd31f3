"""Examples with images as a Lightning data module: read, split, sampled, measured and batched."""

import hashlib
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path, PurePath
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ftkit.errors import InputError, at_least
from ftkit.examples.image_files import PREPARED_SUFFIX
from ftkit.examples.length import LengthRule
from ftkit.examples.reader import Example, read_examples
from ftkit.normalize import normalize
from ftkit.results.classes import Classes
from ftkit.run_folder import SPLITS, SplitName
from ftkit.training.example_data import ExampleDataModule
from ftkit.training.samplers import seeded_order
from ftkit.training.source_data import SourceDataModule
from ftkit.vlm.controls import with_other_images
from ftkit.vlm.dataset import ExampleDataset, leave_out_unusable, refuse_longer
from ftkit.vlm.encoder import ChatEncoder
from ftkit.vlm.sampling import OUTCOMES, YES_NO, outcomes_of_examples, read_outcomes, sample_examples

_CHANGED = {
    "cut": "with an answer that is cut",
    "skipped": "too long and left out",
    "equal": "pairs of equal answers left out",
}


class VLMDataModule(SourceDataModule, ExampleDataModule):
    """Read, split and batch questions about images with their answers, for a vision-language model.

    The shapes of examples are those of :mod:`ftkit.examples.reader`; what is held out of train shares no image with it.
    A model that is tuned on preferences gets the rejected answers too; pairs
    whose answers are the same, or are so when cut, are left out and counted. Examples that may be too long are put
    through the processor once at the start.

    Batches also have ``origin``, by which a model whose vision tower is frozen has the examples remembered, so that no
    image is opened twice, see :class:`ftkit.vlm.dataset.BatchOrigin`.

    Args:
        *given: The first arguments of :class:`ftkit.training.source_data.SourceDataModule`.
        images: The folder that paths of images start from and may not leave; null takes that of each source.
        sample: Train on so many of the train examples only; null for all.
        ratio: Of those, positives to negatives, such as [2, 1], where answers are the model's positive and negative
            one, or yes and no.
        outcomes: An earlier prediction file over the train examples, to sample by their outcome; examples are found in
            it by their id or by the path of their image.
        keep: The outcomes to sample from: tp, tn, fp, fn, neither.
        question: The prompt of examples that have an image and an answer, and no question of their own.
        image_options: Options of the model's own image processor, such as ``{size: {longest_edge: 512}}`` or
            ``{do_image_splitting: false}``, in place of its settings; null leaves them. Evaluation uses them too.
        evaluation_batch_size: Examples in a batch of evaluation; null takes ``batch_size``.
        **options: See :class:`ftkit.training.source_data.SourceDataModule` and
            :class:`ftkit.training.example_data.ExampleDataModule`.
    """

    step_options = (*ExampleDataModule.step_options, "sample", "ratio", "keep", "image_options")

    def __init__(
        self,
        *given: Any,
        images: str | None = None,
        sample: int | None = None,
        ratio: tuple[int, int] | None = None,
        outcomes: str | None = None,
        keep: list[str] | None = None,
        question: str | None = None,
        image_options: dict[str, Any] | None = None,
        evaluation_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*given, **options)
        self.images = images
        self.sample, self.ratio, self.outcomes = sample, ratio, outcomes
        self.question, self.image_options = question, image_options
        self.keep = sorted(OUTCOMES if keep is None else set(keep))
        self.evaluation_batch_size = self.batch_size if evaluation_batch_size is None else evaluation_batch_size
        self.predicted_split = "test"  # what RunRecorder names the predictions of ``predict`` after
        self._check_arguments()
        self._prepared_for: tuple[Any, ...] | None = None  # a next stage need not measure the examples again

    @cached_property
    def _examples(self) -> dict[str, list[Example]]:
        found = self.read_splits(
            lambda source, split: read_examples(
                source, self.images, question=self.question, repeated_ids=split == "train"
            ),
            lambda example: [self._image_sha256(image, example) for image in example.images],
        )
        fix = "give a file for it, or do not evaluate it"
        if self.held_out:
            fix = "give it a larger part in fractions (examples that share an image stay together), or a file"
        for name in ("train", *self.evaluate_splits) if self.fractions[0] < 1 else ("train",):
            if not found.get(name):
                raise InputError("there are no examples for this split", field=name, fix=fix)
        return found

    def examples(self, split: SplitName) -> list[Example]:
        """Return the examples of a split, as read: neither sampled nor measured."""
        return self._examples.get(split, [])

    @cached_property
    def data_sha256(self) -> str:
        """The hash of examples, their images and what they are sampled by, known before anything is encoded."""
        if self.outcomes is None:
            return super().data_sha256
        try:
            outcomes = Path(self.outcomes).read_bytes()
        except OSError as error:
            raise InputError(
                f"cannot be read: {error.strerror}",
                file=self.outcomes,
                field="outcomes",
                fix="predict the train examples first: ftkit test --data.evaluate_splits '[train,val,test]'",
            ) from error
        return hashlib.sha256(super().data_sha256.encode() + outcomes).hexdigest()

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
            preference: Whether the model is tuned on preferences.
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
                "preferences are between last answers", field="supervise", got=self.supervise,
                fix="use supervise: last",
            )  # fmt: skip
        if classes is not None:
            for split in SPLITS:
                _check_answers(self.examples(split), classes)
        self.report = self.identity()
        context = None if whole is None else whole.max_length
        rule = self.length if context is None else self.length.within(context)
        for name in SPLITS:
            examples = self.examples(name)
            if name == "train":
                examples = self._sampled(examples, classes or YES_NO)
            length = rule if name == "train" else whole
            encoder = ChatEncoder(processor, length, self.chat, preference, self.supervise, self.image_options)
            kept, counts = leave_out_unusable(examples, encoder, name)
            self._count(name, kept, **counts)
            self.datasets[name] = ExampleDataset(kept, encoder)
            if changed := ", ".join(f"{value:,} {_CHANGED[count]}" for count, value in counts.items() if value):
                rank_zero_warn(f"of {len(examples):,} {name} examples: {changed}")
        self.note_duplicates({name: self._labeled(self.datasets[name].examples) for name in SPLITS})
        self._prepared_for = wanted

    @contextmanager
    def controlled(self, control: str) -> Iterator[None]:
        """Let ``predict`` run over the test examples with other images, see :func:`ftkit.vlm.controls.image_controls`.

        Args:
            control: ``blank`` or ``swapped``.

        Raises:
            InputError: There are no other images, or an example is too long with them.
        """
        own = self.datasets["test"]
        others = with_other_images(own.examples, control, self._image_sha256)
        refuse_longer(own.examples, others, own.encoder)
        self.datasets["test"], self.predicted_split = ExampleDataset(others, own.encoder), f"test-{control}"
        try:
            yield
        finally:
            self.datasets["test"], self.predicted_split = own, "test"

    def _collate(self, split: SplitName, evaluation: bool) -> Callable[[Any], Any]:
        return partial(self.datasets[split].batch, evaluation=evaluation)

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
        """Return the example's id, or where no outcome has it, the path of its image below the data root."""
        root = Path(self.images or self.sources["train"].folder or "").expanduser().resolve()
        paths = [image for image in example.images if isinstance(image, Path) and image.is_relative_to(root)]
        names = [image.relative_to(root).as_posix() for image in paths]
        # Prepared images keep their names, with an ending behind the one that they had.
        originals = (PurePath(name.removesuffix(PREPARED_SUFFIX)) for name in names)
        names += [name.as_posix() for name in originals if name.suffix]
        return next((name for name in (example.id, *names) if name in known), example.id)

    def _check_arguments(self) -> None:
        at_least(1, evaluation_batch_size=self.evaluation_batch_size)
        if self.sample is None and (self.ratio, self.outcomes, self.keep) != (None, None, sorted(OUTCOMES)):
            raise InputError(
                "ratio, outcomes and keep need a sample", field="sample", fix="give the number of examples to draw"
            )
        if self.sample is not None:
            at_least(1, sample=self.sample)


def _classes(model: Any) -> Classes | None:
    """Return the two answers of a model that knows only two."""
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
