"""Damaged copies of good bytes: what disks, networks and attackers make of files."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any


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


OTHERS: tuple[Any, ...] = (
    [], {}, "", "bogus", "7", -1, 0, 1.5, True, None, 10**30, float("nan"), ["a", 1], {"a": {"b": 1}},
    {"class_path": "os.system"}, {"class_path": "no.such.Class"}, {"class_path": 5},
)  # fmt: skip


def other_values(tree: dict[str, Any], count: int, seed: int = 0) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield ``count`` copies of a tree of plain values in which one value is of another kind, missing, or too many.

    Args:
        tree: Mappings in mappings; a value of another type is a leaf.
        count: How many copies.
        seed: Other seeds give other damage.

    Yields:
        The names that lead to the place, and the copy.
    """
    places = list(_places(tree))
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        *parents, name = place = places[number % len(places)]
        copy = deepcopy(tree)
        inner = copy
        for parent in parents:
            inner = inner[parent]
        match chance.randrange(8):
            case 0:
                del inner[name]
            case 1:
                inner["bogus"] = chance.choice(OTHERS)
            case _:
                inner[name] = deepcopy(chance.choice(OTHERS))
        yield place, copy


def _places(tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in tree.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from _places(value, (*above, name))
