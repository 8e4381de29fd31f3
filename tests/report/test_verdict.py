"""Verdicts from prediction files, run folders and rows: what is refused, what is counted, and which test is used."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import ftkit
from fake_engine import FakeEngine, make_folder
from ftkit.ablation.analysis import analyse
from ftkit.ablation.external import add_external_run
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.runner import run
from ftkit.cli import main
from ftkit.errors import ExitCode, InputError
from ftkit.report.verdict import plan

LABELS = np.array(["spam", "ham", "ham"] * 100)
OTHER = {"spam": "ham", "ham": "spam"}


def frame(wrong: range, n: int = 300) -> pd.DataFrame:
    predictions = [OTHER[label] if place in wrong else label for place, label in enumerate(LABELS[:n])]
    return pd.DataFrame({"id": [f"m{place}" for place in range(n)], "label": LABELS[:n], "prediction": predictions})


def test_two_classes_need_no_positive_one(files: tuple[Path, Path], tmp_path: Path) -> None:
    sides = [tmp_path / f"side-{path.name}" for path in files]
    for path, side in zip(files, sides, strict=True):
        side.write_text(path.read_text().replace("spam", "left").replace("ham", "right"))
    found, wanted = ftkit.verdict(*sides), ftkit.verdict(*files)
    assert (found.outcome, found.effect, found.interval) == (wanted.outcome, wanted.effect, wanted.interval)
    assert found.effect == pytest.approx(25 / 300)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A file with 5 and one with 30 other errors, by pandas."""
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    frame(range(5)).to_csv(a, index=False)
    frame(range(5, 35)).sample(frac=1, random_state=0).to_csv(b, index=False)  # in another order
    return a, b


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """An output folder: rows that get 285, 240 and 285 right with seed 123, and one more with each next seed."""
    rows: dict[str, dict[str, Any]] = {"01_base": {}, "02_worse": {"correct": 240}, "03_alike": {"first_wrong": 200}}
    folder = AblationFolder.load(make_folder(tmp_path / "study", rows))
    run(folder, FakeEngine(), tmp_path / "out", seeds=[123, 124, 125])
    return tmp_path / "out"


def run_again(study: Path, row: str, seeds: list[int], **settings: Any) -> None:
    """Change a row's settings and run it again, with the same results otherwise."""
    file = study.parent / f"study/rows/{row}.yaml"
    file.write_text(file.read_text() + yaml.safe_dump(settings))
    run(AblationFolder.load(study.parent / "study"), FakeEngine(), study, str(int(row[:2])), seeds=seeds)


# Prediction files


def test_files_are_judged_by_the_test_for_growing_data(files: tuple[Path, Path]) -> None:
    found = ftkit.verdict(*files)
    assert (found.outcome, found.exit_code, found.test) == ("better", 0, "anytime")
    assert (found.effect, found.n, found.only_a, found.only_b) == (25 / 300, 300, 30, 5)
    assert found.seeds == []
    assert [side.tries_from for side in (found.a, found.b)] == ["not known, counted as 1"] * 2
    assert ftkit.verdict(*reversed(files)).outcome == "worse"


def test_a_planned_number_of_examples_gets_the_exact_test(files: tuple[Path, Path]) -> None:
    found = ftkit.verdict(*files, planned_n=300)
    assert (found.test, found.e_value, found.p) == ("fixed_n", None, ftkit.compare(*files).p)
    with pytest.raises(InputError, match=r"planned_n: there are 300 \(got 400\)"):
        ftkit.verdict(*files, planned_n=400)
    with pytest.raises(InputError, match="planned_n"):
        ftkit.verdict(*files, planned_n=300, growing=True)


def test_one_file_on_both_sides_and_its_copies_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    shutil.copy(files[0], copy)
    (tmp_path / "link.csv").symlink_to(files[0])
    for other in (files[0], copy, tmp_path / "link.csv"):
        with pytest.raises(
            InputError, match=r"a\.csv: holds the very same answers as .*; fix: give the answers of two"
        ):
            ftkit.verdict(files[0], other, margin=0.1)


def test_a_copy_in_another_order_is_pointed_out(files: tuple[Path, Path], tmp_path: Path) -> None:
    frame(range(5)).iloc[::-1].to_csv(tmp_path / "reversed.csv", index=False)
    found = ftkit.verdict(files[0], tmp_path / "reversed.csv", margin=0.1)
    assert found.warnings == ["the two are right on the same examples: are these two models?"]


def test_copies_and_other_orders_and_formats_change_nothing(files: tuple[Path, Path], tmp_path: Path) -> None:
    found = ftkit.verdict(*files)
    table = pd.read_csv(files[1])
    table.iloc[::-1].to_json(tmp_path / "b.jsonl", orient="records", lines=True)
    table.sort_values("id").to_parquet(tmp_path / "renamed.parquet", index=False)
    with gzip.open(tmp_path / "b.tsv.gz", "wt") as file:
        table.sample(frac=1, random_state=1).to_csv(file, sep="\t", index=False)
    for name in ("b.jsonl", "renamed.parquet", "b.tsv.gz"):
        again = ftkit.verdict(files[0], tmp_path / name)
        assert (again.e_value, again.interval, again.outcome) == (found.e_value, found.interval, found.outcome)


def test_other_ids_on_one_side_are_refused(files: tuple[Path, Path]) -> None:
    frame(range(5), 280).to_csv(files[0], index=False)
    with pytest.raises(
        InputError,
        match=r"b\.csv: id: 20 ids are not in .*a\.csv \(got 'm\d+'\); fix: answer .* cannot be paired",
    ):
        ftkit.verdict(*files)
    with pytest.raises(InputError, match=r"b\.csv: id: 20 ids are not in"):
        ftkit.verdict(*reversed(files))


def test_other_labels_on_one_side_are_refused(files: tuple[Path, Path]) -> None:
    table = frame(range(5))
    table.loc[7, "label"] = OTHER[table.loc[7, "label"]]
    table.to_csv(files[0], index=False)
    with pytest.raises(InputError, match=r"a\.csv:9: label: 1 labels differ from those in"):
        ftkit.verdict(*files)


def test_examples_without_a_label_are_left_out_and_said(files: tuple[Path, Path]) -> None:
    for file in files:
        table = pd.read_csv(file)
        table.loc[table["id"] == "m100", "label"] = None
        table.to_csv(file, index=False)
    found = ftkit.verdict(*files)
    assert found.n == 299
    assert [said.split(": ")[1] for said in found.warnings] == [
        "1 of 300 examples have no label and are left out of all figures."
    ] * 2


@pytest.mark.parametrize("kind", ["classes", "texts", "preferences"])
def test_every_kind_of_answers_is_judged_as_compare_does(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes = {"classes": ["bad", "fair", "good"], "texts": [f"answer {n}" for n in range(90)]}.get(kind, ["chosen"])
    labels = np.array(classes)[np.arange(180) % len(classes)]
    for name, share in (("a", 0.95), ("b", 0.7)):
        wrong = rng.random(180) > share
        other = np.where(wrong, "rejected", labels) if kind == "preferences" else np.where(wrong, "fair", labels)
        if kind == "preferences":
            other[:10] = "tie"
        table = pd.DataFrame({"id": range(180), "label": labels, "prediction": other})
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    found, compared = ftkit.verdict(a, b, planned_n=180), ftkit.compare(a, b)
    assert (found.p, found.effect, found.interval) == (compared.p, compared.difference, compared.interval)
    assert (found.outcome, found.n) == ("better", 180)


def test_spelling_is_ignored_where_that_is_asked(files: tuple[Path, Path]) -> None:
    table = pd.read_csv(files[1])
    table["prediction"] = table["prediction"].where(table["id"] != "m250", table["prediction"].str.upper())
    table.to_csv(files[1], index=False)
    assert ftkit.verdict(*files).only_a == 31
    assert ftkit.verdict(*files, normalize_labels=True).only_a == 30


def test_splits_are_not_mixed(tmp_path: Path) -> None:
    for place, split in enumerate(("test", "val", "train")):
        for side in "ab":
            file = tmp_path / side / f"predictions-{split}.tsv"
            file.parent.mkdir(exist_ok=True)
            frame(range(5 + 3 * place + 30 * (side == "b"))).to_csv(file, sep="\t", index=False)
    a, b = (tmp_path / side for side in "ab")
    with pytest.raises(
        InputError, match=r"split: a verdict needs one split .* \(got \['test', 'val'\]\); fix: give pred"
    ):
        ftkit.verdict(a / "predictions-val.tsv", b / "predictions-test.tsv")
    with pytest.raises(InputError, match=r"split: .* that nobody was trained on \(got \['train'\]\)"):
        ftkit.verdict(a / "predictions-train.tsv", b / "predictions-train.tsv")
    assert ftkit.verdict(a / "predictions-test.tsv", b / "predictions-test.tsv").warnings == []
    on_validation = ftkit.verdict(a / "predictions-val.tsv", b / "predictions-val.tsv").warnings
    assert on_validation == ["choices are made on validation, so it flatters what was chosen; test decides"]


def test_what_is_no_side_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    for other in (tmp_path / "nothing", tmp_path):
        with pytest.raises(
            InputError, match="not a prediction file, a run folder, or a row of an output folder; fix: give FIL"
        ):
            ftkit.verdict(files[0], other)


@pytest.mark.parametrize(
    "options", [{"margin": -0.1}, {"minimal_effect": -1}, {"comparisons": 0}, {"tries": (0, 1)}], ids=str
)
def test_impossible_options_are_refused(options: dict[str, Any], files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))}: must be at least"):
        ftkit.verdict(*files, **options)


def test_more_comparisons_than_a_level_can_be_divided_by_are_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"comparisons: must be at most 1,000,000,000 \(got 100000000000"):
        ftkit.verdict(*files, comparisons=10**23)


@pytest.mark.parametrize("name", ["margin", "minimal_effect"])
def test_infinite_options_are_refused(name: str, files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=f"{name}: must be finite"):
        ftkit.verdict(*files, **{name: float("inf")})


# Runs and rows


def test_rows_are_judged_over_their_seeds_by_the_exact_test(study: Path) -> None:
    found = ftkit.verdict(study / "01_base", study / "02_worse", planned_seeds=3)
    assert (found.outcome, found.test, found.seeds, found.n) == ("better", "fixed_n", [123, 124, 125], 300)
    assert found.effect == pytest.approx(0.15)
    assert found.interval_seeds is not None
    compared = analyse(study).rows[1].comparison
    assert compared is not None
    assert found.p == compared.p
    assert found.interval_examples == (-compared.interval[1], -compared.interval[0])
    assert [found.a.tries, found.b.tries] == [1, 1]
    assert found.a.tries_from == f"settings finished in {study / 'ledger.jsonl'}"
    assert found.warnings == []
    assert ftkit.verdict(study / "01_base", study / "03_alike").outcome == "not shown"


def test_seeds_that_were_not_planned_make_the_level_stricter(study: Path) -> None:
    found = ftkit.verdict(study / "01_base", study / "02_worse")
    assert (found.comparisons, found.level) == (6, pytest.approx(1 - 0.05 / 6))
    assert found.warnings == ["3 seeds that were not planned make the test stricter; --planned-seeds 3 if they were"]
    with pytest.raises(InputError, match=r"planned_seeds: there are 3 \(got 2\); fix: ask once all"):
        ftkit.verdict(study / "01_base", study / "02_worse", planned_seeds=2)
    assert ftkit.verdict(study / "01_base", study / "02_worse", planned_seeds=3, growing=True).level == 0.95


def test_seeds_are_matched_example_by_example_whatever_the_order_of_their_files(study: Path) -> None:
    found = ftkit.verdict(study / "01_base", study / "02_worse")
    file = study / "01_base/seed-124/predictions-test.tsv"
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([head, *rows[100:], *rows[:100], ""]))
    again = ftkit.verdict(study / "01_base", study / "02_worse")
    assert (again.p, again.interval, again.only_a) == (found.p, found.interval, found.only_a)


def test_run_folders_and_their_files_are_judged_as_runs(study: Path) -> None:
    a, b = study / "01_base/seed-124", study / "02_worse/seed-124"
    found = ftkit.verdict(a, b)
    assert (found.outcome, found.test, found.seeds) == ("better", "fixed_n", [124])
    by_file = ftkit.verdict(a / "predictions-test.tsv", b / "predictions-test.tsv")
    assert (by_file.test, by_file.p, by_file.a.tries_from) == ("fixed_n", found.p, found.a.tries_from)
    assert ftkit.verdict(a, b, growing=True).test == "anytime"


def test_a_seed_that_is_picked_from_a_row_is_one_of_many_comparisons(study: Path) -> None:
    found = ftkit.verdict(study / "01_base/seed-124", study / "02_worse/seed-124")
    assert found.comparisons == 9
    assert f"A: one of 3 finished seeds of its row; {study / '01_base'} is all of them" in found.warnings
    assert ftkit.verdict(study / "01_base", study / "02_worse", comparisons=2, planned_seeds=3).comparisons == 2


def test_a_run_folder_by_itself_is_whole_unless_its_batches_were_limited(study: Path, tmp_path: Path) -> None:
    a, b = (shutil.copytree(study / row / "seed-123", tmp_path / row) for row in ("01_base", "02_worse"))
    found = ftkit.verdict(a, b)
    assert (found.test, found.seeds, found.a.tries_from) == ("fixed_n", [123], "not known, counted as 1")
    limits = {"limit_test_batches": [1.0, 0.5, 1, None], "fast_dev_run": [False, True, 2]}
    for name, values in limits.items():
        for value in values:
            (b / "config.yaml").write_text(yaml.safe_dump({"trainer": {name: value}}))
            whole = value is None or value is False or (isinstance(value, float) and value == 1)
            assert ftkit.verdict(a, b).test == ("fixed_n" if whole else "anytime"), (name, value)


def test_predictions_that_do_not_fit_the_result_are_refused(study: Path, tmp_path: Path) -> None:
    a, b = (shutil.copytree(study / row / "seed-123", tmp_path / row) for row in ("01_base", "02_worse"))
    text = (a / "predictions-test.tsv").read_text()
    (a / "predictions-test.tsv").write_text(text[: text.index("sms-250")])
    with pytest.raises(InputError, match=r"right, but result\.json says 285 of 300"):
        ftkit.verdict(a, b)


def test_tries_are_the_settings_that_were_finished_for_a_row(study: Path) -> None:
    """Also those that were run over since, and each setting once, however many seeds it was run with."""
    for rate in (1, 2):
        run_again(study, "02_worse", [123, 124, 125], **{f"rate_{rate}": 0.1})
    found = ftkit.verdict(study / "02_worse", study / "01_base")
    assert (found.a.tries, found.b.tries) == (3, 1)
    assert "the sides had different numbers of tries: 3 and 1" in found.warnings
    run(AblationFolder.load(study.parent / "study"), FakeEngine(), study, "2", seeds=[123], force=True)
    assert ftkit.verdict(study / "02_worse", study / "01_base").a.tries == 3
    stated = ftkit.verdict(study / "02_worse", study / "01_base", tries=(4, 4), planned_seeds=3)
    assert (stated.a.tries, stated.b.tries, stated.a.tries_from) == (4, 4, "as stated")
    assert stated.warnings == []


def test_seeds_with_other_settings_are_pointed_out(study: Path) -> None:
    run_again(study, "02_worse", [125], rate=0.1)
    found = ftkit.verdict(study / "02_worse", study / "01_base")
    assert any(said.startswith("A: seed 125 was run otherwise than seed 123: config.rate") for said in found.warnings)


def test_only_seeds_that_both_have_are_judged(study: Path) -> None:
    shutil.rmtree(study / "02_worse/seed-125")
    found = ftkit.verdict(study / "01_base", study / "02_worse")
    assert found.seeds == [123, 124]
    assert "only one side has 125 among its seeds: left out" in found.warnings
    assert any(said.startswith("B: seed 125: unfinished") for said in found.warnings)
    for seed in (123, 124):
        shutil.rmtree(study / f"01_base/seed-{seed}")
    shutil.rmtree(study / "03_alike/seed-125")
    with pytest.raises(InputError, match=r"no finished run|no seed in common with .*01_base; fix: give rows with"):
        ftkit.verdict(study / "03_alike", study / "01_base")


def test_runs_of_other_seeds_are_pointed_out(study: Path) -> None:
    found = ftkit.verdict(study / "01_base/seed-123", study / "02_worse/seed-125")
    assert any(said.startswith("the sides have different seeds, 123 and 125") for said in found.warnings)


def test_an_unfinished_row_is_refused(study: Path) -> None:
    for folder in (study / "02_worse").iterdir():
        shutil.rmtree(folder)
    with pytest.raises(
        InputError, match=r"02_worse: has no finished run, according to the ledger; fix: see `ftkit abla"
    ):
        ftkit.verdict(study / "02_worse", study / "01_base")
    with pytest.raises(InputError, match=r"09_typo: there is no such row; fix: see `ftkit ablation status"):
        ftkit.verdict(study / "09_typo", study / "01_base")


def test_seeds_that_were_tested_on_other_examples_are_refused(study: Path, tmp_path: Path) -> None:
    for row in ("01_base", "02_worse"):
        file = study / row / "seed-125/predictions-test.tsv"
        file.write_text(file.read_text().replace("sms-299", "sms-999"))
    with pytest.raises(
        InputError, match=r"seed-125.*: other examples or labels than in .*seed-123.*; fix: test all seeds"
    ):
        ftkit.verdict(study / "01_base", study / "02_worse")


def test_nothing_is_shown_by_a_training_that_did_not_converge(study: Path) -> None:
    assert ftkit.verdict(study / "01_base", study / "02_worse").outcome == "better"
    losses = "".join(f"{step},{1 + step / 10}\n" for step in range(40))
    (study / "02_worse/seed-123/metrics.csv").write_text(f"step,train/loss\n{losses}")
    found = ftkit.verdict(study / "01_base", study / "02_worse")
    assert (found.outcome, found.p < 0.05) == ("not shown", True)
    assert any(said.startswith("B: seed 123: not converged: its training loss rose") for said in found.warnings)


def test_a_row_made_elsewhere_counts_as_one_try(study: Path, tmp_path: Path) -> None:
    for seed, wrong in ((123, 60), (124, 61)):
        table = pd.read_csv(study / "01_base/seed-123/predictions-test.tsv", sep="\t")
        table["prediction"] = ["spam" if place < wrong else "ham" for place in range(300)]
        table.to_csv(tmp_path / f"made-{seed}.csv", index=False)
        add_external_run(study, "20_other", tmp_path / f"made-{seed}.csv", seed=seed)
    found = ftkit.verdict(study / "01_base", study / "20_other")
    assert (found.outcome, found.seeds, found.b.tries) == ("better", [123, 124], 1)


# Plans


def test_a_plan_takes_disagreement_and_deviation_from_the_sides(study: Path, files: tuple[Path, Path]) -> None:
    found = plan(0.03, *files)
    stated = plan(0.03, disagreement=35 / 300)
    assert found == stated
    assert found.keys() == {
        "difference", "power", "comparisons", "disagreement", "examples_fixed_n", "examples_anytime"
    }  # fmt: skip
    of_rows = plan(0.03, study / "01_base", study / "02_worse")
    assert of_rows["seed_sd"] == pytest.approx(0, abs=1e-12)  # each seed has one more right on both sides
    assert of_rows["seeds"] is None  # the 300 examples alone are too few
    assert plan(0.1, study / "01_base", study / "02_worse")["seeds"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"difference": 0.2, "disagreement": 0.1}, r"difference: must be above 0 and at most 0\.1 \(got 0\.2\)"),
        ({"difference": 0.2, "disagreement": 1.5}, r"disagreement: must be above 0 and at most 1 \(got 1\.5\)"),
        ({"difference": 0.0, "seed_sd": 0.1}, r"difference: must be above 0 and at most 1"),
        ({"difference": 0.1, "seed_sd": -0.1}, r"seed_sd: must be at least 0"),
        ({"difference": 0.1, "disagreement": 0.2, "power": 1.1}, "power: must be above 0"),
        ({"difference": 0.1, "disagreement": 0.2, "comparisons": 0}, "comparisons: must be at least 1"),
        ({"difference": 0.1, "disagreement": 0.2, "comparisons": 10**10}, "comparisons: must be at most 1,000,000,000"),
    ],
    ids=str,
)
def test_impossible_plans_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(**options)


# The command


def test_the_exit_code_is_the_verdict(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = map(str, files)
    cases = [
        ([a, b], ExitCode.DONE, 0, "better"),
        ([b, a], ExitCode.WORSE, 11, "worse"),
        ([a, b, "--minimal-effect", "0.08"], ExitCode.NOT_SHOWN, 10, "not shown"),
        ([a, b, "--margin", "0.3"], ExitCode.EQUIVALENT, 12, "equivalent"),
    ]
    for words, code, number, outcome in cases:
        assert main(["verdict", *words]) == code == number
        assert capsys.readouterr().out.startswith(f"{outcome}: A against B")
        assert main(["verdict", *words, "--json"]) == code
        said = json.loads(capsys.readouterr().out)
        assert (said["verdict"], said["exit_code"]) == (outcome, number)


def test_the_keys_of_json_are_stable(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verdict", *map(str, files), "--json", "--tries", "[5,1]"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == [
        "verdict", "exit_code", "effect", "interval", "interval_examples", "interval_seeds", "level", "n", "only_a",
        "only_b", "test", "p", "e_value", "minimal_effect", "margin", "comparisons", "a", "b", "seeds", "warnings",
    ]  # fmt: skip
    assert said["a"] == {"name": str(files[0]), "tries": 5, "tries_from": "as stated"}
    assert said["effect"] == 25 / 300


def test_the_text_says_what_was_tested_and_what_it_speaks_of(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [str(study / row) for row in ("01_base", "02_worse", "03_alike")]
    assert main(["verdict", *rows[:2]]) == 0
    said = capsys.readouterr().out
    assert "test: exact, all examples answered once (p = " in said
    assert "the interval covers new examples and new seeds; seeds: 123, 124, 125" in said
    assert main(["verdict", rows[0], rows[2], "--growing", "--margin", "0.001", "--comparisons", "3"]) == 10
    said = capsys.readouterr().out
    assert said.startswith("not shown: A against B, margin 0.001")
    assert "valid at every look (e-value " in said
    assert "found from 360 on)" in said
    assert "99.72% interval" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["A"], "sides: two are compared (got 1); fix: give A and B"),
        (["A", "B", "B"], "sides: two are compared (got 3)"),
        ([], "sides: two are compared (got 0)"),
        (["--plan"], "plan: needs --difference"),
        (["--plan", "--difference", "0.1"], "plan: needs --difference, and two sides, --disagreement or --seed_sd"),
        (["A", "--plan", "--difference", "0.1"], "sides: two are compared (got 1)"),
    ],
)
def test_a_command_that_lacks_something_says_so(
    words: list[str], message: str, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    named = dict(zip("AB", map(str, files), strict=True))
    assert main(["verdict", *(named.get(word, word) for word in words)]) == ExitCode.INPUT
    assert message in capsys.readouterr().err


def test_the_command_plans(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verdict", "--plan", "--difference", "0.03", "--disagreement", "0.1", "--seed-sd", "0.02"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[3:] == [
        "disagreement: 0.1", "examples_fixed_n: 920", "examples_anytime: 1980", "seed_sd: 0.02", "seeds: 6"
    ]  # fmt: skip
    assert main(["verdict", *map(str, files), "--plan", "--difference", "0.03", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == plan(0.03, *files)
    assert main(["verdict", "--plan", "--difference", "1e-6", "--disagreement", "0.5"]) == 0
    assert "examples_fixed_n: no number is enough" in capsys.readouterr().out


def test_a_file_that_is_asked_about_while_it_grows_gives_no_finding_where_there_is_none(tmp_path: Path) -> None:
    """One history of two equal models in which the exact test, asked at each look, does find something."""
    rng = np.random.default_rng(0)
    naive, found = [], []
    right = rng.random((2, 300)) < 0.8
    for n in range(20, 301, 20):
        for name, one in zip("ab", right, strict=True):
            frame(range(0), n).assign(
                prediction=np.where(one[:n], LABELS[:n], np.vectorize(OTHER.get)(LABELS[:n]))
            ).to_csv(tmp_path / f"{name}.csv", index=False)
        naive.append(ftkit.verdict(tmp_path / "a.csv", tmp_path / "b.csv", planned_n=n).outcome)
        found.append(ftkit.verdict(tmp_path / "a.csv", tmp_path / "b.csv").outcome)
    assert {*naive} > {"not shown"}
    assert {*found} == {"not shown"}
