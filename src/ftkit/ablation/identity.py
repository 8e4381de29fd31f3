"""Compare what was run with what would be run, setting by setting."""

from collections.abc import Mapping, Sequence
from typing import Any

EXTERNAL = "external"  # marks a row, and the identity of a run, that was made elsewhere
PRUNER = "pruner"  # in the identity of a run that was stopped early: by what
SEEDS = ("seed", "seed_everything")  # what is bound to differ between the seeds of a row
_ABSENT = object()
_CLASS = ".class_path"
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
    chosen, so are the options that only the old one has, and those of the new one that are nested, empty or false.

    Example:
        >>> changes({"model": {"pooling": "last"}}, {"model": {"pooling": "first"}, "seed": 1})
        {'model.pooling': "'last' -> 'first'", 'seed': 'absent -> 1'}
        >>> method = {"class_path": "A", "init_args": {"rank": 8, "bias": False, "more": {"bits": 4}}}
        >>> changes({"adapter": None}, {"adapter": method})
        {'adapter': "None -> 'A'", 'adapter.init_args.rank': 'absent -> 8'}
    """
    if _base_options(old) != _base_options(new):
        old, new = ({name: value for name, value in one.items() if name != "base"} for one in (old, new))
    before, after = flatten(old), flatten(new)
    classes = {name.removesuffix(_CLASS) for name in before.keys() | after.keys() if name.endswith(_CLASS)}
    before, after = ({name.removesuffix(_CLASS): value for name, value in one.items()} for one in (before, after))
    pairs = {
        name: (before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in sorted(before.keys() | after.keys())
    }
    different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    others = tuple(f"{name}." for name in classes & different.keys())
    return {
        name: f"{_word(first)} -> {_word(second)}"
        for name, (first, second) in different.items()
        if not (name.startswith(others) and _implied(name, first, second))
    }


def _implied(name: str, old: Any, new: Any) -> bool:
    """Return whether an option of another class says no more than that the class is another."""
    nested = any(not part.isdigit() for part in name.rpartition(".init_args.")[2].split(".")[1:])
    return new is _ABSENT or (old is _ABSENT and (nested or not new))


def in_words(found: Mapping[str, str]) -> str:
    """Return what :func:`changes` found as a text."""
    return "; ".join(f"{name}: {words}" for name, words in found.items())


def _base_options(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the options say of the base model, without the contents of its files."""
    return {name: value for name, value in (identity.get("base") or {}).items() if name != "fingerprint"}


def _word(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
