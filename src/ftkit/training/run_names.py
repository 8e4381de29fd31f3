"""Name a run for a tracker, from where its folder lies."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

_RUN_OF_ABLATION = re.compile(r"\.?(seed-\d+)(?:\.partial)?")


@dataclass(frozen=True)
class RunNames:
    """The names of a run.

    Args:
        folder: The run folder, absolute.
        name: Of the run: ``VARIANT/seed-N``, or the name of its folder.
        variant: Of the variant, or of the folder.
        group: Of the ablation's output folder; empty where there is no ablation.
    """

    folder: str
    name: str
    variant: str
    group: str = ""

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return the names of the run in a folder.

        Example:
            >>> RunNames.of(Path("/runs/demo/02_first_token/.seed-123.partial")).name
            '02_first_token/seed-123'
            >>> RunNames.of(Path("/runs/single")).variant
            'single'
        """
        folder = folder.absolute()
        if found := _RUN_OF_ABLATION.fullmatch(folder.name):
            variant = folder.parent.name
            return cls(str(folder), f"{variant}/{found[1]}", variant, folder.parents[1].name)
        return cls(str(folder), folder.name, folder.name)


def with_run_names(value: Any, folder: Path) -> Any:
    """Replace ``{folder}``, ``{name}``, ``{variant}`` and ``{group}`` in every text of a logger's arguments.

    Args:
        value: Texts, and lists and dicts of them at any depth; anything else stays.
        folder: The run folder.

    Example:
        >>> with_run_names({"name": "{variant}, {group}"}, Path("/runs/demo/02_first_token/seed-123"))
        {'name': '02_first_token, demo'}
    """
    if isinstance(value, dict):
        return {key: with_run_names(one, folder) for key, one in value.items()}
    if isinstance(value, list):
        return [with_run_names(one, folder) for one in value]
    if isinstance(value, str):
        for name, text in asdict(RunNames.of(folder)).items():
            value = value.replace(f"{{{name}}}", text)
    return value
