"""Records of training data, each with its place in the source, and images whose bytes stay there until needed."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ftkit.errors import InputError
from ftkit.examples.image_files import check_bytes, find_image, holds_image

Records = Iterator[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class StoredImage:
    """Refer to an image whose bytes a ``datasets`` data set holds; they are read when they are needed.

    The table is in the format of Arrow. The position is that in a list of images; None where the column holds one.
    """

    table: Any
    example: int
    column: str
    position: int | None

    def read(self) -> bytes:
        """Return the bytes of the image.

        Raises:
            InputError: There are none, or too many.
        """
        value = self.table[self.example][self.column][0]
        data = (value if self.position is None else value[self.position])["bytes"].as_py()
        check_bytes(len(data))
        return data


@dataclass(frozen=True)
class RecordSource:
    """Records that can be read again and again, each with its place: the line of a text file, else its number from 1.

    Args:
        title: What reports call it.
        read: Begins to read the records under their own names.
        names: The names of the columns in the source; of JSON and lists those of the first thousand records.
        folder: Where relative paths of images start; None if the source is in no folder.
        file: The file whose lines the places are; None if they are numbers.
        chosen: The name in the source for each of ours.
    """

    title: str
    read: Callable[[], Records]
    names: list[str]
    folder: Path | None = None
    file: Path | None = None
    chosen: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The names of the columns as records have them."""
        return [*self.chosen, *(name for name in self.names if name not in self._taken)]

    @property
    def has_names(self) -> bool:
        """Return whether the columns have names; those of a table without a header have numbers."""
        return not self.columns or self.columns != [str(place) for place in range(len(self.columns))]

    @cached_property
    def _taken(self) -> set[str]:
        return {*self.chosen, *self.chosen.values()}

    def __iter__(self) -> Records:
        for place, record in self.read():
            if self.chosen:
                named = {ours: record[theirs] for ours, theirs in self.chosen.items() if theirs in record}
                record = named | {name: value for name, value in record.items() if name not in self._taken}
            yield place, record

    def at(self, place: int | None) -> dict[str, Any]:
        """Return a place as the arguments ``file`` and ``line`` of an error."""
        if place is None or self.file is not None:
            return {"file": self.file or self.title, "line": place}
        return {"file": f"{self.title}, example {place}", "line": None}

    def error(self, place: int | None, problem: str, **details: Any) -> InputError:
        """Return an error about a record, or about the whole source where ``place`` is None."""
        return InputError(problem, **self.at(place), **details)

    @cached_property
    def sha256(self) -> str:
        """The hash of the records, whatever kind of source they are in."""
        for _ in self.hashed():
            pass
        return vars(self)["sha256"]

    def hashed(self) -> Records:
        """Read the records; behind the last one :attr:`sha256` is known and needs no reading of its own."""
        digest = None if "sha256" in vars(self) else hashlib.sha256()
        for place, record in self:
            if digest:
                digest.update(json.dumps(record, sort_keys=True, default=_hashed).encode() + b"\n")
            yield place, record
        if digest:
            vars(self)["sha256"] = digest.hexdigest()


def _hashed(value: Any) -> str:
    if isinstance(value, StoredImage):
        value = value.read()
    elif not isinstance(value, bytes) and holds_image(value):
        value = find_image(value)
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)
