"""The charts and sentences of a search."""

from pathlib import Path

import pytest

from fake_engine import FakeEngine, make_folder
from ftkit.ablation_runs import Ablation
from ftkit.report.ablation_report import Report, read_results, write
from ftkit.report.document import to_markdown
from ftkit.report.theme import specification

LR = "model.lr"
ROWS = {
    "01_low": {"by_lr": {0.01: [950, 280], 0.1: [900, 290], 1.0: [700, 200]}},
    "02_high": {"by_lr": {0.01: [940, 180], 0.1: [930, 281], 1.0: [945, 282]}},
    "03_plain": {},
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    ablation = Ablation(make_folder(folder / "study", ROWS), out=folder / "out")
    search = {"settings": {LR: [0.01, 0.1, 1.0], "kind": ["a"]}, "rows": {3: {LR: None, "kind": None}}}
    ablation.run([1, 2], engine=FakeEngine(), search=search)
    return folder / "out"


@pytest.fixture(scope="module")
def report(out: Path) -> Report:
    return read_results(out)


def values(report: Report, name: str) -> list[dict]:
    drawn = specification(report.plots[name].chart)
    return [record for records in drawn["datasets"].values() for record in records]


def test_validation_is_drawn_against_each_option_that_has_numbers(report: Report) -> None:
    assert "search-kind" not in report.plots
    records = values(report, "search-lr")
    low = {record["x"]: record["value"] for record in records if record["name"] == "1 low"}
    assert low == pytest.approx({0.01: 0.95, 0.1: 0.9, 1.0: 0.7})
    assert {(record["name"], record["x"]) for record in records if record["chosen"]} == {
        ("1 low", 0.01),
        ("2 high", 1.0),
    }
    assert specification(report.plots["search-lr"].chart)["layer"][0]["encoding"]["x"]["scale"]["type"] == "log"


def test_the_expected_best_is_drawn_against_the_tries(report: Report) -> None:
    records = values(report, "budget")
    assert {record["name"] for record in records} == {"1 low", "2 high"}  # one try is no curve
    first = next(record for record in records if record["name"] == "2 high" and record["tries"] == 1)
    assert first["value"] == pytest.approx((0.94 + 0.93 + 0.945) / 3)
    assert first["low"] < first["value"] < first["high"]
    text = to_markdown(report.document())
    assert "with 1 row 2 high (0.9383), with 5 row 2 high (0.9443), with 20 row 1 low (0.95) tries" in text
    assert "plots/search-lr.svg" in text


def test_files_of_an_earlier_search_are_removed(report: Report, tmp_path: Path) -> None:
    write(report, tmp_path, png=False)
    assert (tmp_path / "plots/search-lr.svg").exists()
    old = tmp_path / "plots/search-rank.svg"
    old.write_text("old")
    write(report, tmp_path, png=False)
    assert not old.exists()
    assert (tmp_path / "plots/budget.svg").exists()
    assert "Search over settings" in (tmp_path / "report.html").read_text()
