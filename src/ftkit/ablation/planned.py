"""Keep what was planned before a sweep in its output folder, to stand beside what was measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.ablation.folder import label_parts
from ftkit.errors import InputError
from ftkit.storage import atomic_write

PLAN_FILE = "plan.json"  # in the output folder


@dataclass(frozen=True)
class Planned:
    """Hold what was planned for a run of a row."""

    seconds: float  # as measured ones, without what frozen layers make of the data
    peak_memory_mb: float
    device: str


def write_plan(out: Path, device: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the plans of rows, as ``ftkit plan --json`` prints them, with those of other rows on the same device.

    Raises:
        InputError: The file is damaged.
        EnvironmentFault: It cannot be written.
    """
    there = _read(out / PLAN_FILE)
    before = there["rows"] if there["device"] == device else []
    merged = {row["row"]: row for row in [*before, *rows]}
    plan = {"device": device, "rows": [merged[label] for label in sorted(merged)]}
    with atomic_write(out / PLAN_FILE) as file:
        file.write(json.dumps(plan, indent=2) + "\n")


def read_plan(out: Path) -> dict[int, Planned]:
    """Return what was planned, by row; nothing where nothing was, or where settings of several shapes are tried.

    Raises:
        InputError: The file is damaged.
    """
    plan = _read(out / PLAN_FILE)
    one_shape = [row for row in plan["rows"] if row.get("shapes") == 1]
    return {label_parts(row["row"])[0]: _planned(row, plan["device"]) for row in one_shape}


def _planned(row: Mapping[str, Any], device: str) -> Planned:
    return Planned(60 * (row["minutes"] - row["shared_minutes"]), 1e3 * row["measured_as_gb"], device)


def _read(path: Path) -> Any:
    """Read the file of a plan; one without rows if there is none."""
    if not path.exists():
        return {"device": "", "rows": []}
    try:
        plan = json.loads(path.read_bytes())
        for row in plan["rows"]:
            if "not_planned" not in row:
                label_parts(row["row"]), _planned(row, plan["device"])
        return plan
    except (ValueError, KeyError, TypeError, InputError):
        raise InputError("damaged", file=path, fix="remove it, and run the sweep with --plan again") from None
