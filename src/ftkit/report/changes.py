"""Show on a page which examples a model answers differently from the one that it is compared with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftkit.report.document import Section, Table, excerpt
from ftkit.report.thumbnails import thumbnail
from ftkit.results.changes import Changes, by_group

_ON_PAGE = 1_000  # changes
_COUNTED = 100_000  # changes that are counted by label and slice: more would be held in memory at once
_FIRST = ("change", "id", "variant", "label", "before", "after")


def changes_sections(parts: Sequence[tuple[str, Changes]], file: str = "") -> list[Section]:
    """Return sections for a page: the changes by label and slice, and the examples; none without changes.

    Each part has the name of a model; ``file`` is the name of a file with all changes.
    """
    parts = [(name, one) for name, one in parts if len(one.places[0])]
    limit = _ON_PAGE // max(1, len(parts))
    listed = [(name, one.after.path.parent, row) for name, one in parts for row in one.rows(limit)]
    rows = [{"variant": name, **row} if len(parts) > 1 else row for name, _, row in listed]
    if not rows:
        return []
    total = sum(len(one.places[0]) for _, one in parts)
    where = f"; {file} has all of them" if file else ""
    shown = [f"{len(rows):,} of {total:,} changes are shown{where}."] if len(rows) < total or file else []
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = [name for name in _FIRST if name in names] + [name for name in names if name not in _FIRST]
    cells = [[_cell(name, row.get(name)) for name in head] for row in rows]
    titles = ["example" if name == "id" else name for name in head]
    grouped = [(name, by_group(one.rows())) for name, one in parts] if total <= _COUNTED else []
    groups = [[name, *map(str, group)] for name, found in grouped for group in found]
    by = Table(["variant", "column", "value", "right to wrong", "wrong to right"], groups, frozenset({3, 4}))
    examples = Table(titles, cells, details=[_detail(row, folder) for _, folder, row in listed])
    counted = [Section("Changes by label and slice", [], by, forms=("html",))] if groups else []
    return [*counted, Section("What changed, example by example", shown, examples, forms=("html",))]


def _cell(name: str, value: str | None) -> str:
    return Path(value).name if name == "image" and value else excerpt(value)


def _detail(row: Mapping[str, Any], folder: Path) -> Section:
    """Show a change; the path of its image starts in the folder of the prediction file."""
    said = [f"{name}: {row[name]}" for name in ("label", "before", "after", "image") if name in row]
    small = thumbnail(folder / row["image"]) if row.get("image") else ""
    text = row.get("text") or ""
    title = f"{row['id']}, {row['change']}"
    return Section(title, [*said, text] if text else said, images=[small] if small else [])
