"""Cache tensors by key in an SQLite file that runs and processes share.

:class:`ftkit.training.feature_store.FeatureStore` keeps what can be computed at one go, because all examples are known
before. Here they come batch by batch, and the same one may come from several data sets: a tensor is found by a digest
of what it was made from.
"""

import sqlite3
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from ftkit.errors import EnvironmentFault
from ftkit.storage import key_of
from ftkit.training.feature_store import FeatureStore

_WAIT = 60.0  # seconds for another process's transaction, which takes milliseconds
_DAMAGED = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}  # the first: not the table we made
# How much may be appended before the room is looked at again: so much, and at most this part of it. Other processes do
# not see what is granted but not yet written, so by so much each of them may exceed the bound.
_GRANT = 1 << 26  # bytes
_SHARE = 8


class TensorTable:
    """A table of tensors by key, shared by runs and processes.

    Each is kept with a checksum of itself, its key and the entry's name; one whose checksum is wrong counts as missing
    and is written anew. A file that cannot be read, or that was deleted under a run, counts as empty and is begun anew.

    Args:
        made_of: What decides all tensors, as plain values; the rest is in the keys.
        store: Where the entry lies; None takes the default one.

    Example:
        >>> import hashlib, tempfile, torch
        >>> from pathlib import Path
        >>> table = TensorTable({"weights": "5f3a"}, FeatureStore(Path(tempfile.mkdtemp())))
        >>> cat, dog = (hashlib.sha256(text).digest() for text in (b"cat", b"dog"))
        >>> table.add([cat], torch.tensor([[1.0, 2.0]]))
        >>> table.get([dog, cat])
        [None, tensor([1., 2.])]
    """

    def __init__(self, made_of: Mapping[str, Any], store: FeatureStore | None = None) -> None:
        self.store = FeatureStore() if store is None else store
        self.path = self.store.folder / f"{key_of(made_of)}.sqlite"
        self._seed = zlib.crc32(self.path.name.encode())  # a value of another entry is none of this one
        self._known: set[bytes] = set()
        self._full = False
        self._granted = 0  # bytes for which there is room

    def __contains__(self, key: bytes) -> bool:
        """Return whether a tensor was there when it was last read or added."""
        return key in self._known

    def get(self, keys: Sequence[bytes]) -> list[Tensor | None]:
        """Return for each key, a digest, its tensor, or None if there is none."""
        found: list[bytes | None] = [None] * len(keys)
        try:
            if self.path.exists():
                with self._open() as connection:
                    found = [self._read(connection, key) for key in keys]
            elif self._known:
                raise sqlite3.OperationalError("it is gone")
        except sqlite3.Error as error:
            self._tell(error)
        if b"" in found:
            warnings.warn(f"a tensor in {self.path} is not what was written; it is computed again", stacklevel=2)
        for key, value in zip(keys, found, strict=True):
            (self._known.add if value else self._known.discard)(key)
        return [load(value)["value"] if value else None for value in found]

    def add(self, keys: Sequence[bytes], values: Tensor | Sequence[Tensor]) -> None:
        """Keep tensors, one for each key, that are not kept yet.

        If they cannot be kept, that is said once and nothing more is tried.
        """
        if self._full:
            return
        saved = {key: save({"value": one.detach().cpu().contiguous()}) for key, one in zip(keys, values, strict=True)}
        try:
            self.store.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._write(saved)
            except sqlite3.Error as error:
                if not _is_damage(error):
                    raise
                self._tell(error)
                self._write(saved)
        except (OSError, sqlite3.Error, EnvironmentFault) as error:
            self._full = True
            warnings.warn(f"what is computed from now on is not kept for later: {error}", stacklevel=2)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction: kept open, it would not survive a fork or its deletion."""
        with closing(sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")  # what a power failure damages is computed again
            connection.execute(
                "CREATE TABLE IF NOT EXISTS tensors (key BLOB PRIMARY KEY, value BLOB, checksum INTEGER)"
            )
            yield connection

    def _read(self, connection: sqlite3.Connection, key: bytes) -> bytes | None:
        """Return what is kept of a key; None if nothing is, and no bytes if it is damaged."""
        query = "SELECT value, checksum FROM tensors WHERE key = ?"
        for value, checksum in connection.execute(query, (key,)):
            return value if isinstance(value, bytes) and self._checksum(key, value) == checksum else b""
        return None

    def _write(self, saved: Mapping[bytes, bytes]) -> None:
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            fresh = {key: value for key, value in saved.items() if not self._read(connection, key)}
            self._take_room(sum(map(len, fresh.values())))
            entries = [(key, value, self._checksum(key, value)) for key, value in fresh.items()]
            connection.executemany("INSERT OR REPLACE INTO tensors VALUES (?, ?, ?)", entries)
            connection.execute("COMMIT")
        self._known |= saved.keys()

    def _checksum(self, key: bytes, value: bytes) -> int:
        return zlib.crc32(value, zlib.crc32(key, self._seed))

    def _tell(self, error: sqlite3.Error) -> None:
        """Warn that the file cannot be read, and delete it if it is damaged."""
        if _is_damage(error):
            for suffix in ("-journal", ""):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        warnings.warn(f"{self.path} cannot be read: {error}; its tensors are computed again", stacklevel=3)

    def _take_room(self, needed: int) -> None:
        """Check the room in the whole store, which takes longer than appending, only when the grant is used up."""
        if needed > self._granted:
            self._granted = max(needed, min(_GRANT, self.store.check_room(needed) // _SHARE))
        self._granted -= needed


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED  # errors of the module itself have no code
