import csv
import io
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_engine import FakeEngine, make_folder
from ftkit.ablation.convergence import read_curves
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.run_answers import confusion_of
from ftkit.ablation.runner import run
from ftkit.ablation.sweep import RunState
from ftkit.cli import main
from ftkit.errors import ExitCode, InputError
from ftkit.report.ablation_answers import answers as answer_rows
from ftkit.report.ablation_answers import compared
from ftkit.report.ablation_charts import thinned
from ftkit.report.ablation_report import Report, read_results, write
from ftkit.report.document import to_markdown
from ftkit.report.page import to_html
from ftkit.report.theme import LIGHT, image
from ftkit.results.paired import paired_interval
from ftkit.results.statistics import clopper_pearson, mcnemar_exact, wilson_interval
from page_reader import Page

ROWS: dict[str, dict[str, Any]] = {
    "01_base": {},
    "02_first": {"correct": 216},  # 69 of 300 messages lost
    "03_xl": {"do": "unavailable"},
    "04_odd": {"do": "raise"},
    "05_same": {},
    "06_near": {"correct": 282},  # three more are wrong
    "07_moved": {"first_wrong": 9},  # 15 are wrong, nine of them others
    "08_later": {},
}
PUBLISHED = "# One seed, real messages.\nrow,test\n1,95\n2,80\n"
CURVES = "epoch,step,train/loss,val/accuracy\n0,9,0.8,\n0,19,0.6,\n0,19,,0.5\n1,29,0.2,\n1,39,0.1,\n1,39,,0.9\n"


def sweep(
    tmp_path: Path,
    rows: dict[str, dict[str, Any]] = ROWS,
    select: str | None = "1-7",
    seeds: Sequence[int] = (123,),
    engine: type[FakeEngine] = FakeEngine,
) -> Path:
    if not (tmp_path / "study").exists():
        make_folder(tmp_path / "study", rows, PUBLISHED)
    run(AblationFolder.load(tmp_path / "study"), engine(), tmp_path / "out", select, seeds=seeds)
    for cell in (tmp_path / "out").glob("0*/seed-*"):
        (cell / "metrics.csv").write_text(CURVES)
    return tmp_path / "out"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return read_results(sweep(tmp_path_factory.mktemp("report")))


def page_of(report: Report) -> Page:
    return Page(to_html(report.document()))


def markdown_of(report: Report) -> str:
    return to_markdown(report.document())


def test_the_questions_are_answered_from_the_figures(report: Report) -> None:
    low, high = paired_interval(np.repeat([-1, 0], [84 - 15, 300 - 84 + 15]))  # row 2 has 84 wrong ones, row 1 has 15
    interval = f"95% interval of the difference {low * 100:+.1f} to {high * 100:+.1f}"
    assert report.answers[1].startswith(
        "The reference. 95.0% of 300 test examples are right (95% interval 91.9 to 96.9)"
    )
    assert f"Against row 1 (base) it costs 23.0 points ({interval}): significant after Holm" in report.answers[2]
    assert report.answers[3] == "Open: skipped: gpt2-xl is not on this machine."
    assert report.answers[4] == "Open: failed: ValueError: the loss went away."
    assert "It gets the same 300 test examples right and wrong as row 1 (base)." in report.answers[5]
    assert "No significant difference from row 1 (base) with 300 examples: 1.0 points less" in report.answers[6]
    assert "The two differ on 3, too few for any test to be significant." in report.answers[6]
    assert "no difference" in report.answers[7]
    assert "Power is 80% for a true difference of" in report.answers[7]
    assert report.answers[8] == "Open: not run."
    assert "not significantly better than always predicting ham (100.0%)" in report.answers[1]  # all labels are ham
    assert report.summary == "5 of 8 rows have figures. Skipped: row 3. Failed: row 4. Not run: row 8."


@pytest.mark.parametrize(("better", "worse", "beats"), [(8, 0, True), (6, 0, True), (5, 0, False), (10, 4, False)])
def test_what_beats_the_majority_is_tested_on_the_same_examples(
    tmp_path: Path, better: int, worse: int, beats: bool
) -> None:
    """An interval around the accuracy holds the majority's share long after the paired test has told them apart."""
    out = sweep(tmp_path, select="1")
    analysis = read_results(out).analysis
    labels = ["spam"] * 40 + ["ham"] * 260
    answers = ["spam"] * better + ["ham"] * (40 - better) + ["spam"] * worse + ["ham"] * (260 - worse)
    right = 260 + better - worse
    predictions = out / "01_base/seed-123/predictions-test.tsv"
    rows = [f"{k}\t{label}\t{answer}\n" for k, (label, answer) in enumerate(zip(labels, answers, strict=True))]
    predictions.write_text("id\tlabel\tprediction\n" + "".join(rows))
    cell = RunState(123, predictions.parent, "done")
    one, twice = confusion_of([cell.answers]), confusion_of([cell.answers, cell.answers])
    assert one is not None
    assert twice is not None
    assert one.baseline.beaten == twice.baseline.beaten == beats == (mcnemar_exact(better, worse) <= 0.05)
    low, _ = wilson_interval(right, 300)
    assert low < one.baseline.accuracy == twice.baseline.accuracy == 260 / 300
    row = replace(analysis.rows[0], test=right / 300, interval=wilson_interval(right, 300))
    answer = answer_rows(replace(analysis, rows=[row], reference=row), {1: one})[1]
    assert ("not significantly better than always predicting ham (86.7%)" in answer) == (not beats)


def test_several_seeds_are_said_to_be_taken_as_they_are(tmp_path: Path) -> None:
    rows = {"01_base": {}, "02_first": {"correct": 216}}
    answers = read_results(sweep(tmp_path, rows, None, seeds=(123, 124))).answers
    assert re.search(r"it costs 23\.0 points \(95% interval .* to -\d+\.\d, the seeds as they are\)", answers[2])


def test_a_difference_of_a_few_among_many_is_not_rounded_away(report: Report) -> None:
    row, other = report.analysis.rows[1], report.analysis.rows[0]
    assert row.comparison is not None
    found = {"differences": {"accuracy": 8 / 20_000}, "intervals": {"accuracy": (0.00011, 0.00068)}}
    close = replace(row.comparison, n=20_000, p_holm=0.0502, **found)
    assert compared(row, other, close).startswith(
        "No significant difference from row 1 (base) with 20,000 examples: 0.040 points more (95% interval of the "
        "difference +0.011 to +0.068), p = 0.0502 after Holm."
    )


def test_files_of_ones_own_beside_the_plots_stay(tmp_path: Path) -> None:
    out = sweep(tmp_path, select="1-2")
    plots = tmp_path / "site/plots"
    plots.mkdir(parents=True)
    for name in ("mine.png", "cost.svg.txt", "2024-loss-curve.svg", "17-loss.svg"):
        (plots / name).write_text("kept")
    write(read_results(out), tmp_path / "site", png=False)
    assert sorted(path.name for path in plots.iterdir() if path.read_text() == "kept") == [
        "2024-loss-curve.svg", "cost.svg.txt", "mine.png",
    ]  # fmt: skip
    assert (plots / "accuracy.svg").exists()


def test_a_row_that_the_question_names_is_compared_too(tmp_path: Path) -> None:
    out = sweep(tmp_path)
    description = json.loads((out / "ablation.json").read_text())
    description["rows"][4]["question"] = "Can it stand in for training everything (row 2)?"
    description["rows"][5]["question"] = "Is it as good as row 99, which is not there?"
    (out / "ablation.json").write_text(json.dumps(description))
    answers = read_results(out).answers
    assert "same 300 test examples right and wrong as row 1" in answers[5]
    assert "Against row 2 (first) it gains 23.0 points" in answers[5]
    assert "99" not in answers[6]


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("Better over row 1, and over the head alone (row 2)?", [2]),
        ("Is it row 2 or row 6 that counts, or row 8, which was not run?", [2, 6]),
        ("Against rows 2, 6 and 7?", [2, 6, 7]),
        ("Against rows 5-7, and itself?", [6, 7]),
        ("Against Rows 2,6 and 7?", [2, 6, 7]),
        ("As good as row 6 and 2 times faster, or row 7, 2 epochs longer?", [6, 7]),
    ],
)
def test_every_row_that_the_question_names_is_compared(question: str, named: list[int], tmp_path: Path) -> None:
    out = sweep(tmp_path)
    description = json.loads((out / "ablation.json").read_text())
    description["rows"][4]["question"] = question
    (out / "ablation.json").write_text(json.dumps(description))
    found = read_results(out)
    assert [*found.analysis.rows[4].named] == named
    assert found.analysis.comparisons == len(found.analysis.compared) + len(named)
    names = [f"row {row.number} ({row.name})" for row in found.analysis.rows if row.number in named]
    assert all(name in found.answers[5] for name in names)


def test_table_and_answers_correct_the_same_comparisons(tmp_path: Path) -> None:
    rows = {"01_base": {}, "02_six": {"correct": 279}, "03_seven": {"correct": 278}}
    out = sweep(tmp_path, rows, None)  # six and seven more are wrong: p is 0.031 and 0.016
    assert [row.comparison and row.comparison.significant for row in read_results(out).analysis.rows] == [
        None,
        True,
        True,
    ]
    description = json.loads((out / "ablation.json").read_text())
    description["rows"][2]["question"] = "Is it worse than row 2?"
    (out / "ablation.json").write_text(json.dumps(description))
    report = read_results(out)
    assert report.analysis.comparisons == 3
    six, seven = (row.comparison for row in report.analysis.rows[1:])
    assert six is not None
    assert seven is not None
    assert (six.p_holm, seven.p_holm) == (pytest.approx(2 * 2 * 0.5**6), pytest.approx(3 * 2 * 0.5**7))
    assert not six.significant
    assert seven.significant
    assert "No significant difference from row 1 (base)" in report.answers[2]
    assert "p = 0.06" in report.answers[2]
    assert "p = 0.047" in report.answers[3]
    markdown = markdown_of(report)
    assert "after Holm's correction for 3 comparisons, 1 of them with rows that a question names." in markdown
    assert "| -2.00  |" in markdown
    assert "| -2.33* |" in markdown


def test_the_page_is_whole_and_loads_nothing(report: Report) -> None:
    html = to_html(report.document())
    page = Page(html)
    assert page.open == []
    assert page.loads == ["data:,"]
    assert not {"iframe", "object", "embed"} & set(page.tags)
    assert "@import" not in html
    # accuracy, cost, loss and validation of all, and the confusion of five rows
    assert page.places == len(page.charts) == 4 + 5
    answers = [report.answers[row.number] for row in report.analysis.ran]
    for text in (*answers, "correct: 285 -> 216", "failed: ValueError: the loss", "made-up messages"):
        assert text in page.words
    assert "nan" not in page.words
    assert "None" not in page.words


def test_the_answer_stands_at_the_top_with_what_was_compared(report: Report) -> None:
    assert report.answer == (
        "1 of 4 variants differs significantly from row 1 (base): worse: row 2 (first, -23.0 points)."
    )
    words = page_of(report).words
    shown = ("study", report.answer, "made-up messages", "300", "123", "20", report.summary, "Test accuracy by variant")
    places = [words.index(text) for text in shown if text != "20"]
    assert places[:2] == sorted(places[:2])
    assert max(places[:-1]) < places[-1]
    facts = dict(report.document().facts)
    assert (facts["test examples"], facts["seeds"]) == ("300", "123")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d( to 20\d\d-\d\d-\d\d)?", facts["date"])
    same = replace(report, analysis=replace(report.analysis, rows=report.analysis.rows[:1]))
    assert same.answer == ""


def test_headings_explain_themselves_and_a_failed_row_gives_its_reason(report: Report) -> None:
    (table,) = (section.table for section in report.document().sections if section.title == "Variants")
    assert table is not None
    heads = ("test accuracy, %", "difference from row 1, points", "published test, %", "on the Pareto front")
    assert set(heads) <= set(table.head)
    short = {"publ.", "in", "front", "vs 1", "sec."}
    assert not short & set(table.head)
    notes = report.document().shown("html")[-2].sentences
    assert not short & {note.partition(":")[0] for note in notes}
    assert any(note.startswith("on the Pareto front: no other row is at once as accurate") for note in notes)
    assert "published: One seed, real messages." in notes
    assert len(set(table.head)) == len(table.head)
    status = list(table.head).index("status")
    assert [row[status] for row in table.rows[2:4]] == [
        "skipped: gpt2-xl is not on this machine", "failed: ValueError: the loss went away",
    ]  # fmt: skip


def test_a_row_opens_its_examples_the_wrong_ones_first_and_not_all(report: Report) -> None:
    (table,) = (section.table for section in report.document().sections if section.title == "Variants")
    assert table is not None
    first, seventh = table.details[1], table.details[6]
    assert first.table is not None
    assert len(first.table.rows) == 20 + 10
    assert [row[0] for row in first.table.rows] == ["wrong"] * 20 + ["right"] * 10
    assert "84 of 300 test examples are wrong" in first.sentences[-1]
    assert list(first.table.head) == ["outcome", "example", "label", "prediction", "row 1's prediction"]
    assert seventh.table is not None
    assert [row[-1] for row in seventh.table.rows[:9]] == ["ham"] * 9  # what row 1 gets right comes first
    assert [row[0] for row in table.rows] == list("1234567")  # and not 8, which was not run
    assert len(table.details) == 7
    assert "Not run: row 8." in report.summary


def test_markdown_and_csv_say_the_same(report: Report) -> None:
    markdown = markdown_of(report)
    assert f"**Row 2 (first).** What does 02_first do?  \n{report.answers[2]}\n" in markdown
    assert "| -23.00* |" in markdown
    assert "![Test accuracy by variant](plots/accuracy.svg)" in markdown
    assert report.answer in markdown
    assert "- machine: cpu: unknown\n" in markdown


def test_two_base_models_under_one_name_show(tmp_path: Path) -> None:
    def row(**fingerprint: str) -> dict[str, Any]:
        return {"result": {"base": {"model": "base", "revision": None, "fingerprint": fingerprint}}}

    rows = {"01_a": row(weights="5f"), "02_b": row(weights="5f"), "03_c": row(weights="90")}
    rows["04_d"] = row(commit="c" * 40)
    line = re.search(r"^- base model: (.*)$", markdown_of(read_results(sweep(tmp_path, rows, "1-4"))), re.MULTILINE)
    assert line is not None
    assert re.fullmatch(
        r"model base, contents (?!c)(\w{12}); model base, contents (?!\1|c)\w{12}; model base, contents c{12}",
        line[1],
    )


def test_the_files_are_rebuilt_from_the_run_folders_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = sweep(tmp_path)
    shutil.rmtree(tmp_path / "study")
    assert main(["ablation", "report", str(out)]) == ExitCode.DONE
    printed = capsys.readouterr().out
    folder = out / "report"
    assert printed.startswith(f"{folder / 'report.html'}, and ")
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    plots = ["accuracy", "cost", "loss", "validation", *(f"0{row}-confusion" for row in (1, 2, 5, 6, 7))]
    files = ["changes.tsv", "report.csv", "report.html", "report.md"]
    assert names == sorted([*files, *(f"plots/{p}.{e}" for p in plots for e in ("png", "svg"))])
    assert all((folder / "plots" / f"{plot}.png").read_bytes().startswith(b"\x89PNG") for plot in plots)
    records = list(csv.DictReader(io.StringIO((folder / "report.csv").read_text())))
    assert float(records[1]["difference"]) == pytest.approx(-0.23)
    assert float(records[1]["difference_low"]) < -0.23 < float(records[1]["difference_high"])

    before = {name: (folder / name).read_bytes() for name in names}
    shutil.rmtree(out / "07_moved")
    assert main(["ablation", "report", str(out), "--png", "false"]) == ExitCode.DONE
    assert not list(folder.glob("plots/07-*")), "plots of an earlier report stay"
    assert not list(folder.glob("plots/*.png"))
    assert (folder / "plots/02-confusion.svg").read_bytes() == before["plots/02-confusion.svg"]
    assert main(["ablation", "report", str(tmp_path)]) == ExitCode.INPUT


def test_one_row_several_seeds_or_none_at_all(tmp_path: Path) -> None:
    out = sweep(tmp_path, select="1", seeds=(123, 124))
    one = read_results(out)
    assert "2 seeds)" in one.answers[1]
    page = page_of(one)
    assert {record["seed"] for record in page.values(0) if "seed" in record} == {123, 124}
    assert [record["seed"] for record in page.values(-2)] == [123] * 4 + [124] * 4
    assert page.places == len(page.charts) == 5
    nothing = sweep(tmp_path / "bare", {"01_xl": {"do": "unavailable"}, "02_later": {}}, "1")
    page = page_of(read_results(nothing))
    assert "0 of 2 rows have figures. Skipped: row 1. Not run: row 2." in page.words
    assert page.charts == []
    assert write(read_results(nothing), nothing / "report")


def test_costs_of_different_machines_are_not_drawn(tmp_path: Path) -> None:
    rows = {"01_base": {}, "02_gpu": {"result": {"device": "cuda:0"}}}
    report = read_results(sweep(tmp_path, rows, None))
    assert "cost" not in report.plots
    assert "times do not compare" in page_of(report).words


def test_what_a_user_wrote_cannot_become_markup(tmp_path: Path) -> None:
    out = sweep(tmp_path, select="1-2")
    description = json.loads((out / "ablation.json").read_text())
    description["name"] = description["rows"][0]["question"] = description["rows"][0]["name"] = "<script>x</script>"
    (out / "ablation.json").write_text(json.dumps(description))
    predictions = out / "01_base/seed-123/predictions-test.tsv"
    predictions.write_text(predictions.read_text().replace("\tspam\n", "\t<script>x</script>\n"))
    html = to_html(read_results(out).document())
    assert "<script>x" not in html
    assert Page(html).open == []
    assert Page(html).words.count("<script>x</script>") > 15  # name, question and 15 answers


def test_curves_are_read_by_figure_and_overlaid(tmp_path: Path, report: Report) -> None:
    (tmp_path / "metrics.csv").write_text(CURVES)
    curves = read_curves(tmp_path)
    assert thinned(curves["train/loss"], most=2) == [(1.0, 19, pytest.approx(0.7)), (2.0, 39, pytest.approx(0.15))]
    assert thinned(curves["val/accuracy"]) == [(1.0, 19, 0.5), (2.0, 39, 0.9)]
    assert read_curves(tmp_path / "elsewhere") == {}
    drawn = page_of(report).values(7)
    names = ["1 base", "2 first", "5 same", "6 near", "7 moved"]
    assert list(dict.fromkeys(record["name"] for record in drawn)) == names
    assert [record["value"] for record in drawn[:4]] == [0.8, 0.6, 0.2, 0.1]
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,high\n")
    with pytest.raises(InputError, match="not a table of curves"):
        read_curves(tmp_path)


def test_confusion_is_counted_over_the_seeds(tmp_path: Path) -> None:
    lines = ["id\tlabel\tprediction\tprobability:spam"]
    answers = (
        [("ham", "ham")] * 5 + [("ham", "spam")] * 2 + [("spam", "spam")] * 3 + [("spam", "ham"), ("spam", "who?")]
    )
    lines += [f"{number}\t{label}\t{answer}\t0.5" for number, (label, answer) in enumerate(answers)]
    (tmp_path / "predictions-test.tsv").write_text("\n".join(lines) + "\n")
    cell = RunState(123, tmp_path, "done")
    confusion = confusion_of([cell.answers, cell.answers])
    assert confusion is not None
    assert (confusion.labels, confusion.answers) == (["spam", "ham"], ["spam", "ham", "neither"])
    assert confusion.counts == [[6, 2, 2], [4, 10, 0]]
    assert (confusion.baseline.name, confusion.baseline.accuracy) == ("always predicting ham", 14 / 24)
    assert confusion_of([RunState(123, tmp_path / "elsewhere", "done").answers]) is None


def test_free_texts_have_no_table_of_answers(tmp_path: Path) -> None:
    out = sweep(tmp_path, select="1-2")
    for file in out.glob("*/*/predictions-test.tsv"):
        head, *rows = file.read_text().splitlines()
        rows = [row.replace("ham", str(number)) for number, row in enumerate(rows)]
        file.write_text("\n".join([head, *rows]) + "\n")
    report = read_results(out)
    assert not [name for name in report.plots if "confusion" in name]
    assert report.answers[1] == "The reference. 95.0% of 300 test examples are right (95% interval 91.9 to 96.9)."
    assert "it costs 23.0 points" in report.answers[2]
    assert page_of(report).open == []


def test_charts_are_drawn_as_files_of_every_kind_in_light_colors(report: Report) -> None:
    chart = report.plots["accuracy"].chart
    svg = image(chart, "svg", "Accuracies").decode()
    assert ">Accuracies<" in svg
    assert "var(" not in svg
    assert LIGHT["c1"] in svg  # significantly worse
    assert "2 first*" in svg
    assert image(chart, "png").startswith(b"\x89PNG")
    assert image(chart, "pdf").startswith(b"%PDF")


class PreferenceEngine(FakeEngine):
    """Every row is tested on 100 pairs: ``correct`` of them are won, ``tied`` are ties, the others lost."""

    def run(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        super().run(configs, seed, directory)
        config = self.identity(configs, seed)["config"]
        won, tied = config["correct"], config.get("tied", 0)
        outcomes = ["chosen"] * won + ["tie"] * tied + ["rejected"] * (100 - won - tied)
        rows = [f"pair-{k}\tchosen\t{outcome}\n" for k, outcome in enumerate(outcomes)]
        (directory / "predictions-test.tsv").write_text("".join(["id\tlabel\tprediction\n", *rows]))
        result = json.loads((directory / "result.json").read_text())
        result["splits"] = {"test": {"n": 100, "correct": won, "ties": tied, "accuracy": (won + tied / 2) / 100}}
        (directory / "result.json").write_text(json.dumps(result))


def test_preferences_are_judged_against_a_coin(tmp_path: Path) -> None:
    rows = {"01_untuned": {"correct": 0, "tied": 100}, "02_tuned": {"correct": 79}, "03_slightly": {"correct": 55}}
    report = read_results(sweep(tmp_path, rows, None, engine=PreferenceEngine))
    untuned, tuned, _ = report.analysis.rows
    assert (untuned.test, tuned.test) == (0.5, 0.79)
    assert tuned.interval == pytest.approx(clopper_pearson(79, 100))
    assert tuned.comparison is not None
    assert tuned.comparison.difference == pytest.approx(0.29)
    assert tuned.comparison.p == pytest.approx(mcnemar_exact(79, 21))
    assert tuned.comparison.interval == pytest.approx(paired_interval(np.repeat([1, -1], [79, 21]), 2))
    assert "not significantly better than a coin (50.0%)" in report.answers[1]
    assert "not significantly better" not in report.answers[2]
    assert "it gains 29.0 points" in report.answers[2]
    assert "not significantly better than a coin (50.0%)" in report.answers[3]
    assert "95% interval (of pairs exact against a coin, a tie counting as half)" in markdown_of(report)
    confusion = confusion_of([cell.answers for cell in report.analysis.sweep.rows[1].runs])
    assert confusion is not None
    assert (confusion.labels, confusion.answers) == (["chosen"], ["chosen", "rejected", "tie"])
    assert confusion.counts == [[79, 21, 0]]
