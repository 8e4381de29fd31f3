"""Keep what was planned before a sweep in its output folder, to stand beside what was measured."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.ablation.folder import label_parts
from ftkit.errors import InputError
from ftkit.storage import atomic_write

PLAN_FILE = "plan.json"  # in the output folder


@dataclass(frozen=True)
class Planned:
    """What was planned for a run of a row, on the device that the file names."""

    seconds: float  # as measured ones, without what frozen layers make of the data
    peak_memory_mb: float


def write_plan(out: Path, plan: Mapping[str, Any]) -> None:
    """Write what ``ftkit plan --json`` prints."""
    with atomic_write(out / PLAN_FILE) as file:
        file.write(json.dumps(plan, indent=2) + "\n")


def read_plan(out: Path) -> dict[int, Planned]:
    """Return what was planned, by row; nothing where nothing was.

    Raises:
        InputError: The file is damaged.
    """
    path = out / PLAN_FILE
    if not path.exists():
        return {}
    try:
        rows = [row for row in json.loads(path.read_bytes())["rows"] if "not_planned" not in row]
        return {
            label_parts(row["row"])[0]: Planned(
                60 * (row["minutes"] - row["shared_minutes"]), 1e3 * row["measured_as_gb"]
            )
            for row in rows
        }
    except (ValueError, KeyError, TypeError):
        raise InputError("damaged", file=path, fix="remove it, or run the sweep with --plan again") from None
