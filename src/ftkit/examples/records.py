"""Records of a file of JSON lines or of a saved ``datasets`` data set, each with its line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import EnvironmentFault, InputError
from ftkit.examples.image_files import check_bytes


@dataclass(frozen=True)
class StoredImage:
    """Refer to an image whose bytes a ``datasets`` data set holds; they are read when they are needed.

    Args:
        table: The data set, with its images undecoded.
        example: The index of the example.
        column: The column that holds the image, or a list of images.
        position: The place in that list; None where the column holds one image.
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
        value = self.table[self.example][self.column]
        data = (value if self.position is None else value[self.position])["bytes"]
        check_bytes(len(data))
        return data


def json_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the objects of a file of JSON lines in UTF-8, with or without a byte order mark; blank lines are skipped.

    Yields:
        The line, counted from 1, and the object.

    Raises:
        InputError: The file cannot be read, or a line is not a JSON object.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        fix = "give a file of JSON lines, or the folder of a saved data set"
        raise InputError(f"cannot be read: {error.strerror or error}", file=path, fix=fix) from error
    for line, encoded in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not encoded.strip():
            continue
        try:
            record = json.loads(encoded.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError("is not UTF-8", file=path, line=line, fix="save as UTF-8") from error
        except (ValueError, RecursionError) as error:  # the first also for a number of thousands of digits
            raise InputError(f"is not JSON: {error}", file=path, line=line, fix="one JSON object a line") from error
        if not isinstance(record, dict):
            raise InputError("must be a JSON object", file=path, line=line, got=record)
        yield line, record


def saved_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the examples of a folder that ``datasets.Dataset.save_to_disk`` wrote.

    Images are :class:`StoredImage` where the data set holds their bytes, and otherwise the paths that it holds.

    Yields:
        The example's place, counted from 1, and its columns.

    Raises:
        InputError: The folder holds no data set, several splits, or images elsewhere than in columns of their own.
        EnvironmentFault: The package ``datasets`` is missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise EnvironmentFault(
            "a saved data set needs the package datasets", file=path, fix="pip install datasets, or use JSON lines"
        ) from error
    try:
        table = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise InputError(
            f"is not a saved data set: {error}", file=path, fix="Dataset.save_to_disk writes one"
        ) from error
    if isinstance(table, datasets.DatasetDict):
        raise InputError("holds several splits", file=path, fix=f"name one of them: {path / next(iter(table))}")
    undecoded, columns = table, []
    for name, feature in table.features.items():
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.Image):
            columns.append(name)
            images = datasets.Image(decode=False)
            undecoded = undecoded.cast_column(name, images if inner is feature else datasets.List(images))
        elif "Image(" in repr(feature):
            fix = "give them in a column images, a list of them for each example"
            raise InputError("holds images within another value", file=path, field=name, fix=fix)
    texts = undecoded.remove_columns(columns)
    counted = {name: undecoded.select_columns([name]) for name in columns}
    for index in range(len(table)):
        record = dict(texts[index]) if texts.column_names else {}
        for name, images in counted.items():
            value = images[index][name]
            if isinstance(value, list):
                record[name] = [_image(one, images, index, name, place) for place, one in enumerate(value)]
            else:
                record[name] = value and _image(value, images, index, name, None)
        yield index + 1, record


def _image(value: Any, table: Any, example: int, column: str, position: int | None) -> StoredImage | str | None:
    stored = value is not None and value["bytes"] is not None
    return StoredImage(table, example, column, position) if stored else value and value["path"]
