"""The arithmetic of ``benchmarks/bench_growth.py``: what is a straight line, what is drawn, what is start-up."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

import bench_growth as bench

EPOCHS = {"training": ([1.0, 2.0, 4.0], [3.0, 5.0, 9.0]), "evaluation": ([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])}


def test_a_straight_line_and_how_far_off_it_is() -> None:
    assert bench.straight_line([1, 2, 4], [3, 5, 9]) == {
        "intercept": pytest.approx(1), "slope": pytest.approx(2), "largest_deviation_percent": pytest.approx(0),
    }  # fmt: skip
    bent = bench.straight_line([0, 1, 2], [1, 1, 4])  # 0.5 + 1.5 x: 0.5 and 2 and 3.5
    assert (bent["intercept"], bent["slope"]) == (pytest.approx(0.5), pytest.approx(1.5))
    assert bent["largest_deviation_percent"] == pytest.approx(100)
    assert bench.power([10, 100], [3, 300]) == pytest.approx(2)


def test_seconds_are_drawn_against_messages_and_against_epochs() -> None:
    by_messages = bench.draw_messages({"what learns": ([100.0, 1000.0], [0.1, 1.0])})
    by_epochs = bench.draw_epochs(EPOCHS, {"intercept": 1.0, "slope": 2.0}, 5_000)
    assert (">messages<" in by_messages, "epochs" in by_messages) == (True, False)
    words = (">epochs<", "5,000 messages", ">training<", ">evaluation<", 'stroke-dasharray="5,4"')
    assert all(word in by_epochs for word in words)
    points = 'aria-roledescription="circle"'
    assert (by_messages.count(points), by_epochs.count(points)) == (2, 6)


def test_start_up_is_what_is_left_of_a_cell_without_its_batches(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock ticks when it is looked at: twice a batch and twice a cell, so a batch takes one tick of two."""
    ticks = count(0.0)
    monkeypatch.setenv("FTKIT_CACHE", "")  # it is set anew, and comes back
    monkeypatch.setattr(bench, "ROW_1", [tiny_config])
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    batches = 2 * 4 + 3 * 1 + (5 + 1 + 2)  # training, validation (once before it), and the test of three splits
    assert bench.start_up(tmp_path, repeats=1) == [2 * batches + 1 - batches]
    assert next(ticks) == 2 * (2 * batches + 2)
