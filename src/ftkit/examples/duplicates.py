"""Find examples that a data set has more than once: exactly, but for case and white space, or nearly."""

import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ftkit.examples.messages import text_of
from ftkit.examples.reader import Example
from ftkit.examples.similarity import SAMPLE, Pairs, likely_similar_texts, similar_hashes, similar_texts
from ftkit.results.duplicates import Duplicates, LabeledText, count_duplicates
from ftkit.run_folder import SPLITS, SplitName

EXACT_TEXTS, EXACT_LETTERS = 20_000, 10_000_000  # up to so many, all texts are compared


@dataclass(frozen=True)
class Found:
    """The duplicates of a data set.

    Attributes:
        examples: By kind, ``exact``, ``normalized`` and ``near``, each of which holds the one before.
        images: Those of the images of all examples, ``image`` and ``similar image``; none without images.
        recall: Where not all texts were compared: how many of the near pairs of some texts were found, and how many
            there are.
    """

    examples: Mapping[str, Duplicates]
    images: Mapping[str, Duplicates]
    recall: tuple[int, int] | None = None


def labeled_text(example: Example, images: Iterable[Hashable] = ()) -> LabeledText:
    """Return a prompt as text, its answer as label and the keys of its images; without a prompt, the answer as text."""
    prompt = example.prompt
    text = prompt if isinstance(prompt, str) else "\n".join(text_of(message["content"]) for message in prompt)
    if not text.strip():
        return LabeledText(example.id, example.completion, None, tuple(images))
    return LabeledText(example.id, text, example.completion, tuple(images))


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


def crossing(splits: Mapping[SplitName, Iterable[LabeledText]]) -> dict[str, dict[str, int]]:
    """Count the val and test examples that are in train as well, but for case, white space and Unicode form.

    Returns:
        By split ``total``, ``in_train`` and ``other_label``, those of which one in train has another label; only splits
        with duplicates.
    """
    labels: dict[Hashable, str | None] = {}
    several, counts = set(), {}
    for key, label in _keyed(splits.get("train", ())):
        if labels.setdefault(key, label) != label:
            several.add(key)
    for name in SPLITS[1:]:
        found = list(_keyed(splits.get(name, ())))
        known = [key not in several and labels[key] == label for key, label in found if key in labels]
        if known:
            counts[str(name)] = {"total": len(found), "in_train": len(known), "other_label": known.count(False)}
    return counts


def find_duplicates(
    splits: Mapping[SplitName, Sequence[LabeledText]], threshold: float = 0.6, near: bool = True
) -> Found:
    """Find the duplicates of all examples, within and between splits.

    Exact ones have the same text and images. The texts of normalized ones are the same to :func:`normalized`. The
    normalized texts of near ones share most of their character 5-grams, by a Jaccard similarity from ``threshold`` on;
    of examples with images they are the same, and the images look alike, by keys that are
    :func:`~ftkit.examples.similarity.image_key`. Empty texts without images have no duplicates.
    """
    examples = [example for name in SPLITS for example in splits.get(name, ())]
    split = np.repeat(range(len(SPLITS)), [len(splits.get(name, ())) for name in SPLITS])
    label = _numbered(example.label for example in examples)
    texts, unit = [normalized(example.text) for example in examples], _numbered(key for key, _ in _keyed(examples))
    exact = _numbered((one.text, one.images) if _filled(one) else place for place, one in enumerate(examples))
    kinds = {"exact": count_duplicates(exact, split, label), "normalized": count_duplicates(unit, split, label)}
    if not near:
        return Found(kinds, {})
    images: list[Any] = [image for example in examples for image in example.images]
    if not images:
        first = np.unique(unit, return_index=True)[1]
        first = first[[bool(texts[place]) for place in first]] if len(first) else first
        recall: list[int] = []
        found = _near([texts[place] for place in first], threshold, recall)
        edges = ((unit[first[one]], unit[first[other]], similarity) for one, other, similarity in found)
        kinds["near"] = count_duplicates(unit, split, label, edges)
        return Found(kinds, {}, (recall[0], recall[1]) if recall else None)
    different = list(dict.fromkeys(images))
    alike = list(similar_hashes([visual for _, visual in different]))
    kinds["near"] = count_duplicates(unit, split, label, _alike(examples, texts, unit, different, alike))
    where, none = np.repeat(split, [len(one.images) for one in examples]), np.zeros(len(images), np.int64)
    looks = {"image": [], "similar image": alike}
    return Found(
        kinds, {kind: count_duplicates(_numbered(images), where, none, edges) for kind, edges in looks.items()}
    )


@lru_cache(1)  # fit, test and the runs of an ablation ask for the same
def duplicates_of(splits: tuple[tuple[LabeledText, ...], ...], near: bool = True) -> Mapping[str, Duplicates]:
    """Return the duplicates of train, val and test by kind; of examples with images only those with the same ones."""
    with_images = any(example.images for split in splits for example in split)
    return find_duplicates(dict(zip(SPLITS, splits, strict=True)), near=near and not with_images).examples


def _near(texts: Sequence[str], threshold: float, recall: list[int]) -> Iterator[Pairs]:
    """Yield the near pairs; where they are too many to compare all, add to ``recall`` what was found of how many."""
    if len(texts) <= EXACT_TEXTS and sum(map(len, texts)) <= EXACT_LETTERS:
        yield from similar_texts(texts, threshold)
        return
    sample = np.random.default_rng(0).choice(len(texts), min(SAMPLE, len(texts)), replace=False)
    sampled, found = np.isin(np.arange(len(texts)), sample), 0
    for pairs in likely_similar_texts(texts, threshold):
        found += int((sampled[pairs.first] | sampled[pairs.second]).sum())
        yield pairs
    recall += [found, sum(len(pairs.first) for pairs in similar_texts(texts, threshold, np.sort(sample)))]


def _alike(
    examples: Sequence[LabeledText], texts: Sequence[str], unit: np.ndarray, different: Sequence[Hashable],
    alike: Iterable[Pairs],
) -> Iterator[Pairs]:  # fmt: skip
    """Yield the pairs of examples that say the same of images one of which looks like the other's in its place."""
    known: dict[Hashable, int] = {}
    holders: dict[Hashable, list[tuple[int, int]]] = {}
    for place, example in enumerate(examples):
        if (key := (texts[place], example.images)) not in known:
            known[key] = int(unit[place])
            for position, image in enumerate(example.images):
                holders.setdefault(image, []).append((place, position))
    found: dict[tuple[int, int], float] = {}
    for pairs in alike:
        for one, other, similarity in zip(*(values.tolist() for values in pairs), strict=True):
            for place, position in holders[different[one]]:
                images = examples[place].images
                swapped = (*images[:position], different[other], *images[position + 1 :])
                if (same := known.get((texts[place], swapped))) is not None:
                    found[min(int(unit[place]), same), max(int(unit[place]), same)] = similarity
    first, second = np.array(list(found), np.int64).reshape(-1, 2).T
    yield Pairs(first, second, np.array(list(found.values())))


def _keyed(examples: Iterable[LabeledText]) -> Iterator[tuple[Hashable, str | None]]:
    """Yield what is the same for normalized duplicates, and the label; an example that is empty equals no other."""
    for one in examples:
        yield (normalized(one.text), one.images) if _filled(one) else object(), one.label


def _filled(example: LabeledText) -> bool:
    return bool(example.images or example.text.strip())


def _numbered(keys: Iterable[Hashable]) -> np.ndarray:
    """Return int64 ``(n,)``: the number of each key, from 0 in the order of their first occurrence."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
