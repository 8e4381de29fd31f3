"""Rows that are computed when they are first asked for, and kept: one file that runs and processes append to.

:class:`ftkit.training.feature_store.FeatureStore` keeps what can be computed at one go, because all examples are known
before. Here they come batch by batch, and the same one may come from several data sets: a row is found by a digest of
what it was made from.
"""

from __future__ import annotations

import math
import os
import shutil
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import IO, Any

import torch
from torch import Tensor

from ftkit.errors import EnvironmentFault
from ftkit.storage import atomic_write
from ftkit.training.feature_store import DESCRIPTION, FeatureStore, described, key_of, read_description

KEY_BYTES = 32  # a SHA-256
_CRC_BYTES = 4
# How much may be appended before the room is looked at again: so much, and at most this part of it. Other processes do
# not see what is granted but not yet written, so by so much each of them may exceed the bound.
_GRANT = 1 << 26  # bytes
_SHARE = 8


class TensorTable:
    """Tensors of one shape and type, by key, in an entry of a store.

    A record is its key, its row and a checksum of both and of the entry's name. Whoever appends holds the entry's lock,
    and first cuts off what a killed process left of a record; a record whose checksum is wrong counts as missing and is
    written anew. An entry that cannot be read, or that was deleted under a run, counts as empty and is begun anew by
    who appends next.

    Args:
        made_of: What decides all rows, as plain values; the rest is in the keys.
        store: Where the entry lies; None takes the default one.

    Example:
        >>> import hashlib, tempfile
        >>> from pathlib import Path
        >>> table = TensorTable({"weights": "5f3a"}, FeatureStore(Path(tempfile.mkdtemp())))
        >>> cat, dog = (hashlib.sha256(text).digest() for text in (b"cat", b"dog"))
        >>> table.add([cat], torch.tensor([[1.0, 2.0]]))
        >>> table.get([dog, cat])
        [None, tensor([1., 2.])]
    """

    def __init__(self, made_of: Mapping[str, Any], store: FeatureStore | None = None) -> None:
        self.store = FeatureStore() if store is None else store
        self._made_of = dict(made_of)
        self._folder = self.store.folder / key_of(made_of)
        self._seed = zlib.crc32(self._folder.name.encode())  # a record of another entry is none of this one
        self._data, self._about = self._folder / "rows.bin", self._folder / DESCRIPTION
        self._full = False
        self._granted = 0  # bytes for which there is room
        self._forget()

    def __contains__(self, key: bytes) -> bool:
        """Whether a row was there when the entry was last looked at."""
        return key in self._offsets

    def get(self, keys: Sequence[bytes]) -> list[Tensor | None]:
        """Read rows.

        Args:
            keys: Digests of :data:`KEY_BYTES` bytes.

        Returns:
            For each key a copy of its row, or None if there is none.
        """
        if (file := self._open("rb")) is None:
            return [None] * len(keys)
        with file:
            return [self._read(file.fileno(), key) for key in keys]

    def add(self, keys: Sequence[bytes], rows: Tensor) -> None:
        """Keep rows that are not kept yet. If they cannot be kept, that is said once and nothing more is tried.

        Args:
            keys: Digests of :data:`KEY_BYTES` bytes.
            rows: (N, ...), of the shape and type of all earlier ones.

        Raises:
            ValueError: Their shape or type is another one.
        """
        if self._full:
            return
        rows = rows.detach().cpu().contiguous()
        try:
            with self.store.locked(self._folder), self._open("r+b") or self._create(rows) as file:
                if (tuple(rows.shape[1:]), rows.dtype) != (self._shape, self._dtype):
                    raise ValueError(f"rows of {rows.dtype} {tuple(rows.shape[1:])}, not {self._dtype} {self._shape}")
                fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._offsets}
                self._take_room(len(fresh) * self._record)
                self._append(file, fresh)
        except (OSError, EnvironmentFault) as error:
            self._full = True
            warnings.warn(f"what is computed from now on is not kept for later: {error}", stacklevel=2)

    def _forget(self) -> None:
        """Know nothing of the entry."""
        self._written: tuple[int, ...] = ()  # which description was read
        self._shape: tuple[int, ...] = ()
        self._dtype = torch.float32
        self._record = 0  # bytes of a record
        self._offsets: dict[bytes, int] = {}
        self._scanned = 0  # bytes of the file that are in _offsets

    def _open(self, mode: str) -> IO[bytes] | None:
        """Open the file of rows, and take note of them; None if there is no entry, or none that can be read."""
        if not self._written and not self._about.exists():
            return None
        try:
            self._read_description()
            file = self._data.open(mode)
            self._scan(file.fileno())
        except (OSError, ValueError, LookupError) as error:
            # Of this line, so that it is shown once and not for reading and for appending.
            warnings.warn(f"{self._folder} cannot be read: {error}; its rows are computed again", stacklevel=1)
            self._forget()
            return None
        return file

    def _create(self, rows: Tensor) -> IO[bytes]:
        """Begin the entry anew, and write down the shape of its rows, which holds for good."""
        shutil.rmtree(self._folder, ignore_errors=True)  # what is damaged, or was never finished
        self._folder.mkdir()
        file = self._data.open("w+b")  # before the description: who sees that finds both
        row = {"shape": list(rows.shape[1:]), "dtype": str(rows.dtype).removeprefix("torch.")}
        with atomic_write(self._about) as about:
            about.write(described(self._made_of, {"row": row}))
        self._read_description()
        return file

    def _read_description(self) -> None:
        """Learn the shape, unless it is known: the entry may have been begun anew since."""
        status = self._about.stat()
        written = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if written == self._written:
            return
        self._forget()
        row = read_description(self._folder)["row"]
        self._shape, self._dtype = tuple(row["shape"]), getattr(torch, row["dtype"])
        self._record = KEY_BYTES + math.prod(self._shape) * self._dtype.itemsize + _CRC_BYTES
        self._written = written

    def _scan(self, descriptor: int) -> None:
        """Take note of whole records that were appended since."""
        size = os.fstat(descriptor).st_size
        if size < self._scanned:  # it was cut
            self._offsets, self._scanned = {}, 0
        whole = size // self._record * self._record
        for offset in range(self._scanned, whole, self._record):
            self._offsets[os.pread(descriptor, KEY_BYTES, offset)] = offset
        self._scanned = whole

    def _take_room(self, needed: int) -> None:
        """Look at the whole store, which takes longer than appending, only where what was granted is used up."""
        if needed > self._granted:
            self._granted = max(needed, min(_GRANT, self.store.check_room(needed) // _SHARE))
        self._granted -= needed

    def _append(self, file: IO[bytes], rows: Mapping[bytes, Tensor]) -> None:
        """Write records behind those that were noted, and note them."""
        file.truncate(self._scanned)  # a killed process may have left a part of a record
        file.seek(self._scanned)
        for key, row in rows.items():
            values = row.flatten().view(torch.uint8).numpy().data
            checksum = zlib.crc32(values, zlib.crc32(key, self._seed))
            for part in (key, values, checksum.to_bytes(_CRC_BYTES)):
                file.write(part)
        file.flush()
        self._scan(file.fileno())

    def _read(self, descriptor: int, key: bytes) -> Tensor | None:
        if (offset := self._offsets.get(key)) is None:
            return None
        record = memoryview(os.pread(descriptor, self._record, offset))
        content, checksum = record[:-_CRC_BYTES], record[-_CRC_BYTES:]
        if content[:KEY_BYTES] != key or zlib.crc32(content, self._seed).to_bytes(_CRC_BYTES) != checksum:
            warnings.warn(f"a row of {self._data} is not what was written; it is computed again", stacklevel=3)
            del self._offsets[key]
            return None
        values = bytearray(content[KEY_BYTES:])
        return torch.frombuffer(values, dtype=self._dtype).reshape(self._shape)
