"""What is known of examples besides the answers to them: their texts, and their duplicates in train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from ftkit.errors import InputError
from ftkit.results.clusters import clusters_of
from ftkit.results.duplicates import Duplicates, LabeledText
from ftkit.results.prediction_file import identities
from ftkit.results.scan import AnswerFile
from ftkit.results.table_files import open_table
from ftkit.results.tsv import tsv_line
from ftkit.run_folder import SPLITS, examples_file
from ftkit.storage import atomic_write, sha256_of

A = TypeVar("A", bound=AnswerFile)
_COLUMNS = ("id", "duplicate_in_train", "cluster", "text")


@dataclass(frozen=True)
class KnownExamples:
    """The examples of a split."""

    ids: Sequence[str]
    # Of each the closest kind of duplicate that it has in train, such as near; empty without one.
    duplicate: Sequence[str]
    # int64 (n,): those that duplicates connect, also through examples of other splits, share a number.
    cluster: np.ndarray
    texts: Sequence[str]

    @classmethod
    def of(cls, examples: Sequence[LabeledText], found: Mapping[str, Duplicates], split: str) -> KnownExamples:
        """Return what is known of a split, from the examples of all splits in their order.

        Of the kinds of duplicates that were counted, each holds the one before.
        """
        widest, kind = list(found.values())[-1], np.full(len(examples), "", object)
        for name in reversed(list(found)):
            kind[found[name].in_train] = name
        places = np.flatnonzero(widest.split == list[str](SPLITS).index(split)).tolist()
        here = [examples[place] for place in places]
        return cls([one.id for one in here], kind[places].tolist(), widest.cluster[places], [one.text for one in here])

    @classmethod
    def read(cls, path: Path) -> KnownExamples:
        """Read what :meth:`write` wrote.

        Raises:
            InputError: The file cannot be read or is no such file.
        """
        table = pa.Table.from_batches(list(open_table(path).batches()))
        ids, duplicate, cluster, texts = (
            [cell or "" for cell in column.to_pylist()] for column in _columns(table, path)
        )
        try:
            return cls(ids[1:], duplicate[1:], np.array(cluster[1:], np.int64), texts[1:])
        except ValueError as error:
            raise InputError(f"is damaged: {error}", file=path, field="cluster") from None

    def write(self, path: Path) -> None:
        """Write the examples as plain TSV: ``id``, ``duplicate_in_train``, ``cluster`` and ``text``."""
        with atomic_write(path) as file:
            file.write(tsv_line(_COLUMNS))
            for row in zip(self.ids, self.duplicate, self.cluster.tolist(), self.texts, strict=True):
                file.write(tsv_line(str(cell) or None for cell in row))

    @cached_property
    def text_of(self) -> Mapping[str, str]:
        """Return the texts by id."""
        return dict(zip(self.ids, self.texts, strict=True))

    @cached_property
    def _place(self) -> Mapping[int, int]:
        return {one: place for place, one in enumerate(identities(pa.array(self.ids, pa.string())).tolist())}

    def mark(self, answers: A) -> A:
        """Return answers with ``in_train`` and ``cluster``; an example that is not known has no duplicates."""
        found = np.array([self._place.get(one, -1) for one in answers.identity.tolist()], np.int64)
        alone = int(self.cluster.max(initial=-1)) + 1 + np.arange(len(found))
        known = np.append(np.array(self.duplicate, object) != "", False)
        return replace(
            answers, in_train=known[found], cluster=np.where(found < 0, alone, np.append(self.cluster, 0)[found])
        )


@dataclass(frozen=True)
class DuplicatesEffect:
    """Accuracies on the examples that have a duplicate in train and on the rest; None without any."""

    n_in_train: int  # examples with a duplicate in train
    in_train: float | None  # the accuracy on them
    n_rest: int  # the other examples
    rest: float | None  # the accuracy on these

    @classmethod
    def of(cls, answers: AnswerFile) -> DuplicatesEffect | None:
        """Return that of answers, ``(n,)`` or of several seeds ``(seeds, n)``; None where duplicates are not known."""
        if (there := answers.in_train) is None:
            return None
        right = answers.correct.reshape(-1, len(there)).mean(axis=0) / answers.answers
        means = [float(right[mask].mean()) if mask.any() else None for mask in (there, ~there)]
        return cls(int(there.sum()), means[0], int((~there).sum()), means[1])


def _columns(table: pa.Table, path: Path) -> list[Any]:
    header = [column[0].as_py() for column in table.columns]
    if header != [*_COLUMNS]:
        fix = "name the examples-test.tsv of a run folder, or what ftkit data audit --examples wrote"
        raise InputError("is no file of examples", file=path, got=", ".join(map(str, header))[:80], fix=fix)
    return list(table.columns)


def known_examples(files: Iterable[Path]) -> KnownExamples | None:
    """Read what several files know of examples: together, for their runs may have had other train data.

    An example has a duplicate in train if one of them says so, and clusters that share an example are one. Files that
    do not exist are left out; without any it is None.
    """
    different = {sha256_of(file): file for file in files if file.is_file()}
    parts = [KnownExamples.read(file) for file in different.values()]
    if len(parts) < 2:
        return parts[0] if parts else None
    place: dict[str, int] = {}
    duplicate: list[str] = []
    texts: list[str] = []
    edges = []
    for part in parts:
        first: dict[int, int] = {}
        for one, kind, cluster, text in zip(part.ids, part.duplicate, part.cluster.tolist(), part.texts, strict=True):
            if (here := place.setdefault(one, len(place))) == len(texts):
                texts.append(text)
                duplicate.append(kind)
            duplicate[here] = duplicate[here] or kind
            edges.append((first.setdefault(cluster, here), here))
    return KnownExamples(list(place), duplicate, clusters_of(len(place), np.array(edges)), texts)


def beside(predictions: Path) -> Path:
    """Return where a run keeps what it knows of the examples of a prediction file."""
    return predictions.with_name(examples_file(predictions.stem.removeprefix("predictions-")))
