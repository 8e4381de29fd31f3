"""One process at a time on an output folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftkit.errors import EnvironmentFault

LOCK_FILE = ".lock"
_held: set[int] = set()


@contextmanager
def exclusive(directory: Path) -> Iterator[str | None]:
    """Create ``directory`` if need be and hold it for this process.

    The kernel's ``flock`` decides, so that a killed holder lets go at once; the file's text, process and
    host, is for people. The one exception: a text from another host is believed, because some network file
    systems keep ``flock`` to each host.

    Args:
        directory: The output folder.

    Yields:
        A notice if the lock was left behind by a process that is gone, else None.

    Raises:
        EnvironmentFault: Another process holds the folder, or it cannot be created or written.
    """
    path = directory / LOCK_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise EnvironmentFault(
            f"the output folder cannot be written: {error.strerror}",
            file=directory,
            fix="choose another",
        ) from error
    try:
        notice = _acquire(descriptor, path)
        _held.add(descriptor)
        try:
            yield notice
        finally:
            _held.discard(descriptor)
            os.ftruncate(descriptor, 0)  # an orderly end leaves no name behind
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def is_running(directory: Path) -> bool:
    """Whether a process seems to be at work in ``directory``; it looks without touching the lock."""
    try:
        process, host = _parse((directory / LOCK_FILE).read_bytes())
    except OSError:
        return False
    if process is None or host != socket.gethostname():
        return process is not None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _acquire(descriptor: int, path: Path) -> str | None:
    here = socket.gethostname()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(path, *_parse(os.pread(descriptor, 4096, 0))) from None
    except OSError as error:
        raise EnvironmentFault(f"cannot be locked: {error.strerror}", file=path, fix="use a local disk") from error
    process, host = _parse(os.pread(descriptor, 4096, 0))
    if host not in (None, here):
        raise _taken(path, process, host)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": here}).encode(), 0)
    return f"took over the lock of process {process} on {host}, which is gone" if process else None


def _parse(text: bytes) -> tuple[int | None, str | None]:
    try:
        holder = json.loads(text)
        return int(holder["pid"]), str(holder["host"])
    except (ValueError, KeyError, TypeError):
        return None, None  # nobody, or one who has not signed yet


def _taken(path: Path, process: int | None, host: str | None) -> EnvironmentFault:
    name = f"process {process} on {host}" if process else "another process"
    fix = "wait for it, or choose another folder"
    if host not in (None, socket.gethostname()):
        fix += f"; if it is gone, delete {path}"
    return EnvironmentFault(f"{name} is running in this folder", file=path.parent, fix=fix)


def _let_go() -> None:
    """A forked worker must not keep the folder locked when it outlives its killed parent."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
