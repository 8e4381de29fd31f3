"""The column and the chart of what was forgotten, from planted losses."""

import json

import pytest

from fake_engine import FakeEngine, make_folder
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.runner import run
from ftkit.report.ablation_report import Report, read_results
from ftkit.report.ablation_table import table
from ftkit.report.document import to_markdown
from ftkit.report.theme import specification
from ftkit.results.forgetting import write_losses

TOKENS, BEFORE = [10, 20, 70], [30.0, 60.0, 210.0]
ROWS = {"01_all": {"correct": 290}, "02_lora": {"correct": 289}, "03_both": {"correct": 200}, "04_bare": {}}
GAINED = {"01_all": [2.0, 5.0, 8.0], "02_lora": [0.0, 0.0, 0.0], "03_both": [3.0, 5.0, 8.0]}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("forgetting")
    run(AblationFolder.load(make_folder(folder / "study", ROWS)), FakeEngine(), folder / "out", seeds=[1])
    for row, gained in GAINED.items():
        after = [one + more for one, more in zip(BEFORE, gained, strict=True)]
        write_losses(folder / f"out/{row}/seed-1/losses-retained.tsv", TOKENS, BEFORE, after)
    return read_results(folder / "out")


def test_the_table_has_a_column_with_an_interval(report: Report) -> None:
    text = table(report.analysis, "text")
    assert "+0.150 (" in text
    assert "+0.000" in text
    assert "retained: loss of a held-out token in nats, after tuning minus that of the base model (3)" in text
    first, second, _, bare = json.loads(table(report.analysis, "json"))
    assert first["retained_forgetting"] == pytest.approx(0.15)
    assert first["retained_forgetting_low"] < 0.15 < first["retained_forgetting_high"]
    assert first["retained_loss"] == pytest.approx(3.15)
    assert (second["retained_forgetting"], second["retained_forgetting_low"]) == (0.0, None)
    assert "retained_loss" not in bare


def test_the_front_is_drawn_of_rows_that_were_measured(report: Report) -> None:
    drawn = specification(report.plots["forgetting-retained"].chart)
    records = {record["name"][:2]: record for data in drawn["datasets"].values() for record in data}
    assert {name: record["front"] for name, record in records.items()} == {
        "1 ": "on the Pareto front",
        "2 ": "on the Pareto front",
        "3 ": "not on it",
    }
    assert records["1 "]["forgetting"] == pytest.approx(0.15)
    assert "plots/forgetting-retained.svg" in to_markdown(report.document())
