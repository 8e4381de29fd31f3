"""The table of faults is complete, and every test that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "tests" / "FAULTS.md").read_text(encoding="utf-8")


def test_every_case_has_a_row() -> None:
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", TABLE, re.MULTILINE)] == list(range(1, 51))


def test_every_test_that_is_named_exists() -> None:
    named = 0
    for row in TABLE.split("\n"):
        file = ""
        for path, test in re.findall(r"`(tests/[\w/]+\.py)?::(\w+)`", row):
            file = path or file
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
            named += 1
    assert named > 90
