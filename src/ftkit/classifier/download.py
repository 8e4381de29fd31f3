"""The SMS Spam Collection from its public archive: checked before it is kept, and never unpacked to the disk.

Almeida, T. and Hidalgo, J. (2011), SMS Spam Collection, UCI Machine Learning Repository, data set 228,
https://doi.org/10.24432/C5CC84, licence CC BY 4.0.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import lzma
import stat
import struct
import time
import urllib.request
import zipfile
import zlib
from pathlib import Path

from ftkit.errors import UnavailableError
from ftkit.storage import atomic_write, cache_folder, sha256_of

URLS = (
    "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
    # The published script's second mirror.
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
)
MEMBER = "SMSSpamCollection"
MEMBER_SIZE = 477_907
MEMBER_SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
SIZE_LIMIT = 10_000_000  # bytes, of the archive and of what it unpacks to
TIMEOUT = 30.0  # seconds without an answer
DEADLINE = 120.0  # seconds for one download

_EXPECTED_NAMES = frozenset({MEMBER, "readme"})
# What zipfile raises over damaged archives, besides its own error.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError)


class _RefusedError(Exception):
    """What a mirror sent is not the archive that was asked for."""


def fetch_sms_spam(cache: str | Path | None = None, urls: tuple[str, ...] = URLS) -> Path:
    """Download ``SMSSpamCollection`` unless it is in the cache.

    Each mirror is tried once. The archive is read in memory; it must hold no other names than the real one
    does, and the messages must have the known size and SHA-256. Only then are they written to the cache, in
    one step.

    Args:
        cache: Folder to keep the file in; None takes :func:`ftkit.storage.cache_folder`.
        urls: The mirrors.

    Returns:
        The path of the verified file.

    Raises:
        UnavailableError: No mirror gave the file.
        EnvironmentFault: The cache cannot be written.
    """
    target = Path(cache or cache_folder()) / "sms" / MEMBER
    if target.is_file() and sha256_of(target) == MEMBER_SHA256:
        return target
    reasons = []
    for url in urls:
        try:
            messages = read_member(_download(url))
        except (OSError, http.client.HTTPException, _RefusedError) as error:
            reasons.append(f"{url}: {error}")
            continue
        with atomic_write(target, "wb") as file:
            file.write(messages)
        return target
    raise UnavailableError(
        f"the SMS Spam Collection cannot be downloaded: {'; '.join(reasons)}",
        field="source",
        fix=f"give the path of a local {MEMBER} file as source, or use source: demo (made-up messages)",
    )


def read_member(archive: bytes) -> bytes:
    """Take the messages out of the archive, in memory, after checking everything that can be checked.

    Args:
        archive: The bytes of the zip file.

    Returns:
        The bytes of ``SMSSpamCollection``.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            members = opened.infolist()
            _refuse_strange(members)
            # The declared size may lie, so no more than the limit is ever unpacked.
            with opened.open(MEMBER) as member:
                data = member.read(SIZE_LIMIT + 1)
    except _DAMAGED as error:
        raise _RefusedError(f"not a usable zip file ({error})") from error
    if len(data) != MEMBER_SIZE:
        raise _RefusedError(f"{MEMBER} has {len(data):,} bytes instead of {MEMBER_SIZE:,}")
    if (found := hashlib.sha256(data).hexdigest()) != MEMBER_SHA256:
        raise _RefusedError(f"{MEMBER} has the SHA-256 {found[:12]}… instead of {MEMBER_SHA256[:12]}…")
    return data


def _refuse_strange(members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    for member in members:
        if member.filename not in _EXPECTED_NAMES:
            raise _RefusedError(f"the archive holds the unexpected name {member.filename[:80]!r}")
        if names.count(member.filename) > 1:
            raise _RefusedError(f"the archive holds the name {member.filename!r} twice")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise _RefusedError(f"{member.filename} is a symbolic link in the archive")
        if member.file_size > SIZE_LIMIT:
            raise _RefusedError(f"{member.filename} declares {member.file_size:,} bytes, more than {SIZE_LIMIT:,}")
    if MEMBER not in names:
        raise _RefusedError(f"the archive lacks {MEMBER}")


def _download(url: str) -> bytes:
    """The body of a response, bounded in size and in time."""
    end = time.monotonic() + DEADLINE
    body = bytearray()
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
        while chunk := response.read1(1 << 16):
            body += chunk
            if len(body) > SIZE_LIMIT:
                raise _RefusedError(f"sends more than {SIZE_LIMIT:,} bytes")
            if time.monotonic() > end:
                raise _RefusedError(f"takes longer than {DEADLINE:.0f} seconds")
        expected = response.headers.get("Content-Length")
    if expected is not None and expected.isdigit() and len(body) != int(expected):
        raise _RefusedError(f"the download broke off after {len(body):,} of {expected} bytes")
    return bytes(body)
