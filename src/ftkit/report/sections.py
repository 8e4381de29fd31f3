"""Sections of a report, each of sentences and a table, as text for a terminal and as Markdown; as HTML in page.py."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ftkit.results.comparison import Comparison
from ftkit.results.intervals import Interval
from ftkit.results.statistics import rounded_p


class Reported(Protocol):
    """A report about one file."""

    @property
    def name(self) -> str: ...  # noqa: D102

    def to_dict(self) -> dict[str, Any]: ...  # noqa: D102


R = TypeVar("R", bound=Reported)


@dataclass(frozen=True, kw_only=True)
class Evaluated(Generic[R]):
    """What ``ftkit evaluate`` finds in files of any kind of answers.

    Attributes:
        reports: One per file.
        comparisons: Each file against the reference.
        digits: Decimals in texts, None for all.
        level: Confidence of the intervals.
        seed: Seed of the draws that some of them are made of.
    """

    reports: list[R]
    comparisons: list[Comparison] = field(default_factory=list)
    digits: int | None = 4
    level: float = 0.95
    seed: int = 0

    @property
    def names(self) -> list[str]:
        """The files' names, as short as they can be told apart."""
        return short_names([report.name for report in self.reports])

    def as_json(self, kind: str, **more: Any) -> str:
        """The evaluation as JSON with all digits.

        Args:
            kind: What was evaluated.
            **more: What else there is to say.
        """
        record = {
            "kind": kind,
            "level": self.level,
            "files": [report.to_dict() for report in self.reports],
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            **more,
        }
        return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and a table (its first row names the columns)."""

    title: str
    sentences: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)


def warning_sections(names: Sequence[str], warnings: Sequence[Sequence[str]]) -> list[Section]:
    """Return what a reader has to know before any figure of some files; no section if there is nothing."""
    several = len(names) > 1
    sentences = [
        f"{name}: {warning}" if several else warning
        for name, found in zip(names, warnings, strict=True)
        for warning in found
    ]
    return [Section("Warnings", sentences)] if sentences else []


def as_text(heads: Sequence[Sequence[str]], sections: Sequence[Section], warnings: Sequence[Section] = ()) -> str:
    """A report for a terminal.

    Args:
        heads: Blocks of lines with the main figures.
        sections: What follows.
        warnings: What has to be known before any figure.
    """
    blocks = [*map(_section_text, warnings), *("\n".join(lines) for lines in heads), *map(_section_text, sections)]
    return "\n\n".join(blocks)


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """A report in Markdown, under a heading."""
    blocks = [f"# {title}"]
    for section in sections:
        blocks.append(f"## {section.title}")
        blocks += [f"- {_escaped(sentence)}" for sentence in section.sentences]
        if section.table:
            head, *rows = [[_escaped(cell) for cell in row] for row in section.table]
            lines = [head, ["---"] * len(head), *rows]
            blocks.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(blocks)


def p_text(p: float) -> str:
    """A p-value in words.

    Example:
        >>> p_text(0.5847), p_text(0.0), p_text(1.0)
        ('p = 0.58', 'p < 1e-300', 'p = 1')
    """
    return "p < 1e-300" if p < 1e-300 else f"p = {rounded_p(p)}"


def interval_text(interval: Interval | None, digits: int | None) -> str:
    """An interval as it stands behind a figure of so many decimals; nothing for None."""
    return "" if interval is None else f" ({' to '.join(number_text(end, digits) for end in interval)})"


def number_text(value: float, digits: int | None) -> str:
    """A figure with so many decimals, None for all that it has."""
    return repr(value) if digits is None else f"{value:.{digits}f}"


def short_names(names: Sequence[str]) -> list[str]:
    """File names without the folders, and without the file's own name, that all of them share.

    Example:
        >>> short_names(["runs/a/test.tsv", "runs/b/test.tsv"]), short_names(["runs/a/test.tsv"])
        (['a', 'b'], ['test.tsv'])
        >>> short_names(["runs/test.tsv", "runs/a/test.tsv"])
        ['test.tsv', 'a/test.tsv']
    """
    paths = [Path(name).parts for name in names]
    if len(set(paths)) < 2:
        return [path[-1] for path in paths]
    start = _shared(paths)
    rest = [path[start:] for path in paths]
    end = min(_shared([path[::-1] for path in rest]), min(map(len, rest)) - 1)  # something is left of each
    return [str(Path(*path[start : len(path) - end])) for path in paths]


def _shared(paths: Sequence[tuple[str, ...]]) -> int:
    """How many of the first parts all paths have in common."""
    return sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))


def _section_text(section: Section) -> str:
    lines = [section.title]
    for sentence in section.sentences:
        lines += textwrap.wrap(
            sentence,
            110,
            initial_indent="  - ",
            subsequent_indent="    ",
            break_long_words=False,  # the name of a file stays in one piece
            break_on_hyphens=False,
        )
    return "\n".join(lines + _aligned(section.table))


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in table]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
