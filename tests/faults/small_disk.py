"""A disk that is full from a chosen write on."""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch


class SmallDisk:
    """A disk below a folder that is full from the n-th write on: opening, writing, flushing to it, naming, a folder."""

    def __init__(self, folder: Path, room: float) -> None:
        self.folder, self.room, self.writes = folder, room, 0

    def take(self, path: Any) -> None:
        if isinstance(path, int) or not Path(os.fsdecode(path)).absolute().is_relative_to(self.folder):
            return
        self.writes += 1
        if self.writes > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not set(mode) & set("wax+"):
                return real(path, mode, *args, **options)
            self.take(path)
            return _Watched(self, path, real(path, mode, *args, **options))

        return call

    def before(self, real: Callable[..., Any], which: int = 0) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.take(args[which])
            return real(*args, **options)

        return call

    @contextmanager
    def mounted(self) -> Iterator[None]:
        with (
            patch.object(io, "open", self.opened(io.open)),
            patch.object(builtins, "open", self.opened(builtins.open)),
            patch.object(os, "mkdir", self.before(os.mkdir)),
            patch.object(os, "replace", self.before(os.replace, 1)),
            patch.object(os, "rename", self.before(os.rename, 1)),
        ):
            yield


class _Watched:
    """A file whose writes take room."""

    def __init__(self, disk: SmallDisk, path: Any, file: Any) -> None:
        self._disk, self._path, self._file = disk, path, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, part: Any) -> int:
        try:
            self._disk.take(self._path)
        except OSError:
            self._file.write(part[: len(part) // 2])  # there was room for a half
            raise
        return int(self._file.write(part))

    def writelines(self, parts: Any) -> None:
        for part in parts:
            self.write(part)

    def flush(self) -> None:
        self._disk.take(self._path)
        self._file.flush()
