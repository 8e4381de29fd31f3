"""What two models answer differently, example by example: right to wrong, and wrong to right."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ftkit.results.comparison import shared_examples
from ftkit.results.known_examples import KnownExamples
from ftkit.results.prediction_file import ROW, PredictionFile
from ftkit.results.scan import MAX_SLICES, AnswerFile
from ftkit.results.tsv import tsv_line

_WORDS = {-2: "right to wrong", 2: "wrong to right", -1: "worse", 1: "better"}  # 1 of pairs, of which one is a tie


@dataclass(frozen=True)
class Changes:
    """The examples on which only one of two models is right."""

    after: AnswerFile  # the answers of the model
    before: AnswerFile  # those of the reference
    known: KnownExamples | None = None  # what is known of the examples
    labeled: bool = True  # whether after and before leave out the examples without a label

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places of the changed examples in ``after`` and ``before``, and the change: -2 right to wrong, 2 the reverse.

        Those that were right come first, in the order of the file.
        """
        mine, theirs = shared_examples(self.after, self.before)
        gain = (2 * (self.after.correct[mine].astype(np.int64) - self.before.correct[theirs])) // self.after.answers
        order = np.flatnonzero(gain)
        order = order[np.argsort(gain[order], kind="stable")]
        return mine[order], theirs[order], gain[order]

    def rows(self, limit: int | None = None) -> list[dict[str, str | None]]:
        """Return a row for each change, at most so many: id, change, label, both answers, other columns, text."""
        kept = _balanced(self.places[2], limit)
        mine, theirs, gain = (part[kept] for part in self.places)
        after, before = (
            PredictionFile(answers.path).examples(places.tolist(), self.labeled)
            for answers, places in ((self.after, mine), (self.before, theirs))
        )
        texts = {} if self.known is None else self.known.text_of
        return [
            {
                "id": new["id"], "change": _WORDS[change], "label": new["label"], "before": old["prediction"],
                "after": new["prediction"], **{name: cell for name, cell in new.items() if name not in _OWN},
                **({"text": texts.get(new["id"] or "")} if texts else {}),
            }
            for new, old, change in zip(after, before, gain.tolist(), strict=True)
        ]  # fmt: skip


_OWN = ("id", "label", "prediction", ROW)
_NO_GROUPS = ("id", "change", "before", "after", "image", "text")


def _balanced(gain: np.ndarray, limit: int | None) -> np.ndarray:
    """Return places of at most so many changes, in order, from both directions alike."""
    if limit is None or len(gain) <= limit:
        return np.arange(len(gain))
    lost, gained = np.flatnonzero(gain < 0), np.flatnonzero(gain > 0)
    lost = lost[: max(limit // 2, limit - len(gained))]
    return np.concatenate([lost, gained[: limit - len(lost)]])


def by_group(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int, int]]:
    """Count the changes by label and by each other column of few values: column, value, to wrong, to right."""
    names = [name for name in rows[0] if name not in _NO_GROUPS] if rows else []
    found = []
    for name in names:
        counts = Counter((row.get(name) or "", row["change"]) for row in rows)
        values = sorted({value for value, _ in counts})
        if len(values) <= min(MAX_SLICES, max(1, len(rows) // 2)):
            for value in values:
                lost, gained = (sum(counts[value, _WORDS[way * size]] for size in (1, 2)) for way in (-1, 1))
                found.append((name, value, lost, gained))
    return found


def write_rows(file: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as plain TSV, with the columns of all of them."""
    listed = list(rows)
    names = list(dict.fromkeys(name for row in listed for name in row))
    for row in ({name: name for name in names}, *listed):
        file.write(tsv_line(None if row.get(name) is None else str(row[name]) for name in names))
