"""Tests that the documentation names exist."""

import re

from page_blocks import ROOT


def test_every_test_that_a_page_names_exists() -> None:
    files = [*(ROOT / "tests").rglob("*.py")]
    functions = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.M)}
    known, named = functions | {file.stem for file in files} | {"test_step"}, set()  # test_step: Lightning's
    for page in (ROOT / "docs").rglob("*.md"):
        said = set(re.findall(r"`(test_\w+)`", page.read_text("utf-8")))
        assert said <= known, (page.name, said - known)
        named |= said & functions
        for path in re.findall(r"`(tests/[\w/]+\.py)`", page.read_text("utf-8")):
            assert (ROOT / path).is_file(), (page.name, path)
    assert len(named) > 10
