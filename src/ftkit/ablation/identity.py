"""Compare what was run with what would be run, setting by setting."""

from collections.abc import Mapping, Sequence
from typing import Any

EXTERNAL = "external"  # marks a row, and the identity of a run, that was made elsewhere
PRUNER = "pruner"  # in the identity of a run that was stopped early: by what
SEEDS = ("seed", "seed_everything")  # what is bound to differ between the seeds of a row
_ABSENT = object()
_LONGEST = 40  # letters of a value


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to one level of dotted names; an empty mapping or list is a leaf.

    Example:
        >>> flatten({"data": {"batch_size": 8, "sizes": [70, 10]}})
        {'data.batch_size': 8, 'data.sizes.0': 70, 'data.sizes.1': 10}
    """
    items: Sequence[tuple[Any, Any]]
    if isinstance(value, Mapping) and value:
        items = list(value.items())
    elif isinstance(value, list | tuple) and value:
        items = list(enumerate(value))
    else:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for name, child in items:
        leaves.update(flatten(child, f"{prefix}.{name}" if prefix else str(name)))
    return leaves


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings in which two identities or configs differ: ``old -> new`` in words, sorted by dotted name.

    Where another base model was chosen, its contents are left out: the configuration says so. Where another class was
    chosen, so are the options that only the old one has, and those of the new one that are empty or false.

    Example:
        >>> changes({"model": {"pooling": "last"}}, {"model": {"pooling": "first"}, "seed": 1})
        {'model.pooling': "'last' -> 'first'", 'seed': 'absent -> 1'}
        >>> changes({"class_path": "A", "rank": 8}, {"class_path": "B", "tokens": 4, "bias": False})
        {'class_path': "'A' -> 'B'", 'tokens': 'absent -> 4'}
    """
    if _base_options(old) != _base_options(new):
        old, new = ({name: value for name, value in one.items() if name != "base"} for one in (old, new))
    before, after = flatten(old), flatten(new)
    pairs = {
        name: (before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in sorted(before.keys() | after.keys())
    }
    different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    classes = tuple(name.removesuffix("class_path") for name in different if _last(name) == "class_path")
    # What an option of another class has or lacks says no more than that the class is another.
    implied = {name for name, (one, two) in different.items() if two is _ABSENT or (one is _ABSENT and not two)}
    return {
        name: f"{_word(first)} -> {_word(second)}"
        for name, (first, second) in different.items()
        if _last(name) == "class_path" or not name.startswith(classes) or name not in implied
    }


def in_words(found: Mapping[str, str]) -> str:
    """Return what :func:`changes` found as a text."""
    return "; ".join(f"{name}: {words}" for name, words in found.items())


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _base_options(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the options say of the base model, without the contents of its files."""
    return {name: value for name, value in (identity.get("base") or {}).items() if name != "fingerprint"}


def _word(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
