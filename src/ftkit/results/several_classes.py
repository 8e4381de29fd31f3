"""Which three and more classes the files are about, if they are about classes and not about free texts."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.classes import FREQUENT, ClassNames, counted, no_positive, unknown_label
from ftkit.results.metrics import UNPARSED
from ftkit.results.pairs import is_paired, positive_of
from ftkit.results.scan import MAX_LABELS, Scan

SLIPS = 0.1  # up to this share of other labels, a yes/no question has slips of the pen in it
_OFTEN = 5  # examples of a class, of several ones on average
_NUMBERS = 10  # more different ones are results, not classes
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def find_classes(scans: Sequence[Scan], normalize_labels: bool) -> ClassNames | None:
    """Return the classes of files that are about three and more; None of yes/no questions and of free texts.

    The classes are those of the score columns, in their order, if a file has several, and else the labels, sorted, if
    :func:`why_no_classes` has no objection.

    Raises:
        InputError: A label has no score column, or two files have score columns of different classes.
    """
    clean: Callable[[str], str] = normalize if normalize_labels else str
    totals, answers = counted(scans, clean)
    scored = [one for one in scans if one.score_names]
    if not any(len(one.score_names) > 1 for one in scored):
        several = not scored and not why_no_classes(totals, answers, sum(len(one.label) for one in scans))
        return ClassNames(tuple(sorted(totals, key=in_order)), normalize_labels) if several else None
    first = max(scored, key=lambda one: len(one.score_names) > 1)
    names = [*map(clean, first.scored_classes)]
    for one in scored:
        own = {*map(clean, one.scored_classes)}
        if odd := sorted(own ^ set(names)) or [name for name in names if names.count(name) > 1]:
            problem, got = f"the score columns are not those of {first.path}", ", ".join(odd)
            raise InputError(problem, file=one.path, field="header", got=got, fix="give each class one column")
    if totals.keys() - set(names):
        raise unknown_label(scans, clean, set(names), "the label has no score column")
    return ClassNames(tuple(names), normalize_labels)


def why_no_classes(labels: Mapping[str, int], answers: Mapping[str, int], n: int) -> str:
    """Return why labels and answers are not three and more classes, in words; nothing if they are.

    They are classes if there are 3 to 50 different labels, also when spelling is ignored; each comes at least twice and
    all of them five times on average; at least half of the answers, however spelled, is one of them; and they look
    neither like the results of sums (more than ten different numbers) nor like yes and no with slips of the pen (a
    usual pair has nine of ten labels, and one of all is never answered).
    """
    spelled = set(map(normalize, labels))
    if not 3 <= len(labels) <= MAX_LABELS:
        return f"there are {len(labels)}"
    rare = min(sorted(labels), key=labels.__getitem__)
    if labels[rare] < 2:
        return f"{rare!r} comes once"
    if n < _OFTEN * len(labels):
        return f"each comes {n / len(labels):.1f} times on average"
    if len(spelled) < len(labels):
        return "some differ in spelling only"
    if len(labels) > _NUMBERS and all(map(_is_number, labels)):
        return "all are numbers"
    if 2 * sum(count for text, count in answers.items() if normalize(text) in spelled) < n:
        return "most answers are none of them"
    if usual_share(labels) >= 1 - SLIPS and not all(map(answers.get, labels)):
        return "most are a usual pair"
    return ""


def against_rest(one: Scan, classes: ClassNames, positive: str) -> Scan:
    """Return a file of several classes as that of a yes/no question: whether the class is ``positive``.

    Raises:
        InputError: It is none of the classes.
    """
    place = classes.code(positive)
    if place == UNPARSED:
        raise no_positive(one.path, positive, classes.names)
    rest = f"not {positive}"
    labels, predictions = (
        [text if classes.code(text) in (UNPARSED, place) else rest for text in texts]
        for texts in (one.labels, one.predictions)
    )
    others = ", ".join(name for name in classes.names if name != classes.names[place])
    notes = [*one.common["notes"], f"{rest}: {others}"]
    return replace(one, labels=labels, predictions=predictions, common=one.common | {"notes": notes})


def usual_share(totals: Mapping[str, int]) -> float:
    """Return the share of labels that are one usual pair of classes, however they are spelled."""
    found: Counter[str] = Counter()
    for label, count in totals.items():
        found[normalize(label)] += count
    names = [name for name, _ in found.most_common(FREQUENT)]
    pairs = [found[one] + found[two] for one, two in combinations(names, 2) if positive_of(one, two)]
    alone = [found[name] for name in names if is_paired(name)]
    return max([*pairs, *alone], default=0) / found.total()


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(normalize(text)) is not None


def in_order(text: str) -> tuple[bool, float, str]:
    """Return a key that sorts classes: numbers by their value, then words."""
    return (False, float(normalize(text)), text) if _is_number(text) else (True, 0.0, text)
