"""One process at a time on an output folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from ftkit.errors import EnvironmentFault
from ftkit.storage import disk_faults, is_alive, make_folder

LOCK_FILE = ".lock"


class _Holder(NamedTuple):
    """Who signed the lock, and when; None for nobody, or one who has not signed yet."""

    process: int | None = None
    host: str | None = None
    since: str = ""


@contextmanager
def exclusive(directory: Path) -> Iterator[str | None]:
    """Create ``directory`` if need be and hold it for this process.

    The kernel's lock of the file decides, so that a killed holder lets go at once; the file's text, process, host
    and time, is for people. The one exception: a text from another host is believed, because some network file
    systems keep locks to each host.

    Args:
        directory: The output folder.

    Yields:
        A notice if the lock was left behind by a process that is gone, else None.

    Raises:
        EnvironmentFault: Another process holds the folder, it cannot be created or written, or its disk is full.
    """
    path, here = directory / LOCK_FILE, socket.gethostname()
    make_folder(directory)
    lock = FileLock(path)
    with disk_faults(path):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise _taken(path, _read(path)) from None
    try:
        before = _read(path)
        if before.host not in (None, here):
            raise _taken(path, before)
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        with disk_faults(path):
            path.write_text(json.dumps({"pid": os.getpid(), "host": here, "since": now}), encoding="utf-8")
        try:
            yield f"took over the lock of process {before.process} on {here}, which is gone" if before.process else None
        finally:
            with suppress(FileNotFoundError):  # the folder may be gone
                os.truncate(path, 0)  # an orderly end leaves no name behind
    finally:
        lock.release()


def running_since(directory: Path) -> str | None:
    """Return when the process that seems to be at work in ``directory`` took it, without touching the lock.

    Returns:
        The time in UTC, as ISO 8601 to the microsecond; None if nobody is at work there.
    """
    holder = _read(directory / LOCK_FILE)
    if holder.process is None or (holder.host == socket.gethostname() and not is_alive(holder.process)):
        return None
    return holder.since


def _read(path: Path) -> _Holder:
    try:
        signed = json.loads(path.read_bytes())
        return _Holder(int(signed["pid"]), str(signed["host"]), str(signed.get("since", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return _Holder()


def _taken(path: Path, holder: _Holder) -> EnvironmentFault:
    name = f"process {holder.process} on {holder.host}" if holder.process else "another process"
    fix = "wait for it, or choose another folder"
    if holder.host not in (None, socket.gethostname()):
        fix += f"; if it is gone, delete {path}"
    return EnvironmentFault(f"{name} is running in this folder", file=path.parent, fix=fix)
