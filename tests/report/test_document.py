"""One document, written as text, as Markdown and as a page."""

import altair as alt
from rich.cells import cell_len

from ftkit.report.document import Card, Document, Figure, Section, Table, table_lines, to_markdown, to_text
from ftkit.report.page import to_html
from ftkit.report.theme import DARK, LIGHT
from page_reader import Page

CHART = alt.Chart(alt.InlineData(values=[{"x": "</script><script>alert(1)</script>"}])).mark_point().encode(x="x:N")
DOCUMENT = Document(
    "A <b> & c",
    [
        Section("Only text", lines=["as it is"], forms=("text",)),
        Section("Everywhere", ["a | b"], Table(["name", "n"], [["一二", "1"], ["x|y", "22"]], frozenset({1}))),
        Section("Only a page", figures=[Figure("one", "One", CHART, "What it shows.")], forms=("html",)),
        Section("Cards", cards=[Card("Row 1", "Yes.", "Does it?")], forms=("markdown", "html")),
    ],
    [("data", "messages")],
    "None differs.",
)


def test_text_has_its_sections_and_aligns_wide_letters() -> None:
    text = to_text(DOCUMENT)
    assert text.split("\n\n")[0] == "Only text\n  as it is"
    lines = text.split("\n\n")[1].splitlines()
    assert lines[:2] == ["Everywhere", "  - a | b"]
    assert len({cell_len(line) for line in lines[2:]}) == 1  # numbers end in one column, wide letters or not
    assert "Only a page" not in text


def test_markdown_escapes_bars_and_names_the_files_of_charts() -> None:
    markdown = to_markdown(DOCUMENT)
    assert markdown.startswith(
        "# A <b> & c\n\n- data: messages\n\nNone differs.\n\n## Everywhere\n\n- a \\| b\n\n| name"
    )
    assert "| x\\|y |  22 |" in markdown
    assert "**Row 1.** Does it?  \nYes.\n" in markdown
    assert "as it is" not in markdown


def test_a_page_holds_both_palettes_its_charts_and_no_markup_of_others() -> None:
    html = to_html(DOCUMENT)
    page = Page(html)
    assert page.open == []
    assert page.loads == ["data:,"]
    assert "A <b> & c" in page.words
    assert html.count("<script>alert") == 0
    assert page.values(0) == [{"x": "</script><script>alert(1)</script>"}]
    assert html.count(f"--ink: {LIGHT['ink']};") == 2  # on a screen and on paper
    assert html.count(f"--ink: {DARK['ink']};") == 1
    assert "vegaEmbed" in html
    plain = to_html(Document("No chart", []))
    assert len(plain) < 20_000


def test_only_the_rule_of_a_terminal_is_drawn() -> None:
    table = Table(["row"], [["1"]], frozenset({0}), rule=True)
    assert table_lines(table) == ["row", "---", "  1"]
