"""Rows with images as a Lightning data module: read, split, sampled, measured and batched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import DataLoader

from ftkit.errors import InputError, at_least
from ftkit.evaluation.classes import Classes
from ftkit.normalize import normalize
from ftkit.rows.chat_template import Supervise
from ftkit.rows.image_files import PREPARED_SUFFIX
from ftkit.rows.reader import ImageReference, Row, image_bytes, read_rows
from ftkit.rows.supervision import LengthRule, TooLong, turn_counts
from ftkit.run_folder import SPLITS, SplitName
from ftkit.training.distributed import processes
from ftkit.training.order import SeededSampler, seeded_order
from ftkit.training.split_data import SplitDataModule
from ftkit.vlm.chat import ChatEncoder
from ftkit.vlm.dataset import RowDataset, leave_out_unusable, split_by_images
from ftkit.vlm.sampling import OUTCOMES, YES_NO, outcomes_of_rows, read_outcomes, sample_rows

_CHANGED = {
    "cut": "with an answer that is cut",
    "skipped": "too long and left out",
    "equal": "pairs of equal answers left out",
}


class VLMDataModule(SplitDataModule):
    """Questions about images with their answers, for a vision-language model.

    Each source is a file of JSON lines or a folder that ``datasets.Dataset.save_to_disk`` wrote; the shapes of rows are
    those of :mod:`ftkit.rows.reader`. A model that learns from preferences gets the rejected answers too; pairs whose
    answers are the same, or are so when cut, teach nothing: they are left out and counted.

    Batches are dicts: ``inputs``, ``prompts`` (evaluation of answers only), ``id``, and for evaluation ``answer`` and
    ``columns``, see :class:`ftkit.training.generative.GenerativeModule`; and ``origin``, by which a model whose vision
    tower is frozen has the rows remembered, so that no image is opened twice, see
    :class:`ftkit.vlm.dataset.BatchOrigin`.

    Args:
        train: The rows to learn from; or all rows, if neither ``val`` nor ``test`` is given.
        val: The rows to validate on.
        test: The rows to test on.
        images: The folder that paths of images start from and may not leave; null takes that of each source.
        fractions: Where there is one source: parts for train and validation; the rest is for test. Rows that share an
            image stay together.
        split_seed: Seed of that split.
        max_length: Most tokens in a training row, image tokens included; null, as any larger number, is the model's
            context. Rows that may be longer are put through the processor once at the start.
        too_long: Whether to ``cut`` a training row's answer that is too long, or to ``skip`` the row. Prompts and
            images are never cut. Rows of val and test are never left out, and only the model's context cuts their
            answers.
        chat: Whether to use the processor's chat template; null uses it if there is one.
        supervise: Which turns of the assistant are learnt: the ``last`` one of each conversation, which is the answer,
            or ``all`` that answer something. In evaluation the last one is generated either way; the loss is that of
            the turns that are learnt.
        sample: Learn from so many of the train rows only; null for all.
        ratio: Of those, positives to negatives, such as [2, 1], where answers are the model's positive and negative
            one, or yes and no.
        outcomes: An earlier prediction file over the train rows, to sample by what became of them; rows are found in
            it by their id or by the path of their image.
        keep: The outcomes to sample from: tp, tn, fp, fn, neither.
        evaluation_batch_size: Rows in a batch of evaluation; null takes ``batch_size``.
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
        self._prepared_for: tuple[Any, ...] | None = None  # a next stage need not measure the rows again

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """The rows of each split, as read: neither sampled nor measured.

        Raises:
            InputError: A source cannot be read, or a split that is asked for has no rows.
        """
        given = {name: read_rows(source, self.images) for name, source in self.sources.items() if source is not None}
        fix = "give a file for it, or do not evaluate it"
        if len(given) == 1:
            given = split_by_images(given["train"], self.fractions, self.split_seed, self._image_sha256)
            fix = "give it a larger part in fractions (rows that share an image stay together), or a file"
        for name in ("train", *self.evaluate_splits):
            if not given.get(name):
                raise InputError("there are no rows for this split", field=name, fix=fix)
        return {name: given.get(name, []) for name in SPLITS}

    @cached_property
    def data_sha256(self) -> str:
        """The hash of rows and images, known before anything is encoded; ``report`` has the same.

        Raises:
            InputError: A source cannot be read.
        """
        return _content_sha256(self.rows, self._image_sha256, self.outcomes)

    def setup(self, stage: str) -> None:
        """Prepare the rows for the trainer's model."""
        assert self.trainer is not None, "Lightning calls it; without a trainer, call prepare"
        model: Any = self.trainer.lightning_module
        if not hasattr(model, "preference"):
            raise InputError("these rows are for a vision-language model", field="model", got=type(model).__name__)
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
        """Sample and measure the rows for a model; sets :attr:`datasets` and :attr:`report`.

        Args:
            processor: The model's processor.
            preference: Whether the model learns from preferences.
            whole: The rule of val and test, see :meth:`LengthRule.for_evaluation`, whose context holds in training as
                well; None does not measure rows unless ``max_length`` was given.
            classes: The two answers, of which every row has one; None if the model's answers are free, and then a
                sample counts yes and no.

        Raises:
            InputError: The rows, or their combination with the model, cannot be used.
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
            for split in self.rows.values():
                _check_answers(split, classes)
        rows = {**self.rows, "train": self._sampled(self.rows["train"], classes or YES_NO)}
        self.report = {"source": self.sources["train"], "sha256": self.data_sha256}
        context = None if whole is None else whole.max_length
        rule = self.length if context is None else self.length.within(context)
        for name in SPLITS:
            length = rule if name == "train" else whole
            encoder = ChatEncoder(processor, length, self.chat, preference, self.supervise)
            kept, counts = leave_out_unusable(rows[name], encoder, name)
            for count, value in counts.items():
                self.report.setdefault(count, {})[name] = value
            self.datasets[name] = RowDataset(kept, encoder)
            if changed := ", ".join(f"{value:,} {_CHANGED[count]}" for count, value in counts.items() if value):
                rank_zero_warn(f"of {len(rows[name]):,} {name} rows: {changed}")
        turns = turn_counts(self.datasets["train"].rows, self.supervise)
        self.report["supervised_turns"] = {"supervise": self.supervise, **turns}
        self.report["sizes"] = {name: len(dataset) for name, dataset in self.datasets.items()}
        self._prepared_for = wanted

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the train split, in the order of the epoch; the last one may be smaller."""
        rows = len(self.datasets["train"])
        sharing: dict[str, Any] = {"batch_size": self.batch_size, **processes(self.trainer)}
        return self._training_loader(SeededSampler(rows, self._order_seed, **sharing))

    def _collate(self, split: SplitName, evaluation: bool) -> Callable[[Any], Any]:
        dataset: RowDataset = self.datasets[split]
        return dataset.evaluation_batch if evaluation else dataset.training_batch

    def _sampled(self, rows: list[Row], classes: Classes) -> list[Row]:
        if self.sample is None:
            return rows
        if self.ratio is not None or self.outcomes is not None:
            _check_answers(rows, classes)
        labels, found = [row.completion for row in rows], None
        if self.outcomes is not None:
            known = read_outcomes(self.outcomes, classes)
            found = outcomes_of_rows([self._known_as(row, known) for row in rows], labels, known, classes)
        if self.ratio is None and found is None and OUTCOMES.issubset(self.keep):
            order = seeded_order(len(rows), self._order_seed, epoch=0)
            if self.sample > len(rows):
                raise InputError(f"there are {len(rows)} train rows", field="sample", got=self.sample)
            return [rows[index] for index in order[: self.sample].tolist()]
        places = sample_rows(labels, self.sample, self._order_seed, self.ratio, found, self.keep, classes)
        return [rows[place] for place in places]

    def _known_as(self, row: Row, known: Container[str]) -> str:
        """The row's id, or where no outcome has it, the path of its image below the data root."""
        root = Path(self.images or Path(self.sources["train"] or "").parent).expanduser().resolve()
        paths = [image for image in row.images if isinstance(image, Path) and image.is_relative_to(root)]
        names = [image.relative_to(root).as_posix() for image in paths]
        # Prepared images keep their names, with an ending behind the one that they had.
        originals = (PurePath(name.removesuffix(PREPARED_SUFFIX)) for name in names)
        names += [name.as_posix() for name in originals if name.suffix]
        return next((name for name in (row.id, *names) if name in known), row.id)

    def _image_sha256(self, image: ImageReference, row: Row) -> bytes:
        if image not in self._image_digests:
            try:
                self._image_digests[image] = hashlib.sha256(image_bytes(image)).digest()
            except InputError as error:
                raise row.error(f"an image cannot be used: {error}", field="images") from error
        return self._image_digests[image]

    def _check_arguments(self) -> None:
        at_least(1, evaluation_batch_size=self.evaluation_batch_size)
        if self.sample is None and (self.ratio, self.outcomes, self.keep) != (None, None, sorted(OUTCOMES)):
            raise InputError("ratio, outcomes and keep choose a sample", field="sample", fix="say how many rows to use")
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


def _check_answers(rows: list[Row], classes: Classes) -> None:
    for row in rows:
        if classes.code(row.completion) not in (0, 1):
            raise row.error(
                "the answer names neither class",
                got=row.completion,
                fix=f"use {classes.positive} or {classes.negative}",
            )


def _content_sha256(
    rows: dict[str, list[Row]], image_sha256: Callable[[ImageReference, Row], bytes], outcomes: str | None
) -> str:
    """The hash of what the rows hold, of their images' bytes, and of what they are sampled by."""
    digest = hashlib.sha256()
    for name, split in rows.items():
        for row in split:
            parts = (name, row.id, row.prompt, row.completion, row.rejected, sorted(row.columns.items()))
            digest.update(repr((*parts, row.tools) if row.tools else parts).encode())
            for image in row.images:
                digest.update(image_sha256(image, row))
    if outcomes is not None:
        try:
            digest.update(Path(outcomes).read_bytes())
        except OSError as error:
            raise InputError(
                f"cannot be read: {error.strerror}", file=outcomes, field="outcomes", fix="predict the train rows first"
            ) from error
    return digest.hexdigest()
