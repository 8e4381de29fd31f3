"""Data sets of the package ``datasets``: saved in a folder, in memory, or on the hub."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from ftkit.errors import EnvironmentFault, InputError, UnavailableError
from ftkit.examples.records import Records, RecordSource, StoredImage
from ftkit.hub import hub_is_reachable
from ftkit.results.table_files import FORMATS

_BATCH = 1_000
_HUB_ID = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.-]+))?")


def is_a(given: Any, module: str, *kinds: str) -> bool:
    """Return whether an object is of a library that only users of it have imported."""
    library = sys.modules.get(module)
    return library is not None and isinstance(given, tuple(getattr(library, kind) for kind in kinds))


def splits_of(dataset: Any) -> dict[str, RecordSource]:
    """Return the splits of a data set by name.

    Args:
        dataset: A ``DatasetDict``, a folder that one was saved in, or a name on the hub, see :func:`open_source`.

    Raises:
        InputError: It is none of these.
        EnvironmentFault: The package ``datasets`` is missing.
        UnavailableError: The data set is neither in the cache nor to be had from the hub.
    """
    title = str(dataset) if isinstance(dataset, str | Path) else "a data set"
    splits = loaded(title) if isinstance(dataset, str | Path) else dataset
    if not is_a(splits, "datasets", "DatasetDict"):
        fix = "give a DatasetDict or the name of a data set on the hub; a single split is given as train"
        raise InputError("holds no splits", file=title, field="dataset", got=type(splits).__name__, fix=fix)
    return {name: source_of(splits, title, name) for name in splits}


def datasets_package(name: str | Path) -> Any:
    """Return the package ``datasets``."""
    try:
        import datasets
    except ImportError as error:
        problem, fix = "a data set needs the package datasets", "pip install datasets, or use a file of text"
        raise EnvironmentFault(problem, file=name, fix=fix) from error
    return datasets


def loaded(name: str) -> Any:
    """Return the data set, or the splits, of a folder or of a name on the hub."""
    datasets, path = datasets_package(name), Path(name).expanduser()
    if path.is_dir():
        try:
            return datasets.load_from_disk(str(path))
        except (OSError, ValueError) as error:
            fix = "Dataset.save_to_disk writes one"
            raise InputError(f"is not a saved data set: {error}", file=path, fix=fix) from error
    found = _HUB_ID.fullmatch(name)
    if not found or path.is_file() or path.suffix.lower() in FORMATS:
        fix = "give a file without splits as train"
        raise InputError("neither a folder nor the name of a data set on the hub", field="dataset", got=name, fix=fix)
    if not (reachable := hub_is_reachable()):
        datasets.config.HF_HUB_OFFLINE = True  # or its client tries for minutes
    try:
        return datasets.load_dataset(found["name"], found["config"])
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, ConnectionError) or not reachable:
            problem = f"{name} is not in the cache {datasets.config.HF_DATASETS_CACHE} and the hub cannot be reached"
            fix = "load it and save_to_disk where there is a network, and name that folder"
            raise UnavailableError(problem, fix=fix) from error
        problem = f"{name} cannot be loaded: {str(error).strip().partition(chr(10))[0]}"
        fix = "check the name and the configuration; a private or gated data set needs a valid HF_TOKEN"
        raise UnavailableError(problem, fix=fix) from error


def source_of(given: Any, title: str, split: str | None, folder: Path | None = None) -> RecordSource:
    """Return the source of a data set of ``datasets``, or of one of its splits."""
    datasets, path = datasets_package(title), Path(title).expanduser()
    if isinstance(given, datasets.DatasetDict):
        if split is None:
            fix = f"name one of them: {', '.join(str(path / name) if path.is_dir() else name for name in given)}"
            raise InputError("holds several splits", file=title, fix=fix)
        if split not in given:
            fix = f"use one of {', '.join(given)}"
            raise InputError("no such split", file=title, field="split", got=split, fix=fix)
        given, folder, title = given[split], path if path.is_dir() else None, f"{title} ({split})"
    elif split is not None:
        raise InputError("has no splits", file=title, field="split", got=split, fix="leave the split out")
    if folder is None and path.is_dir():
        folder = path
    table, images = given.with_format(None), []
    for name, feature in table.features.items():
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.Image) or _is_image_struct(inner):
            images.append(name)
            undecoded = datasets.Image(decode=False)
            table = table.cast_column(name, undecoded if inner is feature else datasets.List(undecoded))
        elif "Image(" in repr(feature):
            fix = "give them in a column images, a list of them for each example"
            raise InputError("holds images within another value", file=title, field=name, fix=fix)
    return RecordSource(title, partial(_examples_of, table, images), list(table.column_names), folder)


def _is_image_struct(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.keys() == {"bytes", "path"}


def _examples_of(table: Any, images: list[str]) -> Records:
    """Read a data set in batches; of the columns of images only one at a time, and not their bytes for long."""
    texts = table.remove_columns(images)
    named = {name: feature for name, feature in texts.features.items() if hasattr(feature, "int2str")}
    counted = {name: table.select_columns([name]) for name in images}
    for start in range(0, len(table), _BATCH):
        batch = texts[start : start + _BATCH] if texts.column_names else {}
        for index in range(start, min(start + _BATCH, len(table))):
            record = {name: values[index - start] for name, values in batch.items()}
            for name, feature in named.items():
                code = record[name]
                record[name] = None if code is None or code < 0 else feature.int2str(code)
            for name, column in counted.items():
                value = column[index][name]
                if isinstance(value, list):
                    record[name] = [_image(one, column, index, name, place) for place, one in enumerate(value)]
                else:
                    record[name] = value and _image(value, column, index, name, None)
            yield index + 1, record


def _image(value: Any, table: Any, example: int, column: str, position: int | None) -> StoredImage | str | None:
    stored = value is not None and value["bytes"] is not None
    return StoredImage(table, example, column, position) if stored else value and value["path"]
