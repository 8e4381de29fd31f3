"""Trained rows against the baseline that is best on validation: apart from the reference's comparisons, with costs."""

from pathlib import Path
from typing import Any

from fake_engine import FakeEngine, make_folder, result
from ftkit.ablation.analysis import Analysis, analyse
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.runner import run
from ftkit.report.ablation_baselines import baseline_lines
from ftkit.report.ablation_report import read_results
from ftkit.report.ablation_table import table


def baseline(correct: int, val: int, seconds: float) -> dict[str, Any]:
    splits = result(correct, 123)["splits"] | {"val": {"n": 149, "correct": val, "accuracy": val / 149}}
    return {
        "correct": correct,
        "result": {"baseline": True, "splits": splits, "seconds": {"fit": seconds}, "base": {"source": "none"}},
    }


def analysis(tmp_path: Path, rows: dict[str, Any], reference: int | None = None) -> Analysis:
    costly = {
        name: {"result": {"seconds": {"fit": 30.0}}, **row} if "result" not in row else row
        for name, row in rows.items()
    }
    run(AblationFolder.load(make_folder(tmp_path / "study", costly)), FakeEngine(), tmp_path / "out")
    return analyse(tmp_path / "out", reference)


ROWS: dict[str, Any] = {
    "01_base": {},  # 285 right
    "02_best": {"correct": 299},
    "03_worse": {"correct": 200},
    "20_first": baseline(283, val=140, seconds=3.0),
    "21_lucky": baseline(290, val=130, seconds=0.5),  # best on test, not on validation
    "22_equal": baseline(100, val=140, seconds=9.0),
}


def test_the_baseline_is_chosen_on_validation_and_compared_apart(tmp_path: Path) -> None:
    found = analysis(tmp_path, ROWS)
    assert found.best_baseline is not None
    assert found.best_baseline.number == 20  # the first of equal ones
    assert {number: one.comparisons for number, one in found.over_baseline.items()} == {1: 3, 2: 3, 3: 3}
    rows = {row.number: row for row in found.rows}
    assert {number for number, row in rows.items() if row.comparison is not None} == {2, 3}
    assert all(row.comparison.comparisons == 2 for row in rows.values() if row.comparison is not None)
    assert [row.number for row in found.rows if row.baseline] == [20, 21, 22]
    first, second, third = baseline_lines(found)
    assert first == "Best of 3 baselines on validation: row 20 (first), validation 93.96%, test 94.33%, 3.0 s."
    assert second.startswith(
        "1 of 3 trained variants beats it significantly (exact test on the same examples, p < 0.05"
    )
    assert "for 3 comparisons): row 2 (best) +5.3 points (" in second
    assert second.endswith(" for 30.0 s, 10 times its time.")
    assert third.startswith("1 is significantly worse than it: row 3 (worse) -27.7 points (")
    text = table(found, "text")
    assert first in text
    assert "after Holm's correction for 2 comparisons" in text  # with row 1
    assert "Not compared with row 1" not in text
    assert " s." not in "".join(baseline_lines(found, timing=False))


def test_the_report_says_it_on_a_page_of_its_own_heading(tmp_path: Path) -> None:
    analysis(tmp_path, ROWS)
    report = read_results(tmp_path / "out")
    section = next(one for one in report.document().sections if one.title == "Is fine-tuning worth it?")
    assert section.sentences == list(baseline_lines(report.analysis))
    assert "cannot be compared" not in report.answers[21]
    assert dict(report.document().facts)["base models"] == "source hub; size small"


def test_a_table_without_baselines_says_nothing_of_them(tmp_path: Path) -> None:
    rows = {name: row for name, row in ROWS.items() if name < "20"}
    found = analysis(tmp_path, rows)
    assert (found.best_baseline, list(baseline_lines(found))) == (None, [])
    assert "baseline" not in table(found, "text")
    assert all(one.title != "Is fine-tuning worth it?" for one in read_results(tmp_path / "out").document().sections)


def test_a_baseline_can_be_the_reference(tmp_path: Path) -> None:
    found = analysis(tmp_path, ROWS, reference=21)
    assert {row.number for row in found.rows if row.comparison is not None} == {1, 2, 3, 20, 22}


def test_no_significance_is_claimed_of_a_row_that_did_not_converge(tmp_path: Path) -> None:
    analysis(tmp_path, ROWS)
    curve = "step,train/loss\n" + "".join(f"{step},{step / 10}\n" for step in range(40))
    for row in ("02_best", "20_first"):
        (tmp_path / f"out/{row}/seed-123/metrics.csv").write_text(curve)
    found = analyse(tmp_path / "out")
    assert [row.number for row in found.rows if not row.converged] == [2]  # a baseline is not trained
    assert "None of 3 trained variants beat it" in list(baseline_lines(found))[1]
