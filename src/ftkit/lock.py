"""Lock an output folder for one process at a time."""

import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from ftkit.errors import EnvironmentFault
from ftkit.storage import atomic_write, disk_faults, is_alive, make_folder

LOCK_FILE, HOLDER_FILE = ".lock", ".running"


class _Holder(NamedTuple):
    """The process that holds the lock, as its file says; None for nobody, or before the file is written."""

    process: int | None = None
    host: str | None = None
    mark: str = ""


@contextmanager
def exclusive(directory: Path) -> Iterator[str | None]:
    """Create ``directory`` if need be and hold it for this process.

    The kernel's lock of one file decides, so that a killed holder lets go at once; another file, which says process,
    host and time, is for people, and has a mark of its own for each holder. The one exception: the name of another host
    is believed, because some network file systems keep locks to each host.

    Yields:
        A notice if the lock was left behind by a process that is gone, else None.

    Raises:
        EnvironmentFault: Another process holds the folder, it cannot be created or written, or its disk is full.
    """
    path, signature, here = directory / LOCK_FILE, directory / HOLDER_FILE, socket.gethostname()
    make_folder(directory)
    lock = FileLock(path)
    with disk_faults(path):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise _taken(signature) from None
    try:
        before = _read(signature)
        if before.host not in (None, here):
            raise _taken(signature)
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        with atomic_write(signature) as file:
            json.dump({"pid": os.getpid(), "host": here, "since": now, "mark": secrets.token_hex(8)}, file)
        try:
            yield f"took over the lock of process {before.process} on {here}, which is gone" if before.process else None
        finally:
            signature.unlink(missing_ok=True)  # an orderly end leaves no name behind
    finally:
        lock.release()


def holder_mark(directory: Path) -> str | None:
    """Return the mark of the process that seems to be at work in ``directory``, without touching the lock.

    Returns:
        The mark, which no clock decides; None if nobody is at work there.
    """
    holder = _read(directory / HOLDER_FILE)
    if holder.process is None or (holder.host == socket.gethostname() and not is_alive(holder.process)):
        return None
    return holder.mark


def _read(path: Path) -> _Holder:
    try:
        signed = json.loads(path.read_bytes())
        return _Holder(int(signed["pid"]), str(signed["host"]), str(signed.get("mark", "")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return _Holder()


def _taken(signature: Path) -> EnvironmentFault:
    holder = _read(signature)
    name = f"process {holder.process} on {holder.host}" if holder.process else "another process"
    fix = "wait for it, or choose another folder"
    if holder.host not in (None, socket.gethostname()):
        fix += f"; if it is gone, delete {signature}"
    return EnvironmentFault(f"{name} is running in this folder", file=signature.parent, fix=fix)
