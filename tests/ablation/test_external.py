"""Runs that were made elsewhere: a prediction file and stated costs become a row of an ablation's table and report."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fake_engine import FakeEngine, make_folder
from ftkit.ablation.analysis import analyse
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.runner import run
from ftkit.ablation.sweep import read_sweep
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.report.ablation_report import read_results, write

COSTS = """\
seconds: 812.5
peak_memory_mb: 9120
trainable_parameters: 1536000
checkpoint_mb: 12.4
device: cuda:0
machine: NVIDIA A100
base_model: HuggingFaceTB/SmolLM2-135M
made_with: transformers 5.24, Trainer
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The output folder of two rows of 300 examples, 285 and 216 right, with seed 123."""
    make_folder(tmp_path / "study", {"01_base": {}, "02_first": {"correct": 216}})
    run(AblationFolder.load(tmp_path / "study"), FakeEngine(), tmp_path / "out")
    return tmp_path / "out"


def frame(wrong: int, n: int = 300) -> pd.DataFrame:
    """Predictions as another program has them: the first ones wrong, from the last example on."""
    rows = [{"id": f"sms-{k}", "label": "ham", "prediction": "spam" if k < wrong else "ham"} for k in range(n)]
    return pd.DataFrame(rows[::-1])


def add(study: Path, *options: str) -> int:
    return main(["ablation", "add", str(study), *options])


def test_a_run_made_elsewhere_is_compared_and_marked(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, costs = study.parent / "trainer.csv", study.parent / "costs.yaml"
    frame(30).to_csv(file, index=False)
    costs.write_text(COSTS)
    options = ["20_trainer", str(file), "--costs", str(costs)]
    assert add(study, *options, "--question", "Is the Trainer of transformers as good?") == 0
    assert capsys.readouterr().out == f"{study / '20_trainer' / 'seed-123'}\n"

    row = analyse(study).rows[2]
    assert (row.number, row.name, row.status, row.test, row.n) == (20, "trainer", "external", 0.9, 300)
    assert (row.seconds, row.peak_memory_mb, row.trainable, row.checkpoint_mb) == (812.5, 9120, 1536000, 12.4)
    assert row.comparison is not None
    assert (row.comparison.difference, row.comparison.disagreements) == (pytest.approx(-0.05), 15)
    assert row.differs is None  # nobody knows its settings

    assert main(["ablation", "table", str(study)]) == 0
    table = capsys.readouterr().out
    assert "external" in table
    note = "made elsewhere, read from trainer.csv; its costs are as stated, not measured"
    assert note in table
    assert main(["ablation", "status", str(study)]) == 0
    assert "seed 123   done, made elsewhere" in capsys.readouterr().out
    write(report := read_results(study), study / "report", png=False)
    page = (study / "report" / "report.html").read_text()
    assert note in page
    assert "NVIDIA A100" in page
    assert "Is the Trainer of transformers as good?" in page
    assert "Mind: made elsewhere" in report.answers[20]
    assert "Cost is not drawn" in page  # another machine
    recorded = report.to_pandas().set_index("row").loc[20]
    assert (recorded["status"], recorded["difference"]) == ("external", pytest.approx(-0.05))


@pytest.mark.parametrize("form", ["tsv", "jsonl", "parquet", "jsonl.gz"])
def test_any_prediction_file_is_taken(form: str, study: Path) -> None:
    file, table = study.parent / f"other.{form}", frame(3)
    if form == "tsv":
        table.to_csv(file, sep="\t", index=False)
    elif form == "parquet":
        table.to_parquet(file)
    else:
        text = table.to_json(orient="records", lines=True)
        file.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else text.encode())
    assert add(study, "03_other", str(file)) == 0
    row = analyse(study).rows[2]
    assert (row.name, row.test, row.seconds) == ("other", 0.99, None)


def test_scores_and_further_columns_are_kept(study: Path) -> None:
    table = frame(3)
    table["probability:spam"] = [0.9 if answer == "spam" else 0.2 for answer in table["prediction"]]
    table["length"] = "short"
    table.to_csv(file := study.parent / "scored.csv", index=False)
    assert add(study, "03_other", str(file)) == 0
    kept = pd.read_csv(study / "03_other/seed-123/predictions-test.tsv", sep="\t")
    assert list(kept.columns) == ["id", "label", "prediction", "probability:spam", "length"]
    assert kept["probability:spam"].tolist() == table["probability:spam"].tolist()


def test_it_stays_when_the_ablation_goes_on_and_is_replaced_when_added_again(study: Path) -> None:
    frame(30).to_csv(file := study.parent / "a.csv", index=False)
    assert add(study, "20_trainer", str(file)) == 0
    make_folder(study.parent / "again", {"01_base": {}, "02_first": {"correct": 216}, "03_more": {}})
    engine = FakeEngine()
    run(AblationFolder.load(study.parent / "again"), engine, study)
    assert engine.ran == [("03_more", 123)]
    assert [(row.number, row.status) for row in analyse(study).rows] == [
        (1, "done"), (2, "done"), (3, "done"), (20, "external"),
    ]  # fmt: skip
    frame(60).to_csv(file, index=False)
    assert add(study, "20_trainer", str(file), "--question", "New?") == 0
    rows = analyse(study).rows
    assert [(row.number, row.test, row.question) for row in rows if row.number == 20] == [(20, 0.8, "New?")]
    assert not list(study.glob("20_trainer/.*"))


# Adds a run and dies, as by SIGKILL: before the line of the ledger (0), or before the folders change places (1, 2).
KILLED = """
import os, sys
from pathlib import Path
from ftkit.ablation import external

left = int(sys.argv[1])

def die(real):
    def call(*arguments):
        global left
        left -= 1
        return os._exit(9) if left < 0 else real(*arguments)
    return call

external.Ledger.append = die(external.Ledger.append)
Path.rename = die(Path.rename)
external.add_external_run(Path(sys.argv[2]), "20_trainer", Path(sys.argv[3]))
"""


@pytest.mark.parametrize("place", [0, 1, 2])
def test_killed_anywhere_a_result_never_lies_beside_the_predictions_of_another(place: int, study: Path) -> None:
    """Both files have 270 right answers of 300, so that no count tells them apart."""
    one, two = frame(30), frame(30)
    two["prediction"] = two["prediction"].to_list()[::-1]
    files = {name: study.parent / name for name in ("one.csv", "two.csv")}
    for table, file in zip((one, two), files.values(), strict=True):
        table.to_csv(file, index=False)

    def state() -> tuple[str, list[str]]:
        """The status, and whose the result and the predictions are."""
        run = next(row for row in read_sweep(study).rows if row.number == 20).runs[0]
        if not run.directory.exists():
            return run.status, []
        first = "one.csv" if "sms-0\tham\tspam\n" in run.test_predictions.read_text() else "two.csv"
        return run.status, [json.loads((run.directory / "result.json").read_text())["data"]["source"], first]

    assert add(study, "20_trainer", str(files["one.csv"])) == 0
    assert state() == ("done", ["one.csv"] * 2)
    command = [sys.executable, "-c", KILLED, str(place), str(study), str(files["two.csv"])]
    assert subprocess.run(command, check=False).returncode == 9
    assert state() == {
        0: ("done", ["one.csv"] * 2), 1: ("unfinished", ["one.csv"] * 2), 2: ("unfinished", []),
    }[place]  # fmt: skip
    assert add(study, "20_trainer", str(files["two.csv"])) == 0
    assert state() == ("done", ["two.csv"] * 2)
    assert [file.name for file in (study / "20_trainer").iterdir()] == ["seed-123"]


def test_two_seeds_are_two_runs(study: Path) -> None:
    run(AblationFolder.load(study.parent / "study"), FakeEngine(), study, seeds=[123, 124])
    for seed, wrong in (("123", 30), ("124", 33)):
        frame(wrong).to_csv(file := study.parent / f"{seed}.csv", index=False)
        assert add(study, "20_trainer", str(file), "--seed", seed) == 0
    row = analyse(study).rows[2]
    assert (row.seeds, row.test, row.status) == ([123, 124], pytest.approx(0.895), "external")
    assert row.comparison is not None
    assert row.comparison.seeds == [123, 124]
    assert len(row.notes) == 1  # none about settings that differ


def test_an_added_row_with_the_number_of_a_new_one_is_told(study: Path) -> None:
    frame(30).to_csv(file := study.parent / "a.csv", index=False)
    assert add(study, "03_trainer", str(file)) == 0
    make_folder(study.parent / "more", {"01_base": {}, "03_more": {}})
    with pytest.raises(InputError, match=r"03_more.yaml: has the number of 03_trainer, which was made elsewhere"):
        run(AblationFolder.load(study.parent / "more"), FakeEngine(), study)


BAD: dict[str, tuple[Any, str, str, str]] = {
    "other ids": (frame(3).assign(id=lambda table: "x" + table["id"]), "20_t", "", "(got '0 ids in common')"),
    "fewer examples": (frame(3, 299), "20_t", "", "its 299 examples or their labels are not the 300 of"),
    "other labels": (frame(3).assign(label=["spam", *["ham"] * 299]), "20_t", "", "(got '300 ids in common')"),
    "no label": (frame(3).assign(label=[None, *["ham"] * 299]), "20_t", "", "sms-299: an example has no label"),
    "taken number": (frame(3), "02_other", "", "row: the number is that of 02_first"),
    "own row": (frame(3), "02_first", "", "row: the number is that of 02_first"),
    "no label of a row": (frame(3), "trainer", "", "not the label of a row (got 'trainer')"),
    "path": (frame(3), "20_../x", "", "not the label of a row"),
    "unknown cost": (frame(3), "20_t", "second: 3", "costs.yaml: second: is no cost; fix: use seconds,"),
    "text for a number": (frame(3), "20_t", "seconds: fast", "seconds: is not a number from 0 on (got 'fast')"),
    "negative": (frame(3), "20_t", "seconds: -1", "seconds: is not a number from 0 on (got -1)"),
    "not a number": (frame(3), "20_t", "seconds: .nan", "seconds: is not a number from 0 on"),
    "number for a text": (frame(3), "20_t", "device: 3", "device: is not a text (got 3)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    case: str, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, row, costs, said = BAD[case]
    table.to_csv(file := study.parent / "a.csv", index=False)
    (study.parent / "costs.yaml").write_text(costs)
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    options = ["--costs", str(study.parent / "costs.yaml")] if costs else []
    assert add(study, row, str(file), *options) == 2
    assert said in capsys.readouterr().err
    after = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    assert after == before
    assert not list(study.glob("20_*/seed-*"))


def test_a_folder_without_an_ablation_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame(3).to_csv(file := tmp_path / "a.csv", index=False)
    assert add(tmp_path / "nothing", "20_t", str(file)) == 2
    assert "not the output of an ablation" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_the_ledger_says_where_it_comes_from(study: Path) -> None:
    frame(30).to_csv(file := study.parent / "a.csv", index=False)
    (study.parent / "costs.yaml").write_text("seconds: 3\n")
    add(study, "20_t", str(file), "--costs", str(study.parent / "costs.yaml"))
    last = json.loads((study / "ledger.jsonl").read_text().splitlines()[-1])
    assert last["identity"]["external"]["predictions"] == "a.csv"
    assert last["identity"]["external"]["costs"] == {"seconds": 3}
    (added,) = read_sweep(study).rows[2].runs
    assert added.external
    result = study / "20_t/seed-123/result.json"
    result.write_text(result.read_text().replace("3", "4"))
    assert read_sweep(study).rows[2].runs[0].status == "unfinished"  # as of any run whose figures were changed
