import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fake_engine import FakeEngine, make_folder, predict, result
from ftkit.ablation.analysis import Analysis, analyse, pareto_front
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.published import Published
from ftkit.ablation.result import Result
from ftkit.ablation.runner import run
from ftkit.ablation.summary import accuracy_interval
from ftkit.ablation.sweep import RunState
from ftkit.commands.ablation import ablation_table as table
from ftkit.errors import InputError
from ftkit.report.ablation_report import read_results
from ftkit.results.statistics import wilson_interval


def analysis(tmp_path: Path, rows: dict, seeds: Sequence[int] = (123,), reference: int | None = None) -> Analysis:
    folder = make_folder(tmp_path / "study", rows)
    run(AblationFolder.load(folder), FakeEngine(), tmp_path / "out", seeds=seeds)
    return analyse(tmp_path / "out", reference)


def test_rows_are_compared_with_the_reference_on_the_same_examples(tmp_path: Path) -> None:
    rows = {
        "01_base": {},  # 285 right, wrong on the first 15
        "02_worse": {"correct": 216},  # wrong on the first 84: 69 lost, none won
        "03_other": {"first_wrong": 15},  # as good, by other examples: 15 lost, 15 won
        "04_close": {"correct": 280},  # 5 lost
        "05_same": {"note": "nothing"},
        "06_gain": {"correct": 293},  # 8 won
    }
    found = {row.number: row for row in analysis(tmp_path, rows).rows}
    assert found[1].comparison is None
    facts = {number: found[number].comparison for number in range(2, 7)}
    assert [facts[number].disagreements for number in facts] == [69, 30, 5, 0, 8]
    assert [round(facts[number].difference * 300) for number in facts] == [-69, 0, -5, 0, 8]
    assert facts[4].p == pytest.approx(2 * 0.5**5)
    assert facts[6].p == pytest.approx(2 * 0.5**8)
    assert facts[6].p_holm == pytest.approx(4 * 2 * 0.5**8)  # the second smallest of five
    assert [facts[number].significant for number in facts] == [True, False, False, False, True]
    assert [facts[number].hopeless for number in facts] == [False, False, True, True, False]
    assert "after Holm's correction for 5 comparisons" in table(tmp_path / "out", "markdown")
    assert "Predictions too similar to row 1's for any test to be significant: rows 4-5." in table(
        tmp_path / "out", "markdown"
    )


def test_a_star_is_lost_when_many_rows_are_compared(tmp_path: Path) -> None:
    rows = {"01_base": {}, "02_six": {"correct": 279}, **{f"{n:02}_same": {"note": n} for n in range(3, 8)}}
    six = analysis(tmp_path, rows).rows[1].comparison
    assert six is not None
    assert six.p == pytest.approx(0.03125)
    assert six.p_holm == pytest.approx(6 * 0.03125)
    assert not six.significant
    assert "-2.00 " in table(tmp_path / "out", "markdown")
    assert "-2.00*" not in table(tmp_path / "out", "markdown")


def test_seeds_are_compared_seed_by_seed(tmp_path: Path) -> None:
    rows = {"01_base": {}, "02_worse": {"correct": 281}}
    comparison = analysis(tmp_path, rows, seeds=(123, 124)).rows[1].comparison
    assert comparison is not None
    # Seed 123 loses examples 15 to 18, seed 124 loses 14 to 17: gains -1, -2, -2, -2, -1.
    assert comparison.disagreements == 5
    assert comparison.difference == pytest.approx(-8 / 600)
    assert comparison.p == pytest.approx(2 * 0.5**5)
    assert "exact sign-flip test, seeds as they are," in table(tmp_path / "out", "markdown")


def test_only_seeds_that_both_have_are_compared(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "study", {"01_base": {}, "02_worse": {"correct": 281}})
    run(AblationFolder.load(folder), FakeEngine(), tmp_path / "out", seeds=(123,))
    run(AblationFolder.load(folder), FakeEngine(), tmp_path / "out", rows="2", seeds=(123, 127))
    row = analyse(tmp_path / "out").rows[1]
    assert row.test == pytest.approx(283 / 300)
    assert row.comparison is not None
    assert row.comparison.difference == pytest.approx(-4 / 300)
    assert row.comparison.seeds == [123]
    text = table(tmp_path / "out", "markdown")
    assert "Not all rows were run with the same seeds: row 1 with seed 123; row 2 with seeds 123, 127.\n" in text
    assert "that of row 1 (base), over the seeds that both have; * p < 0.05 in an exact McNemar test on" in text
    answer = read_results(tmp_path / "out").answers[2]
    assert re.search(r"\(95% interval of the difference -3\.4 to \+0\.3, of the common seed 123 alone\)", answer)


def test_rows_without_common_examples_are_not_compared_and_named(tmp_path: Path) -> None:
    rows = {"01_base": {}, "02_a": {"note": 1}, "03_b": {"note": 2}, "04_c": {"note": 3}}
    analysis(tmp_path, rows)
    relabelled = tmp_path / "out/04_c/seed-123/predictions-test.tsv"
    first = "sms-0\tham\tspam"
    assert first in relabelled.read_text()
    relabelled.write_text(relabelled.read_text().replace(first, "sms-0\tspam\tham"))
    (tmp_path / "out/02_a/seed-123/predictions-test.tsv").unlink()
    predictions = tmp_path / "out/03_b/seed-123/predictions-test.tsv"
    predictions.write_text(predictions.read_text().replace("sms-299", "sms-300"))
    assert [row.comparison for row in analyse(tmp_path / "out").rows] == [None] * 4
    assert "Not compared with row 1 (no seed, test examples or prediction files in common): rows 2-4." in table(
        tmp_path / "out", "markdown"
    )


def test_a_reference_without_results_is_the_reason_why_nothing_is_compared(tmp_path: Path) -> None:
    analysis(tmp_path, {"01_base": {}, "02_a": {"note": 1}})
    shutil.rmtree(tmp_path / "out/01_base")
    assert "Not compared with row 1 (which has no results): row 2." in table(tmp_path / "out", "markdown")


def test_predictions_that_do_not_fit_the_result_are_refused(tmp_path: Path) -> None:
    analysis(tmp_path, {"01_base": {}, "02_a": {"note": 1}})
    predict(tmp_path / "out/02_a/seed-123/predictions-test.tsv", correct=300, first_wrong=0)
    with pytest.raises(InputError, match=r"predictions-test.tsv: 300 of 300 right, but result.json says 285 of 300"):
        table(tmp_path / "out", "markdown")


def test_another_row_can_be_the_reference(tmp_path: Path) -> None:
    rows = {"01_base": {}, "02_worse": {"correct": 216}, "04_same": {"correct": 216, "model": {"pooling": "mean"}}}
    found = analysis(tmp_path, rows, reference=2)
    assert found.reference.number == 2
    assert [row.differs for row in found.rows] == [
        {"config.correct": "216 -> 285"},
        None,
        {"config.model.pooling": "'last' -> 'mean'"},
    ]
    assert "vs 2" in table(tmp_path / "out", "markdown", reference=2)
    with pytest.raises(InputError, match="there is no row 3; the rows are 1-2,4"):
        analyse(tmp_path / "out", reference=3)


def test_what_differs_is_what_was_run_code_and_data_included(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "study", {"01_base": {}, "02_same": {}})
    ablation = AblationFolder.load(folder)
    run(ablation, FakeEngine(), tmp_path / "out", rows="1")
    run(ablation, FakeEngine(code="v2"), tmp_path / "out", rows="2")
    assert analyse(tmp_path / "out").rows[1].differs == {"code": "'v1' -> 'v2'"}
    run(ablation, FakeEngine(), tmp_path / "out", rows="2")
    assert analyse(tmp_path / "out").rows[1].differs == {}
    assert "Row 2 (same): nothing" in table(tmp_path / "out", "markdown")


def test_what_a_base_model_holds_differs_unless_another_one_was_chosen(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "study", {"01_base": {}, "02_other": {"model": {"size": "large"}}})
    ablation = AblationFolder.load(folder)

    def differs(**base: Any) -> Any:
        run(ablation, FakeEngine(base=base), tmp_path / "out", rows="2")
        return analyse(tmp_path / "out").rows[1].differs

    run(ablation, FakeEngine(base={"size": "small", "fingerprint": {"weights": "5f"}}), tmp_path / "out", rows="1")
    chosen = {"config.model.size": "absent -> 'large'"}
    assert differs(size="large", fingerprint={"weights": "90"}) == chosen
    replaced = {"base.fingerprint.weights": "'5f' -> '90'", **chosen}
    assert differs(size="small", fingerprint={"weights": "90"}) == replaced


def test_what_differs_is_looked_for_in_a_seed_that_both_have(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "study", {"01_base": {}, "02_worse": {"correct": 281}})
    run(AblationFolder.load(folder), FakeEngine(), tmp_path / "out", rows="1", seeds=(124,))
    run(AblationFolder.load(folder), FakeEngine(), tmp_path / "out", rows="2", seeds=(123, 124))
    assert analyse(tmp_path / "out").rows[1].differs == {"config.correct": "285 -> 281"}
    run(AblationFolder.load(folder), FakeEngine(), tmp_path / "out", rows="1", seeds=(122, 124))
    assert analyse(tmp_path / "out").rows[1].differs == {"config.correct": "285 -> 281"}


@pytest.mark.parametrize(
    ("interval", "inside"),
    [((0.95004, 0.97), True), ((0.9501, 0.97), False), ((0.9, 0.94996), True), ((0.9, 0.9499), False)],
)
def test_a_published_figure_is_as_exact_as_it_is_printed(
    tmp_path: Path, interval: tuple[float, float], inside: bool
) -> None:
    row = analysis(tmp_path, {"01_base": {}}).rows[0]
    published = Published(train=None, val=None, test=95.0, minutes=None)
    assert replace(row, published=published, interval=interval).published_inside is inside
    assert replace(row, published=published, interval=interval, unjudged="other data").published_inside is None


def test_seeds_that_were_run_otherwise_are_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "study", {"01_base": {}, "02_same": {"note": 1}})
    run(AblationFolder.load(folder), FakeEngine(), tmp_path / "out")
    (folder / "base.yaml").write_text("correct: 280\nmodel:\n  pooling: last\n")
    run(AblationFolder.load(folder), FakeEngine(code="v2"), tmp_path / "out", rows="1", seeds=(124, 125))
    found = analyse(tmp_path / "out").rows
    changed = "was run otherwise than seed 123: code: 'v1' -> 'v2'; config.correct: 285 -> 280"
    assert found[0].notes == [f"seed 124 {changed}", f"seed 125 {changed}"]
    assert found[0].status == "done"
    assert found[1].notes == []
    assert f"Row 1 (base): seed 124 {changed}" in table(tmp_path / "out", "markdown")
    assert f"Mind: seed 124 {changed}; seed 125" in read_results(tmp_path / "out").answers[1]


def cells(tmp_path: Path, rights: Sequence[int], first_wrong: Sequence[int], n: int = 300) -> list[RunState]:
    made = []
    for seed, (right, first) in enumerate(zip(rights, first_wrong, strict=True)):
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(result(right, 123, n)))
        predict(folder / "predictions-test.tsv", right, first, n)
        made.append(RunState(seed, folder, "done", result=Result.read(folder / "result.json")))
    return made


def test_the_interval_of_one_seed_is_wilsons(tmp_path: Path) -> None:
    assert accuracy_interval([]) is None
    assert accuracy_interval(cells(tmp_path, [285], [0])) == wilson_interval(285, 300)


def test_seeds_that_agree_on_every_example_add_nothing(tmp_path: Path) -> None:
    interval = accuracy_interval(cells(tmp_path, [285, 285, 285], [0, 0, 0]))
    assert interval == pytest.approx(wilson_interval(285, 300), abs=3e-4)  # and Student for Gauss: t of 299


def test_seeds_that_err_on_different_examples_narrow_the_interval(tmp_path: Path) -> None:
    low, high = accuracy_interval(cells(tmp_path, [285, 285, 285], [0, 100, 200]))
    alone = wilson_interval(285, 300)
    assert alone[0] < low < 0.95 < high < alone[1]


def test_seeds_that_are_far_apart_widen_the_interval(tmp_path: Path) -> None:
    low, high = accuracy_interval(cells(tmp_path, [297, 285, 225], [0, 0, 0]))
    mean = wilson_interval(269, 300)
    assert low < mean[0] - 0.02
    assert high > mean[1] + 0.005


def test_few_seeds_that_differ_say_little_of_their_spread(tmp_path: Path) -> None:
    """Two seeds, every answer of one right and every second one of the other: t of one degree of freedom."""
    two = cells(tmp_path, [300, 150], [0, 0])
    low, high = accuracy_interval(two)
    error, t = 0.25, stats.t.isf(0.025, 1)
    n = 0.75 * 0.25 / error**2
    centre, scale = 0.75 + t * t / (2 * n), 1 + t * t / n
    half = t * np.sqrt(0.75 * 0.25 / n + t * t / (4 * n * n))
    assert (low, high) == pytest.approx(((centre - half) / scale, (centre + half) / scale), abs=0.03)
    assert low < 0.06


def test_seeds_of_one_test_example_have_an_interval(tmp_path: Path) -> None:
    found = cells(tmp_path, [1, 0], [0, 0], n=1)
    low, high = accuracy_interval(found)
    assert 0 < low < 0.5 < high < 1


def test_without_mistakes_or_predictions_the_interval_is_that_of_one_test_set(tmp_path: Path) -> None:
    perfect = cells(tmp_path, [300, 300], [0, 0])
    assert accuracy_interval(perfect) == pytest.approx(wilson_interval(300, 300), abs=1e-9)
    (tmp_path / "seed-0/predictions-test.tsv").unlink()
    assert accuracy_interval(perfect) == pytest.approx(wilson_interval(300, 300), abs=1e-9)


def test_pareto_front() -> None:
    accuracies = [0.95, 0.94, 0.90, 0.95, 0.95, 0.80]
    costs = [(10.0, 5.0), (12.0, 5.0), (3.0, 9.0), (10.0, 5.0), (11.0, 4.0), (3.0, 9.0)]
    assert pareto_front(accuracies, costs) == [True, False, True, True, True, False]
    assert pareto_front([], []) == []


def test_costs_of_different_machines_do_not_compare(tmp_path: Path) -> None:
    fast = {"result": {"device": "cuda:0", "hardware": {"gpu": "A100", "cpu": "x"}, "seconds": {"fit": 1.0}}}
    slow = {"result": {"device": "cpu", "hardware": {"gpu": None, "cpu": "x", "threads": 2}, "seconds": {"fit": 9.0}}}
    found = analysis(tmp_path, {"01_base": fast, "02_slow": slow})
    assert found.machines == ["cpu: x, 2 threads", "cuda:0: A100"]
    assert [row.on_front for row in found.rows] == [None, None]
    assert "Costs do not compare: the rows ran on different machines (cpu: x, 2 threads | cuda:0: A100)" in table(
        tmp_path / "out", "markdown"
    )


def test_costs_do_not_depend_on_who_paid_for_the_shared_frozen_layers(tmp_path: Path) -> None:
    def cost(fit: float, frozen: float, test: float, frozen_test: float) -> dict:
        seconds = {"seconds": {"fit": fit, "test": test}, "seconds_frozen": {"fit": frozen, "test": frozen_test}}
        return {"result": {**seconds, "peak_memory_mb": 500.0}}

    paid, read = cost(8.0, 4.0, 1.5, 0.5), cost(4.03125, 0.03125, 1.0, 0.0)
    fast = {"result": {"seconds": {"fit": 5.5, "test": 0.5}, "peak_memory_mb": 500.0}}  # without frozen layers
    seen = []
    for order, (one, two) in {"first": (paid, read), "second": (read, paid)}.items():
        found = analysis(tmp_path / order, {"01_base": one, "02_note": two | {"note": 1}, "03_all": fast})
        assert [row.seconds for row in found.rows] == [5.0, 5.0, 6.0]
        assert [row.on_front for row in found.rows] == [True, True, False]
        seen.append(table(tmp_path / order / "out", "markdown"))
    assert "features (4.5 s in all: row 1 4.5)." in seen[0]
    assert "features (4.5 s in all: row 2 4.5)." in seen[1]
    assert seen[0].split("\n\n")[0] == seen[1].split("\n\n")[0]
    assert "frozen" not in table(tmp_path / "first/out", "markdown", timing=False).replace("seconds_frozen", "")
    analysis(tmp_path / "none", {"01_base": fast})
    assert "frozen" not in table(tmp_path / "none/out", "markdown")


def test_a_row_that_is_beaten_in_everything_is_off_the_front(tmp_path: Path) -> None:
    def cost(seconds: float) -> dict:
        return {"result": {"seconds": {"fit": seconds}, "peak_memory_mb": 500.0}}

    rows = {"01_base": cost(5), "02_slow": cost(9), "03_fast": cost(1) | {"correct": 200}, "04_odd": {"do": "raise"}}
    assert [row.on_front for row in analysis(tmp_path, rows).rows] == [True, False, True, None]


def test_memory_is_a_cost_like_time(tmp_path: Path) -> None:
    """Equally accurate rows: a slower one is on the front if it needs less memory, and off it if it needs as much."""

    def cost(seconds: float, memory: float) -> dict:
        return {"result": {"seconds": {"fit": seconds}, "peak_memory_mb": memory}}

    rows = {"01_base": cost(5, 500), "02_small": cost(9, 400), "03_same": cost(9, 500), "04_large": cost(5, 600)}
    assert [row.on_front for row in analysis(tmp_path, rows).rows] == [True, True, False, False]


class TimedEngine(FakeEngine):
    """Each seed takes so many seconds as its distance from 120, squared, and so many MB."""

    def run(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        super().run(configs, seed, directory)
        file, cost = directory / "result.json", float((seed - 120) ** 2)
        found = json.loads(file.read_text()) | {"seconds": {"fit": cost, "test": 0.0}, "peak_memory_mb": cost}
        file.write_text(json.dumps(found))


def test_seconds_are_the_mean_over_the_seeds_and_memory_is_the_highest(tmp_path: Path) -> None:
    run(
        AblationFolder.load(make_folder(tmp_path / "study", {"01_base": {}})),
        TimedEngine(),
        tmp_path / "out",
        seeds=(123, 125),
    )
    (row,) = analyse(tmp_path / "out").rows
    assert (row.seconds, row.peak_memory_mb) == ((9 + 25) / 2, 25)
    assert "  17.0       25  " in table(tmp_path / "out", "text")
