"""The checksum of a file that a test has changed on purpose."""

from pathlib import Path

from ftkit.storage import sha256_of


def write_checksum(path: Path) -> None:
    """Write ``PATH.sha256`` as the ``sha256sum`` command would."""
    Path(f"{path}.sha256").write_text(f"{sha256_of(path)}  {path.name}\n", encoding="utf-8")
