"""Cache outputs of frozen layers on disk: computed once, shared by every run and process that would compute the same.

An entry is a safetensors file named by the SHA-256 of what made its numbers, so another weight, text or precision is
another entry and nothing has to be invalidated. It is written beside its place and renamed: it is whole or not there.
"""

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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ftkit.errors import EnvironmentFault, InputError
from ftkit.storage import PARTIAL_SUFFIX, cache_folder, key_of, unlinked

DEFAULT_MAX_GB = 20.0
MAX_GB_VARIABLE = "FTKIT_FEATURES_GB"

_CHUNK = 1 << 24  # bytes read at a time for a checksum
_CRC_BYTES = 4
_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}  # of safetensors
_log = logging.getLogger(__name__)


class Features:
    """One entry of a store: for each example some vectors, read through a memory map.

    Args:
        path: The entry's file. Its tensors are ``lengths``, ``rows``, which holds the vectors of all examples in order
            of length, and ``crc32``, the checksum of all bytes before its own.

    Attributes:
        lengths: How many vectors each example has, (N,) int64.

    Raises:
        ValueError: The file is missing, cut short, damaged, or that of another entry.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")  # so that the entry can be read even if it is deleted meanwhile
            if not _is_intact(self._file):
                raise ValueError("it is not what was written")
            with safe_open(path, "pt") as content:
                made_of = json.loads(content.metadata()["made_of"])
                self.lengths: Tensor = content.get_tensor("lengths").clone()
                rows = content.get_slice("rows")
                self._shape, self._dtype = rows.get_shape(), rows[:1].dtype
        except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        if key_of(made_of) != path.stem:
            raise ValueError(f"{path} is another entry")
        self._offset = self._file.tell() - _CRC_BYTES - math.prod(self._shape) * self._dtype.itemsize
        order = self.lengths.argsort(stable=True)
        ordered = self.lengths[order]
        self._starts = torch.empty_like(self.lengths)
        self._starts[order] = ordered.cumsum(0) - ordered

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, examples: Sequence[int], lengths: Sequence[int] | None = None) -> Tensor:
        """Read a batch: of each example its first ``lengths`` vectors, or all of them.

        Returns:
            A copy of the vectors, (B, longest, D), filled up with zeros.
        """
        wanted = self.lengths[list(examples)].tolist() if lengths is None else lengths
        # Mapped for this batch only: pages that stay mapped would count as this process's memory.
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        values = torch.frombuffer(mapped, dtype=self._dtype, offset=self._offset, count=math.prod(self._shape))
        rows, starts = values.view(self._shape), self._starts[list(examples)].tolist()
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
        """Return the entry that ``made_of`` describes, or None if there is none or it is damaged."""
        path = self._path(made_of)
        if not path.exists():
            return None
        try:
            return Features(path)
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
        path = self._path(made_of)
        partial = path.with_suffix(f".{os.getpid()}{PARTIAL_SUFFIX}")
        try:
            with self._locked(path.stem):
                if found := self.find(made_of):
                    return found
                self._remove_leftovers(path)
                try:
                    self._write(partial, made_of, lengths, batch_size, compute)
                    partial.rename(path)
                finally:
                    partial.unlink(missing_ok=True)
                return Features(path)
        except (OSError, EnvironmentFault) as error:
            warnings.warn(f"outputs of frozen layers are computed again in every step: {error}", stacklevel=2)
            return None

    def _path(self, made_of: Mapping[str, Any]) -> Path:
        return self.folder / f"{key_of(made_of)}.safetensors"

    def _write(
        self,
        path: Path,
        made_of: Mapping[str, Any],
        lengths: Sequence[int],
        batch_size: int,
        compute: Callable[[list[int]], Tensor],
    ) -> None:
        """Write an entry as it is computed, the vectors in order of length and a batch at a time."""
        checksum, order = 0, torch.tensor(lengths).argsort(stable=True).tolist()
        with open(path, "wb", opener=unlinked) as file:
            for start in range(0, len(order), batch_size):
                examples = order[start : start + batch_size]
                vectors = compute(examples).detach().cpu()
                parts = [row[: lengths[example]] for row, example in zip(vectors, examples, strict=True)]
                written: list[bytes | memoryview] = [_bytes_of(part) for part in parts]
                if not start:
                    written.insert(0, _header(made_of, lengths, vectors))
                    size = len(written[0]) + sum(lengths) * vectors[0, 0].nbytes + _CRC_BYTES
                    self.check_room(size)
                    if hasattr(os, "posix_fallocate"):  # a full disk shows now, and not after the work
                        os.posix_fallocate(file.fileno(), 0, size)
                for part in written:
                    file.write(part)
                    checksum = zlib.crc32(part, checksum)
            file.write(checksum.to_bytes(_CRC_BYTES))
            if file.tell() != size:
                raise ValueError(f"{file.tell():,} bytes were computed instead of {size:,}")
            file.flush()
            os.fsync(file.fileno())

    def check_room(self, needed: int) -> int:
        """Return how many bytes there is room for, ``needed`` and more.

        Raises:
            EnvironmentFault: The store would exceed its bound, or the disk its free half.
        """
        used = sum(map(_size, self.folder.iterdir()))
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
    def _locked(self, key: str) -> Iterator[None]:
        """Hold one entry for this process. The kernel lets go of it when the process ends, however it ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self._lock(key)
        try:
            held = lock.acquire(blocking=False)
        except Timeout:
            _log.info("another process computes the same outputs of frozen layers: waiting for it")
            started = time.perf_counter()
            held = lock.acquire()
            _log.info("waited %.0f s", time.perf_counter() - started)
        with held:
            yield

    def _lock(self, key: str) -> FileLock:
        return FileLock(self.folder / f"{key}.lock")

    def _remove_leftovers(self, path: Path) -> None:
        """Remove a damaged entry, whose lock this process holds, and what killed processes left half built."""
        path.unlink(missing_ok=True)
        for partial in self.folder.glob(f"*{PARTIAL_SUFFIX}"):
            key = partial.name.partition(".")[0]
            if key == path.stem:
                partial.unlink(missing_ok=True)
            else:
                with suppress(Timeout), self._lock(key).acquire(blocking=False):
                    partial.unlink(missing_ok=True)


def _max_gb() -> float:
    given = os.environ.get(MAX_GB_VARIABLE, str(DEFAULT_MAX_GB))
    try:
        found = float(given)
    except ValueError:
        found = math.nan
    if not found >= 0:  # NaN is neither
        raise InputError("must be a number of 10^9 bytes, 0 or more", field=MAX_GB_VARIABLE, got=given)
    return found


def digest_of(tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of tensors, in order: types, shapes and bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(_bytes_of(tensor.detach().cpu()))
    return digest.hexdigest()


def pinned_for(features: Tensor, device: torch.device) -> Tensor:
    """Pin features in memory if they go to a GPU: what a loader pinned did not have them yet."""
    return features.pin_memory() if device.type == "cuda" else features


def _header(made_of: Mapping[str, Any], lengths: Sequence[int], vectors: Tensor) -> bytes:
    """Return what stands before the rows in an entry, in the format of safetensors: the header and the lengths."""
    size, width = sum(lengths), vectors.shape[2]
    places = [0, 8 * len(lengths), 8 * len(lengths) + size * vectors[0, 0].nbytes]
    places.append(places[2] + _CRC_BYTES)
    tensors = {
        "lengths": {"dtype": "I64", "shape": [len(lengths)], "data_offsets": places[:2]},
        "rows": {"dtype": _DTYPES[vectors.dtype], "shape": [size, width], "data_offsets": places[1:3]},
        "crc32": {"dtype": "U8", "shape": [_CRC_BYTES], "data_offsets": places[2:]},
    }
    text = json.dumps({"__metadata__": {"made_of": json.dumps(made_of)}, **tensors}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(_bytes_of(torch.tensor(lengths, dtype=torch.int64)))


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


def _is_intact(file: IO[bytes]) -> bool:
    """Compare the last bytes of a file with the checksum of all before them."""
    checksum, left = 0, os.fstat(file.fileno()).st_size - _CRC_BYTES
    while left > 0 and (chunk := file.read(min(_CHUNK, left))):
        checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
    return left == 0 and file.read() == checksum.to_bytes(_CRC_BYTES)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process has just removed or renamed it
        return 0
