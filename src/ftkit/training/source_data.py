"""A Lightning data module of examples from files, data sets and frames: the splits that are given, or held out."""

from collections.abc import Callable, Hashable, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from ftkit.errors import InputError
from ftkit.examples.sources import RecordSource
from ftkit.training.split_data import SplitDataModule
from ftkit.training.splits import hold_out, open_splits, split_by_groups

T = TypeVar("T")


class SourceDataModule(SplitDataModule):
    """Take train, val and test from sources; what is not given is held out of train.

    A source is a file of TSV, CSV, JSON or Parquet, a folder that ``datasets`` saved, or in Python a data set, a pandas
    frame or a list of dicts, see :func:`ftkit.examples.sources.open_source`. As the first base of a data module it
    gives it these options.

    Args:
        train: The source to train on; with ``dataset`` the name of a split, as are the next two.
        val: The source to validate on; null holds a part out of train.
        test: The source to test on; null holds a part out of train, if ``val`` is null too.
        dataset: A data set with splits: a folder that ``DatasetDict.save_to_disk`` wrote, or a name on the hub, such as
            ``imdb`` or, with a configuration, ``nyu-mll/glue:sst2``. Its splits are train; validation, val, valid or
            dev; and test, unless they are named.
        columns: Our name of a column and the one in the sources, such as ``{text: sentence}``; a number for a table
            without a header.
        fractions: Parts of train for train and validation, where they are held out; the rest is for test. Examples that
            belong together stay so. [1.0, 0.0] trains on everything.
        split_seed: Seed of what is held out; null takes the one that ``seed_everything`` set.
        **options: See :class:`ftkit.training.split_data.SplitDataModule`.
    """

    def __init__(
        self,
        train: str | Path | list[dict[str, Any]] | None = None,
        val: str | Path | list[dict[str, Any]] | None = None,
        test: str | Path | list[dict[str, Any]] | None = None,
        dataset: str | Path | None = None,
        columns: dict[str, str | int] | None = None,
        fractions: tuple[float, float] = (0.8, 0.1),
        split_seed: int | None = 123,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.given = {"train": train, "val": val, "test": test}
        self.dataset, self.columns = dataset, columns
        self.fractions = fractions[0], fractions[1]
        self.split_seed = torch.initial_seed() if split_seed is None else split_seed
        self.held_out = ""  # what is said about examples that were held out of train
        if not (fractions[0] > 0 and fractions[1] >= 0 and sum(fractions) <= 1):
            problem = "must be two parts of at most 1 together, the first one more than 0"
            raise InputError(problem, field="fractions", got=self.fractions)

    @cached_property
    def sources(self) -> dict[str, RecordSource]:
        """The sources of train and of the other splits that are given.

        Raises:
            InputError: One cannot be used.
        """
        return open_splits(self.given, self.dataset, self.columns)

    @property
    def source(self) -> str:
        """The name of the train source."""
        return self.sources["train"].title

    def read_splits(
        self, read: Callable[[RecordSource, str], list[T]], keys: Callable[[T], Iterable[Hashable]]
    ) -> dict[str, list[T]]:
        """Read the examples of all splits; sets :attr:`held_out`.

        Args:
            read: Reads the examples of a source, which is that of the named split.
            keys: Returns what examples that belong together share.
        """
        given = {name: read(source, name) for name, source in self.sources.items()}
        divide = partial(split_by_groups, keys=keys)
        splits, self.held_out = hold_out(given, self.fractions, self.split_seed, divide)
        return splits
