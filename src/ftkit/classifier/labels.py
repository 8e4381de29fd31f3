"""The classes of labelled texts: found in the data or named by an option, and what is no single class of each text."""

import math
from collections import Counter
from collections.abc import Sequence

from ftkit.classifier.records import Messages, no_labels, several_labels
from ftkit.normalize import normalize
from ftkit.results.pairs import MEANING, positive_of

# YAML reads no, off and false as a boolean, 0 and 1.0 as numbers.
ClassName = str | bool | int | float
_SWITCHES = {**MEANING, "on": 1, "off": 0}
_MOST_NUMBERS, _MOST_FRACTIONS = 100, 20  # different numbers that may be classes, and where some are not whole
_SEPARATORS = "|;,"


def class_names(messages: Messages, named: Sequence[ClassName] | None, normalize_labels: bool) -> tuple[str, ...]:
    """Return the classes: those that are named, spelt as in the data, or else those of the data.

    Found ones are sorted, numbers by their value; of two that are a usual pair the positive one is last. With
    ``normalize_labels`` labels that differ only in spelling are one class, whose name is the first spelling.

    Raises:
        InputError: The labels are no classes: multi-label or regression; or two differ only in spelling.

    Example:
        >>> messages = Messages(["a", "b"], labels=["yes", "no"], texts=["Sure!", "Never."])
        >>> class_names(messages, None, False), class_names(messages, [False, True], False)
        (('no', 'yes'), ('no', 'yes'))
    """
    first: dict[str, int] = {}  # where each label is met first
    for place, label in enumerate(messages.labels):
        first.setdefault(normalize(label) if normalize_labels else label, place)
    found = {messages.labels[place]: place for place in first.values()}
    if named is not None:
        names = tuple(_as_found(name, found) for name in named)
    else:
        _refuse_several(messages, found)
        _refuse_numbers(messages, found)
        names = _sorted(found)
    spellings: dict[str, str] = {}
    for name in names:
        if (other := spellings.setdefault(normalize(name), name)) is not name:
            fix = "set normalize_labels: true" if named is None else "name each class once"
            problem = f"the classes {other!r} and {name!r} differ only in spelling"
            raise messages.error(found.get(name), problem, field="labels" if named else "label", fix=fix)
    return names


def codes_of(messages: Messages, names: Sequence[str], normalize_labels: bool, training: bool = False) -> list[int]:
    """Return the place of each label among the classes.

    Raises:
        InputError: A label is none of them, and the first such example is named; or these are training examples and a
            class has none.
    """
    known = {normalize(name) if normalize_labels else name: place for place, name in enumerate(names)}
    codes = [known.get(normalize(label) if normalize_labels else label, -1) for label in messages.labels]
    if -1 in codes:
        label, found = messages.labels[codes.index(-1)], list(dict.fromkeys(messages.labels))
        fix = f"use {_listed(names)}"
        if normalize(label) in map(normalize, names):
            fix += ", or set normalize_labels: true"
        elif found == ["-1"]:  # what data sets write where they keep the labels to themselves
            raise no_labels(messages.error)
        elif not training:
            fix += ", the classes of the train split; or give it examples of this one"
        elif {*codes} == {-1}:
            problem = f"the option names {_listed(names)}, and the data have {_listed(found)}"
            fix = "name the classes of the data in the option"
            raise messages.error(codes.index(-1), problem, field="labels", got=label, fix=fix)
        else:
            fix += ", the classes of the option labels; or name this one there"
        raise messages.error(codes.index(-1), "unknown label", field="label", got=label, fix=fix)
    present = sorted(set(codes)) if training else range(len(names))
    if len(present) == 1:
        problem = f"only one class: all {len(codes)} messages are labelled {names[present[0]]!r}"
        raise messages.error(None, problem, fix="give messages of two or more classes")
    if missing := [name for place, name in enumerate(names) if place not in present]:
        problem = f"no example of the class {_listed(missing)}"
        raise messages.error(None, problem, field="labels", fix="leave it out of labels, or give examples of it")
    return codes


def _listed(names: Sequence[str], most: int = 12) -> str:
    """Return names for a message: ``'ham' or 'spam'``."""
    shown = [repr(name) for name in names[:most]] + ["..."] * (len(names) > most)
    return " or ".join([", ".join(shown[:-1]), shown[-1]][len(shown) < 2 :])


def _as_found(name: ClassName, found: dict[str, int]) -> str:
    """Return the label that an option's value means."""
    if isinstance(name, bool):
        meant = [label for label in found if _SWITCHES.get(normalize(label)) == name]
        return meant[0] if meant else ("no", "yes")[name]
    text = str(name)
    if text in found or isinstance(name, str):
        return text
    return next((label for label in found if normalize(label) == normalize(text)), text)


def _sorted(found: dict[str, int]) -> tuple[str, ...]:
    numbers = [_number(label) for label in found]
    names = sorted(found) if None in numbers else [label for _, label in sorted(zip(numbers, found, strict=True))]
    if len(names) == 2 and positive_of(*names) == names[0]:
        names.reverse()
    return tuple(names)


def _refuse_several(messages: Messages, found: dict[str, int]) -> None:
    """Refuse labels such as ``a|b`` where ``a`` and ``b`` are labels or parts of others."""
    for separator in _SEPARATORS:
        parts = {label: {part.strip() for part in label.split(separator)} for label in found}
        labels = Counter(part for named in parts.values() for part in named)  # that have it
        for label, named in parts.items():
            if separator in label and all(labels[part] > 1 for part in named):
                raise several_labels(messages.error, found[label], label)


def _refuse_numbers(messages: Messages, found: dict[str, int]) -> None:
    """Refuse numbers that are no classes, and labels of which almost every example has its own."""
    numbers = [_number(label) for label in found]
    own = len(found) > 10 and 2 * len(found) > len(messages)
    fractions = any(number is not None and not number.is_integer() for number in numbers)
    if None not in numbers and (own or len(found) > (_MOST_FRACTIONS if fractions else _MOST_NUMBERS)):
        problem = f"{len(found)} different numbers as labels: regression is not supported"
        raise messages.error(None, problem, field="label", fix="divide the numbers into classes, such as low and high")
    if own:
        problem = f"{len(found)} different labels of {len(messages)} examples"
        raise messages.error(None, problem, field="label", fix="name the column of the classes: columns: {label: NAME}")


def _number(label: str) -> float | None:
    try:
        return number if math.isfinite(number := float(label)) else None
    except ValueError:
        return None
