"""Compare what was run with what would be run, setting by setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EXTERNAL = "external"  # marks a row, and the identity of a run, that was made elsewhere
SEEDS = ("seed", "seed_everything")  # what is bound to differ between the seeds of a row
_ABSENT = object()
_LONGEST = 40  # letters of a value


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to one level of dotted names.

    Returns:
        The leaves by dotted name. An empty mapping or list is a leaf.

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
    """Return the settings in which two identities or configs differ.

    Where another base model was chosen, its contents are left out: the configuration says so.

    Returns:
        By dotted name, ``old -> new`` in words, sorted by name.

    Example:
        >>> changes({"model": {"pooling": "last"}}, {"model": {"pooling": "first"}, "seed": 1})
        {'model.pooling': "'last' -> 'first'", 'seed': 'absent -> 1'}
    """
    if _base_options(old) != _base_options(new):
        old, new = ({name: value for name, value in one.items() if name != "base"} for one in (old, new))
    before, after = flatten(old), flatten(new)
    return {
        name: f"{_word(before.get(name, _ABSENT))} -> {_word(after.get(name, _ABSENT))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name, _ABSENT) != after.get(name, _ABSENT)
    }


def _base_options(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the options say of the base model, without the contents of its files."""
    return {name: value for name, value in (identity.get("base") or {}).items() if name != "fingerprint"}


def _word(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
