"""Find pairs of texts that share most of their 5-grams, and images that look alike, without comparing all with all."""

from __future__ import annotations

import hashlib
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
_BITS = 4  # of 64, in which hashes of similar images differ at most
_WINDOW = 30  # in a larger bucket each text is compared with the first one and so many before it
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Pairs(NamedTuple):
    """Similar pairs: places ``first < second``, int64 ``(m,)``, and ``similarity``, float64 ``(m,)`` in [0, 1]."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


def similar_texts(texts: Sequence[str], threshold: float, few: np.ndarray | None = None) -> Iterator[Pairs]:
    """Yield all pairs of texts whose sets of character 5-grams have a Jaccard similarity of at least ``threshold``.

    A text of fewer than 5 characters has one gram, itself. The sizes of intersections are a product of sparse matrices,
    of so many texts at a time as have a bounded number of grams and pairs.

    Args:
        texts: Different texts.
        threshold: In (0, 1].
        few: int ``(m,)``: places of texts, ascending, of which alone pairs with all texts are wanted; None for all.

    Example:
        >>> [pairs] = similar_texts(["call me later", "call me later!", "see you"], 0.6)
        >>> pairs.first.tolist(), pairs.second.tolist(), pairs.similarity.tolist()
        ([0], [1], [0.9])
    """
    asked = np.arange(len(texts)) if few is None else few
    is_asked = np.isin(np.arange(len(texts)), asked)
    grams, codes = _grams([texts[place] for place in asked.tolist()])
    size = np.diff(grams.indptr)
    for begin, block in _blocks(texts):
        others, other_codes = _grams(block)
        _, mine, theirs = np.intersect1d(codes, other_codes, assume_unique=True, return_indices=True)
        left, right, other_size = grams[:, mine], others[:, theirs].T.tocsr(), np.diff(others.indptr)
        step = max(1, _BLOCK // len(block))
        for start in range(0, len(asked), step):
            shared = (left[start : start + step] @ right).tocoo()
            row, column = shared.coords[0].astype(np.int64) + start, shared.coords[1].astype(np.int64)
            one, other = asked[row], column + begin
            jaccard = shared.data / (size[row] + other_size[column] - shared.data)
            kept = (jaccard >= threshold) & ((one < other) | ~is_asked[other])
            yield Pairs(np.minimum(one, other)[kept], np.maximum(one, other)[kept], jaccard[kept])


def likely_similar_texts(texts: Sequence[str], threshold: float) -> Iterator[Pairs]:
    """Yield most of the pairs of :func:`similar_texts`, by MinHash in time that grows with the number of texts.

    Texts with the same smallest hashes in one of several bands are compared by their grams, so no pair is wrong. Of
    pairs at the very threshold 98% are to be found, of closer ones more. Where over 30 texts have the same hashes, each
    is compared with the first of them and with the 30 before it.

    Source: A. Z. Broder, On the resemblance and containment of documents, SEQUENCES (1997).
    """
    threshold_of_bands = min(threshold, 0.99)
    rows = min(6, max(1, round(math.log(0.13) / math.log(threshold_of_bands))))
    bands = math.ceil(math.log(1 - _RECALL) / math.log(1 - threshold_of_bands**rows))
    keys = _band_keys(texts, bands, rows)
    for band in range(bands):
        first, second = _same(keys[band])
        new = np.ones(len(first), bool)
        for earlier in keys[:band]:
            new &= earlier[first] != earlier[second]
        first, second = first[new], second[new]
        for start in range(0, len(first), _BLOCK // 100):
            chunk = slice(start, start + _BLOCK // 100)
            yield _verified(texts, first[chunk], second[chunk], threshold)


def image_key(data: bytes, image: Image) -> tuple[bytes, int]:
    """Return the SHA-256 of an image's file, and its perceptual hash: which of its 64 lowest frequencies are high.

    The bits are those of ``imagehash.phash``, without that package and its wavelets. Resizing and new compression
    change few of them, cropping or turning many.

    Source: C. Zauner, Implementation and benchmarking of perceptual image hash functions (2010).
    """
    lowest = dctn(np.asarray(image.convert("L").resize((32, 32), 1), float))[:8, :8].round(6)  # 1: Lanczos
    bits = np.packbits(lowest > np.median(lowest))
    return hashlib.sha256(data).digest(), int.from_bytes(bits.tobytes())


def similar_hashes(hashes: Sequence[int]) -> Iterator[Pairs]:
    """Yield pairs of hashes that differ in at most 4 of 64 bits; ``similarity`` is the share of equal ones.

    Example:
        >>> [pairs] = similar_hashes([0b1011, 0b1111, 2**63 - 1])
        >>> pairs.first.tolist(), pairs.second.tolist()
        ([0], [1])
    """
    bits, step = np.array(hashes, np.uint64), max(1, _BLOCK // max(1, len(hashes)))
    for start in range(0, len(bits), step):
        differing = np.bitwise_count(bits[start : start + step, None] ^ bits)
        first, second = np.nonzero(np.triu(differing <= _BITS, start + 1))
        yield Pairs(first + start, second, 1 - differing[first, second] / 64)


def _verified(texts: Sequence[str], first: np.ndarray, second: np.ndarray, threshold: float) -> Pairs:
    """Return those of the pairs that are similar enough."""
    places, where = np.unique(np.stack([first, second]), return_inverse=True)
    one, other = where.reshape(2, -1)
    grams = _grams([texts[place] for place in places])[0]
    size, shared = np.diff(grams.indptr), np.zeros(len(first))
    step = int(_BLOCK / max(1.0, size.mean()))
    for start in range(0, len(first), step):
        chunk = slice(start, start + step)
        shared[chunk] = grams[one[chunk]].multiply(grams[other[chunk]]).sum(axis=1)
    jaccard = shared / (size[one] + size[other] - shared)
    kept = jaccard >= threshold
    return Pairs(first[kept], second[kept], jaccard[kept])


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
    padded = [text.ljust(NGRAM, "\udfff") for text in texts]  # no character, so no text ends in it
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


def _band_keys(texts: Sequence[str], bands: int, rows: int) -> np.ndarray:
    """Return a key of the smallest hashes of each band: uint32 ``(bands, texts)``."""
    factors = np.random.default_rng(0).integers(2**63, size=(bands, rows), dtype=np.uint64) * np.uint64(2) + 1
    keys = np.zeros((bands, len(texts)), np.uint32)
    for start, block in _blocks(texts):
        codes, counts = _codes(block)
        begins = np.append(0, counts.cumsum()[:-1])
        for band, row in np.ndindex(bands, rows):
            hashed = (codes * factors[band, row] >> np.uint64(32)).astype(np.uint32)
            here = keys[band, start : start + len(block)]
            here[:] = (here ^ np.minimum.reduceat(hashed, begins)) * np.uint32(0x9E3779B1)
    return keys


def _same(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of places with the same key: of each the first one, and up to so many as the window before it."""
    order = np.argsort(keys, kind="stable")
    begins = np.append(True, keys[order][1:] != keys[order][:-1])
    begin, place = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0)), np.arange(len(order))
    far = place - begin > _WINDOW
    pairs = [(begin[far], place[far])]
    for apart in range(1, _WINDOW + 1):
        if not len(place := place[place - apart >= begin[place]]):
            break
        pairs.append((place - apart, place))
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return order[first], order[second]
