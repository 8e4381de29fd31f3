"""One process at a time on an output folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ftkit.errors import EnvironmentFault
from ftkit.storage import is_alive

LOCK_FILE = ".lock"
_held: set[int] = set()


class _Holder(NamedTuple):
    """Who signed the lock, and when; None for nobody, or one who has not signed yet."""

    process: int | None = None
    host: str | None = None
    since: str = ""


@contextmanager
def exclusive(directory: Path) -> Iterator[str | None]:
    """Create ``directory`` if need be and hold it for this process.

    The kernel's ``flock`` decides, so that a killed holder lets go at once; the file's text, process, host
    and time, is for people. The one exception: a text from another host is believed, because some network file
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


def running_since(directory: Path) -> str | None:
    """When the process that seems to be at work in ``directory`` took it; it looks without touching the lock.

    Returns:
        The time in UTC, as ISO 8601 to the microsecond; None if nobody is at work there.
    """
    try:
        holder = _parse((directory / LOCK_FILE).read_bytes())
    except OSError:
        return None
    if holder.process is None or (holder.host == socket.gethostname() and not is_alive(holder.process)):
        return None
    return holder.since


def _acquire(descriptor: int, path: Path) -> str | None:
    here = socket.gethostname()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(path, _parse(os.pread(descriptor, 4096, 0))) from None
    except OSError as error:
        raise EnvironmentFault(f"cannot be locked: {error.strerror}", file=path, fix="use a local disk") from error
    before = _parse(os.pread(descriptor, 4096, 0))
    if before.host not in (None, here):
        raise _taken(path, before)
    os.ftruncate(descriptor, 0)
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": here, "since": now}).encode(), 0)
    return f"took over the lock of process {before.process} on {here}, which is gone" if before.process else None


def _parse(text: bytes) -> _Holder:
    try:
        signed = json.loads(text)
        return _Holder(int(signed["pid"]), str(signed["host"]), str(signed.get("since", "")))
    except (ValueError, KeyError, TypeError):
        return _Holder()


def _taken(path: Path, holder: _Holder) -> EnvironmentFault:
    name = f"process {holder.process} on {holder.host}" if holder.process else "another process"
    fix = "wait for it, or choose another folder"
    if holder.host not in (None, socket.gethostname()):
        fix += f"; if it is gone, delete {path}"
    return EnvironmentFault(f"{name} is running in this folder", file=path.parent, fix=fix)


def _let_go() -> None:
    """A forked worker must not keep the folder locked when it outlives its killed parent."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
