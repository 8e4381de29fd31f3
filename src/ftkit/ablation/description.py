"""``OUT/ablation.json``, which says what an output folder is of: the rows, the published figures and the claim."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ftkit.ablation.folder import AblationFolder, label_parts
from ftkit.ablation.identity import EXTERNAL
from ftkit.errors import InputError
from ftkit.run_folder import FORMAT
from ftkit.storage import atomic_write

DESCRIPTION_FILE = "ablation.json"


def refuse_other_ablation(out: Path, ablation: AblationFolder) -> None:
    """Refuse an output folder that holds the runs of another ablation; an ablation is known by its folder's name.

    Raises:
        InputError: It does.
    """
    name = ablation.folder.resolve().name
    there = _description(out / DESCRIPTION_FILE).get("name", name)
    if there != name:
        fix = f"choose another --out, or, if you renamed the folder of the ablation, rename it back to {there}"
        raise InputError(f"holds the runs of another ablation, {there}", file=out, field="out", got=name, fix=fix)


def write_description(out: Path, ablation: AblationFolder) -> None:
    """Write ``OUT/ablation.json``, so that the output folder explains itself; an unchanged one stays.

    Rows that were made elsewhere stay in it.

    Raises:
        InputError: One of those has the number of a row of the ablation.
    """
    path = out / DESCRIPTION_FILE
    own = {row.number: row for row in ablation.rows}
    rows = [
        {"number": row.number, "label": row.label, "name": row.name, "question": row.question} for row in own.values()
    ]
    added = [row for row in _description(path)["rows"] if row.get(EXTERNAL)]
    for row in added:
        if row["number"] in own:
            problem = f"has the number of {row['label']}, which was made elsewhere and added to {out}"
            raise InputError(problem, file=own[row["number"]].path, fix="give it another number")
    name, published = ablation.folder.resolve().name, asdict(ablation.published)
    claim = {} if ablation.claim is None else {"claim": asdict(ablation.claim)}
    _write(path, {"format": FORMAT, "name": name, "rows": [*rows, *added], "published": published, **claim})


def add_row(out: Path, label: str, question: str) -> None:
    """Add a row that was made elsewhere to ``OUT/ablation.json``, or replace it.

    Raises:
        InputError: The ablation has a row with this number.
    """
    number, name = label_parts(label)
    description = _description(out / DESCRIPTION_FILE)
    others = [row for row in description["rows"] if row["label"] != label or not row.get(EXTERNAL)]
    if taken := [row["label"] for row in others if row["number"] == number]:
        raise InputError(f"the number is that of {taken[0]}", field="row", got=label, fix="take another number")
    row = {"number": number, "label": label, "name": name, "question": question, EXTERNAL: True}
    _write(out / DESCRIPTION_FILE, {**description, "rows": [*others, row]})


def _description(path: Path) -> dict[str, Any]:
    """Return what ``ablation.json`` says; no rows where it cannot be read, for it is written anew."""
    try:
        return {"rows": [], **json.loads(path.read_bytes())}
    except (OSError, ValueError, TypeError):
        return {"rows": []}


def _write(path: Path, description: Mapping[str, Any]) -> None:
    rows = sorted(description["rows"], key=lambda row: row["number"])
    text = json.dumps({**description, "rows": rows}, indent=2) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with atomic_write(path) as file:
            file.write(text)
