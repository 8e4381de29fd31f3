"""Outputs of frozen layers on disk: computed once, and shared by every run and process that would compute the same.

An entry is a folder named by the SHA-256 of what made its numbers, so another weight, text or precision is another
entry and nothing has to be invalidated. It is built beside its place and renamed: it is whole or not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import mmap
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ftkit.errors import EnvironmentFault, InputError
from ftkit.storage import PARTIAL_SUFFIX, cache_folder

DEFAULT_MAX_GB = 20.0
MAX_GB_VARIABLE = "FTKIT_FEATURES_GB"

DESCRIPTION = "about.json"
_DATA, _LOCK_SUFFIX = "rows.bin", ".lock"
_CHUNK = 1 << 24  # bytes read at a time for a checksum
_log = logging.getLogger(__name__)


class Features:
    """One entry of a store: for each example some vectors, read through a memory map.

    Args:
        folder: The entry's folder.

    Attributes:
        lengths: How many vectors each example has, (N,) int64.

    Raises:
        ValueError: A file is missing, cut short, damaged, or that of another entry.
    """

    def __init__(self, folder: Path) -> None:
        try:
            about = read_description(folder)
            self._width, self._dtype = about["width"], getattr(torch, about["dtype"])
            self.lengths = torch.tensor(about["lengths"], dtype=torch.int64)
            self._file = (folder / _DATA).open("rb")
            size, checksum = about["bytes"], about["crc32"]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{folder} cannot be read: {error}") from error
        if size != os.fstat(self._file.fileno()).st_size or checksum != _crc32(folder / _DATA):
            raise ValueError(f"{folder / _DATA} is not what was written")
        self._starts = _starts(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, examples: Sequence[int], lengths: Sequence[int] | None = None) -> Tensor:
        """Read a batch.

        Args:
            examples: Numbers of the examples.
            lengths: How many of the first vectors of each example are wanted; None takes all.

        Returns:
            A copy of the vectors, (B, longest, D), filled up with zeros.
        """
        wanted = self.lengths[list(examples)].tolist() if lengths is None else lengths
        # Mapped for this batch only: pages that stay mapped would count as this process's memory.
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        rows = torch.frombuffer(mapped, dtype=self._dtype).view(-1, self._width)
        starts = self._starts[list(examples)].tolist()
        taken = [rows[start : start + length] for start, length in zip(starts, wanted, strict=True)]
        return pad_sequence(taken, batch_first=True)


class FeatureStore:
    """A folder of entries.

    Args:
        folder: The folder; None takes ``features`` in :func:`ftkit.storage.cache_folder`.
        max_gb: The most that all entries together may take, in 10^9 bytes; None takes ``$FTKIT_FEATURES_GB``, or 20.

    Raises:
        InputError: ``$FTKIT_FEATURES_GB`` is no number, or below 0.

    Example:
        >>> import tempfile
        >>> store = FeatureStore(Path(tempfile.mkdtemp()))
        >>> made_of = {"weights": "5f3a", "texts": "90c1"}
        >>> compute = lambda examples: torch.tensor(examples).float().reshape(-1, 1, 1).expand(-1, 3, 2)
        >>> built = store.build(made_of, [1, 3], batch_size=8, compute=compute)
        >>> store.find(made_of).read([1, 0]).tolist()
        [[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]
    """

    def __init__(self, folder: Path | None = None, max_gb: float | None = None) -> None:
        self.folder = folder or cache_folder() / "features"
        self.max_bytes = 1e9 * (_max_gb() if max_gb is None else max_gb)

    def find(self, made_of: Mapping[str, Any]) -> Features | None:
        """The entry that ``made_of`` describes, or None if there is none or it is damaged."""
        place = self.folder / key_of(made_of)
        if not place.is_dir():
            return None
        try:
            return Features(place)
        except ValueError as error:
            warnings.warn(f"{error}; it is computed again", stacklevel=2)
            return None

    def build(
        self,
        made_of: Mapping[str, Any],
        lengths: Sequence[int],
        batch_size: int,
        compute: Callable[[list[int]], Tensor],
    ) -> Features | None:
        """Compute an entry, unless another process has done so while this one waited for it.

        Args:
            made_of: What decides the numbers, as plain values.
            lengths: How many vectors to keep of each example.
            batch_size: Examples computed together. They come in order of length, so that little is padded.
            compute: Makes vectors (B, T, D) of a list of example numbers, T at least the longest of their lengths.

        Returns:
            The entry; None, after a warning, if it cannot be kept: no room, or a folder that cannot be written.
        """
        try:
            with self.locked(place := self.folder / key_of(made_of)):
                if found := self.find(made_of):
                    return found
                self._remove_leftovers(place)
                partial = place.with_name(f"{place.name}.{os.getpid()}{PARTIAL_SUFFIX}")
                partial.mkdir()
                try:
                    about = self._write_rows(partial / _DATA, lengths, batch_size, compute)
                    _write_text(partial / DESCRIPTION, described(made_of, about))
                    partial.rename(place)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
                return Features(place)
        except (OSError, EnvironmentFault) as error:
            warnings.warn(f"outputs of frozen layers are computed again in every step: {error}", stacklevel=2)
            return None

    def _write_rows(
        self, path: Path, lengths: Sequence[int], batch_size: int, compute: Callable[[list[int]], Tensor]
    ) -> dict[str, Any]:
        """Write the rows in order of length, a batch at a time; returns what a reader must know of them."""
        checksum, order = 0, torch.tensor(lengths).argsort(stable=True).tolist()
        with path.open("wb") as file:
            for start in range(0, len(order), batch_size):
                examples = order[start : start + batch_size]
                vectors = compute(examples).detach().cpu()
                if not start:
                    width, dtype = vectors.shape[2], vectors.dtype
                    needed = sum(lengths) * width * dtype.itemsize
                    self.check_room(needed)
                    if hasattr(os, "posix_fallocate"):  # a full disk shows now, and not after the work
                        os.posix_fallocate(file.fileno(), 0, needed)
                for row, example in zip(vectors, examples, strict=True):
                    data = row[: lengths[example]].contiguous().flatten().view(torch.uint8).numpy().data
                    file.write(data)
                    checksum = zlib.crc32(data, checksum)
            if file.tell() != needed:
                raise ValueError(f"{file.tell():,} bytes were computed instead of {needed:,}")
            file.flush()
            os.fsync(file.fileno())
        name = str(dtype).removeprefix("torch.")
        return {"width": width, "dtype": name, "bytes": needed, "crc32": checksum, "lengths": list(lengths)}

    def check_room(self, needed: int) -> int:
        """Refuse to write so much.

        Args:
            needed: Bytes.

        Returns:
            How many bytes there is room for, ``needed`` and more.

        Raises:
            EnvironmentFault: The store would exceed its bound, or the disk its free half.
        """
        used = sum(map(_size, self.folder.glob(f"*/{_DATA}")))
        if used + needed > self.max_bytes:
            raise EnvironmentFault(
                f"they need {needed / 1e9:.3g} GB, and {used / 1e9:.3g} of {self.max_bytes / 1e9:g} GB are taken",
                file=self.folder,
                fix=f"delete the folder, or set {MAX_GB_VARIABLE} higher",
            )
        free = shutil.disk_usage(self.folder).free
        if needed > free / 2:  # the rest belongs to checkpoints and results
            raise EnvironmentFault(
                f"they need {needed / 1e9:.3g} GB, and the disk has {free / 1e9:.3g} GB left",
                file=self.folder,
                fix="free some space, or set FTKIT_CACHE to a folder on another disk",
            )
        return int(min(self.max_bytes - used, free / 2))

    @contextmanager
    def locked(self, place: Path) -> Iterator[None]:
        """Hold one entry for this process. The kernel lets go of it when the process ends, however it ends.

        Args:
            place: The entry's folder in the store; it need not be there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with place.with_name(place.name + _LOCK_SUFFIX).open("w") as file:
            if not _try_lock(file.fileno()):
                _log.info("another process computes the same outputs of frozen layers: waiting for it")
                started = time.perf_counter()
                fcntl.flock(file, fcntl.LOCK_EX)
                _log.info("waited %.0f s", time.perf_counter() - started)
            yield

    def _remove_leftovers(self, place: Path) -> None:
        """Remove what is damaged in ``place``, and what killed processes left half built: nobody holds its lock."""
        for folder in (place, *self.folder.glob(f"{place.name}.*{PARTIAL_SUFFIX}")):
            shutil.rmtree(folder, ignore_errors=True)
        for partial in self.folder.glob(f"*{PARTIAL_SUFFIX}"):
            with (self.folder / (partial.name.partition(".")[0] + _LOCK_SUFFIX)).open("w") as file:
                if _try_lock(file.fileno()):
                    shutil.rmtree(partial, ignore_errors=True)


def _max_gb() -> float:
    given = os.environ.get(MAX_GB_VARIABLE, str(DEFAULT_MAX_GB))
    try:
        found = float(given)
    except ValueError:
        found = math.nan
    if not found >= 0:  # NaN is neither
        raise InputError("must be a number of 10^9 bytes, 0 or more", field=MAX_GB_VARIABLE, got=given)
    return found


def key_of(made_of: Mapping[str, Any]) -> str:
    """The SHA-256 of the canonical JSON of ``made_of``: the order of its keys does not matter, every value does.

    Example:
        >>> key_of({"depth": 11, "mask": None}) == key_of({"mask": None, "depth": 11})
        True
    """
    text = json.dumps(made_of, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def described(made_of: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return the description of an entry as JSON, with a checksum of its own.

    Args:
        made_of: What decides the numbers; its :func:`key_of` names the entry.
        facts: What a reader must know of the numbers, such as their shape and type.
    """
    about = {"made_of": dict(made_of), **facts}
    return json.dumps({"sha256": key_of(about), "about": about})


def read_description(folder: Path) -> dict[str, Any]:
    """Read what :func:`described` made, from the folder of an entry.

    Raises:
        ValueError: It is damaged, or describes another entry than the folder's name says.
        OSError: It cannot be read.
    """
    try:
        content = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        about = content["about"]
        intact = content["sha256"] == key_of(about) and key_of(about["made_of"]) == folder.name
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{DESCRIPTION} is damaged, or of an earlier version: {error}") from error
    if not intact:
        raise ValueError(f"the checksum of {DESCRIPTION} does not match")
    return dict(about)


def digest_of(tensors: Iterable[Tensor]) -> str:
    """The SHA-256 of tensors, in order: types, shapes and bytes.

    Example:
        >>> digest_of([torch.zeros(2)]) == digest_of([torch.zeros(2, 1)])
        False
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{values.dtype} {tuple(values.shape)} ".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pinned_for(features: Tensor, device: torch.device) -> Tensor:
    """Features in pinned memory, if they go to a GPU: what a loader pinned did not have them yet."""
    return features.pin_memory() if device.type == "cuda" else features


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process has just removed or renamed it
        return 0


def _starts(lengths: Tensor) -> Tensor:
    """Where the rows of each example begin in the file, which holds them in order of length."""
    order = lengths.argsort(stable=True)
    ordered = lengths[order]
    starts = torch.empty_like(lengths)
    starts[order] = ordered.cumsum(0) - ordered
    return starts


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
