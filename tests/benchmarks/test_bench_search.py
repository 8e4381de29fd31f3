"""benchmarks/bench_search.py searches as the command does, and calculates the tries that it did not run."""

from pathlib import Path

import pytest

import ablation_contestants as contestants
import bench_search as bench


def test_two_tries_are_fitted_and_the_chosen_one_tested(folder: Path, cache: None) -> None:
    task = contestants.Task(folder, [(3, contestants.SEED)], 1, contestants.SIZES["tiny"], "float32")
    found = bench.search(task, bench.RATES[:2], bench.SEEDS[:1])
    assert [stage["stage"] for stage in found["stages"]] == [*["identity"] * 3, "fit", "fit", "test"]
    assert {stage["row"] for stage in found["stages"]} == {3}
    assert sum(stage["seconds"] for stage in found["stages"]) < found["seconds"]
    first, second = bench.of_row(found, 3)["fit"]
    assert first["frozen"] > second["frozen"]  # which opens what the first one has computed
    profile = bench.profile(bench.of_row(found, 3), times=1)
    assert sum(profile[part] for part in ("training", "opening", "around")) == pytest.approx(second["seconds"])


def test_all_tries_are_calculated_from_two_short_ones() -> None:
    fits = [{"seconds": seconds, "cpu_seconds": 2 * seconds, "training": 1.0} for seconds in (10.0, 2.0)]
    test = {"seconds": 5.0, "cpu_seconds": 5.0, "frozen": 4.5}
    stages = {"identity": [{"seconds": 1.0, "cpu_seconds": 1.0}] * 3, "fit": fits, "test": [test]}
    testing = 5 + 2 * 0.5  # the others find what the frozen layers make of the test examples
    assert bench.calculated(stages, times=3) == 16 * 1 + (10 + 2) + 14 * (2 + 2) + testing
    assert bench.calculated(stages, 3, "cpu_seconds") == 16 * 1 + 2 * (10 + 2) + 2 * 14 * (2 + 2) + testing


def test_the_plain_loop_predicts_all_splits_of_the_chosen_setting_alone() -> None:
    sample = {"seconds": 100.0, "cpu_seconds": 200.0, "evaluated_batch_s": 0.5}
    assert bench.plain_seconds(sample, 40) == 15 * 80 + 3 * 20
    assert bench.plain_seconds(sample, 40, "cpu_seconds") == 2 * (15 * 80 + 3 * 20)


def test_the_last_lines_say_how_many_times_as_fast(capsys: pytest.CaptureFixture[str]) -> None:
    def both(seconds: float) -> dict[str, float]:
        return {"seconds": seconds, "cpu_seconds": 2 * seconds}

    found = {"rows": {1: both(100), 19: both(300)}, "single": both(50), "process_s": 20.0}
    ratios = bench.summary({1: both(4000), 19: both(8000)}, found)
    assert (ratios["first_row_seconds"], ratios["all_rows_seconds"]) == (40, 30)
    assert (ratios["processes"], ratios["processes_with_cache"]) == (15 * 50 / 100, (50 + 14 * 20) / 100)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "rows 1 x 15, seconds: 40.0x (ours 100 s, plain loop 4e+03 s)",
        "rows 1 x 15, seconds: 40.0x (ours 100 s, plain loop 4e+03 s)",
        "rows 1,19 x 15, seconds: 30.0x (ours 400 s, plain loop 1.2e+04 s)",
        "row 1: as long as 2.00 runs of it from nothing",
    ]
    assert lines[-1] == "row 1, a process for each try: 7.50 times as long; with a common cache 3.30 times"
