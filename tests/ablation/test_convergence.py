import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fake_engine import FakeEngine, make_folder
from ftkit.ablation.convergence import not_converged
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.result import Result
from ftkit.ablation.runner import run
from ftkit.ablation.sweep import RunState
from ftkit.commands.ablation import ablation_table as table
from ftkit.report.ablation_report import read_results
from ftkit.report.document import to_markdown
from ftkit.report.page import to_html
from page_reader import Page

FALLING, FLAT = np.linspace(0.7, 0.1, 40), np.tile([0.6, 0.8], 20)

NOISE = np.random.default_rng(0).normal(0.7, 0.1, 40)
# What row 2 logged on the real messages, one batch a value.
FIRST_TOKEN = np.fromstring("""
1.402 0.836 0.668 0.684 0.563 0.396 0.530 0.626 0.592 0.392 0.504 0.419 0.620 0.819 0.652 0.554 0.841
0.811 0.581 0.509 0.641 1.046 0.775 0.560 0.468 0.590 0.541 0.782 0.753 0.404 0.763 0.530 0.410 0.599
0.443 0.552 0.651 0.474 0.756 0.778 0.386 0.344 0.556 0.612 0.466 0.553 0.762 0.420 0.544 0.402 0.583
0.585 0.530 0.703 0.642 0.367 0.473 0.542 0.802 0.783 0.416 0.322 0.715 0.607 0.334
""", sep=" ")  # fmt: skip


def cell(
    folder: Path, right: int | None, labels: Sequence[str] = (), losses: Sequence[float] = (), ties: int | None = None
) -> RunState:
    """A run with so many of its training examples right, and these losses logged."""
    folder.mkdir(exist_ok=True)
    splits = {"test": {"n": 10, "correct": 5}}
    if right is not None:
        splits["train"] = {"n": len(labels) or 1000, "correct": right, **({} if ties is None else {"ties": ties})}
    (folder / "result.json").write_text(json.dumps({"format": 2, "splits": splits}))
    if labels:
        rows = [f"{k}\t{label}\t{label}\n" for k, label in enumerate(labels)]
        (folder / "predictions-train.tsv").write_text("".join(["id\tlabel\tprediction\n", *rows]))
    write_losses(folder, losses)
    return RunState(123, folder, "done", result=Result.read(folder / "result.json"))


def write_losses(folder: Path, losses: Sequence[float]) -> None:
    lines = [f"{10 * step},{loss}\n" for step, loss in enumerate(losses)]
    (folder / "metrics.csv").write_text("".join(["step,train/loss\n", *lines]))


@pytest.mark.parametrize(("right", "expected"), [(400, True), (523, True), (550, True), (551, False), (1040, False)])
def test_what_is_no_better_than_the_most_frequent_label_has_learned_nothing(
    tmp_path: Path, right: int, expected: bool
) -> None:
    """By chance 550 or more of 1,045 are right with probability 0.0505, 551 or more with 0.0444."""
    labels = ["ham"] * 523 + ["spam"] * 522
    reason = not_converged(cell(tmp_path / "run", right, labels, FALLING))
    assert bool(reason) == expected
    if expected:
        assert reason == (
            f"{right / 1045:.1%} of its 1,045 training examples are right, not significantly more than with always "
            "answering ham (50.0%)"
        )


def test_pairs_are_judged_against_a_coin_and_their_ties_left_out(tmp_path: Path) -> None:
    labels = ["chosen"] * 100
    assert "not significantly more than with a coin (50.0%)" in not_converged(cell(tmp_path / "a", 50, labels, ties=0))
    assert "57.5% of its 100" in not_converged(cell(tmp_path / "b", 56, labels, ties=3))  # 56 of 97: p = 0.077
    assert not_converged(cell(tmp_path / "c", 30, labels, ties=60)) == ""  # 30 of 40
    assert "50.0% of its 100" in not_converged(cell(tmp_path / "d", 0, labels, ties=100))


def test_too_few_examples_show_nothing(tmp_path: Path) -> None:
    assert not_converged(cell(tmp_path / "four", 4, ["ham", "spam"] * 2)) == ""  # 4 of 4: p = 0.06
    assert "50.0% of its 6" in not_converged(cell(tmp_path / "six", 3, ["ham", "spam"] * 3))


def test_where_there_is_one_label_nothing_can_be_learned(tmp_path: Path) -> None:
    assert not_converged(cell(tmp_path / "run", 50, ["ham"] * 100)) == ""


@pytest.mark.parametrize(
    ("right", "losses", "expected"),
    [
        (680, FLAT, "its training loss did not fall significantly (mean 0.7 over the first quarter of the logged"),
        (899, FLAT, "did not fall"),
        (900, FLAT, ""),  # it knows its training examples
        (None, FLAT, ""),  # nobody knows whether it does
        (680, FALLING, ""),
        (680, FLAT[:11], ""),  # too few to tell
        (680, [0.5] * 12, "did not fall"),
        (990, FALLING[::-1], "its training loss rose (mean 0.169 over the first quarter"),
        (None, FALLING[::-1], "its training loss rose"),
        (680, NOISE - np.linspace(0, 0.03, 40), "did not fall"),  # by less than the noise
        (680, FLAT - np.linspace(0, 0.2, 40), ""),
        (726, FIRST_TOKEN, ""),  # noisy, but it falls: the quarters alone do not tell (p = 0.11)
    ],
)  # fmt: skip
def test_a_training_whose_loss_does_not_fall_did_not_converge(
    tmp_path: Path, right: int | None, losses: Sequence[float], expected: str
) -> None:
    reason = not_converged(cell(tmp_path / "run", right, losses=losses))
    assert reason == expected or (expected and expected in reason)


@pytest.mark.parametrize(
    ("n", "losses", "marked"), [(48, FALLING, True), (2, FALLING, False), (48, FALLING[:11], False)]
)
def test_a_training_of_which_no_test_answer_is_right_is_marked(
    tmp_path: Path, n: int, losses: Sequence[float], marked: bool
) -> None:
    """Always answering one of three labels is right on none of two with probability 4/9; a short try is no training."""
    state = cell(tmp_path / "run", None, losses=losses)
    answers = [f"{number}\t{label}\t{label}…\n" for number, label in enumerate(["red", "green", "blue"] * n)][:n]
    (tmp_path / "run/predictions-test.tsv").write_text("".join(["id\tlabel\tprediction\n", *answers]))
    (tmp_path / "run/result.json").write_text(json.dumps({"format": 2, "splits": {"test": {"n": n, "correct": 0}}}))
    state = replace(state, result=Result.read(tmp_path / "run/result.json"))
    reason = "none of its 48 test answers is right (always answering red: 33.3%); see predictions-test.tsv"
    assert not_converged(state) == (reason if marked else "")


def test_without_curves_and_training_figures_nothing_is_said(tmp_path: Path) -> None:
    state = cell(tmp_path / "run", None)
    (tmp_path / "run/metrics.csv").unlink()
    assert not_converged(state) == ""


def sweep(tmp_path: Path, rows: dict[str, dict[str, object]], seeds: Sequence[int] = (123,)) -> Path:
    run(AblationFolder.load(make_folder(tmp_path / "study", rows)), FakeEngine(), tmp_path / "out", seeds=seeds)
    return tmp_path / "out"


def test_a_row_that_did_not_converge_is_marked_and_gets_no_star(tmp_path: Path) -> None:
    out = sweep(tmp_path, {"01_base": {}, "02_first": {"correct": 216}, "03_lora": {"correct": 216}})
    write_losses(out / "03_lora/seed-123", FALLING[::-1])
    text = table(out, "text")
    reason = "its training loss rose (mean 0.169 over the first quarter of the logged steps, 0.631 over the last)"
    lines = text.split("\n")
    assert "-23.00* " in lines[3]
    assert lines[3].endswith("done")
    assert "-23.00 " in lines[4]
    assert "*" not in lines[4]
    assert lines[4].endswith("not converged")
    assert "No star for row 3: row 3 did not converge, see below.\n" in text
    assert f"Row 3 (lora): not converged: {reason}\n" in text
    records = list(csv.DictReader(io.StringIO(table(out, "csv"))))
    assert [(row["status"], row["converged"]) for row in records] == [
        ("done", "True"), ("done", "True"), ("not converged", "False"),
    ]  # fmt: skip
    assert float(records[2]["p_holm"]) < 1e-9
    report = read_results(out)
    assert report.summary == "3 of 3 rows have figures. Not converged: row 3."
    assert "costs 23.0 points" in report.answers[2]
    assert "significant after" not in report.answers[3]
    assert "it gets 23.0 points less (95% interval" in report.answers[3]
    assert f"which proves nothing: row 3 did not converge. Mind: not converged: {reason}." in report.answers[3]
    page = Page(to_html(report.document()))
    assert [record["name"] for record in page.values(0) if "low" in record] == ["1 base", "2 first*", "3 lora"]
    assert "Not converged: row 3." in to_markdown(report.document())


def test_nothing_is_claimed_against_a_reference_that_did_not_converge(tmp_path: Path) -> None:
    out = sweep(tmp_path, {"01_base": {}, "02_first": {"correct": 216}, "03_same": {}})
    write_losses(out / "01_base/seed-123", FALLING[::-1])
    text = table(out, "text")
    assert "*" not in text.split("\n\n")[0]
    assert "No star for rows 2-3: row 1 did not converge, see below." in text
    assert "which proves nothing: row 1 did not converge." in read_results(out).answers[2]


def test_one_seed_of_a_row_is_enough(tmp_path: Path) -> None:
    out = sweep(tmp_path, {"01_base": {}, "02_first": {"correct": 216}}, seeds=(123, 124))
    write_losses(out / "02_first/seed-124", FALLING[::-1])
    text = table(out, "text")
    assert "*" not in text.split("\n\n")[0]
    assert "Row 2 (first): seed 124: not converged: its training loss rose" in text
