"""Plant edited copies of messages in a test split, some with another label, and count how many of them the audit finds.

Beside them stand texts put together of two messages, which are no duplicates of either::

    python benchmarks/bench_duplicates.py --messages SMSSpamCollection
"""

import argparse
import random
import re
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ftkit
from contest import write_record
from ftkit.classifier.messages import read_messages
from ftkit.classifier.records import Messages, messages_of
from ftkit.examples.duplicates import normalized

LEAST, THRESHOLDS, SEED = 0.3, (0.4, 0.5, 0.6, 0.7, 0.8), 123
EACH = 200  # copies with each edit, and texts of two messages
LONG = 80  # letters
OTHER = {"ham": "spam", "spam": "ham"}
Record = dict[str, str]


def _exchanged(text: str, rng: random.Random) -> str:
    words = text.split()
    words[rng.randrange(len(words))] = "really"
    return " ".join(words)


def _swapped(text: str, rng: random.Random) -> str:
    words = text.split()
    at = rng.randrange(max(1, len(words) - 1))
    return " ".join([*words[:at], *words[at : at + 2][::-1], *words[at + 2 :]])


def _left_out(text: str, rng: random.Random) -> str:
    words = text.split()
    del words[rng.randrange(len(words))]
    return " ".join(words)


def _cut(text: str, rng: random.Random) -> str:
    words = text.split()
    return " ".join(words[: -max(1, len(words) // 4)])


EDITS: dict[str, Callable[[str, random.Random], str]] = {
    "none": lambda text, rng: text,
    "case_and_spaces": lambda text, rng: f" {text.swapcase()}".replace(" ", "  "),
    "punctuation": lambda text, rng: re.sub(r"[^\w\s]", "", text) + "!!",
    "digits": lambda text, rng: re.sub(r"\d", lambda _: str(rng.randrange(10)), text),
    "word_exchanged": _exchanged,
    "words_swapped": _swapped,
    "word_left_out": _left_out,
    "last_quarter_cut": _cut,
}


def lone(messages: Messages) -> list[Record]:
    """The messages that have no duplicate, nor a text that is a little similar."""
    every = [
        {"id": one, "label": label, "text": text}
        for one, label, text in zip(messages.ids, messages.labels, messages.texts, strict=True)
    ]
    pairs = ftkit.audit(train=every, threshold=LEAST).pairs()
    similar = {pair[key] for pair in pairs for key in ("id", "duplicate_id")}
    return [one for one in every if one["id"] not in similar and len(one["text"].split()) > 1]


def planted(train: Sequence[Record], each: int = EACH, seed: int = SEED) -> tuple[list[Record], list[Record]]:
    """Copies with each edit, every third one with the other label, and texts of one's first half and another's second.

    Their ids name the edit and the original. An edit is made of messages that it changes.
    """
    rng, copies, halves = random.Random(seed), [], []
    for name, edit in EDITS.items():
        edited = [(one, edit(one["text"], rng)) for one in rng.sample(train, len(train))]
        same_text = name in ("none", "case_and_spaces")
        kept = [(one, text) for one, text in edited if (normalized(text) == normalized(one["text"])) == same_text]
        for number, (one, text) in enumerate(kept[:each]):
            label = one["label"] if number % 3 else OTHER[one["label"]]
            copies.append({"id": f"{name} {one['id']}", "label": label, "text": text})
    for number in range(each):
        one, other = rng.sample(train, 2)
        first, second = one["text"].split(), other["text"].split()
        text = " ".join([*first[: len(first) // 2], *second[len(second) // 2 :]])
        halves.append({"id": f"two {number}", "label": one["label"], "text": text})
    return copies, halves


def figures(
    train: Sequence[Record], copies: Sequence[Record], others: Sequence[Record], threshold: float
) -> dict[str, Any]:
    """Recall of the copies, by edit and of long texts, and the precision of what is found; the same of conflicts."""
    pairs = {
        pair["id"]: pair
        for pair in ftkit.audit(train=train, test=[*copies, *others], threshold=threshold).pairs()
        if (pair["split"], pair["duplicate_split"]) == ("test", "train")
    }
    original, labels = {one["id"]: one for one in train}, {one["id"]: one["label"] for one in copies}
    long = {one["id"] for one in copies if len(original[_source(one)]["text"]) >= LONG}
    edits = {name: {one["id"] for one in copies if one["id"].split()[0] == name} for name in EDITS}
    conflicts = {one["id"] for one in copies if one["label"] != original[_source(one)]["label"]}
    told = {name for name, pair in pairs.items() if pair["label"] != pair["duplicate_label"]}
    return {
        "threshold": threshold,
        "recall": _share(pairs.keys() & labels.keys(), labels),
        "recall_of_long_texts": _share(pairs.keys() & long, long),
        "precision": _share(pairs.keys() & labels.keys(), pairs),
        "recall_by_edit": {name: _share(pairs.keys() & ids, ids) for name, ids in edits.items()},
        "recall_by_edit_of_long_texts": {
            name: _share(pairs.keys() & ids & long, ids & long) for name, ids in edits.items()
        },
        "others_found": len(pairs.keys() - labels.keys()),
        "conflicts_recall": _share(told & conflicts, conflicts),
        "conflicts_precision": _share(told & conflicts, told),
    }


def _source(copy: Record) -> str:
    return copy["id"].split()[1]


def _share(part: Collection[str], whole: Collection[str]) -> float | None:
    return round(len(part) / len(whole), 4) if whole else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    messages = lone(messages_of(read_messages(given.messages, "published")))
    train, rest = messages[::2], messages[1::2]
    copies, halves = planted(train)
    record: dict[str, Any] = {
        "messages": len(messages), "train": len(train), "others": len(rest), "copies": len(copies),
        "halves": len(halves), "seed": SEED,
        "thresholds": [figures(train, copies, [*halves, *rest], threshold) for threshold in THRESHOLDS],
    }  # fmt: skip
    write_record(given.results / f"{datetime.now(UTC):%Y-%m-%d}-duplicates.json", record)


if __name__ == "__main__":
    main()
