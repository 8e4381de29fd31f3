"""Download the SMS Spam Collection from its public archive; it is checked before it is kept.

Almeida, T. and Hidalgo, J. (2011), SMS Spam Collection, UCI Machine Learning Repository, data set 228,
https://doi.org/10.24432/C5CC84, license CC BY 4.0.
"""

import io
import lzma
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

from pooch import HTTPDownloader, retrieve

from ftkit.errors import UnavailableError
from ftkit.storage import cache_folder, disk_faults

URLS = (
    "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
    # The published script's second mirror.
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
)
MEMBER = "SMSSpamCollection"
MEMBER_SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
SIZE_LIMIT = 10_000_000  # bytes, of the archive and of what it unpacks to
TIMEOUT = 30.0  # seconds without an answer
DEADLINE = 120.0  # seconds for one download

# What zipfile raises over damaged archives, besides its own error; KeyError: the messages are not in it.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError, KeyError)


def fetch_sms_spam(cache: str | Path | None = None, urls: tuple[str, ...] = URLS) -> Path:
    """Return the path of ``SMSSpamCollection`` in the cache, downloaded with pooch unless it is there.

    Each mirror is tried once. The archive is read in memory, so that no other name in it matters; the messages are kept
    only if they have the known SHA-256.

    Raises:
        UnavailableError: No mirror gave the file.
        EnvironmentFault: The cache cannot be written.
    """
    target = Path(cache or cache_folder()) / "sms" / MEMBER
    reasons = []
    for url in urls:
        try:
            with disk_faults(target):
                retrieve(url, MEMBER_SHA256, MEMBER, target.parent, downloader=_write_member)
            return target
        except ValueError as error:
            reasons.append(f"{url}: {error}")
    raise UnavailableError(
        f"the SMS Spam Collection cannot be downloaded: {'; '.join(reasons)}",
        field="source",
        fix=f"give the path of a local {MEMBER} file as source, or use source: demo (made-up messages)",
    )


class _Body(io.BytesIO):
    """The body of a response, bounded in size and in time."""

    def __init__(self) -> None:
        super().__init__()
        self._end = time.monotonic() + DEADLINE

    def write(self, chunk: Any) -> int:
        if self.tell() + len(chunk) > SIZE_LIMIT:
            raise ValueError(f"sends more than {SIZE_LIMIT:,} bytes")
        if time.monotonic() > self._end:
            raise ValueError(f"takes longer than {DEADLINE:.0f} seconds")
        return super().write(chunk)


def _write_member(url: str, path: str, _: object) -> None:
    """Download an archive and write the messages in it to a file, as pooch asks of a downloader."""
    archive = _Body()
    try:
        HTTPDownloader(timeout=TIMEOUT)(url, archive, None)
    except OSError as error:  # those of requests are, and none of them is about the disk
        raise ValueError(str(error)) from error
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(MEMBER) as member:
            messages = member.read(SIZE_LIMIT)  # whatever size the archive declares
    except _DAMAGED as error:
        raise ValueError(f"not a usable zip file ({error})") from error
    Path(path).write_bytes(messages)
