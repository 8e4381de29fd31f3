"""The code blocks of README and documentation, and what a comment above each says about running it.

    <!-- not run: REASON -->   shown only
    <!-- slow -->              run with the slow tests, for it takes longer than some seconds
    <!-- file: NAME -->        written to a file that later blocks of the page use

A block without a comment is run: Python (a session with >>> is compared with what it shows), or commands of `ftkit`
with the lines that they are to print below.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = {"text", "{toctree}", "{include}", "{eval-rst}", "{literalinclude}", "{math}"}  # nothing that could be run
_BLOCK = re.compile(r"(?:^ *<!-- (?P<mark>[^>]*?) -->\n)?^ *```(?P<language>\S+).*?\n(?P<text>.*?)^ *```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    mark: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that the block is written to."""
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else None

    @property
    def run(self) -> bool:
        return self.language not in SHOWN and not self.mark.startswith("not run: ") and self.file is None

    @property
    def slow(self) -> bool:
        return self.mark == "slow"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, one.start()) + 1, one["language"], dedent(one["text"]), one["mark"] or "")
        for one in _BLOCK.finditer(text)
    ]
