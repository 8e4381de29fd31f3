"""Figures in README and documentation are those of the result files, and links lead somewhere."""

import re
import sys
from pathlib import Path

import pytest
from page_blocks import PAGES, ROOT

sys.path.insert(0, str(ROOT / "docs"))
import figures

WITH_FIGURES = [page for page in figures.pages() if figures.FIGURE.search(page.read_text(encoding="utf-8"))]
_LINK = re.compile(r'!?\[[^\]]*\]\((?!https?://)(?P<target>[^)\s#]+)(?:#[\w-]+)?(?: "[^"]*")?\)')


def test_there_are_figures() -> None:
    assert {"README.md", "benchmarks.md", "comparison.md"} <= {page.name for page in WITH_FIGURES}


@pytest.mark.parametrize("page", WITH_FIGURES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_says_what_the_result_files_say(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == figures.with_figures(page)


@pytest.mark.parametrize(
    ("file", "formula", "expected"),
    [
        ("a.json", "rows.1.seconds / rows.2.0", 2.5),
        ("a.json", "100 * ( rows.1.seconds - 1 )", 400),
        ("a.csv", "7.test", 0.25),
    ],
)
def test_a_formula_takes_its_numbers_from_the_file(file: str, formula: str, expected: float, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"rows": {"1": {"seconds": 5}, "2": [2, 3]}}')
    (tmp_path / "a.csv").write_text("row,name,test\n6,x,0.5\n7,y,0.25\n")
    assert figures.value(tmp_path / file, formula) == expected


def test_a_figure_keeps_its_digits_and_words(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "a.json").write_text('{"n": 1234.567, "ratio": 0.25}')
    page.write_text(
        '[about 9.9 times as fast](a.json "ratio") and [1,000.0](a.json "n"), [3](a.json "1 / ratio") [x](b.md)'
    )
    expected = '[about 0.2 times as fast](a.json "ratio") and [1,234.6](a.json "n"), [4](a.json "1 / ratio") [x](b.md)'
    assert figures.with_figures(page) == expected


def test_the_picture_shows_every_row_of_the_result_file() -> None:
    picture = figures.PICTURE.read_text(encoding="utf-8")
    rows = figures.RESULTS.read_text(encoding="utf-8").splitlines()[1:]
    assert len(rows) == 14
    for row in rows:
        number, name, _, _, _, test, *_ = row.split(",")
        assert f">{number} {name.replace('_', ' ')}<" in picture
        assert f">{100 * float(test):.1f}<" in picture


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_link_to_a_file_leads_to_it(page: Path) -> None:
    for found in _LINK.finditer(page.read_text(encoding="utf-8")):
        assert (page.parent / found["target"]).exists(), f"{page.name}: {found[0]}"
