"""Name a run for a tracker, from where its folder lies."""

import re
from pathlib import Path
from typing import Any

_ROW = re.compile(r"\d+_")
_RUN_OF_ABLATION = re.compile(r"\.?(seed-\d+)(?:\.partial)?")


def run_names(folder: Path) -> dict[str, str]:
    """Return the absolute ``folder`` of a run, and the ``name`` of the run, its ``variant`` and its ``group``.

    The group is the ablation's output folder; a run by itself has none, and is called like its folder.

    Example:
        >>> run_names(Path("/runs/demo/02_first_token/.seed-123.partial"))["name"]
        '02_first_token/seed-123'
        >>> run_names(Path("/runs/demo/02_first_token/lr-0.001/.seed-123.partial"))["name"]
        '02_first_token/lr-0.001/seed-123'
    """
    folder = folder.absolute()
    names = {"folder": str(folder), "name": folder.name, "variant": folder.name, "group": ""}
    if found := _RUN_OF_ABLATION.fullmatch(folder.name):
        own, above = (_ROW.match(folder.parents[level].name) for level in (0, 1))
        row = folder.parents[1 if above and not own else 0]  # the folder of a setting may lie between
        name = folder.parent.relative_to(row.parent) / found[1]
        names |= {"name": str(name), "variant": row.name, "group": row.parent.name}
    return names


def with_run_names(value: Any, folder: Path) -> Any:
    """Replace ``{folder}``, ``{name}``, ``{variant}`` and ``{group}`` in all texts of a logger's arguments.

    Example:
        >>> with_run_names({"name": "{variant}, {group}"}, Path("/runs/demo/02_first_token/seed-123"))
        {'name': '02_first_token, demo'}
    """
    if isinstance(value, dict):
        return {key: with_run_names(one, folder) for key, one in value.items()}
    if isinstance(value, list):
        return [with_run_names(one, folder) for one in value]
    if isinstance(value, str):
        for name, text in run_names(folder).items():
            value = value.replace(f"{{{name}}}", text)
    return value
