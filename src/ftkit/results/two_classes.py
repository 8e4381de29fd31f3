"""Which two classes the files are about, and which one is positive."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.classes import FREQUENT, Classes, counted, no_positive, unknown_label
from ftkit.results.layout import score_parts
from ftkit.results.pairs import is_paired, opposite, positive_of
from ftkit.results.scan import NotBinaryError, Scan
from ftkit.results.several_classes import SLIPS, usual_share, why_no_classes


class UnknownPositiveError(InputError):
    """Nothing says which of the most frequent labels is the positive class."""

    def __init__(self, names: Sequence[str], path: Path) -> None:
        fix = f"give {' or '.join(f'--positive {name}' for name in names)}"
        super().__init__("which class is the positive one?", file=path, field="positive", got=", ".join(names), fix=fix)
        self.names = names


def resolve_classes(scans: Sequence[Scan], positive: str | None, normalize_labels: bool) -> Classes:
    """Find the two classes that the labels of all files hold.

    The positive one, if not given, is the one that the score columns name, else the usual one of the pair, such as
    ``yes``, ``spam``, ``true``, ``1`` or ``positive``.

    Raises:
        NotBinaryError: Nothing says which class is positive, and the labels do not look like yes and no.
        InputError: There are more than two labels, or it is not clear which one is positive.
    """
    clean: Callable[[str], str] = normalize if normalize_labels else str
    totals, answers = counted(scans, clean)
    if normalize_labels:
        _check_apart(scans, totals)
    predicted = {clean(text) for one in scans for text in one.predictions}
    given = positive is not None or any(one.score_name for one in scans)
    if not given:
        _check_binary(scans[0].path, totals, answers, predicted)
    positive = clean(positive) if positive is not None else _default_positive(scans, totals, predicted, clean)
    others = [label for label, _ in totals.most_common() if label != positive]
    others.sort(key=lambda label: positive_of(positive, label) is None)  # its usual partner first
    # Only negatives may be labelled, if the name is surely that of the other class.
    alone = len(others) == 1 and (positive_of(positive, others[0]) is not None or positive in predicted)
    if positive not in totals and not alone:
        raise no_positive(scans[0].path, positive, others)
    paired = bool(others) and positive_of(positive, others[0]) is not None
    if not paired and (rival := _partner(positive, predicted)) is not None:
        # The model answers with it, so it is the other class, even if no label says so.
        others = [rival, *(label for label in others if label != rival)]
    if len(others) > 1:
        # The rarer label is the likely slip of the pen.
        more = (
            "" if given else "; a third class is one that comes at least twice and is answered, or has a score column"
        )
        raise unknown_label(scans, clean, {positive, others[0]}, more=more)
    return Classes(positive, others[0] if others else _unseen_negative(positive, predicted), normalize_labels)


def _check_apart(scans: Sequence[Scan], totals: Counter[str]) -> None:
    """Refuse to make one class of two that the file tells apart, such as C and c."""
    written = sorted({text for one in scans for text in one.labels})
    if len(totals) == 1 and len(written) > 1 and not is_paired(written[0]):
        problem = f"all labels are one class when spelling is ignored: {', '.join(map(repr, written[:FREQUENT]))}"
        raise InputError(problem, file=scans[0].path, field="label", fix="leave --normalize-labels out")


def _check_binary(path: Path, totals: Counter[str], answers: Counter[str], predicted: set[str]) -> None:
    """Tell a yes/no question, possibly with slips of the pen, from free texts and from many classes."""
    # Two names that answers and labels share are two classes, whatever they are called.
    shared = len(totals) <= 2 and predicted <= set(totals)
    if shared or usual_share(totals) >= 1 - SLIPS or (len(totals) == 1 and _partner(next(iter(totals)), predicted)):
        return
    labels = [label for label, _ in totals.most_common(3)]
    many = "labels of one kind" if len(totals) == 1 else f"{len(totals)} different labels"
    why = why_no_classes(totals, answers, totals.total()) if len(totals) > 2 else ""
    reason = f", which are not taken for classes: {why}" if why else ""
    raise NotBinaryError(f"{many}, such as {', '.join(map(repr, labels))}{reason}", path)


def _default_positive(
    scans: Sequence[Scan], totals: Counter[str], predicted: set[str], clean: Callable[[str], str]
) -> str:
    named = {clean(score_parts(one.score_name)[1]) for one in scans if one.score_name}
    if len(named) == 1:
        return named.pop()
    labels = [label for label, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))]
    for one, two in combinations(labels[:FREQUENT], 2):
        if (usual := positive_of(one, two)) is not None:
            return usual
    # One class alone may be labelled.
    other = _partner(labels[0], predicted) or (opposite(labels[0]) if is_paired(labels[0]) else None)
    if other is not None and (usual := positive_of(labels[0], other)) is not None:
        return usual
    raise UnknownPositiveError(sorted(labels[:FREQUENT]), scans[0].path)


def _partner(name: str, predicted: set[str]) -> str | None:
    """Return the other class of a usual pair that the model answers with; None if it answers with none."""
    paired = sorted(text for text in predicted if positive_of(name, text) is not None)
    usual = opposite(name)
    return usual if usual in paired else next(iter(paired), None)


def _unseen_negative(positive: str, predicted: set[str]) -> str:
    """Return a name for the other class when every label is positive."""
    rest = predicted - {positive}
    return opposite(positive) or (rest.pop() if len(rest) == 1 else f"not {positive}")
