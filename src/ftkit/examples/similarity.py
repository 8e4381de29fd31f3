"""Find pairs of texts that share most of their 5-grams, and images that look alike, without comparing all with all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.fft import dctn
from scipy.sparse import csr_array

if TYPE_CHECKING:
    from PIL.Image import Image

NGRAM = 5
SAMPLE = 3_000  # texts that are compared with all others, to measure the recall
_BLOCK = 2_000_000  # grams, or pairs, that are held at once
_RECALL = 0.98  # of pairs at the very threshold
_CROWD = 100  # in a larger bucket each text is compared with the first one and the one before it
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Pairs(NamedTuple):
    """Similar pairs: places ``first < second``, int64 ``(m,)``, and ``similarity``, float64 ``(m,)`` in [0, 1]."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


def similar_texts(texts: Sequence[str], threshold: float) -> Iterator[Pairs]:
    """Yield all pairs of texts whose sets of character 5-grams have a Jaccard similarity of at least ``threshold``.

    A text of fewer than 5 characters has one gram, itself. Memory grows with the number of grams, and time with the sum
    of the squares of how many texts have each.

    Args:
        texts: Different texts.
        threshold: In (0, 1].

    Yields:
        Pairs, each once, of some texts at a time.

    Example:
        >>> [pairs] = similar_texts(["call me later", "call me later!", "see you"], 0.6)
        >>> pairs.first.tolist(), pairs.second.tolist(), pairs.similarity.tolist()
        ([0], [1], [0.9])
    """
    grams = _grams(texts)[0]
    having, size, step = grams.T.tocsr(), np.diff(grams.indptr), max(1, _BLOCK // max(1, len(texts)))
    for start in range(0, len(texts), step):
        shared = (grams[start : start + step] @ having).tocoo()
        first, second = shared.coords[0].astype(np.int64) + start, shared.coords[1].astype(np.int64)
        yield _enough(Pairs(first, second, shared.data / (size[first] + size[second] - shared.data)), threshold)


def likely_similar_texts(texts: Sequence[str], threshold: float, seed: int = 0) -> Iterator[Pairs]:
    """Yield most of the pairs of :func:`similar_texts`, by MinHash in time that grows with the number of texts.

    Texts with the same smallest hashes in one of several bands are compared by their grams, so no pair is wrong. Of
    pairs at the very threshold 98% are to be found, of closer ones more; :func:`recall` measures it. Where over 100
    texts have the same hashes, each is compared with the first of them and with the one before it.

    Args:
        texts: Different texts.
        threshold: In (0, 1].
        seed: Seed of the hashes.

    Yields:
        Pairs, each once, of some texts at a time.

    Source: A. Z. Broder, On the resemblance and containment of documents, SEQUENCES (1997).
    """
    threshold = min(threshold, 0.99)
    rows = min(6, max(1, round(math.log(0.13) / math.log(threshold))))
    bands = math.ceil(math.log(1 - _RECALL) / math.log(1 - threshold**rows))
    keys, of_crowds = _band_keys(texts, bands, rows, seed), np.zeros(0, np.int64)
    for band in range(bands):
        first, second, crowded = _same(keys[band])
        names = first * len(texts) + second
        new = ~np.isin(names, of_crowds)
        for earlier in keys[:band]:
            new &= earlier[first] != earlier[second]
        first, second, names = first[new], second[new], names[new]
        if len(crowded):  # not all of their pairs are compared here, and those that are not may be in a later band
            keys[band, crowded] = crowded
            of_crowds = np.append(of_crowds, names[np.isin(first, crowded)])
        for start in range(0, len(first), _BLOCK // 100):
            chunk = slice(start, start + _BLOCK // 100)
            here, places = np.unique(np.stack([first[chunk], second[chunk]]), return_inverse=True)
            one, other = places.reshape(2, -1)
            pairs = _verified(_grams([texts[place] for place in here])[0], one, other, threshold)
            yield Pairs(here[pairs.first], here[pairs.second], pairs.similarity)


def similar_to(queries: np.ndarray, texts: Sequence[str], threshold: float) -> set[tuple[int, int]]:
    """Return all similar pairs of a few texts with all texts, by comparing them.

    Args:
        queries: int ``(q,)``: places of the few.
        texts: Different texts.
        threshold: In (0, 1].
    """
    asked, codes = _grams([texts[place] for place in queries])
    size, found = np.diff(asked.indptr), set()
    for start, block in _blocks(texts):
        grams, known = _grams(block)
        place = np.searchsorted(known, codes).clip(max=len(known) - 1)
        column = np.flatnonzero(known[place] == codes)
        shared = (asked[:, column] @ grams[:, place[column]].T).tocoo()
        query, other = shared.coords
        either = size[query] + np.diff(grams.indptr)[other] - shared.data
        similar = shared.data >= threshold * either
        pairs = zip(queries[query[similar]].tolist(), (other[similar] + start).tolist(), strict=True)
        found |= {(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]}
    return found


def image_hash(image: Image) -> int:
    """Return the perceptual hash of an image: which of its 64 lowest frequencies are above their median.

    The bits are those of ``imagehash.phash``, without that package and its wavelets. Resizing and new compression
    change few of them, cropping or turning many.

    Args:
        image: Of any size.

    Source: C. Zauner, Implementation and benchmarking of perceptual image hash functions (2010).
    """
    lowest = dctn(np.asarray(image.convert("L").resize((32, 32), 1), float))[:8, :8].round(6)  # 1: Lanczos
    return int.from_bytes(np.packbits(lowest > np.median(lowest)).tobytes())


def similar_hashes(hashes: Sequence[int], distance: int = 4) -> Iterator[Pairs]:
    """Yield pairs of hashes that differ in at most so many of their 64 bits; ``similarity`` is the share of equal ones.

    Args:
        hashes: From :func:`image_hash`.
        distance: The largest number of different bits.

    Example:
        >>> [pairs] = similar_hashes([0b1011, 0b1111, 2**63 - 1])
        >>> pairs.first.tolist(), pairs.second.tolist()
        ([0], [1])
    """
    bits, step = np.array(hashes, np.uint64), max(1, _BLOCK // max(1, len(hashes)))
    for start in range(0, len(bits), step):
        differing = np.bitwise_count(bits[start : start + step, None] ^ bits)
        first, second = np.nonzero(differing <= distance)
        later = first + start < second
        first, second = first[later], second[later]
        yield Pairs(first + start, second, 1 - differing[first, second] / 64)


def _verified(grams: csr_array, first: np.ndarray, second: np.ndarray, threshold: float) -> Pairs:
    """Return those of the pairs that are similar enough."""
    size, shared = np.diff(grams.indptr), np.zeros(len(first))
    step = int(_BLOCK / max(1.0, size.mean() if len(size) else 1))
    for start in range(0, len(first), step):
        chunk = slice(start, start + step)
        shared[chunk] = grams[first[chunk]].multiply(grams[second[chunk]]).sum(axis=1)
    return _enough(Pairs(first, second, shared / (size[first] + size[second] - shared)), threshold)


def _enough(pairs: Pairs, threshold: float) -> Pairs:
    kept = (pairs.similarity >= threshold) & (pairs.first < pairs.second)
    return Pairs(*(values[kept] for values in pairs))


def _grams(texts: Sequence[str]) -> tuple[csr_array, np.ndarray]:
    """Return which text has which gram: ``(texts, grams)`` of ones, and the codes of the grams, in order."""
    codes, counts = _codes(texts)
    known, column = np.unique(codes, return_inverse=True)
    indptr = np.append(0, counts.cumsum())
    grams = csr_array((np.ones(len(codes), np.int32), column, indptr), shape=(len(texts), len(known)))
    grams.sum_duplicates()
    grams.data[:] = 1
    return grams, known


def _codes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return a 64-bit code of every gram, text after text, and how many each text has; two grams rarely share one."""
    padded = [text.ljust(NGRAM, "\0") for text in texts]
    length = np.fromiter(map(len, padded), np.int64, len(padded))
    letters = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    codes = np.zeros(len(letters), np.uint64)
    for place in range(NGRAM):
        codes *= _MULTIPLIER
        codes[: len(letters) - place] += letters[place:]
    whole = np.ones(len(letters), bool)
    whole[length.cumsum()[:, None] - np.arange(1, NGRAM)] = False
    codes = codes[whole]
    return (codes ^ (codes >> np.uint64(32))) * _MULTIPLIER, length - NGRAM + 1


def _blocks(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield so many texts at a time as have about a block of grams, each time with the place of the first."""
    step = max(1, int(_BLOCK * len(texts) / max(1, sum(map(len, texts)))))
    for start in range(0, len(texts), step):
        yield start, texts[start : start + step]


def _band_keys(texts: Sequence[str], bands: int, rows: int, seed: int) -> np.ndarray:
    """Return a key of the smallest hashes of each band: uint32 ``(bands, texts)``."""
    factors = np.random.default_rng(seed).integers(2**63, size=(bands, rows), dtype=np.uint64) * np.uint64(2) + 1
    keys = np.zeros((bands, len(texts)), np.uint32)
    for start, block in _blocks(texts):
        codes, counts = _codes(block)
        begins = np.append(0, counts.cumsum()[:-1])
        for band, row in np.ndindex(bands, rows):
            hashed = (codes * factors[band, row] >> np.uint64(32)).astype(np.uint32)
            here = keys[band, start : start + len(block)]
            here[:] = (here ^ np.minimum.reduceat(hashed, begins)) * np.uint32(0x9E3779B1)
    return keys


def _same(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of places with the same key, first ones and second ones, and places whose key too many have."""
    order = np.argsort(keys, kind="stable")
    begins = np.flatnonzero(np.append(True, keys[order][1:] != keys[order][:-1]))
    size = np.diff(np.append(begins, len(keys)))
    shared = np.repeat(size > 1, size)
    order, size = order[shared], size[size > 1]
    begin = np.repeat(np.append(0, size.cumsum()[:-1]), size) if len(size) else np.zeros(0, np.int64)
    crowded, place = np.repeat(size > _CROWD, size), np.arange(len(order))
    alone = crowded & (place > begin + 1)
    pairs = [(begin[alone], place[alone])]
    for apart in range(1, _CROWD):
        close = (place - apart >= begin) & ((apart == 1) | ~crowded)
        if not close.any():
            break
        pairs.append((place[close] - apart, place[close]))
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return order[first], order[second], order[crowded]
