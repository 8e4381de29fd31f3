"""The audit of a data set: examples that it has more than once, the balance of labels, texts that are cut."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ftkit.report.document import Document, Section, Table, excerpt, to_text
from ftkit.report.page import fragment
from ftkit.results.duplicates import Duplicates, LabeledText
from ftkit.results.known_examples import KnownExamples
from ftkit.run_folder import SPLITS

if TYPE_CHECKING:
    import pandas as pd

MANY_LABELS = 30  # more are answers rather than classes, and not listed
_TEXT, _IN_TEXT, _ON_PAGE, _BRIEF = 2_000, 10, 1_000, 160  # letters, pairs, pairs, letters
_SIDES = ("", "duplicate_")
_MEANING = {
    "exact": "the same text",
    "normalized": "the same text but for case, white space and Unicode form",
    "near": "character 5-grams with a Jaccard similarity of at least {threshold:g}",
}
_WITH_IMAGES = {
    "exact": "the same text and images",
    "normalized": "the same images, and the same text but for case, white space and Unicode form",
    "near": "the same normalized text, about images that look alike (perceptual hashes)",
    "image": "images that are the same, whatever is asked about them; images are counted, not examples",
    "similar image": "images that look alike",
}


@dataclass(frozen=True)
class Audit:
    """Hold the duplicates found in a data set; ``print`` and notebooks show them."""

    source: str  # where the examples come from
    examples: Sequence[LabeledText]  # the examples, ordered by split
    # Duplicates by kind, exact, normalized and near, each of which holds the one before.
    duplicates: Mapping[str, Duplicates]
    threshold: float  # Jaccard similarity from which texts are near-duplicates
    # Duplicates of images by kind, image and similar image.
    images: Mapping[str, Duplicates] = field(default_factory=dict)
    # Where near-duplicates are not complete: how many pairs of some texts were found, and how many there are.
    recall: tuple[int, int] | None = None
    # Token counts of the splits under the model's tokenizer, such as how many examples are cut.
    tokens: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    # Returns a small picture of an image by its key, as a data: address.
    thumbnail: Callable[[Hashable], str] | None = None

    def __str__(self) -> str:
        return f"{self.answer}\n\n{to_text(self.document(pairs=0))}"

    def _repr_html_(self) -> str:
        return fragment(self.document(pairs=_IN_TEXT))

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: ``splits``, ``duplicates`` by kind, and ``pairs`` with their texts."""
        return {
            "source": self.source,
            "threshold": self.threshold,
            "recall": None if self.recall is None else {"found": self.recall[0], "of": self.recall[1]},
            "splits": self._splits,
            "duplicates": self._counts,
            "pairs": list(self.pairs()),
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return :meth:`pairs` as a data frame."""
        import pandas as pd

        return pd.DataFrame(list(self.pairs()))

    def pairs(self) -> Iterator[dict[str, Any]]:
        """Yield each example with a duplicate in train or before it, beside the closest; conflicts come first."""
        for place, other, kind, similarity in self._closest():
            duplicate = {f"duplicate_{name}": value for name, value in self._example(other).items()}
            yield {"kind": kind, "similarity": round(similarity, 4), **self._example(place), **duplicate}

    def _closest(self) -> Iterator[tuple[int, int, str, float]]:
        """Yield place, closest duplicate, kind and similarity of each pair of :meth:`pairs`."""
        split, kind = self._split, np.full(len(self.examples), "", object)
        closest, similarity = np.full(len(self.examples), -1), np.zeros(len(self.examples))
        for name, found in self.duplicates.items():  # one in train by a wider meaning comes before one elsewhere
            new = (found.closest >= 0) & ((closest < 0) | ((split[closest] > 0) & (split[found.closest] == 0)))
            kind[new], closest[new], similarity[new] = name, found.closest[new], found.similarity[new]
        label = np.array([one.label or "" for one in self.examples], object)
        places = np.flatnonzero(closest >= 0)
        conflict, crosses = label[places] != label[closest[places]], split[places] > split[closest[places]]
        for place in places[np.lexsort([places, -similarity[places], ~crosses, ~conflict])].tolist():
            yield place, int(closest[place]), kind[place], float(similarity[place])

    def known_examples(self, split: str) -> KnownExamples:
        """Return the texts of a split and their duplicates, for :func:`ftkit.report.evaluate.evaluate`."""
        return KnownExamples.of(self.examples, self.duplicates, split)

    @property
    def answer(self) -> str:
        """How many val and test examples have a duplicate in train, in a sentence."""
        parts = []
        for name in SPLITS[1:]:
            near, same = (self._counts[kind][name] for kind in ("near", "normalized"))
            if near["in_train"]:
                label = f", {near['other_label']:,} with another label" if near["other_label"] else ""
                same_text = f"{same['in_train']:,} the same but for case and white space{label}"
                parts.append(f"{near['in_train']:,} of {near['total']:,} {name} examples ({same_text})")
        if parts:
            return f"Duplicates or near-duplicates in train: {'; '.join(parts)}."
        return "No val or test example has a duplicate in train."

    def document(self, pairs: int = _ON_PAGE) -> Document:
        """Return the audit as a document, with so many pairs on a page."""
        shown = list(self.pairs())
        images = [self._thumbnails(place, other) for place, other, _, _ in islice(self._closest(), pairs)]
        sections = [
            Section("Splits", self._notes(), self._split_table()),
            Section("Val and test examples with a duplicate in train", self._meanings(), self._leak_table()),
            Section("Pairs of duplicates", table=self._pair_table()),
            Section(
                f"Examples beside their duplicates, {min(len(shown), pairs):,} of {len(shown):,}",
                table=_side_by_side(shown[:pairs], images),
                forms=("html",),
            ),
            Section(
                f"Examples, {min(len(shown), _IN_TEXT)} of {len(shown):,}", lines=list(_brief(shown)), forms=("text",)
            ),
        ]
        sections = [one for one in sections if one.lines or (one.table and one.table.rows)]
        facts = [
            ("data", self.source),
            ("examples", f"{len(self.examples):,}"),
            ("near-duplicates from", f"{self.threshold:g}"),
        ]
        return Document("Audit of the data", sections, facts, self.answer)

    @property
    def _split(self) -> np.ndarray:
        return self.duplicates["exact"].split

    def _example(self, place: int) -> dict[str, Any]:
        one = self.examples[place]
        return {"split": SPLITS[self._split[place]], "id": one.id, "label": one.label, "text": one.text[:_TEXT]}

    def _thumbnails(self, *places: int) -> list[str]:
        images = [image for place in places for image in self.examples[place].images]
        return [] if self.thumbnail is None else list(map(self.thumbnail, images))

    @cached_property
    def _labels(self) -> list[str]:
        """The labels, if there are few enough to be classes."""
        labels = sorted({one.label for one in self.examples if one.label is not None})
        return labels if len(labels) <= MANY_LABELS else []

    @cached_property
    def _splits(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for code, split in enumerate(SPLITS):
            here = [self.examples[place] for place in np.flatnonzero(self._split == code).tolist()]
            length, labels = [len(one.text) for one in here] or [0], Counter(one.label for one in here)
            found[split] = {
                "examples": len(here),
                "empty": sum(not one.text.strip() for one in here),
                "median_letters": median(length),
                "longest_letters": max(length),
                "labels": {label: labels[label] for label in self._labels},
                "tokens": {name: count[split] for name, count in self.tokens.items() if split in count},
            }
        return found

    @cached_property
    def _counts(self) -> dict[str, Any]:
        label = np.array([one.label for one in self.examples], object)
        found: dict[str, Any] = {}
        for kind, duplicates in {**self.duplicates, **self.images}.items():
            found[kind] = {"pairs": duplicates.pair_counts()}
            for code, split in enumerate(SPLITS[1:], start=1):
                here = duplicates.split == code
                counts = duplicates.counts(here)
                if kind in self.images:  # an image has no label
                    found[kind][split] = {name: counts[name] for name in ("total", "in_train")}
                    continue
                by_label = {one: duplicates.counts(here & (label == one)) for one in self._labels}
                found[kind][split] = {**counts, "by_label": by_label}
        return found

    def _notes(self) -> list[str]:
        table = np.array([list(one["labels"].values()) for one in self._splits.values()])
        table = table[table.sum(axis=1) > 0]
        if min(table.shape) < 2:
            return []
        p = stats.chi2_contingency(table).pvalue
        differ = "differ" if p < 0.05 else "do not differ significantly"
        return [f"The shares of labels {differ} between splits (chi-squared test, p = {p:.2g})."]

    def _meanings(self) -> list[str]:
        meanings = {**_MEANING, **(_WITH_IMAGES if self.images else {})}
        sentences = [f"{kind}: {meaning.format(threshold=self.threshold)}" for kind, meaning in meanings.items()]
        if self.recall is not None:
            found, there = self.recall
            sentences[-1] += f"; of {there:,} such pairs of sampled texts, MinHash found {found:,}"
        return sentences

    def _split_table(self) -> Table:
        keys = ("examples", "empty", "median_letters", "longest_letters")
        head = ["split", "examples", "empty", "median letters", "longest", *self.tokens, *self._labels]
        rows = [
            [
                name,
                *(f"{one[key]:,.0f}" for key in keys),
                *(f"{one['tokens'].get(count, 0):,}" for count in self.tokens),
                *(f"{count:,} ({count / one['examples']:.1%})" for count in one["labels"].values()),
            ]
            for name, one in self._splits.items()
            if one["examples"]
        ]
        return Table(head, rows, frozenset(range(1, len(head))))

    def _leak_table(self) -> Table:
        rows = []
        for kind, counts in self._counts.items():
            for split in SPLITS[1:]:
                labels = counts[split].get("by_label", {}) if len(self._labels) > 1 else {}
                for label, one in {"all": counts[split], **labels}.items():
                    if one["total"]:
                        share = f"{one['in_train'] / one['total']:.1%}"
                        keys = ("total", "in_train", "same_label", "other_label")
                        figures = [f"{one[key]:,}" if key in one else "" for key in keys]
                        rows.append([kind, split, label, *figures[:2], share, *figures[2:]])
        head = ["kind", "split", "label", "examples", "in train", "share", "same label", "another label"]
        return Table(head, rows, frozenset(range(3, 8)))

    def _pair_table(self) -> Table:
        head = ["kind", *self._counts["exact"]["pairs"]]
        rows = [[kind, *(f"{n:,}" for n in counts["pairs"].values())] for kind, counts in self._counts.items()]
        return Table(head, rows, frozenset(range(1, len(head))))


def _side_by_side(pairs: Sequence[Mapping[str, Any]], images: Sequence[Sequence[str]]) -> Table:
    head = ["kind", "similarity", "example", "label", "text", "duplicate", "label", "text"]
    rows, details = [], []
    for one, pictures in zip(pairs, images, strict=True):
        names = [f"{one[f'{side}split']} {one[f'{side}id']}" for side in _SIDES]
        sides = [
            excerpt(cell, _BRIEF)
            for side, name in zip(_SIDES, names, strict=True)
            for cell in (name, one[f"{side}label"], one[f"{side}text"])
        ]
        rows.append([one["kind"], f"{one['similarity']:.2f}", *sides])
        details.append(Section("", table=Table(names, [[one["text"], one["duplicate_text"]]]), images=pictures))
    return Table(head, rows, frozenset({1}), details=details)


def _brief(pairs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in pairs[:_IN_TEXT]:
        yield f"{one['kind']} {one['similarity']:.2f}"
        for side in _SIDES:
            label = "" if one[f"{side}label"] is None else f" {excerpt(one[f'{side}label'], 20)}"
            yield f"  {one[f'{side}split']} {one[f'{side}id']}{label}: {excerpt(one[f'{side}text'], _BRIEF)}"
