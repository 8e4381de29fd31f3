"""Damaged copies of good bytes: what disks, networks and attackers make of files."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator


def flipped(data: bytes, chance: random.Random) -> bytes:
    """1 to 8 bytes have another value."""
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        damaged[chance.randrange(len(damaged))] ^= chance.randint(1, 255)
    return bytes(damaged)


def cut(data: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return data[: chance.randrange(len(data))]


def inserted(data: bytes, chance: random.Random) -> bytes:
    """1 to 64 random bytes too many, somewhere."""
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.randint(1, 64)) + data[at:]


def zeroed(data: bytes, chance: random.Random) -> bytes:
    """A run of zeros, as a hole in a download leaves it."""
    start = chance.randrange(len(data))
    end = min(len(data), start + chance.randint(1, max(1, len(data) // 4)))
    return data[:start] + bytes(end - start) + data[end:]


KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped": flipped,
    "cut": cut,
    "inserted": inserted,
    "zeroed": zeroed,
}


def mutations(data: bytes, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield ``count`` damaged copies of ``data``, all kinds in turn, the same ones for the same seed.

    Args:
        data: Good bytes, at least one.
        count: How many copies.
        seed: Other seeds give other damage.

    Yields:
        What was done, such as ``"cut 5 (seed 0)"``, and the damaged bytes.
    """
    names = list(KINDS)
    for number in range(count):
        kind = names[number % len(names)]
        chance = random.Random(f"{seed} {number}")
        yield f"{kind} {number} (seed {seed})", KINDS[kind](data, chance)
