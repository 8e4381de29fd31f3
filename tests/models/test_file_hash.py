"""The hash of a large file is remembered until the file changes, and damage of what was remembered is noticed."""

import os
from pathlib import Path

import pytest

from ftkit.models import file_hash
from ftkit.models.file_hash import file_sha256
from ftkit.storage import file_stamp, sha256_of


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large."""
    monkeypatch.setattr(file_hash, "_LARGE", 100)
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    (file := tmp_path / "large.bin").write_bytes(bytes(200))
    return file


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects the name of each file that is read to be hashed from now on."""
    names: list[str] = []
    monkeypatch.setattr(file_hash, "sha256_of", lambda path: names.append(path.name) or sha256_of(path))
    return names


def test_a_large_file_is_read_once_until_it_changes(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = hashed(monkeypatch)
    first = file_sha256(large)
    assert [file_sha256(large) for _ in range(3)] == [first] * 3
    assert first == sha256_of(large)
    assert names == ["large.bin"]
    status = large.stat()
    while file_stamp(large).changed == status.st_ctime_ns:  # a file system's clock ticks every few milliseconds
        with large.open("r+b") as file:  # in its place, of the same size
            file.write(b"\1")
        os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_sha256(large) == sha256_of(large) != first
    assert names == ["large.bin"] * 2


def test_a_kept_hash_that_is_damaged_is_not_believed(large: Path) -> None:
    wanted = file_sha256(large)
    (kept,) = (large.parent / "cache" / "sha256").iterdir()
    content = kept.read_bytes()
    for place in range(len(content)):
        kept.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert file_sha256(large) == wanted
    kept.write_bytes(b"")
    assert file_sha256(large) == wanted
    assert kept.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_said(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(large))
    with pytest.warns(UserWarning, match="the hash of a large file is not cached, so every command computes it again"):
        assert file_sha256(large) == sha256_of(large)
