"""Write files atomically: beside the target, flushed to the disk, then renamed."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO, Any, NamedTuple

from ftkit.errors import EnvironmentFault, FtkitError, InputError

PARTIAL_SUFFIX = ".partial"
CHECKSUM_SUFFIX = ".sha256"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_IN_WORDS = re.compile(r"(?:Errno|os error) (\d+)")  # how shutil and libraries in Rust name the error of the system
_PARTIAL = re.compile(rf"\..+\.(?P<pid>[0-9]+)\.[0-9a-f]{{8}}{re.escape(PARTIAL_SUFFIX)}")


def cache_folder() -> Path:
    """Return the folder of downloads and computed features: ``$FTKIT_CACHE``, or ``~/.cache/ftkit``."""
    return Path(os.environ.get("FTKIT_CACHE") or "~/.cache/ftkit").expanduser()


@contextmanager
def atomic_write(path: str | Path, mode: str = "w", checksum: bool = False) -> Iterator[IO[Any]]:
    r"""Open a temporary file in the folder of ``path`` and rename it over ``path`` once it is on the disk.

    A reader sees the old file or the new one, never a part: the temporary file lies on the same file system, and it is
    removed when the block raises. Text is written as UTF-8 with ``\n`` line ends.

    Args:
        path: The file to write. Its folder is created.
        mode: ``"w"`` for text or ``"wb"`` for bytes.
        checksum: Write ``PATH.sha256`` too, in the format of the ``sha256sum`` command, see :func:`verify_checksum`.
            Killed at any moment, the file that is there has its checksum: both the old one and the new one are on the
            disk before the file is renamed.

    Yields:
        The open temporary file.

    Raises:
        EnvironmentFault: The disk is full, or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "result.json"
        >>> with atomic_write(target) as file:
        ...     _ = file.write("{}")
        >>> target.read_text()
        '{}'
    """
    target = Path(path)
    partial = _partial(target, target.parent)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        digest = sha256_of(partial) if checksum else ""
        if checksum:
            _write_digests(target, [digest, *_digests(target)])
        partial.replace(target)
        _sync_folder(target.parent)
        if checksum:
            _write_digests(target, [digest])
    except OSError as error:
        raise _fault(error, target, partial) from error
    finally:
        with suppress(OSError):  # the folder itself may be what is wrong
            partial.unlink(missing_ok=True)


@contextmanager
def disk_faults(path: str | Path) -> Iterator[None]:
    """Explain what goes wrong while ``path`` is written in some other way than by :func:`atomic_write`.

    Raises:
        EnvironmentFault: The disk is full, or the file cannot be written.
    """
    try:
        yield
    except FtkitError:
        raise
    except Exception as error:
        if (known := _of_the_system(error)) is None:
            raise
        raise _fault(known, Path(path), Path(path)) from error


def unlinked(path: str | Path, flags: int) -> int:
    """Open a file for :func:`open`, as its ``opener``, unless its name is a link, whose target would be written."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def remove_partials(folder: str | Path, name: str | None = None) -> None:
    """Remove what :func:`atomic_write` and :func:`new_folder` began in ``folder`` if its process is gone.

    Args:
        folder: The folder.
        name: That of the file or folder which was begun; None means all.
    """
    for partial in Path(folder).glob(f".{'*' if name is None else escape(name)}.*{PARTIAL_SUFFIX}"):
        if (match := _PARTIAL.fullmatch(partial.name)) and _is_abandoned(int(match["pid"])):
            if partial.is_dir() and not partial.is_symlink():
                shutil.rmtree(partial)
            else:
                partial.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Return whether a process of this number runs on this machine, whoever owns it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:  # one that has ended stays in the table until its parent asks, which the first process of a container may not
        return b"State:\tZ" not in Path(f"/proc/{process}/status").read_bytes()
    except OSError:  # as on macOS
        return True


def make_folder(path: str | Path) -> None:
    """Create a folder with its parents unless it is there.

    Raises:
        EnvironmentFault: It cannot be created, or nothing can be written into it.
    """
    folder = Path(path)
    with disk_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def new_folder(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """Fill a folder with files of whatever library: all of them appear in it once they are whole, or none.

    Args:
        path: The folder.
        replace: Remove what is there. Otherwise the files are moved into it.

    Yields:
        A hidden folder to write into, which is renamed to ``path``.

    Raises:
        EnvironmentFault: The disk is full, or the folder cannot be written.
    """
    target = Path(path)
    merged = target.is_dir() and not replace
    partial, former = _partial(target, target if merged else target.parent), _partial(target, target.parent)
    try:
        with disk_faults(partial):
            remove_partials(partial.parent, target.name)  # of a process that was killed
            partial.mkdir(parents=True)
            yield partial
            if merged:
                for file in partial.iterdir():
                    file.replace(target / file.name)
                return
            if replace and target.exists():
                target.rename(former)
            partial.rename(target)
    except EnvironmentFault as error:
        raise EnvironmentFault(str(error).replace(str(partial), str(target))) from error
    finally:
        if former.exists() and not target.exists():
            with suppress(OSError):
                former.rename(target)
        for folder in (partial, former) if target.exists() else (partial,):
            shutil.rmtree(folder, ignore_errors=True)


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(made_of: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of ``made_of``: the order of its keys does not matter, every value does.

    Example:
        >>> key_of({"depth": 11, "mask": None}) == key_of({"mask": None, "depth": 11})
        True
    """
    canonical = json.dumps(made_of, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class FileStamp(NamedTuple):
    """File metadata that changes when the contents do: ``changed`` does even if the modification time is set back."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


def file_stamp(path: str | Path) -> FileStamp:
    """Return the stamp of a file, or of what a link points to.

    Raises:
        OSError: There is no such file.
    """
    status = Path(path).stat()
    return FileStamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def verify_checksum(path: str | Path) -> None:
    """Compare a file with the checksum beside it; without one there is nothing to check.

    Raises:
        InputError: The bytes are not those that were written.
    """
    target = Path(path)
    if not Path(f"{target}{CHECKSUM_SUFFIX}").exists():
        return
    found = sha256_of(target)
    if found not in _digests(target):
        problem = "the checksum does not match: the file was changed or damaged after it was written"
        raise InputError(problem, file=target, got=found[:12], fix="use an intact copy, or train again")


def _digests(target: Path) -> list[str]:
    """Return the digests beside a file: one, or while it is replaced two."""
    recorded = Path(f"{target}{CHECKSUM_SUFFIX}")
    if not recorded.is_file():
        return []
    return [line.split()[0] for line in recorded.read_text("utf-8", errors="replace").split("\n") if line.strip()]


def _write_digests(target: Path, digests: list[str]) -> None:
    with atomic_write(f"{target}{CHECKSUM_SUFFIX}") as file:
        file.writelines(f"{digest}  {target.name}\n" for digest in dict.fromkeys(digests))


def _partial(target: Path, folder: Path) -> Path:
    return folder / f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}"


def _is_abandoned(process: int) -> bool:
    """Return whether nobody writes what a process of this number began; this process no longer does when it asks."""
    return process == os.getpid() or not is_alive(process)


def _of_the_system(error: Exception) -> OSError | None:
    """Return the error of the system that an exception is, or that it tells of in words."""
    if isinstance(error, OSError) and error.errno:
        return error
    # A ValueError is about what was given, or is a download's, which names the error of the network.
    if not isinstance(error, ValueError) and (said := _IN_WORDS.search(str(error))):
        return OSError(int(said[1]), os.strerror(int(said[1])))
    return error if isinstance(error, OSError) else None


def _fault(error: OSError, target: Path, partial: Path) -> EnvironmentFault:
    if error.errno in FULL_DISK:
        there = next(folder for folder in target.absolute().parents if folder.exists())  # it may be what was not made
        free = shutil.disk_usage(there).free
        needed = partial.stat().st_size if partial.exists() else 0
        written = "" if partial.is_dir() else f"{needed:,} bytes were written of a file that needs more, "
        problem = f"the disk is full: {written}{free:,} are free"
        return EnvironmentFault(problem, file=target, fix="free some space, then run the same command again")
    problem = f"cannot be written: {error.strerror or error}"
    return EnvironmentFault(problem, file=target, fix="choose a folder that can be written")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
