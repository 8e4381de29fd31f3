"""``ftkit images prepare``: a folder of images as RGB squares, once, ahead of training."""

import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ftkit.errors import InputError
from ftkit.examples.image_files import PREPARED_SUFFIX
from ftkit.storage import PARTIAL_SUFFIX, atomic_write, make_folder, remove_partials
from ftkit.vlm.images import parse_color
from ftkit.vlm.preparing import Prepared, Settings, prepare_one

MANIFEST = "manifest.jsonl"
_NOT_IMAGES = (".csv", ".json", ".jsonl", ".md", ".ndjson", ".sha256", ".toml", ".tsv", ".txt", ".yaml", ".yml")
_SHOWN = 10
_QUEUED = 1_000


def prepare(
    source: Path,
    target: Path,
    size: int = 224,
    background: str = "white",
    skip_bad: bool = False,
    workers: int | None = None,
) -> None:
    """Convert every image of a folder to an RGB square of one size; of animations, the most colorful frame.

    SOURCE/a/b.gif becomes TARGET/a/b.gif.png, and data that name a/b.gif find it there. Hidden files and those for data
    and text, such as .tsv, are left alone. TARGET/manifest.jsonl lists each image, bad ones with the reason. A second
    run keeps what is up to date, so that it completes one that was stopped; what it writes is the same byte for byte.

    Args:
        source: The folder of images: JPEG, PNG, GIF, WEBP, BMP, TIFF, AVIF.
        target: The folder to write.
        size: Width and height of the results, in pixels.
        background: The color behind transparency: a name or #RRGGBB.
        skip_bad: Exit with 0 even if some images cannot be used; they are listed either way.
        workers: How many images are decoded at a time; one per CPU core if not given.

    Raises:
        InputError: An option or folder cannot be used, or an image is bad and `skip_bad` is not given.
        EnvironmentFault: The results cannot be written.
    """
    settings = _checked(source, target, size, background, workers)
    names, left_alone = _listed(settings.source)
    _check_distinct(names, source)
    make_folder(target)
    for folder in {path.parent for path in target.rglob(f".*{PARTIAL_SUFFIX}")}:
        remove_partials(folder)
    examples: list[Prepared] = []
    kept = 0
    with warnings.catch_warnings(), _results(names, settings, workers or os.cpu_count() or 1) as results:
        warnings.simplefilter("ignore")  # what matters of a damaged file is in the manifest
        for example, was_kept in _with_progress(results, len(names)):
            examples.append(example)
            kept += was_kept
    write_manifest(target / MANIFEST, examples)
    bad = [example for example in examples if example.status == "bad"]
    print(
        f"{len(examples) - len(bad):,} of {len(examples):,} images are ready in {target} ({kept:,} were already), "
        f"{len(bad):,} bad, {left_alone:,} other files left alone; see {target / MANIFEST}"
    )
    for example in bad[:_SHOWN]:
        print(f"bad: {settings.source / example.source}: {example.reason}", file=sys.stderr)
    if bad and not skip_bad:
        problem = f"{len(bad):,} of {len(examples):,} images cannot be used, listed in {target / MANIFEST}"
        got = ", ".join(example.source for example in bad[:_SHOWN])
        raise InputError(problem, file=source, got=got, fix="replace or remove them, or give --skip_bad")


def write_manifest(path: Path, examples: Iterable[Prepared]) -> None:
    """Write the list of images as JSON lines."""
    with atomic_write(path, "wb") as file:
        for example in examples:
            text = json.dumps(asdict(example), ensure_ascii=False)
            # A file name that is not UTF-8 holds surrogates; Python's escape for them is JSON's.
            file.write(text.encode("utf-8", "backslashreplace") + b"\n")


def _checked(source: Path, target: Path, size: int, background: str, workers: int | None) -> Settings:
    if not source.is_dir():
        raise InputError("the folder of images does not exist", file=source)
    here, there = source.resolve(), target.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        problem = "one folder lies in the other, so that results would be taken for sources"
        raise InputError(problem, field="target", got=str(target), fix="write beside the source folder")
    if not 1 <= size <= 4096:
        raise InputError("not between 1 and 4096", field="size", got=size)
    if workers is not None and workers < 1:
        raise InputError("at least one is needed", field="workers", got=workers)
    return Settings(here, target, size, parse_color(background))


def _listed(source: Path) -> tuple[list[str], int]:
    """Return the images' paths in ``source``, sorted, and how many other files there are."""
    names, left_alone = [], 0
    for folder, folders, files in os.walk(source, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(folder, name).is_symlink()]  # listed, so that none is missed
        for name in [*files, *links]:
            if name.startswith(".") or Path(name).suffix.lower() in _NOT_IMAGES:
                left_alone += 1
            else:
                names.append(Path(folder, name).relative_to(source).as_posix())
    if not names:
        raise InputError("there are no images in this folder", file=source)
    return sorted(names), left_alone


def _check_distinct(names: list[str], source: Path) -> None:
    """Refuse an image whose own name is that of another's result: data that name it would get the other one."""
    if taken := sorted(set(names) & {f"{name}{PREPARED_SUFFIX}" for name in names}):
        problem, got = f"{len(taken):,} images have the names of other images' results", ", ".join(taken[:_SHOWN])
        fix = f"rename them, or remove those that are the others with {PREPARED_SUFFIX} behind their names"
        raise InputError(problem, file=source, got=got, fix=fix)


def _unreadable(error: OSError) -> None:
    raise InputError(f"the folder cannot be read: {error.strerror}", file=error.filename)


@contextmanager
def _results(names: list[str], settings: Settings, workers: int) -> Iterator[Iterator[tuple[Prepared, bool]]]:
    """Prepare all images, in the order of ``names``; whoever leaves early waits for those begun, and for no others.

    Threads do, because decoding and scaling run outside of Python's lock, and no process has to be started.
    """
    job = partial(prepare_one, settings=settings)
    executor = ThreadPoolExecutor(workers)
    starts = range(0, len(names), _QUEUED)
    try:
        yield (result for start in starts for result in executor.map(job, names[start : start + _QUEUED]))
    finally:
        executor.shutdown(cancel_futures=True)


def _with_progress(results: Iterator[tuple[Prepared, bool]], total: int) -> Iterator[tuple[Prepared, bool]]:
    console = Console(stderr=True)
    columns = (TextColumn("images"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield from progress.track(results, total=total)
