"""Rows that are computed when they are first asked for, and kept: one file that runs and processes append to.

:class:`ftkit.training.feature_store.FeatureStore` keeps what can be computed at one go, because all examples are known
before. Here they come batch by batch, and the same one may come from several data sets: a row is found by a digest of
what it was made from.
"""

from __future__ import annotations

import json
import math
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ftkit.errors import EnvironmentFault
from ftkit.storage import atomic_write
from ftkit.training.feature_store import FeatureStore, key_of

KEY_BYTES = 32  # a SHA-256
_CRC_BYTES = 4


class RowTable:
    """Tensors of one shape and type, by key, in an entry of a store.

    A record is its key, its row and a checksum of both. Whoever appends holds the entry's lock, and first cuts off what
    a killed process left of a record; a record whose checksum is wrong counts as missing and is written anew.

    Args:
        made_of: What decides all rows, as plain values; the rest is in the keys.
        store: Where the entry lies; None takes the default one.

    Example:
        >>> import hashlib, tempfile
        >>> from pathlib import Path
        >>> table = RowTable({"weights": "5f3a"}, FeatureStore(Path(tempfile.mkdtemp())))
        >>> cat, dog = (hashlib.sha256(text).digest() for text in (b"cat", b"dog"))
        >>> table.add([cat], torch.tensor([[1.0, 2.0]]))
        >>> table.get([dog, cat])
        [None, tensor([1., 2.])]
    """

    def __init__(self, made_of: Mapping[str, Any], store: FeatureStore | None = None) -> None:
        self.store = FeatureStore() if store is None else store
        self._made_of = dict(made_of)
        self._folder = self.store.folder / key_of(made_of)
        self._data, self._about = self._folder / "rows.bin", self._folder / "about.json"
        self._shape: tuple[int, ...] = ()
        self._dtype = torch.float32
        self._record = 0  # bytes of a record; 0 until a first one is known
        self._offsets: dict[bytes, int] = {}
        self._scanned = 0  # bytes of the file that are in _offsets
        self._full = False

    def get(self, keys: Sequence[bytes]) -> list[Tensor | None]:
        """Read rows.

        Args:
            keys: Digests of :data:`KEY_BYTES` bytes.

        Returns:
            For each key a copy of its row, or None if there is none.
        """
        if any(key not in self._offsets for key in keys):
            self._scan()
        if not self._offsets:
            return [None] * len(keys)
        with self._data.open("rb") as file:
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
            with self.store.locked(self._folder):
                self._scan()
                if not self._record:
                    self._create(rows)
                if (tuple(rows.shape[1:]), rows.dtype) != (self._shape, self._dtype):
                    raise ValueError(f"rows of {rows.dtype} {tuple(rows.shape[1:])}, not {self._dtype} {self._shape}")
                fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._offsets}
                self.store.check_room(len(fresh) * self._record)
                self._append(fresh)
        except (OSError, EnvironmentFault) as error:
            self._full = True
            warnings.warn(f"what is computed from now on is not kept for later: {error}", stacklevel=2)

    def _append(self, rows: Mapping[bytes, Tensor]) -> None:
        with self._data.open("r+b") as file:
            file.truncate(self._scanned)  # a killed process may have left a part of a record
            file.seek(self._scanned)
            for key, row in rows.items():
                content = key + row.flatten().view(torch.uint8).numpy().tobytes()
                file.write(content + zlib.crc32(content).to_bytes(_CRC_BYTES))
        self._scan()

    def _create(self, rows: Tensor) -> None:
        """Write down the shape, which holds for good."""
        self._folder.mkdir(exist_ok=True)
        self._data.touch()
        row = {"shape": list(rows.shape[1:]), "dtype": str(rows.dtype).removeprefix("torch.")}
        with atomic_write(self._about) as file:
            json.dump({"made_of": self._made_of, "row": row}, file)
        self._scan()

    def _scan(self) -> None:
        """Take note of whole records that were appended since."""
        if not self._record:
            if not self._about.exists():
                return
            row = json.loads(self._about.read_text(encoding="utf-8"))["row"]
            self._shape, self._dtype = tuple(row["shape"]), getattr(torch, row["dtype"])
            self._record = KEY_BYTES + math.prod(self._shape) * self._dtype.itemsize + _CRC_BYTES
        with self._data.open("rb") as file:
            whole = os.fstat(file.fileno()).st_size // self._record * self._record
            for offset in range(self._scanned, whole, self._record):
                self._offsets[os.pread(file.fileno(), KEY_BYTES, offset)] = offset
            self._scanned = max(self._scanned, whole)

    def _read(self, descriptor: int, key: bytes) -> Tensor | None:
        if (offset := self._offsets.get(key)) is None:
            return None
        record = os.pread(descriptor, self._record, offset)
        content, checksum = record[:-_CRC_BYTES], record[-_CRC_BYTES:]
        if content[:KEY_BYTES] != key or zlib.crc32(content).to_bytes(_CRC_BYTES) != checksum:
            warnings.warn(f"a row of {self._data} is not what was written; it is computed again", stacklevel=3)
            del self._offsets[key]
            return None
        values = bytearray(content[KEY_BYTES:])
        return torch.frombuffer(values, dtype=self._dtype).reshape(self._shape)
