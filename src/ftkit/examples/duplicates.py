"""Find examples that stand in a data set more than once: as they are, but for case and white space, or nearly."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ftkit.examples.messages import text_of
from ftkit.examples.reader import Example
from ftkit.examples.similarity import SAMPLE, Pairs, likely_similar_texts, similar_hashes, similar_texts, similar_to
from ftkit.results.twins import Twins, count_twins
from ftkit.run_folder import SPLITS, SplitName

EXACT_TEXTS, EXACT_LETTERS = 20_000, 10_000_000  # up to so many, all texts are compared


class LabeledText(NamedTuple):
    """An example as far as twins go: its name, its text, its class or answer, and what is equal for equal images."""

    id: str
    text: str
    label: str | None = None
    images: tuple[Hashable, ...] = ()

    @classmethod
    def of(cls, example: Example, images: Iterable[Hashable] = ()) -> LabeledText:
        """Take an example's prompt as its text and its answer as its label; without a prompt, the answer as its text.

        Args:
            example: The example.
            images: What is equal for equal images, such as their hashes.
        """
        parts = [] if isinstance(example.prompt, str) else [message["content"] for message in example.prompt]
        text = example.prompt if isinstance(example.prompt, str) else "\n".join(map(text_of, parts))
        if not text.strip():
            return cls(example.id, example.completion, None, tuple(images))
        return cls(example.id, text, example.completion, tuple(images))


@dataclass(frozen=True)
class Duplicates:
    """What stands in a data set more than once.

    Attributes:
        examples: Twins by kind: ``exact``, ``normalized`` and ``near``, each of which holds the one before.
        images: The same of images, those of one example after the other: ``exact`` and ``near``; none without images.
        image_of: int64 ``(images,)``: the place of the example that an image belongs to.
        recall: Where not all texts were compared: how many of the near pairs of some texts were found, and how many
            there are.
    """

    examples: Mapping[str, Twins]
    images: Mapping[str, Twins]
    image_of: np.ndarray
    recall: tuple[int, int] | None = None


def normalized(text: str) -> str:
    r"""Return a text without differences of case, white space and Unicode form (NFKC); digits and punctuation stay.

    Example:
        >>> normalized(" Free\u00a0ENTRY \n 2\u00b2\uff01")
        'free entry 22!'
    """
    if not text.isascii():
        for _ in range(2):  # what is composed anew may have a case
            text = unicodedata.normalize("NFKC", text.casefold())
    return " ".join(text.lower().split())


def split_codes(splits: Mapping[SplitName, Sequence[Any]]) -> np.ndarray:
    """Return the split of every example, in their order: int64 ``(n,)``, 0 for train, 1 for val, 2 for test."""
    return np.repeat(range(len(SPLITS)), [len(splits.get(name, ())) for name in SPLITS])


def crossing(splits: Mapping[SplitName, Sequence[LabeledText]]) -> dict[str, dict[str, int]]:
    """Count the val and test examples that stand in train as well, but for case, white space and Unicode form.

    Args:
        splits: The examples by split.

    Returns:
        By split: ``examples``, ``twins`` and ``conflict``, those with another label in train; only splits with twins.
    """
    examples = [example for name in SPLITS for example in splits.get(name, ())]
    unit, label = _units(examples, [normalized(one.text) for one in examples]), _numbered(one.label for one in examples)
    found, start = count_twins(unit, split_codes(splits), label), len(splits.get("train", ()))
    counts: dict[str, dict[str, int]] = {}
    for name in SPLITS[1:]:
        here = slice(start, start := start + len(splits.get(name, ())))
        if twins := int(found.in_train[here].sum()):
            conflict = twins - int(found.agrees[here].sum())
            counts[name] = {"examples": here.stop - here.start, "twins": twins, "conflict": conflict}
    return counts


def find_duplicates(
    splits: Mapping[SplitName, Sequence[LabeledText]],
    threshold: float = 0.6,
    hashes: Mapping[Hashable, int] | None = None,
) -> Duplicates:
    """Find the twins of all examples, within and between splits.

    Exact twins have the same text and images. The texts of normalized ones are the same to :func:`normalized`. The
    normalized texts of near ones share most of their character 5-grams; of examples with images they are the same, and
    the images look alike. Empty texts without images have no twins.

    Args:
        splits: The examples by split.
        threshold: Jaccard similarity from which texts are near twins.
        hashes: The perceptual hash of each image.
    """
    examples = [example for name in SPLITS for example in splits.get(name, ())]
    split = split_codes(splits)
    label = _numbered(example.label for example in examples)
    texts = [normalized(example.text) for example in examples]
    unit, image_of = _units(examples, texts), np.repeat(range(len(examples)), [len(one.images) for one in examples])
    kinds = {"exact": count_twins(_units(examples, [example.text for example in examples]), split, label)}
    kinds["normalized"] = count_twins(unit, split, label)
    if not len(image_of):
        recall: list[int] = []
        firsts = np.unique(unit, return_index=True)[1]
        firsts = firsts[[bool(texts[place]) for place in firsts.tolist()]] if len(firsts) else firsts
        found = _near([texts[place] for place in firsts.tolist()], threshold, recall)
        edges = ((unit[firsts[one]], unit[firsts[other]], similarity) for one, other, similarity in found)
        kinds["near"] = count_twins(unit, split, label, edges)
        return Duplicates(kinds, {}, image_of, (recall[0], recall[1]) if recall else None)
    images = [image for example in examples for image in example.images]
    different = list(dict.fromkeys(images))
    alike = list(similar_hashes([(hashes or {})[image] for image in different]))
    of_image = _numbered(images)
    kinds["near"] = count_twins(unit, split, label, _alike(examples, texts, unit, different, alike))
    where, none = split[image_of], np.zeros(len(images), np.int64)
    looks = {kind: count_twins(of_image, where, none, edges) for kind, edges in (("exact", []), ("near", alike))}
    return Duplicates(kinds, looks, image_of)


def _near(texts: Sequence[str], threshold: float, recall: list[int]) -> Iterator[Pairs]:
    """Yield the near pairs; where they are too many to compare all, add to ``recall`` what was found of how many."""
    if len(texts) <= EXACT_TEXTS and sum(map(len, texts)) <= EXACT_LETTERS:
        yield from similar_texts(texts, threshold)
        return
    sample = np.random.default_rng(0).choice(len(texts), min(SAMPLE, len(texts)), replace=False)
    looked_at, found = np.isin(np.arange(len(texts)), sample), set()
    for pairs in likely_similar_texts(texts, threshold):
        here = looked_at[pairs.first] | looked_at[pairs.second]
        found |= {*zip(pairs.first[here].tolist(), pairs.second[here].tolist(), strict=True)}
        yield pairs
    recall += [len(found), len(similar_to(sample, texts, threshold))]


def _alike(
    examples: Sequence[LabeledText], texts: Sequence[str], unit: np.ndarray, different: Sequence[Hashable],
    alike: Iterable[Pairs],
) -> Iterator[Pairs]:  # fmt: skip
    """Yield the pairs of examples that say the same of images one of which looks like the other's in its place."""
    known: dict[Hashable, int] = {}
    holders: dict[Hashable, list[tuple[int, int]]] = {}
    for place, example in enumerate(examples):
        if known.setdefault((texts[place], example.images), int(unit[place])) == unit[place]:
            for position, image in enumerate(example.images):
                holders.setdefault(image, []).append((place, position))
    for pairs in alike:
        found: dict[tuple[int, int], float] = {}
        for one, other, similarity in zip(*(values.tolist() for values in pairs), strict=True):
            for place, position in holders[different[one]]:
                images = examples[place].images
                swapped = (*images[:position], different[other], *images[position + 1 :])
                if (twin := known.get((texts[place], swapped))) is not None:
                    found[min(int(unit[place]), twin), max(int(unit[place]), twin)] = similarity
        first, second = np.array(list(found), np.int64).reshape(-1, 2).T
        yield Pairs(first, second, np.array(list(found.values())))


def _units(examples: Sequence[LabeledText], texts: Sequence[str]) -> np.ndarray:
    """Number what is equal; an example that is empty equals no other."""
    keys = zip(examples, texts, strict=True)
    return _numbered(
        [(text, one.images) if text.strip() or one.images else place for place, (one, text) in enumerate(keys)]
    )


def _numbered(keys: Iterable[Hashable]) -> np.ndarray:
    """Return int64 ``(n,)``: the number of each key, from 0 in the order of their first occurrence."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
