"""Files are whole or not there."""

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ftkit.errors import EnvironmentFault, InputError
from ftkit.storage import (
    PARTIAL_SUFFIX,
    atomic_write,
    key_of,
    make_folder,
    new_folder,
    remove_partials,
    sha256_of,
    verify_checksum,
)


def test_text_is_utf8_with_unix_line_ends_in_a_new_folder(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_write(target) as file:
        file.write("é\n")
        assert not target.exists()
        (partial,) = target.parent.iterdir()  # beside the target: renaming cannot cross file systems
        assert partial.name.endswith(PARTIAL_SUFFIX)
    assert target.read_bytes() == b"\xc3\xa9\n"
    assert [entry.name for entry in target.parent.iterdir()] == ["a.txt"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def interrupted() -> None:
        with atomic_write(target) as file:
            file.write("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_data_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")  # noqa: PTH112
        real_sync(descriptor)

    def replace(self: Path, target: Any) -> Path:
        events.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    with atomic_write(tmp_path / "a.txt") as file:
        file.write("x")
    assert events == ["file", "rename", "folder"]


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, r"the disk is full: 3 bytes were written .* are free"), (errno.EDQUOT, "the disk is full"),
     (errno.EACCES, "cannot be written: Permission denied"), (errno.EROFS, "cannot be written: Read-only file system")],
)  # fmt: skip
def test_what_the_disk_refuses_is_the_environments_fault(
    number: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    target = tmp_path / "a.txt"
    target.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(EnvironmentFault, match=f"{target}: {message}"), atomic_write(target) as file:
            file.write("new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with (
        pytest.raises(EnvironmentFault, match=r"runs/a.txt: cannot be written: "),
        atomic_write(tmp_path / "runs/a.txt"),
    ):
        pass


def test_a_folder_is_made_or_its_fault_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="file/b: cannot be written"):
        make_folder(tmp_path / "file" / "b")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(EnvironmentFault, match="a: cannot be written: Permission denied"):
        make_folder(tmp_path / "a")


def test_a_disk_that_is_full_before_the_folder_is_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.chdir(tmp_path)
    for target in (tmp_path / "runs" / "a" / "b.txt", Path("runs/a/b.txt")):
        with (
            pytest.raises(EnvironmentFault, match=f"^{target}: the disk is full: 0 bytes were written .* are free"),
            atomic_write(target),
        ):
            pass


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    target = small_disk / "last.ckpt"
    with atomic_write(target, "wb", checksum=True) as file:
        file.write(b"a" * 600_000)
    with pytest.raises(EnvironmentFault, match=r"the disk is full"), atomic_write(target, "wb") as file:
        file.write(b"b" * 600_000)
    verify_checksum(target)
    assert sorted(file.name for file in small_disk.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]


def test_the_checksum_is_sha256sums_and_notices_a_bit(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"abc")
    verify_checksum(target)  # without one there is nothing to check
    with atomic_write(target, "wb", checksum=True) as file:
        file.write(b"abc")
    assert sha256_of(target).startswith("ba7816bf8f01cfea")
    assert (tmp_path / "a.bin.sha256").read_text() == f"{sha256_of(target)}  a.bin\n"
    verify_checksum(target)
    target.write_bytes(b"abb")
    with pytest.raises(InputError, match=r"a.bin: the checksum does not match"):
        verify_checksum(target)
    target.write_bytes(b"abc")
    (tmp_path / "a.bin.sha256").write_text("")
    with pytest.raises(InputError, match="does not match"):
        verify_checksum(target)


def test_the_key_is_of_the_content_not_of_the_order() -> None:
    assert key_of({"a": {"b": 1, "c": [1, 2]}}) == key_of({"a": {"c": [1, 2], "b": 1}})
    assert key_of({"a": [1, 2]}) != key_of({"a": [2, 1]})
    # sha256 of {"a":1} as computed by the sha256sum program
    assert key_of({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_a_file_killed_between_its_renames_has_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, real, left = tmp_path / "last.ckpt", Path.replace, [0]

    def killed(self: Path, to: Path) -> Path:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return real(self, to)

    def write(content: str) -> None:
        with atomic_write(target, checksum=True) as file:
            file.write(content)

    write("old")
    for calls in (1, 2, 3):  # the checksums are renamed, then the file, then its own checksum
        left[0] = calls
        monkeypatch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write(f"new {calls}")
        monkeypatch.undo()
        verify_checksum(target)
        assert target.read_text() == ("old" if calls < 3 else "new 3")
    write("newest")
    assert (tmp_path / "last.ckpt.sha256").read_text() == f"{sha256_of(target)}  last.ckpt\n"
    target.write_text("old")
    with pytest.raises(InputError, match="checksum does not match"):
        verify_checksum(target)


def test_temporary_files_of_the_dead_are_removed_and_others_left(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    dead, own = tmp_path / f".a.ckpt.{gone.pid}.0123abcd.partial", tmp_path / f".a.ckpt.{os.getpid()}.0123abcd.partial"
    living, others = tmp_path / f".a.ckpt.{os.getppid()}.0123abcd.partial", tmp_path / ".download.partial"
    for file in (dead, own, living, others):
        file.write_text("half")
    folder = tmp_path / f".out.{gone.pid}.0123abcd.partial"
    (folder / "rows").mkdir(parents=True)
    remove_partials(tmp_path)
    assert set(tmp_path.iterdir()) == {living, others}


@pytest.mark.parametrize("there", [False, True])
def test_a_new_folder_removes_what_a_killed_process_began_of_it(there: bool, tmp_path: Path) -> None:
    target = tmp_path / "out[1]"
    if there:
        target.mkdir()
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    beside = target if there else tmp_path
    began, other = (beside / f".{name}.{gone.pid}.0123abcd.partial" for name in (target.name, "other"))
    for folder in (began, other):
        (folder / "rows").mkdir(parents=True)
    with new_folder(target) as new:
        (new / "file").touch()
    assert not began.exists()
    assert other.exists()
    assert (target / "file").exists()
