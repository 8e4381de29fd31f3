"""Which two classes the files are about, and which one is positive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ftkit.errors import InputError
from ftkit.evaluation.figures import UNPARSED
from ftkit.evaluation.layout import SCORE_NAME, normalized, opposite
from ftkit.evaluation.scan import NotBinaryError, Scan

_USUAL_POSITIVES = ("yes", "Yes", "YES", "spam", "true", "True", "1", "positive")
_SLIPS = 0.1  # up to this share of other labels, a yes/no question has slips of the pen in it


@dataclass(frozen=True)
class Classes:
    """The two classes by name.

    Attributes:
        positive: The class whose recall, precision and F-measure are reported.
        negative: The other one.
        normalize: Whether case, outer blanks and a final full stop are ignored.
    """

    positive: str
    negative: str
    normalize: bool = False

    def code(self, text: str) -> int:
        """1 for the positive class, 0 for the negative one, -1 for neither.

        Example:
            >>> Classes("yes", "no").code("Yes."), Classes("yes", "no", normalize=True).code("Yes.")
            (-1, 1)
        """
        text = normalized(text) if self.normalize else text
        return {self.positive: 1, self.negative: 0}.get(text, UNPARSED)


def score_parts(name: str) -> tuple[str, str]:
    """The kind and the class that a score column is named after.

    Example:
        >>> score_parts("log_odds:yes")
        ('log_odds', 'yes')
    """
    match = SCORE_NAME.fullmatch(name)
    assert match is not None
    return match[1], match[2]


def resolve_classes(scans: Sequence[Scan], positive: str | None = None, normalize: bool = False) -> Classes:
    """Find the two classes that the labels of all files hold.

    Args:
        scans: The files that are reported together.
        positive: The positive class; by default the one that the score columns name, else ``yes``, ``spam``,
            ``true``, ``1`` or ``positive``.
        normalize: Whether case, outer blanks and a final full stop are ignored.

    Raises:
        NotBinaryError: Nothing says which class is positive, and the labels do not look like yes and no.
        InputError: There are more than two labels, or it is not clear which one is positive.
    """
    clean: Callable[[str], str] = normalized if normalize else str
    totals: Counter[str] = Counter()
    for one in scans:
        for text, count in zip(one.labels.texts, np.bincount(one.label).tolist(), strict=True):
            totals[clean(text)] += count
    predicted = {clean(text) for one in scans for text in one.predictions.texts}
    if positive is None and not any(one.layout.score_name for one in scans):
        _check_binary(scans[0].path, totals, predicted)
    positive = clean(positive) if positive is not None else _default_positive(scans, totals, clean)
    others = [label for label, _ in totals.most_common() if label != positive]
    # Only negatives may be labelled, if the name is surely that of the other class.
    alone = len(others) == 1 and (opposite(positive) == others[0] or positive in predicted)
    if positive not in totals and not alone:
        raise InputError(
            "no label is the positive class",
            file=scans[0].path,
            field="positive",
            got=positive,
            fix=f"use {' or '.join(others[:5])}",
        )
    rival = opposite(positive)
    if rival is not None and rival in predicted:
        # The model answers with it, so it is the other class, even if no label says so.
        others = [rival, *(label for label in others if label != rival)]
    if len(others) > 1:
        # The rarer label is the likely slip of the pen.
        raise _unknown_label(scans, clean, {positive, others[0]})
    return Classes(positive, others[0] if others else _unseen_negative(positive, predicted), normalize)


def _check_binary(path: Path, totals: Counter[str], predicted: set[str]) -> None:
    """Tell a yes/no question, possibly with slips of the pen, from free texts and from many classes."""
    usual = max(_covered(totals, positive) for positive in _USUAL_POSITIVES)
    # Two names that answers and labels share are two classes, whatever they are called.
    if usual >= 1 - _SLIPS or (len(totals) <= 2 and predicted <= set(totals)):
        return
    labels = [label for label, _ in totals.most_common(3)]
    many = "labels of one kind" if len(totals) == 1 else f"{len(totals)} different labels"
    raise NotBinaryError(f"{many}, such as {', '.join(map(repr, labels))}", path)


def _covered(totals: Counter[str], positive: str) -> float:
    """The share of labels that are a usual positive class or its opposite, but for case and blanks."""
    pair = {normalized(positive), normalized(opposite(positive) or "")}
    return sum(count for label, count in totals.items() if normalized(label) in pair) / totals.total()


def _default_positive(scans: Sequence[Scan], totals: Counter[str], clean: Callable[[str], str]) -> str:
    named = {clean(score_parts(one.layout.score_name)[1]) for one in scans if one.layout.score_name}
    usual = [name for name in _USUAL_POSITIVES if name in totals or opposite(name) in totals]
    if len(named) == 1:
        return named.pop()
    if usual:
        return usual[0]
    labels = sorted(totals)
    raise InputError(
        "which class is the positive one?",
        file=scans[0].path,
        field="positive",
        got=", ".join(labels[:5]),
        fix=f"give --positive {labels[0]}",
    )


def _unseen_negative(positive: str, predicted: set[str]) -> str:
    """A name for the other class when every label is positive."""
    rest = predicted - {positive}
    return opposite(positive) or (rest.pop() if len(rest) == 1 else f"not {positive}")


def _unknown_label(scans: Sequence[Scan], clean: Callable[[str], str], allowed: set[str]) -> InputError:
    unknown = (
        (one, text, line)
        for one in scans
        for text, line in zip(one.labels.texts, one.labels.lines, strict=True)
        if clean(text) not in allowed
    )
    one, text, line = next(unknown)
    return InputError(
        "unknown label",
        file=one.path,
        line=line,
        field="label",
        got=text,
        fix=f"use {' or '.join(sorted(allowed))}, or give --normalize_labels to ignore case and blanks",
    )
