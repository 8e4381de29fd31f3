"""The comparison in benchmarks/bench_ablation.py compares the same work, and says what it found."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import ablation_arithmetic as arithmetic
import ablation_contestants as contestants
import bench_ablation as bench
import plain_loop as plain

SIZE = contestants.SIZES["tiny"]


@pytest.mark.parametrize("row", [1, 15])
@pytest.mark.parametrize("epochs", [1, 3])
def test_the_plain_loop_evaluates_as_many_batches_as_are_counted(row: int, epochs: int, folder: Path) -> None:
    splits, pad = contestants.encoded_splits(folder)
    state, evaluated = plain.load_file(folder / "model" / "model.safetensors"), []
    model = plain.build(plain.ROWS[row], SIZE, state)
    model.register_forward_hook(lambda *_: None if torch.is_grad_enabled() else evaluated.append(1))
    plain.train(model, plain.ROWS[row], splits, pad, epochs)
    finally_predicted = sum(math.ceil(len(part) / plain.ROWS[row]["batch_size"]) for part in splits.values())
    work = contestants.work_of(plain.ROWS[row], contestants.sizes_of(splits), epochs)
    assert len(evaluated) == work.eval_batches + finally_predicted


@pytest.mark.parametrize("row", [15, 16])
def test_ftkit_evaluates_about_as_many_and_predicts_the_same(row: int, folder: Path, cache: None) -> None:
    (found,) = contestants.ours(contestants.Task(folder, [(row, contestants.SEED)], 1, SIZE, "float32"))
    splits, _ = contestants.encoded_splits(folder)
    work = contestants.work_of(plain.ROWS[row], contestants.sizes_of(splits), 1)
    assert 0.95 < found["evaluated_batches"] / work.eval_batches < 1.5
    theirs = contestants.plain(contestants.Task(folder, [(row, contestants.SEED)], 1, SIZE, "float32"))
    assert found["predictions"] == theirs["predictions"]
    assert 0 < sum(theirs["predictions"]) < len(splits["test"])  # or the order of the messages would not matter


def test_less_work_than_the_plain_loops_is_no_result(
    folder: Path, cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contestants, "validation_of", lambda row, work: {"limit_val_batches": 1})
    with pytest.raises(SystemExit, match="not the same work"):
        contestants.ours(contestants.Task(folder, [(1, contestants.SEED)], 1, SIZE, "float32"))


def test_operations_of_a_step_of_a_row() -> None:
    size, work = plain.Size(2, 4, 2), contestants.Work(steps=1, eval_batches=0, every=1, val_batches=1)

    def needed(row: int) -> dict[str, float]:
        return {name: value * 1e12 for name, value in arithmetic.row_tflops(row, size, [3] * 8, 1, work).items()}

    block = 24 * 4**2 * 3 + 4 * 4 * 3 * 3  # of one message: projections and the two-layer network, and attention
    one = 24 * 4**2 + 4 * 4 * 2 * 3
    last_block, everything, lora = needed(1), needed(5), needed(11)
    assert last_block == pytest.approx({"plain": 8 * 6 * block, "frozen": 8 * block, "learning": 8 * 4 * one})
    assert everything == pytest.approx({"plain": 8 * 8 * block, "frozen": 0, "learning": 8 * 4 * (block + one)})
    assert lora == pytest.approx({"plain": 8 * 6 * block, "frozen": 0, "learning": 8 * 3 * (block + one)})


def test_the_last_lines_say_how_many_times_as_fast(capsys: pytest.CaptureFixture[str]) -> None:
    mine = {"seconds": 10.0, "different_test_predictions": 0, "largest_loss_difference": 2e-7}
    by_row: dict[int, Any] = {
        1: {"plain_s": 54.0, "ours": {"float32": mine}, "trainer_s": 30.0},
        2: {"plain_from_sample_s": 50.0},
    }
    sweeps = {"float32": {"seconds": 13.0, "seconds_of_row": {1: 10.0, 2: 3.0}, "second_seed_s": 2.0}}
    bench.summary(by_row, sweeps)
    assert capsys.readouterr().out.splitlines() == [
        "row 1: 5.4x (ours 10 s, plain loop 54 s, Trainer 30 s) float32; 0 test predictions differ, losses by 2e-07",
        "row 2: 16.7x (ours 3 s, plain loop 50 s) float32, in the sweep",
        "row 1, second seed: 27.0x (ours 2 s, plain loop 54 s) float32",
        "sweep of rows 1,2: 8.0x (ours 13 s, plain loop 104 s) float32",
    ]
