"""Published statements against planted results: confirmed, refuted, or not testable with so little."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from fake_engine import FakeEngine, make_folder
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation_runs import Ablation
from ftkit.errors import InputError
from ftkit.report.ablation_report import read_results
from ftkit.report.ablation_table import table
from ftkit.report.document import to_markdown
from ftkit.results.best_ratio import BestRatio

LR = "model.lr"
RATE = {"claim": "The best LoRA rate is 5 to 20 times the best full rate.", "rows": [2], "against": 1}
RATE |= {"ratio_of": LR, "between": [5, 20], "source": "a paper (2025)"}
RANK = {"claim": "Rank hardly moves it.", "rows": [2, 3], "against": 1, "ratio_of": LR, "between": [0.5, 2]}
TOKEN = {"claim": "The last token beats the first.", "rows": [1], "against": 2}


def near(best: float, step: float) -> list[float]:
    return [float(f"{best * step**place:.3g}") for place in (-2, -1, 0, 1, 2)]


def judged(
    folder: Path, claim: dict[str, Any], best: list[float], step: float = 1.5, seeds: int = 2, shift: int = 0
) -> tuple[dict[str, Any], str]:
    """The record of the first row of the claim, and the text, where each row has its best rate in the middle.

    With a ``shift`` the best of the second row is so many steps from there.
    """
    rows, tried = {}, {}
    for number, rate in enumerate(best, start=1):
        rates = near(rate, step)
        middle = 2 + (shift if number == 2 else 0)
        rows[f"{number:02}_row"] = {
            "by_lr": {one: [990 - 20 * abs(place - middle), 285] for place, one in enumerate(rates)}
        }
        tried[number] = {LR: rates}
    study = make_folder(folder / "study", rows)
    (study / "claim.yaml").write_text(yaml.safe_dump(claim))
    search = {"settings": {LR: [1.0]}, "rows": tried, "untuned": False}
    ablation = Ablation(study, out=folder / "out")
    ablation.run(list(range(1, seeds + 1)), engine=FakeEngine(), search=search)
    report = read_results(folder / "out")
    records = json.loads(table(report.analysis, "json"))
    text = table(report.analysis, "text")
    assert text.splitlines()[-1] == to_markdown(report.document()).rstrip().splitlines()[-1].lstrip("- ")
    return next(one for one in records if one["row"] == claim["rows"][0]), text


@pytest.mark.parametrize(
    ("best", "options", "outcome", "reason"),
    [
        ([1e-3, 1e-2], {}, "confirmed", ""),
        ([1e-3, 1e-3], {}, "refuted", ""),
        ([1e-3, 1e-2], {"seeds": 1}, "not testable", "one seed does not tell how much the best value varies"),
        ([1e-3, 1e-2], {"step": 3.0}, "not testable", "the values tried lie too far apart for 5 to 20"),
        ([1e-3, 1e-2], {"shift": 2}, "not testable", "with some seed the best is at the edge of what was tried"),
        ([1e-3, 3e-2], {"shift": 2}, "refuted", ""),  # more than 20 times, however much more
    ],
)
def test_the_ratio_of_best_rates_has_three_ends(
    best: list[float], options: dict[str, Any], outcome: str, reason: str, tmp_path: Path
) -> None:
    record, text = judged(tmp_path, RATE, best, **options)
    assert (record["claim"], record["claim_row"]) == (outcome, outcome)
    assert record["claim_reason"].startswith(reason)
    assert bool(reason) == bool(record["claim_reason"])
    assert f"Claim: {outcome}: The best LoRA rate is 5 to 20 times the best full rate. (a paper (2025))" in text
    assert text.rstrip().splitlines()[-1].startswith(f"Row 2 against row 1: {outcome}: lr ")


def test_a_ratio_outside_of_its_own_interval_tests_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over the seeds may choose another value than the seeds, where one of them is far off."""
    odd = BestRatio(5.5, (6.0, 9.0), 1.1)
    monkeypatch.setattr("ftkit.ablation.claim_findings.best_ratio", lambda *arguments: odd)
    record, _ = judged(tmp_path, RATE, [1e-3, 1e-2])
    assert record["claim"] == "not testable"
    assert record["claim_reason"].startswith("the best value by the mean over the seeds is far from the seeds' own")


@pytest.mark.parametrize(
    ("best", "outcome"),
    [
        ([1e-3, 1.1e-3, 0.9e-3], "confirmed"),
        ([1e-3, 1.1e-3, 5e-3], "refuted"),
        ([1e-3, 1.1e-3, 2e-3], "not testable"),
    ],
)
def test_a_claim_about_several_rows_needs_all_of_them_and_falls_with_one(
    best: list[float], outcome: str, tmp_path: Path
) -> None:
    record, text = judged(tmp_path, RANK, best, step=1.3)
    assert record["claim"] == outcome
    assert record["claim_row"] == "confirmed"
    assert record["claim_figure"] == pytest.approx(1.1)
    assert record["claim_low"] < 1.1 < record["claim_high"]
    assert "Row 3 against row 1" in text
    assert "97.5% interval" in text


@pytest.mark.parametrize(
    ("correct", "outcome", "reason"),
    [
        ((290, 250), "confirmed", ""),
        ((250, 290), "refuted", ""),
        ((287, 285), "not testable", "300 test examples and 1 seed show no difference; for one of this size it takes"),
        ((285, 285), "not testable", "300 test examples and 1 seed show no difference"),
    ],
)
def test_a_claim_about_accuracy_is_a_paired_test(
    correct: tuple[int, int], outcome: str, reason: str, tmp_path: Path
) -> None:
    rows = {f"0{row}_row": {"correct": right} for row, right in enumerate(correct, start=1)}
    study = make_folder(tmp_path / "study", rows)
    (study / "claim.yaml").write_text(yaml.safe_dump(TOKEN))
    Ablation(study, out=tmp_path / "out").run([123], engine=FakeEngine())
    first, second = json.loads(table(read_results(tmp_path / "out").analysis, "json"))
    assert (first["claim"], first["claim_figure"]) == (outcome, pytest.approx((correct[0] - correct[1]) / 300))
    assert first["claim_reason"].startswith(reason)
    assert "claim" not in second


def test_rows_that_were_tested_on_other_labels_test_nothing(tmp_path: Path) -> None:
    study = make_folder(tmp_path / "study", {"01_row": {"correct": 290}, "02_row": {"correct": 250}})
    (study / "claim.yaml").write_text(yaml.safe_dump(TOKEN))
    Ablation(study, out=tmp_path / "out").run([123], engine=FakeEngine())
    file = tmp_path / "out/02_row/seed-123/predictions-test.tsv"
    exchanged = {"ham": "spam", "spam": "ham"}
    lines = [[exchanged.get(cell, cell) for cell in line.split("\t")] for line in file.read_text().splitlines()]
    file.write_text("".join("\t".join(line) + "\n" for line in lines))
    assert "no answers to the same test examples" in table(read_results(tmp_path / "out").analysis, "text")


def test_rows_that_were_not_tuned_or_not_run_test_nothing(tmp_path: Path) -> None:
    study = make_folder(tmp_path / "study", {"01_row": {}, "02_row": {}})
    (study / "claim.yaml").write_text(yaml.safe_dump(RATE))
    ablation = Ablation(study, out=tmp_path / "out")
    ablation.run([123], engine=FakeEngine())
    assert "not both tuned over positive values" in table(read_results(tmp_path / "out").analysis, "text")
    Ablation(study, rows="1", out=tmp_path / "half").run([123], engine=FakeEngine())
    said = table(read_results(tmp_path / "half").analysis, "text")
    assert "Claim: not testable" in said
    assert "no seed in common was run to the end" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"against": None}, r"against: cannot be used \(got None\); fix: name another row"),
        ({"rows": [7]}, r"rows: cannot be used \(got \[7\]\); fix: list rows of this ablation, as \[2\]"),
        ({"rows": "2"}, r"rows: cannot be used"),
        ({"rows": [1]}, r"against: cannot be used"),
        ({"betwen": [1, 2]}, r"betwen: no such key; fix: the keys are claim, rows, against"),
        ({"between": [20, 5]}, r"between: cannot be used \(got \[20, 5\]\); fix: write \[LOWEST, HIGHEST\]"),
        ({"between": "5 to 20"}, r"between: cannot be used"),
        ({"ratio_of": 3}, r"ratio_of: cannot be used"),
        ({"claim": 3}, r"claim: cannot be used"),
    ],
)
def test_a_wrong_claim_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    study = make_folder(tmp_path / "study", {"01_row": {}, "02_row": {}})
    (study / "claim.yaml").write_text(yaml.safe_dump(RATE | changes))
    with pytest.raises(InputError, match=rf"claim\.yaml: {said}"):
        AblationFolder.load(study)
    (study / "claim.yaml").write_text("claim: Much.\nrows: [2]\n")
    with pytest.raises(InputError, match=r"claim\.yaml: against: is missing"):
        AblationFolder.load(study)
