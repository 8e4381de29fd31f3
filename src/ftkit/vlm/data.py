"""Rows with images as a Lightning data module: read, split, sampled, measured and batched."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from ftkit.errors import InputError
from ftkit.rows.reader import Row, read_rows
from ftkit.rows.supervision import LengthRule, TooLong
from ftkit.run_folder import SPLITS, SplitName
from ftkit.training.distributed import processes
from ftkit.training.order import SeededSampler, evaluation_sampler, seeded_order
from ftkit.vlm.chat import ChatEncoder
from ftkit.vlm.dataset import RowDataset, leave_out_unusable, split_by_images
from ftkit.vlm.sampling import OUTCOMES, outcomes_of_rows, read_outcomes, sample_rows


class VLMDataModule(L.LightningDataModule):
    """Questions about images with their answers, for a vision-language model.

    Each source is a file of JSON lines or a folder that ``datasets.Dataset.save_to_disk`` wrote; the shapes of rows are
    those of :mod:`ftkit.rows.reader`. A model that learns from preferences gets the rejected answers too; pairs whose
    answers are the same, or are so when cut, teach nothing: they are left out and counted.

    Batches are dicts: ``inputs``, ``prompts`` (evaluation of answers only), ``id``, and for evaluation ``answer`` and
    ``columns``; see :class:`ftkit.training.generative.GenerativeModule`.

    Args:
        train: The rows to learn from; or all rows, if neither ``val`` nor ``test`` is given.
        val: The rows to validate on.
        test: The rows to test on.
        images: The folder that paths of images start from and may not leave; null takes that of each source.
        fractions: Where there is one source: parts for train and validation; the rest is for test. Rows that share an
            image stay together.
        split_seed: Seed of that split.
        max_length: Most tokens in a row, image tokens included; null for any. To know which rows are longer, each is
            put through the processor once at the start.
        too_long: ``cut`` shortens the answer, ``skip`` leaves out the row. Prompts and images are never cut. Rows of
            val and test are left out in either case, for a question without its answer cannot be judged.
        chat: Whether to use the processor's chat template; null uses it if there is one.
        sample: Learn from so many of the train rows only; null for all.
        ratio: Of those, positives to negatives, such as [2, 1], where answers are yes and no.
        outcomes: An earlier prediction file over the train rows, to sample by what became of them.
        keep: The outcomes to sample from: tp, tn, fp, fn, neither.
        batch_size: Rows in a training batch of one process; several processes multiply it.
        evaluation_batch_size: Rows in a batch of evaluation; null takes ``batch_size``.
        seed: Seed of order and sample; null takes the one that ``seed_everything`` set.
        evaluate_splits: The splits that ``test`` runs over, one data loader each.
        num_workers: Processes that open images and make batches.

    Raises:
        InputError: An argument, or a combination of arguments, makes no sense.
    """

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
        sample: int | None = None,
        ratio: tuple[int, int] | None = None,
        outcomes: str | None = None,
        keep: list[str] | None = None,
        batch_size: int = 8,
        evaluation_batch_size: int | None = None,
        seed: int | None = None,
        evaluate_splits: Sequence[SplitName] = ("test",),
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.sources = {"train": train, "val": val, "test": test}
        self.images, self.fractions, self.split_seed = images, (fractions[0], fractions[1]), split_seed
        self.length, self.too_long, self.chat = LengthRule(max_length, too_long), too_long, chat
        self.sample, self.ratio, self.outcomes = sample, ratio, outcomes
        self.keep = OUTCOMES if keep is None else frozenset(keep)
        self.batch_size = batch_size
        self.evaluation_batch_size = batch_size if evaluation_batch_size is None else evaluation_batch_size
        self.seed, self.evaluate_splits, self.num_workers = seed, tuple(evaluate_splits), num_workers
        self._check_arguments()
        self.datasets: dict[str, RowDataset] = {}
        self._prepared_for: tuple[Any, bool] | None = None  # a next stage need not measure the rows again
        self.report: dict[str, Any] = {}  # source, sha256; and by split: sizes, cut, skipped, equal

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """The rows of each split, as read: neither sampled nor measured.

        Raises:
            InputError: A source cannot be read, or a split that is asked for has no rows.
        """
        given = {name: read_rows(source, self.images) for name, source in self.sources.items() if source is not None}
        fix = "give a file for it, or do not evaluate it"
        if len(given) == 1:
            given = split_by_images(given["train"], self.fractions, self.split_seed)
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
        return _content_sha256(self.rows, self.outcomes)

    def setup(self, stage: str) -> None:
        """Prepare the rows for the trainer's model."""
        assert self.trainer is not None, "Lightning calls it; without a trainer, call prepare"
        model: Any = self.trainer.lightning_module
        if not hasattr(model, "preference"):
            raise InputError("these rows are for a vision-language model", field="model", got=type(model).__name__)
        self.prepare(model.processor, preference=model.preference)

    def prepare(self, processor: Any, preference: bool = False) -> None:
        """Sample and measure the rows for a model; sets :attr:`datasets` and :attr:`report`.

        Args:
            processor: The model's processor.
            preference: Whether the model learns from preferences.

        Raises:
            InputError: The rows, or their combination with the model, cannot be used.
        """
        if self._prepared_for == (processor, preference):
            return
        self._prepared_for = (processor, preference)
        # Read here, before a model that is built draws from, or seeds, the global generator.
        self._order_seed = torch.initial_seed() if self.seed is None else self.seed
        rows = {**self.rows, "train": self._sampled(self.rows["train"])}
        self.report = {"source": self.sources["train"], "sha256": self.data_sha256}
        for name in SPLITS:
            too_long: TooLong = self.too_long if name == "train" else "skip"
            encoder = ChatEncoder(processor, LengthRule(self.length.max_length, too_long), self.chat, preference)
            kept, counts = leave_out_unusable(rows[name], encoder, name)
            for count, value in counts.items():
                self.report.setdefault(count, {})[name] = value
            self.datasets[name] = RowDataset(kept, encoder)
        self.report["sizes"] = {name: len(dataset) for name, dataset in self.datasets.items()}

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the train split, in the order of the epoch; the last one may be smaller."""
        dataset = self.datasets["train"]
        sampler = SeededSampler(len(dataset), self._order_seed, batch_size=self.batch_size, **processes(self.trainer))
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=dataset.training_batch,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Batches of the validation split, in order; none without such rows."""
        return self._evaluation_loader("val") if len(self.datasets["val"]) else []

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """One loader for each of ``evaluate_splits``, in order and with nothing dropped."""
        return [self._evaluation_loader(name) for name in self.evaluate_splits]

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of the test split, in order and with nothing dropped."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, name: str) -> DataLoader[Any]:
        dataset = self.datasets[name]
        return DataLoader(
            dataset,
            batch_size=self.evaluation_batch_size,
            sampler=evaluation_sampler(len(dataset), self.evaluation_batch_size, self.trainer),
            collate_fn=dataset.evaluation_batch,
            num_workers=self.num_workers,
        )

    def _sampled(self, rows: list[Row]) -> list[Row]:
        if self.sample is None:
            return rows
        labels, found = [row.completion for row in rows], None
        if self.outcomes is not None:
            found = outcomes_of_rows([row.id for row in rows], labels, read_outcomes(self.outcomes))
        if self.ratio is None and found is None and self.keep == OUTCOMES:
            order = seeded_order(len(rows), self._order_seed, epoch=0)
            if self.sample > len(rows):
                raise InputError(f"there are {len(rows)} train rows", field="sample", got=self.sample)
            return [rows[index] for index in order[: self.sample].tolist()]
        places = sample_rows(labels, self.sample, self._order_seed, self.ratio, found, self.keep)
        return [rows[place] for place in places]

    def _check_arguments(self) -> None:
        for field, smallest in (("batch_size", 1), ("evaluation_batch_size", 1), ("num_workers", 0)):
            if (value := getattr(self, field)) < smallest:
                raise InputError(f"must be at least {smallest}", field=field, got=value)
        if self.sample is None and (self.ratio, self.outcomes, self.keep) != (None, None, OUTCOMES):
            raise InputError("ratio, outcomes and keep choose a sample", field="sample", fix="say how many rows to use")
        if self.sample is not None and self.sample < 1:
            raise InputError("must be at least 1", field="sample", got=self.sample)
        if min(self.fractions) <= 0 or sum(self.fractions) > 1:
            raise InputError("must be two positive parts of at most 1 together", field="fractions", got=self.fractions)
        if len(set(self.evaluate_splits)) < max(1, len(self.evaluate_splits)):
            raise InputError("name one or more splits, each once", field="evaluate_splits", got=self.evaluate_splits)


def _content_sha256(rows: dict[str, list[Row]], outcomes: str | None) -> str:
    """The hash of what the rows hold, of their images' bytes, and of what they are sampled by."""
    digest = hashlib.sha256()
    seen: dict[Path, bytes] = {}
    for name, split in rows.items():
        for row in split:
            digest.update(
                repr((name, row.id, row.prompt, row.completion, row.rejected, sorted(row.columns.items()))).encode()
            )
            for image in row.images:
                if isinstance(image, Path):
                    content = seen.get(image) or seen.setdefault(image, hashlib.sha256(image.read_bytes()).digest())
                else:
                    content = hashlib.sha256(image.read()).digest()
                digest.update(content)
    if outcomes is not None:
        try:
            digest.update(Path(outcomes).read_bytes())
        except OSError as error:
            raise InputError(
                f"cannot be read: {error.strerror}", file=outcomes, field="outcomes", fix="predict the train rows first"
            ) from error
    return digest.hexdigest()
