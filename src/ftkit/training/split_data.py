"""A Lightning data module of examples in three splits: what the tasks' data modules have in common."""

import os
import signal
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.fabric.utilities.seed import pl_worker_init_function
from torch.utils.data import DataLoader, Sampler

from ftkit.errors import InputError, at_least
from ftkit.examples.duplicates import EXACT_LETTERS, EXACT_TEXTS, crossing, duplicates_of
from ftkit.examples.reader import Example, ImageReference
from ftkit.results.duplicates import LabeledText
from ftkit.results.known_examples import KnownExamples
from ftkit.run_folder import SPLITS, SplitName
from ftkit.training.samplers import evaluation_sampler

_COMPARED = 200_000  # the most examples among which a training looks for duplicates

_ENDING = (signal.SIGINT, signal.SIGTERM)

ImageKey = Callable[[ImageReference, Example], Hashable]


class SplitDataModule(L.LightningDataModule):
    """Examples in the splits train, val and test, as batches; a subclass says where they come from.

    Args:
        batch_size: Examples in a batch of one process; several processes multiply it.
        seed: Seed of the order of the training examples, and of whatever is drawn from them; null takes the one that
            ``seed_everything`` set.
        evaluate_splits: The splits that ``test`` runs over, one data loader each.
        num_workers: Processes that load batches.

    Attributes:
        evaluation_batch_size: Examples in a batch of evaluation.
        datasets: The examples by split, once they are prepared.
        report: What is told about them in a run's result.
    """

    # Attributes by which other examples, or other parts of them, make a step; a resumed run must not differ in them.
    step_options: ClassVar[tuple[str, ...]] = ()
    # Whether a similar text counts as a duplicate, as in classification, where it mostly has the same label.
    near_duplicates: ClassVar[bool] = True

    def __init__(
        self,
        batch_size: int = 8,
        seed: int | None = None,
        evaluate_splits: Sequence[SplitName] = ("test",),
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.evaluation_batch_size = batch_size, batch_size
        self.seed, self.evaluate_splits, self.num_workers = seed, tuple(evaluate_splits), num_workers
        at_least(1, batch_size=batch_size)
        at_least(0, num_workers=num_workers)
        if not evaluate_splits or len(set(evaluate_splits)) < len(evaluate_splits):
            raise InputError("name one or more splits, each once", field="evaluate_splits", got=list(evaluate_splits))
        if unknown := set(evaluate_splits) - set(SPLITS):
            raise InputError(
                "unknown split", field="evaluate_splits", got=unknown.pop(), fix=f"use {', '.join(SPLITS)}"
            )
        self.datasets: dict[str, Any] = {}
        self.report: dict[str, Any] = {}
        self._texts: tuple[tuple[LabeledText, ...], ...] = ()

    def note_seed(self) -> None:
        """Decide the seed of the order; before a model that is built draws from, or seeds, the global generator."""
        self._order_seed = torch.initial_seed() if self.seed is None else self.seed

    def labeled_texts(self, image_key: ImageKey) -> Mapping[SplitName, Iterable[LabeledText]]:
        """Return the examples of all splits, as far as duplicates go; none where a subclass does not say.

        The key of an image is equal for equal images.
        """
        return {}

    def note_duplicates(self, splits: Mapping[SplitName, Iterable[LabeledText]]) -> None:
        """Add to :attr:`report` how many val and test examples are in train as well, unless :attr:`datasets` is large.

        Of up to 20,000 examples it keeps the texts, for :meth:`known_examples`.
        """
        if (total := sum(map(len, self.datasets.values()))) > _COMPARED:
            return
        given = {name: tuple(splits.get(name, ())) for name in SPLITS}
        if found := crossing(given):
            self.report["duplicates"] = found
        letters = sum(len(one.text) for examples in given.values() for one in examples)
        self._texts = tuple(given.values()) if total <= EXACT_TEXTS and letters <= EXACT_LETTERS else ()

    def known_examples(self, split: str) -> KnownExamples | None:
        """Return the texts of val or test and their duplicates; None of other splits, and where the data are large."""
        if split not in SPLITS[1:] or not any(self._texts):
            return None
        every = [one for examples in self._texts for one in examples]
        return KnownExamples.of(every, duplicates_of(self._texts, self.near_duplicates), split)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return batches of the validation split, with nothing dropped; none if it has no examples."""
        return self._evaluation_loader("val") if len(self.datasets["val"]) else []

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Return one loader for each of ``evaluate_splits``, with nothing dropped."""
        return [self._evaluation_loader(split) for split in self.evaluate_splits]

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return batches of the test split, with nothing dropped."""
        return self._evaluation_loader("test")

    @abstractmethod
    def _collate(self, split: SplitName, evaluation: bool) -> Callable[[Any], Any]:
        """Return what makes a batch, of training or of evaluation, from examples of a split's dataset."""

    def _evaluation_order(self, split: SplitName) -> Sequence[int]:
        """Return the examples of a split in the order in which they are evaluated."""
        return range(len(self.datasets[split]))

    def _evaluation_loader(self, split: SplitName) -> DataLoader[Any]:
        if not len(self.datasets[split]):
            raise InputError("there are no examples to evaluate", field=f"data.{split}")
        size = self.evaluation_batch_size
        sampler = evaluation_sampler(self._evaluation_order(split), size, self.trainer)
        return self._loader(split, size, sampler, evaluation=True)

    def _loader(
        self, split: SplitName, batch_size: int, sampler: Sampler[int], evaluation: bool, drop_last: bool = False
    ) -> DataLoader[Any]:
        return DataLoader(
            self.datasets[split],
            batch_size=batch_size,
            sampler=sampler,
            drop_last=drop_last,
            collate_fn=self._collate(split, evaluation),
            num_workers=self.num_workers,
            worker_init_fn=_leave_signals,
            pin_memory=torch.cuda.is_available(),  # elsewhere torch warns that it has no effect
            persistent_workers=self.num_workers > 0 and not evaluation,
        )


def _leave_signals(worker: int) -> None:
    """Let a worker go on when the whole group of processes is told to end, so that the training can save and stop.

    Lightning would seed a worker that nobody else initializes.
    """
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    if int(os.environ.get("PL_SEED_WORKERS", 0)):
        pl_worker_init_function(worker)
