"""Which two classes the files are about, and which one is positive."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.layout import SCORE_NAME
from ftkit.results.metrics import UNPARSED
from ftkit.results.pairs import MEANING, is_paired, opposite, positive_of
from ftkit.results.predictions import PredictionFile
from ftkit.results.scan import NotBinaryError, Scan

_SLIPS = 0.1  # up to this share of other labels, a yes/no question has slips of the pen in it
_FREQUENT = 5  # labels among which the two classes are looked for


@dataclass(frozen=True)
class Classes:
    """The two classes by name.

    Attributes:
        positive: The class whose recall, precision and F-measure are reported.
        negative: The other one.
        normalize: Whether texts are compared as :func:`ftkit.normalize.normalize` spells them.
    """

    positive: str
    negative: str
    normalize: bool = False

    def code(self, text: str) -> int:
        """Return 1 for the positive class, 0 for the negative one, -1 for neither.

        Example:
            >>> Classes("yes", "no").code("Yes."), Classes("yes", "no", normalize=True).code("Yes.")
            (-1, 1)
        """
        text = normalize(text) if self.normalize else text
        return {self.positive: 1, self.negative: 0}.get(text, UNPARSED)

    def answer_code(self, text: str) -> int:
        """Return the code of an answer, which may also say the class in another word: true or 1 for yes.

        Labels are never read so, since a file may tell 1 from yes. Without ``normalize`` it is :meth:`code`.

        Example:
            >>> Classes("yes", "no", normalize=True).answer_code("True"), Classes("yes", "no").answer_code("True")
            (1, -1)
        """
        code = self.code(text)
        if code != UNPARSED or not self.normalize:
            return code
        meant = MEANING.get(normalize(text))
        said = [MEANING.get(self.negative), MEANING.get(self.positive)]
        return said.index(meant) if meant is not None and set(said) == {0, 1} else UNPARSED

    def normalized(self) -> Classes | None:
        """Return the same classes without regard to spelling; None if that leaves one."""
        positive, negative = normalize(self.positive), normalize(self.negative)
        return None if positive == negative else replace(self, positive=positive, negative=negative, normalize=True)


def score_parts(name: str) -> tuple[str, str]:
    """Return the kind and the class that a score column is named after.

    Example:
        >>> score_parts("log_odds:yes")
        ('log_odds', 'yes')
    """
    match = SCORE_NAME.fullmatch(name)
    assert match is not None
    return match[1], match[2]


def resolve_classes(scans: Sequence[Scan], positive: str | None = None, normalize_labels: bool = False) -> Classes:
    """Find the two classes that the labels of all files hold.

    Args:
        scans: The files that are reported together.
        positive: The positive class; by default the one that the score columns name, else the usual one of the pair,
            such as ``yes``, ``spam``, ``true``, ``1`` or ``positive``.
        normalize_labels: Whether texts are compared as :func:`ftkit.normalize.normalize` spells them.

    Raises:
        NotBinaryError: Nothing says which class is positive, and the labels do not look like yes and no.
        InputError: There are more than two labels, or it is not clear which one is positive.
    """
    clean: Callable[[str], str] = normalize if normalize_labels else str
    totals: Counter[str] = Counter()
    for one in scans:
        for text, count in zip(one.labels, np.bincount(one.label).tolist(), strict=True):
            totals[clean(text)] += count
    if normalize_labels:
        _check_apart(scans, totals)
    predicted = {clean(text) for one in scans for text in one.predictions}
    if positive is None and not any(one.score_name for one in scans):
        _check_binary(scans[0].path, totals, predicted)
    positive = clean(positive) if positive is not None else _default_positive(scans, totals, predicted, clean)
    others = [label for label, _ in totals.most_common() if label != positive]
    others.sort(key=lambda label: positive_of(positive, label) is None)  # its usual partner first
    # Only negatives may be labelled, if the name is surely that of the other class.
    alone = len(others) == 1 and (positive_of(positive, others[0]) is not None or positive in predicted)
    if positive not in totals and not alone:
        problem = "no label is the positive class"
        fix = f"use {' or '.join(others[:_FREQUENT])}{_or_normalize(positive, others)}"
        raise InputError(problem, file=scans[0].path, field="positive", got=positive, fix=fix)
    paired = bool(others) and positive_of(positive, others[0]) is not None
    if not paired and (rival := _partner(positive, predicted)) is not None:
        # The model answers with it, so it is the other class, even if no label says so.
        others = [rival, *(label for label in others if label != rival)]
    if len(others) > 1:
        # The rarer label is the likely slip of the pen.
        raise _unknown_label(scans, clean, {positive, others[0]})
    return Classes(positive, others[0] if others else _unseen_negative(positive, predicted), normalize_labels)


def merged_labels(one: Scan) -> list[str]:
    """Say which labels of a file are read as one class when spelling is ignored."""
    spellings = defaultdict(list)
    for text in one.labels:
        spellings[normalize(text)].append(text)
    return [
        f"the labels {', '.join(map(repr, sorted(texts)))} are read as one class"
        for texts in spellings.values()
        if len(texts) > 1
    ]


def _check_apart(scans: Sequence[Scan], totals: Counter[str]) -> None:
    """Refuse to make one class of two that the file tells apart, such as C and c."""
    written = sorted({text for one in scans for text in one.labels})
    if len(totals) == 1 and len(written) > 1 and not is_paired(written[0]):
        problem = f"all labels are one class when spelling is ignored: {', '.join(map(repr, written[:_FREQUENT]))}"
        raise InputError(problem, file=scans[0].path, field="label", fix="leave --normalize-labels out")


def _check_binary(path: Path, totals: Counter[str], predicted: set[str]) -> None:
    """Tell a yes/no question, possibly with slips of the pen, from free texts and from many classes."""
    # Two names that answers and labels share are two classes, whatever they are called.
    shared = len(totals) <= 2 and predicted <= set(totals)
    if shared or _usual_share(totals) >= 1 - _SLIPS or (len(totals) == 1 and _partner(next(iter(totals)), predicted)):
        return
    labels = [label for label, _ in totals.most_common(3)]
    many = "labels of one kind" if len(totals) == 1 else f"{len(totals)} different labels"
    raise NotBinaryError(f"{many}, such as {', '.join(map(repr, labels))}", path)


def _usual_share(totals: Counter[str]) -> float:
    """Return the share of labels that are one usual pair of classes, however they are spelled."""
    found: Counter[str] = Counter()
    for label, count in totals.items():
        found[normalize(label)] += count
    names = [name for name, _ in found.most_common(_FREQUENT)]
    pairs = [found[one] + found[two] for one, two in combinations(names, 2) if positive_of(one, two)]
    alone = [found[name] for name in names if is_paired(name)]
    return max([*pairs, *alone], default=0) / found.total()


def _default_positive(
    scans: Sequence[Scan], totals: Counter[str], predicted: set[str], clean: Callable[[str], str]
) -> str:
    named = {clean(score_parts(one.score_name)[1]) for one in scans if one.score_name}
    if len(named) == 1:
        return named.pop()
    labels = [label for label, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))]
    for one, two in combinations(labels[:_FREQUENT], 2):
        if (usual := positive_of(one, two)) is not None:
            return usual
    # One class alone may be labelled.
    other = _partner(labels[0], predicted) or (opposite(labels[0]) if is_paired(labels[0]) else None)
    if other is not None and (usual := positive_of(labels[0], other)) is not None:
        return usual
    problem, names = "which class is the positive one?", sorted(labels[:_FREQUENT])
    fix = f"give {' or '.join(f'--positive {name}' for name in names)}"
    raise InputError(problem, file=scans[0].path, field="positive", got=", ".join(names), fix=fix)


def _partner(name: str, predicted: set[str]) -> str | None:
    """Return the other class of a usual pair that the model answers with; None if it answers with none."""
    paired = sorted(text for text in predicted if positive_of(name, text) is not None)
    usual = opposite(name)
    return usual if usual in paired else next(iter(paired), None)


def _unseen_negative(positive: str, predicted: set[str]) -> str:
    """Return a name for the other class when every label is positive."""
    rest = predicted - {positive}
    return opposite(positive) or (rest.pop() if len(rest) == 1 else f"not {positive}")


def _unknown_label(scans: Sequence[Scan], clean: Callable[[str], str], allowed: set[str]) -> InputError:
    unknown = ((one, code, text) for one in scans for code, text in enumerate(one.labels) if clean(text) not in allowed)
    one, code, text = next(unknown)
    file = PredictionFile(one.path)
    ((_, row),) = file.examples([int(np.argmax(one.label == code))])
    fix = f"use {' or '.join(sorted(allowed))}{_or_normalize(text, allowed)}"
    return file.error(row, "unknown label", field="label", got=text, fix=fix)


def _or_normalize(text: str, allowed: Iterable[str]) -> str:
    """Return what to add to advice where a text is right but for its spelling."""
    helps = normalize(text) in map(normalize, allowed)
    return ", or give --normalize-labels to ignore how labels are spelled" if helps else ""
