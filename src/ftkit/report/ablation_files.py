"""The report of an ablation as files: Markdown, CSV, one HTML page, and its plots."""

from __future__ import annotations

import re
from pathlib import Path

from ftkit.errors import EnvironmentFault
from ftkit.report.ablation_page import to_html
from ftkit.report.ablation_report import Report, to_markdown
from ftkit.report.ablation_table import render
from ftkit.report.picture import standalone, to_png
from ftkit.storage import atomic_write

_PLOT = re.compile(r"(accuracy|cost|\d{2,}-(loss|validation|confusion))\.(svg|png)")


def write(report: Report, out: Path, png: bool = True) -> list[Path]:
    """Write a report: ``report.md``, ``report.csv``, ``report.html``, ``plots/*.svg`` and ``plots/*.png``.

    Args:
        report: What to write.
        out: The folder. It is created; the files of an earlier report are replaced.
        png: Draw the plots as PNGs too.

    Returns:
        The files.

    Raises:
        EnvironmentFault: A file cannot be written, or PNGs cannot be drawn; all other files are complete then.
    """
    drawings = {name: standalone(svg) for name, svg in report.plots.items()}
    texts = {
        "report.md": to_markdown(report),
        "report.csv": render(report.analysis, "csv"),
        "report.html": to_html(report),
        **{f"plots/{name}.svg": svg for name, svg in drawings.items()},
    }
    for name, text in texts.items():
        with atomic_write(out / name) as file:
            file.write(text)
    pictures = {f"plots/{name}.png": svg for name, svg in drawings.items()} if png else {}
    # Other files may lie there too, if the report goes into a folder of one's own.
    for old in (out / "plots").glob("*.*"):
        if _PLOT.fullmatch(old.name) and f"plots/{old.name}" not in {*texts, *pictures}:
            old.unlink()
    for name, svg in pictures.items():
        try:
            content = to_png(svg)
        except EnvironmentFault as fault:
            raise EnvironmentFault(f"{fault}; or --png false. The rest of the report is in {out}") from None
        with atomic_write(out / name, "wb") as file:
            file.write(content)
    return [out / name for name in (*texts, *pictures)]
