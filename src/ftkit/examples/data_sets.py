"""Data sets of the package ``datasets``: saved in a folder, in memory, or on the hub."""

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ftkit.errors import EnvironmentFault, InputError, UnavailableError, first_line
from ftkit.examples.records import Records, RecordSource, StoredImage
from ftkit.results.table_files import FORMATS

_BATCH, _WITH_IMAGES = 1_000, 20  # examples at a time
_HUB_ID = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.-]+))?")


def is_a(given: Any, module: str, *kinds: str) -> bool:
    """Return whether an object is of a library that only users of it have imported."""
    library = sys.modules.get(module)
    return library is not None and isinstance(given, tuple(getattr(library, kind) for kind in kinds))


def splits_of(dataset: Any) -> dict[str, RecordSource]:
    """Return the splits of a ``DatasetDict``, of a folder that one was saved in, or of a name on the hub.

    The name is ``NAME`` or ``NAME:CONFIG``.

    Raises:
        InputError: It is none of these.
        EnvironmentFault: The package ``datasets`` is missing.
        UnavailableError: The data set is neither in the cache nor to be had from the hub.
    """
    named = isinstance(dataset, str | Path)
    splits, title = (loaded(str(dataset)), str(dataset)) if named else (dataset, "a data set")
    if not is_a(splits, "datasets", "DatasetDict"):
        fix = "give a DatasetDict or the name of a data set on the hub; a single split is given as train"
        raise InputError("has no splits", file=title, field="dataset", got=type(splits).__name__, fix=fix)
    path = Path(title).expanduser()
    return {
        name: source_of(split, f"{title} ({name})", path if named and path.is_dir() else None)
        for name, split in splits.items()
    }


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
    from ftkit.hub import hub_is_reachable  # imports transformers, which a file does not need

    if not (reachable := hub_is_reachable()):
        datasets.config.HF_HUB_OFFLINE = True  # or its client tries for minutes
    try:
        return datasets.load_dataset(found["name"], found["config"])
    except (OSError, ValueError, RuntimeError) as error:
        problem = f"{name} cannot be loaded"
        fix = "check the name and the configuration; a private or gated data set needs a valid HF_TOKEN"
        if isinstance(error, ConnectionError) or not reachable:
            problem = f"{name} is not in the cache {datasets.config.HF_DATASETS_CACHE} and the hub cannot be reached"
            fix = "load it and save_to_disk where there is a network, and name that folder"
        raise UnavailableError(f"{problem}: {first_line(error)}", fix=fix) from error


def source_of(given: Any, title: str, folder: Path | None = None) -> RecordSource:
    """Return the source of one split of ``datasets``, whose images stay where they are."""
    datasets = datasets_package(title)
    if isinstance(given, datasets.DatasetDict):
        names = ", ".join(given if folder is None else (str(folder / name) for name in given))
        raise InputError("has several splits", file=title, fix=f"name one of them: {names}, or give it as dataset")
    images = []
    for name, feature in given.features.items():
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.Image) or (isinstance(inner, dict) and inner.keys() == {"bytes", "path"}):
            images.append(name)
        elif "Image(" in repr(feature):
            fix = "give them in a column images, a list of them for each example"
            raise InputError("has images nested in another value", file=title, field=name, fix=fix)
    read = partial(_examples_of, given.with_format("arrow"), images)  # which decodes no image
    return RecordSource(title, read, list(given.column_names), folder)


def _examples_of(table: Any, images: list[str]) -> Records:
    """Read a data set in batches; small ones with images, whose bytes are in memory where it was shuffled."""
    size = _WITH_IMAGES if images else _BATCH
    holding = {name: table.select_columns([name]) for name in images}
    for start in range(0, len(table), size):
        columns = {}
        for name, column in zip(table.column_names, table[start : start + size].columns, strict=True):
            if name in images:
                stored = enumerate(column, start)
                columns[name] = [_image(value, holding[name], index, name) for index, value in stored]
            elif hasattr(feature := table.features[name], "int2str"):  # -1 is a class that is not known
                codes = column.to_pylist()
                columns[name] = [None if code is None or code < 0 else feature.int2str(code) for code in codes]
            else:
                columns[name] = column.to_pylist()
        rows = zip(*columns.values(), strict=True)
        yield from ((number, dict(zip(columns, row, strict=True))) for number, row in enumerate(rows, start + 1))


def _image(value: Any, table: Any, example: int, column: str, position: int | None = None) -> Any:
    """Return an image, its path, or a list of them, from Arrow's scalar; its bytes are not copied."""
    if not value.is_valid:
        return None
    if isinstance(value, pa.ListScalar):
        return [_image(one, table, example, column, place) for place, one in enumerate(value)]
    return StoredImage(table, example, column, position) if value["bytes"].is_valid else value["path"].as_py()
