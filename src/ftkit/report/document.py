"""A document of sections, tables and figures, described once and written as text or Markdown; as HTML in page.py."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len

from ftkit.errors import InputError
from ftkit.report.theme import FORMS, image
from ftkit.storage import atomic_write

if TYPE_CHECKING:
    from altair import TopLevelMixin as Chart

Form = Literal["text", "markdown", "html"]
EVERYWHERE: tuple[Form, ...] = ("text", "markdown", "html")


@dataclass(frozen=True)
class Card:
    """One result in short."""

    title: str  # what it is about
    text: str  # what was found, in a sentence
    note: str = ""  # what stands before it, such as a question
    value: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart, which a notebook shows as a picture."""

    name: str  # names its file
    title: str  # stands above it
    chart: Chart  # from charts
    caption: str = ""  # stands below it
    wide: bool = False  # whether it takes the whole width of a page

    def save(self, path: str | Path) -> None:
        """Draw the chart into a file: SVG, PNG or PDF, as its ending says.

        Raises:
            InputError: The ending is another one.
            EnvironmentFault: The file cannot be written.
        """
        form = Path(path).suffix.lower().lstrip(".")
        if form not in FORMS:
            raise InputError("is no format of a chart", file=path, fix=f"end the name in .{', .'.join(FORMS)}")
        with atomic_write(path, "wb") as file:
            file.write(image(self.chart, form, self.title))

    def _repr_svg_(self) -> str:
        return image(self.chart, "svg", self.title).decode()


@dataclass(frozen=True)
class Table:
    """A table."""

    head: Sequence[str]  # the names of the columns
    rows: Sequence[Sequence[str]]
    right: frozenset[int] = frozenset()  # the columns that are aligned to the right, as numbers are
    rule: bool = False  # whether a line is drawn below the head, in text
    # What a reader can open for each row of a page; such a table also sorts and filters.
    details: Sequence[Section] = ()


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str  # the heading
    sentences: Sequence[str] = ()  # a list of sentences
    table: Table | None = None
    figures: Sequence[Figure] = ()  # charts, which text leaves out
    images: Sequence[str] = ()  # pictures on a page, as data: addresses
    cards: Sequence[Card] = ()  # results in short
    lines: Sequence[str] = ()  # lines that are printed as they are
    forms: Sequence[Form] = EVERYWHERE  # where the section is shown


@dataclass(frozen=True)
class Document:
    """What a report says, whatever form it is written in."""

    title: str
    sections: Sequence[Section]  # what follows
    facts: Sequence[tuple[str, str]] = ()  # what a reader has to know first, such as data and date: names and values
    answer: str = ""  # the answer in one sentence

    def shown(self, form: Form) -> list[Section]:
        """Return the sections of a form."""
        return [section for section in self.sections if form in section.forms]


def to_text(document: Document) -> str:
    """Write a document for a terminal."""
    return "\n\n".join("\n".join(_text(section)) for section in document.shown("text"))


def to_markdown(document: Document) -> str:
    """Write a document as Markdown; its charts lie beside it in ``plots``."""
    blocks = [f"# {document.title}"]
    if document.facts:
        blocks.append("\n".join(f"- {name}: {escaped(value)}" for name, value in document.facts))
    blocks += [document.answer] if document.answer else []
    for section in document.shown("markdown"):
        blocks += [f"## {section.title}", *_markdown(section)]
    return "\n\n".join(blocks) + "\n"


def table_lines(table: Table, pipes: bool = False) -> list[str]:
    """Pad every column to its widest cell, in plain text or, with ``pipes``, in Markdown.

    Example:
        >>> table_lines(Table(["name", "n"], [["a", "10"], ["long name", "9"]], frozenset({1})), pipes=True)
        ['| name      |   n |', '| --------- | --: |', '| a         |  10 |', '| long name |   9 |']
    """
    rows = [list(map(escaped, row)) for row in (table.head, *table.rows)] if pipes else [table.head, *table.rows]
    widths = [max(3, *map(cell_len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * (width - 1) + ":" if pipes and c in table.right else "-" * width for c, width in enumerate(widths)]
    if pipes or table.rule:
        rows.insert(1, rule)
    lines = []
    for row in rows:
        gaps = [" " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True)]
        cells = [
            gap + text if c in table.right else text + gap for c, (text, gap) in enumerate(zip(row, gaps, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |" if pipes else "  ".join(cells).rstrip())
    return lines


def escaped(text: str) -> str:
    """Return a text that breaks neither a table nor a list of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def _text(section: Section) -> Iterator[str]:
    yield section.title
    yield from (f"  {line}" for line in section.lines)
    for sentence in section.sentences:
        yield from textwrap.wrap(
            sentence,
            110,
            initial_indent="  - ",
            subsequent_indent="    ",
            break_long_words=False,  # the name of a file stays in one piece
            break_on_hyphens=False,
        )
    if section.table is not None:
        yield from (f"  {line}" for line in table_lines(section.table))


def _markdown(section: Section) -> Iterator[str]:
    for card in section.cards:
        yield f"**{card.title}.** {card.note}  \n{card.text}"
    for figure in section.figures:
        yield f"![{figure.title}](plots/{figure.name}.svg)"
    if section.sentences:
        yield "\n".join(f"- {escaped(sentence)}" for sentence in section.sentences)
    if section.table is not None:
        yield "\n".join(table_lines(section.table, pipes=True))


def excerpt(text: str | None, most: int = 160) -> str:
    """Return a text on one line, cut where it has more letters than a cell of a table should.

    Example:
        >>> excerpt("Call   me now", 7), excerpt(None)
        ('Call m…', '')
    """
    flat = " ".join((text or "").split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"
