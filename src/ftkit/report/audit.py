"""The audit of a data set: examples that stand in it more than once, the balance of labels, texts that are cut."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ftkit.report.document import Document, Section, Table, to_text
from ftkit.report.page import fragment
from ftkit.results.twins import Twins
from ftkit.run_folder import SPLITS

if TYPE_CHECKING:
    import pandas as pd

MANY_LABELS = 30  # more are answers rather than classes, and not listed
_TEXT, _IN_TEXT, _ON_PAGE, _BRIEF = 2_000, 10, 1_000, 160  # letters, pairs, pairs, letters
_MEANING = {
    "exact": "the same text",
    "normalized": "the same text but for case, white space and Unicode form",
    "near": "character 5-grams with a Jaccard similarity of at least {threshold:g}",
}
_WITH_IMAGES = {"near": "the same normalized text, about images that look alike (perceptual hashes)"}


@dataclass(frozen=True)
class Audit:
    """What was found in a data set: ``print`` shows it, a notebook too.

    Attributes:
        source: Where the examples come from.
        ids: The examples, ordered by split.
        texts: The text of each.
        labels: The label of each, or None.
        split: int ``(n,)``: 0 train, 1 val, 2 test.
        twins: Twins by kind, ``exact``, ``normalized`` and ``near``, each of which holds the one before.
        threshold: Jaccard similarity from which texts are near twins.
        recall: Where near twins are not complete: how many pairs of some texts were found, and how many there are.
        images: Twins of images by kind, ``exact`` and ``near``.
        image_of: int ``(images,)``: the place of the example that an image belongs to.
        image_names: The name of each image.
        tokens: Counts of what a model's tokenizer makes of the splits, such as examples that are cut.
    """

    source: str
    ids: Sequence[str]
    texts: Sequence[str]
    labels: Sequence[str | None]
    split: np.ndarray
    twins: Mapping[str, Twins]
    threshold: float
    recall: tuple[int, int] | None = None
    images: Mapping[str, Twins] = field(default_factory=dict)
    image_of: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    image_names: Sequence[str] = ()
    tokens: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n\n".join(filter(None, [self.answer, to_text(self.document())]))

    def _repr_html_(self) -> str:
        return fragment(self.document(pairs=_IN_TEXT))

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: ``splits``, ``twins`` and ``images`` by kind, and ``pairs`` with their texts."""
        return {
            "source": self.source,
            "threshold": self.threshold,
            "recall": None if self.recall is None else {"found": self.recall[0], "of": self.recall[1]},
            "splits": {name: self._of_split(place) for place, name in enumerate(SPLITS)},
            "twins": {kind: self._of_kind(twins) for kind, twins in self.twins.items()},
            "images": {kind: self._of_images(twins) for kind, twins in self.images.items()},
            "pairs": list(self.pairs()),
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return :meth:`pairs` as a data frame."""
        import pandas as pd

        return pd.DataFrame(list(self.pairs()))

    def pairs(self) -> Iterator[dict[str, Any]]:
        """Yield each example that has a twin in train or before it, beside the closest; conflicts with train first."""
        kind = np.full(len(self.ids), "", object)
        twin, similarity = np.full(len(self.ids), -1), np.zeros(len(self.ids))
        for name, twins in self.twins.items():  # a twin in train by a wider meaning comes before one elsewhere
            new = (twins.twin >= 0) & ((twin < 0) | ((self.split[twin] > 0) & (self.split[twins.twin] == 0)))
            kind[new], twin[new], similarity[new] = name, twins.twin[new], twins.similarity[new]
        label = np.array([label or "" for label in self.labels], object)
        found = np.flatnonzero(twin >= 0)
        conflict, crosses = label[found] != label[twin[found]], self.split[found] > self.split[twin[found]]
        for place in found[np.lexsort([found, -similarity[found], ~crosses, ~conflict])].tolist():
            of_twin = {f"twin_{name}": value for name, value in self._example(int(twin[place])).items()}
            yield {
                "kind": kind[place],
                "similarity": round(float(similarity[place]), 4),
                **self._example(place),
                **of_twin,
            }

    @property
    def answer(self) -> str:
        """How many val and test examples have a twin in train, in a sentence."""
        near, parts = self.twins["near"], []
        for place, name in enumerate(SPLITS[1:], start=1):
            here = self.split == place
            if count := int((here & near.in_train).sum()):
                same = int((here & self.twins["normalized"].in_train).sum())
                other = int((here & near.in_train & ~near.agrees).sum())
                label = f", {other:,} with another label" if other else ""
                parts.append(f"{count:,} of {here.sum():,} {name} examples ({same:,} the same but for case{label})")
        return f"In train stand as well, at least nearly: {'; '.join(parts)}." if parts else "No twin crosses splits."

    def document(self, pairs: int = _ON_PAGE) -> Document:
        """Return the audit as a document.

        Args:
            pairs: How many pairs are shown on a page.
        """
        sections = [
            Section("Splits", self._notes(), self._split_table()),
            Section("Val and test examples with a twin in train", self._meanings(), self._leak_table()),
            Section("Pairs of twins", table=_pair_table(self.twins)),
        ]
        if self.images:
            found = {
                kind: self._of_images(twins)["examples_with_image_in_train"] for kind, twins in self.images.items()
            }
            notes = [f"{kind}: {_listed(counts)} examples have an image in train" for kind, counts in found.items()]
            sections.append(Section("Pairs of equal and similar images", notes, _pair_table(self.images)))
        shown = list(self.pairs())
        title = f"Examples beside their twins, {min(len(shown), pairs):,} of {len(shown):,}"
        sections += [
            Section(title, table=self._side_by_side(shown[:pairs]), forms=("html",)),
            Section(f"Examples, {min(len(shown), _IN_TEXT)} of {len(shown):,}", lines=_brief(shown), forms=("text",)),
        ]
        facts = [("data", self.source), ("examples", f"{len(self.ids):,}"), ("near from", f"{self.threshold:g}")]
        return Document("Audit of the data", [one for one in sections if one.lines or one.table], facts, self.answer)

    def _example(self, place: int) -> dict[str, Any]:
        split = SPLITS[self.split[place]]
        return {"split": split, "id": self.ids[place], "label": self.labels[place], "text": self.texts[place][:_TEXT]}

    def _known_labels(self) -> list[str]:
        """The labels, if there are few enough to be classes."""
        labels = sorted({label for label in self.labels if label is not None})
        return labels if len(labels) <= MANY_LABELS else []

    def _of_split(self, split: int) -> dict[str, Any]:
        here = np.flatnonzero(self.split == split).tolist()
        texts = [self.texts[place] for place in here]
        length = [len(text) for text in texts] or [0]
        counts = Counter(self.labels[place] for place in here)
        return {
            "examples": len(here),
            "empty": sum(not text.strip() for text in texts),
            "median_letters": median(length),
            "longest_letters": max(length),
            "labels": {label: counts[label] for label in self._known_labels()},
            "tokens": {
                name: by_split[SPLITS[split]] for name, by_split in self.tokens.items() if SPLITS[split] in by_split
            },
        }

    def _of_kind(self, twins: Twins) -> dict[str, Any]:
        label = np.array(self.labels, object)
        found: dict[str, Any] = {"pairs": _pairs(twins)}
        for place, name in enumerate(SPLITS[1:], start=1):
            here = self.split == place
            by_label = {one: _counts(twins, here & (label == one)) for one in self._known_labels()}
            found[name] = {**_counts(twins, here), "by_label": by_label}
        return found

    def _of_images(self, twins: Twins) -> dict[str, Any]:
        """Return the pairs of images, and how many val and test examples have an image that is in train."""
        seen = np.zeros(len(self.ids), bool)
        np.logical_or.at(seen, self.image_of, twins.in_train)
        counts = {name: int((seen & (self.split == place)).sum()) for place, name in enumerate(SPLITS) if place}
        return {"pairs": _pairs(twins), "examples_with_image_in_train": counts}

    def _notes(self) -> list[str]:
        table = np.array([list(self._of_split(place)["labels"].values()) for place in range(len(SPLITS))])
        table = table[table.sum(axis=1) > 0]
        if min(table.shape) < 2:
            return []
        p = stats.chi2_contingency(table).pvalue
        differ = "differ" if p < 0.05 else "do not differ significantly"
        return [f"The shares of labels {differ} between splits (chi-squared test, p = {p:.2g})."]

    def _meanings(self) -> list[str]:
        meanings = {**_MEANING, **(_WITH_IMAGES if self.images else {})}
        sentences = [f"{kind}: {meaning.format(threshold=self.threshold)}" for kind, meaning in meanings.items()]
        if self.images:
            sentences[0] += " and images"
        if self.recall is not None:
            found, there = self.recall
            sentences[-1] += f"; of {there:,} such pairs of sampled texts, MinHash found {found:,}"
        return sentences

    def _split_table(self) -> Table:
        found = {name: self._of_split(place) for place, name in enumerate(SPLITS)}
        found = {name: one for name, one in found.items() if one["examples"]}
        labels = self._known_labels()
        head = ["split", "examples", "empty", "median letters", "longest", *self.tokens, *labels]
        rows = [
            [
                name,
                *(f"{one[key]:,.0f}" for key in ("examples", "empty", "median_letters", "longest_letters")),
                *(f"{one['tokens'].get(count, 0):,}" for count in self.tokens),
                *(f"{one['labels'][label]:,} ({one['labels'][label] / one['examples']:.1%})" for label in labels),
            ]
            for name, one in found.items()
        ]
        return Table(head, rows, frozenset(range(1, len(head))))

    def _leak_table(self) -> Table:
        rows = []
        for kind, twins in self.twins.items():
            for name, found in list(self._of_kind(twins).items())[1:]:
                labels = found["by_label"] if len(found["by_label"]) > 1 else {}
                for label, one in {"all": found, **labels}.items():
                    if one["examples"]:
                        share = f"{one['twins'] / one['examples']:.1%}"
                        counts = [f"{one[key]:,}" for key in ("examples", "twins", "agree", "conflict")]
                        rows.append([kind, name, label, *counts[:2], share, *counts[2:]])
        head = ["kind", "split", "label", "examples", "with a twin", "share", "same label", "another label"]
        return Table(head, rows, frozenset(range(3, 8)))

    def _side_by_side(self, pairs: Sequence[Mapping[str, Any]]) -> Table | None:
        if not pairs:
            return None
        head = [
            "",
            "kind",
            "similarity",
            "split",
            "example",
            "label",
            "text",
            "twin in",
            "twin",
            "its label",
            "its text",
        ]
        keys = ["split", "id", "label", "text", "twin_split", "twin_id", "twin_label", "twin_text"]
        rows = [
            [str(number), one["kind"], f"{one['similarity']:.2f}", *(_cut(one[key]) for key in keys)]
            for number, one in enumerate(pairs, start=1)
        ]
        details = [
            Section("", table=Table([f"{one['split']} {one['id']}", f"{one['twin_split']} {one['twin_id']}"],
                                    [[one["text"], one["twin_text"]]]))
            for one in pairs
        ]  # fmt: skip
        return Table(head, rows, frozenset({2}), details=details)


def _counts(twins: Twins, here: np.ndarray) -> dict[str, int]:
    found = here & twins.in_train
    agree = int((found & twins.agrees).sum())
    return {
        "examples": int(here.sum()),
        "twins": int(found.sum()),
        "agree": agree,
        "conflict": int(found.sum()) - agree,
    }


def _pairs(twins: Twins) -> dict[str, int]:
    places = [(one, other) for one in range(len(SPLITS)) for other in range(one, len(SPLITS))]
    return {f"{SPLITS[one]}-{SPLITS[other]}": int(twins.pairs[one, other]) for one, other in places}


def _pair_table(kinds: Mapping[str, Twins]) -> Table:
    found = {kind: _pairs(twins) for kind, twins in kinds.items()}
    head = ["kind", *next(iter(found.values()))]
    rows = [[kind, *(f"{count:,}" for count in counts.values())] for kind, counts in found.items()]
    return Table(head, rows, frozenset(range(1, len(head))))


def _brief(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for one in pairs[:_IN_TEXT]:
        lines.append(f"{one['kind']} {one['similarity']:.2f}")
        for side in ("", "twin_"):
            label = "" if one[f"{side}label"] is None else f" {_cut(one[f'{side}label'], 20)}"
            lines.append(f"  {one[f'{side}split']} {one[f'{side}id']}{label}: {_cut(one[f'{side}text'])}")
    return lines


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _cut(text: str | None, limit: int = _BRIEF) -> str:
    flat = " ".join((text or "").split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"
