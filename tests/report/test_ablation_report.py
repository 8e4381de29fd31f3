import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_engine import FakeEngine, make_folder
from ftkit.ablation import Ablation, run
from ftkit.ablation.answers import answers as answer_rows
from ftkit.ablation.answers import compared
from ftkit.ablation.evidence import read_confusion, read_curves
from ftkit.ablation.sweep import CellState
from ftkit.cli import main
from ftkit.errors import EnvironmentFault, ExitCode, InputError
from ftkit.report.ablation_files import write
from ftkit.report.ablation_page import to_html
from ftkit.report.ablation_report import Report, build, to_markdown
from ftkit.report.picture import standalone, to_png
from ftkit.results.paired import paired_interval
from ftkit.results.statistics import clopper_pearson, mcnemar_exact, wilson_interval

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
    run(Ablation.load(tmp_path / "study"), engine(), tmp_path / "out", select, seeds=seeds)
    for cell in (tmp_path / "out").glob("0*/seed-*"):
        (cell / "metrics.csv").write_text(CURVES)
    return tmp_path / "out"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build(sweep(tmp_path_factory.mktemp("report")))


class Page(HTMLParser):
    """All that a page could load, and how often each element occurs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [str(value) for name, value in attributes if name in ("src", "href", "srcset", "data", "poster")]

    def handle_data(self, data: str) -> None:
        self.words += data


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
    assert "cannot be told apart from row 1 (base) with 300 examples: 1.0 points less" in report.answers[6]
    assert "The two differ on 3, too few for any test to be significant." in report.answers[6]
    assert "no difference" in report.answers[7]
    assert "would be found in 4 of 5 such tables" in report.answers[7]
    assert report.answers[8] == "Open: not run."
    assert "not shown to beat always answering ham (100.0%)" in report.answers[1]  # all labels are ham
    assert report.summary == "5 of 8 rows have figures. Skipped: row 3. Failed: row 4. Not run: row 8."


@pytest.mark.parametrize(("better", "worse", "beats"), [(8, 0, True), (6, 0, True), (5, 0, False), (10, 4, False)])
def test_what_beats_the_majority_is_tested_on_the_same_examples(
    tmp_path: Path, better: int, worse: int, beats: bool
) -> None:
    """An interval around the accuracy holds the majority's share long after the paired test has told them apart."""
    out = sweep(tmp_path, select="1")
    analysis = build(out).analysis
    labels = ["spam"] * 40 + ["ham"] * 260
    answers = ["spam"] * better + ["ham"] * (40 - better) + ["spam"] * worse + ["ham"] * (260 - worse)
    right = 260 + better - worse
    predictions = out / "01_base/seed-123/predictions-test.tsv"
    rows = [f"{k}\t{label}\t{answer}\n" for k, (label, answer) in enumerate(zip(labels, answers, strict=True))]
    predictions.write_text("id\tlabel\tprediction\n" + "".join(rows))
    cell = CellState(123, predictions.parent, "done")
    one, twice = read_confusion([cell]), read_confusion([cell, cell])
    assert one is not None
    assert twice is not None
    assert one.baseline.beaten == twice.baseline.beaten == beats == (mcnemar_exact(better, worse) <= 0.05)
    low, _ = wilson_interval(right, 300)
    assert low < one.baseline.accuracy == twice.baseline.accuracy == 260 / 300
    row = replace(analysis.rows[0], test=right / 300, interval=wilson_interval(right, 300))
    answer = answer_rows(replace(analysis, rows=[row], reference=row), {1: one})[1]
    assert ("not shown to beat always answering ham (86.7%)" in answer) == (not beats)


def test_several_seeds_are_said_to_be_taken_as_they_are(tmp_path: Path) -> None:
    rows = {"01_base": {}, "02_first": {"correct": 216}}
    answers = build(sweep(tmp_path, rows, None, seeds=(123, 124))).answers
    assert re.search(r"it costs 23\.0 points \(95% interval .* to -\d+\.\d, the seeds as they are\)", answers[2])


def test_a_difference_of_a_few_among_many_is_not_rounded_away(report: Report) -> None:
    row, other = report.analysis.rows[1], report.analysis.rows[0]
    assert row.comparison is not None
    found = {"differences": {"accuracy": 8 / 20_000}, "intervals": {"accuracy": (0.00011, 0.00068)}}
    close = replace(row.comparison, n=20_000, p_holm=0.0502, **found)
    assert compared(row, other, close).startswith(
        "It cannot be told apart from row 1 (base) with 20,000 examples: 0.040 points more (95% interval of the "
        "difference +0.011 to +0.068), p = 0.0502 after Holm."
    )


def test_files_of_ones_own_beside_the_plots_stay(tmp_path: Path) -> None:
    out = sweep(tmp_path, select="1-2")
    plots = tmp_path / "site/plots"
    plots.mkdir(parents=True)
    for name in ("mine.png", "cost.svg.txt", "2024-loss-curve.svg", "17-loss.svg"):
        (plots / name).write_text("kept")
    write(build(out), tmp_path / "site", png=False)
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
    answers = build(out).answers
    assert "same 300 test examples right and wrong as row 1" in answers[5]
    assert "Against row 2 (first) it gains 23.0 points" in answers[5]
    assert "99" not in answers[6]


def test_table_and_answers_correct_the_same_comparisons(tmp_path: Path) -> None:
    rows = {"01_base": {}, "02_six": {"correct": 279}, "03_seven": {"correct": 278}}
    out = sweep(tmp_path, rows, None)  # six and seven more are wrong: p is 0.031 and 0.016
    assert [row.comparison and row.comparison.significant for row in build(out).analysis.rows] == [None, True, True]
    description = json.loads((out / "ablation.json").read_text())
    description["rows"][2]["question"] = "Is it worse than row 2?"
    (out / "ablation.json").write_text(json.dumps(description))
    report = build(out)
    assert report.analysis.comparisons == 3
    six, seven = (row.comparison for row in report.analysis.rows[1:])
    assert six is not None
    assert seven is not None
    assert (six.p_holm, seven.p_holm) == (pytest.approx(2 * 2 * 0.5**6), pytest.approx(3 * 2 * 0.5**7))
    assert not six.significant
    assert seven.significant
    assert "It cannot be told apart from row 1 (base)" in report.answers[2]
    assert "p = 0.06" in report.answers[2]
    assert "p = 0.047" in report.answers[3]
    markdown = to_markdown(report)
    assert "after Holm's correction for 3 comparisons, 1 of them with rows that a question names." in markdown
    assert "| -2.00  |" in markdown
    assert "| -2.33* |" in markdown


def test_the_page_is_whole_and_loads_nothing(report: Report) -> None:
    html = to_html(report)
    page = Page(html)
    assert page.loads == ["data:,"]
    assert not {"script", "link rel=stylesheet", "iframe", "object", "embed"} & set(page.tags)
    assert "@import" not in html
    assert "url(" not in html
    # accuracy and cost, then loss, validation and confusion of five rows
    assert page.tags.count("svg") == 2 + 3 * 5
    for text in (*report.answers.values(), "correct: 285 -> 216", "Row 4 (odd): failed", "made-up messages"):
        if not text.startswith("Open"):
            assert text in page.words
    assert "nan" not in html
    assert "None" not in html


def test_markdown_and_csv_say_the_same(report: Report) -> None:
    markdown = to_markdown(report)
    assert f"**Row 2 (first).** What does 02_first do?  \n{report.answers[2]}\n" in markdown
    assert "| -23.00* |" in markdown
    assert "![Test accuracy by row](plots/accuracy.svg)" in markdown
    assert "- machine: cpu: unknown\n" in markdown


def test_two_base_models_under_one_name_show(tmp_path: Path) -> None:
    def row(**fingerprint: str) -> dict[str, Any]:
        return {"result": {"base": {"model": "base", "revision": None, "fingerprint": fingerprint}}}

    rows = {"01_a": row(weights="5f"), "02_b": row(weights="5f"), "03_c": row(weights="90")}
    rows["04_d"] = row(commit="c" * 40)
    line = re.search(r"^- base model: (.*)$", to_markdown(build(sweep(tmp_path, rows, "1-4"))), re.MULTILINE)
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
    plots = [
        "accuracy",
        "cost",
        *(f"0{row}-{plot}" for row in (1, 2, 5, 6, 7) for plot in ("confusion", "loss", "validation")),
    ]
    assert names == sorted(
        ["report.csv", "report.html", "report.md", *(f"plots/{p}.{e}" for p in plots for e in ("png", "svg"))]
    )
    assert all((folder / "plots" / f"{plot}.png").read_bytes().startswith(b"\x89PNG") for plot in plots)
    records = list(csv.DictReader(io.StringIO((folder / "report.csv").read_text())))
    assert float(records[1]["difference"]) == pytest.approx(-0.23)
    assert float(records[1]["difference_low"]) < -0.23 < float(records[1]["difference_high"])

    before = {name: (folder / name).read_bytes() for name in names}
    shutil.rmtree(out / "07_moved")
    assert main(["ablation", "report", str(out), "--png", "false"]) == ExitCode.DONE
    assert not list(folder.glob("plots/07-*")), "plots of an earlier report stay"
    assert not list(folder.glob("plots/*.png"))
    assert (folder / "plots/02-loss.svg").read_bytes() == before["plots/02-loss.svg"]
    assert main(["ablation", "report", str(tmp_path)]) == ExitCode.INPUT


def test_one_row_several_seeds_or_none_at_all(tmp_path: Path) -> None:
    out = sweep(tmp_path, select="1", seeds=(123, 124))
    one = build(out)
    assert "2 seeds)" in one.answers[1]
    assert one.plots["01-loss"].count("<polyline") == 4  # for each seed the logged values and the means
    assert to_html(one).count("<svg") == 5
    nothing = sweep(tmp_path / "bare", {"01_xl": {"do": "unavailable"}, "02_later": {}}, "1")
    html = to_html(build(nothing))
    assert "0 of 2 rows have figures. Skipped: row 1. Not run: row 2." in html
    assert "<svg" not in html
    assert write(build(nothing), nothing / "report")


def test_costs_of_different_machines_are_not_drawn(tmp_path: Path) -> None:
    rows = {"01_base": {}, "02_gpu": {"result": {"device": "cuda:0"}}}
    report = build(sweep(tmp_path, rows, None))
    assert "cost" not in report.plots
    assert "times do not compare" in to_html(report)


def test_what_a_user_wrote_cannot_become_markup(tmp_path: Path) -> None:
    out = sweep(tmp_path, select="1-2")
    description = json.loads((out / "ablation.json").read_text())
    description["name"] = description["rows"][0]["question"] = description["rows"][0]["name"] = "<script>x</script>"
    (out / "ablation.json").write_text(json.dumps(description))
    assert "<script" not in to_html(build(out))


def test_curves_are_read_by_figure_and_drawn_by_epoch(tmp_path: Path, report: Report) -> None:
    (tmp_path / "metrics.csv").write_text(CURVES)
    curves = read_curves(tmp_path)
    assert curves["train/loss"].by_epoch() == ([19, 39], [pytest.approx(0.7), pytest.approx(0.15)])
    assert curves["val/accuracy"].by_epoch() == ([19, 39], [0.5, 0.9])
    assert read_curves(tmp_path / "elsewhere") == {}
    assert report.plots["01-loss"].count("<polyline") == 2
    assert report.plots["02-loss"].count("<polyline") == 3  # and the reference
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
    cell = CellState(123, tmp_path, "done")
    confusion = read_confusion([cell, cell])
    assert confusion is not None
    assert (confusion.labels, confusion.answers) == (["spam", "ham"], ["spam", "ham", "neither"])
    assert confusion.counts == [[6, 2, 2], [4, 10, 0]]
    assert (confusion.baseline.name, confusion.baseline.accuracy) == ("always answering ham", 14 / 24)
    assert read_confusion([CellState(123, tmp_path / "elsewhere", "done")]) is None


def test_free_texts_have_no_table_of_answers(tmp_path: Path) -> None:
    out = sweep(tmp_path, select="1-2")
    for file in out.glob("*/*/predictions-test.tsv"):
        head, *rows = file.read_text().splitlines()
        rows = [row.replace("ham", str(number)) for number, row in enumerate(rows)]
        file.write_text("\n".join([head, *rows]) + "\n")
    report = build(out)
    assert not [name for name in report.plots if "confusion" in name]
    assert report.answers[1] == "The reference. 95.0% of 300 test examples are right (95% interval 91.9 to 96.9)."
    assert "it costs 23.0 points" in report.answers[2]
    assert to_html(report)


def test_without_the_package_everything_but_the_pngs_is_there(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'ftkit\[reports\]'; or --png false"):
        write(report, tmp_path)
    assert len(list(tmp_path.glob("plots/*.svg"))) == 17
    assert (tmp_path / "report.html").exists()
    assert not list(tmp_path.glob("plots/*.png"))


def test_a_png_without_letters_is_refused(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    svg = standalone(report.plots["accuracy"])
    assert "var(" not in svg
    assert len(to_png(svg)) > 5_000
    monkeypatch.setattr("resvg_py.svg_to_bytes", lambda svg_string: b"the same")
    with pytest.raises(EnvironmentFault, match="need a font"):
        to_png(svg)


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
    report = build(sweep(tmp_path, rows, None, engine=PreferenceEngine))
    untuned, tuned, _ = report.analysis.rows
    assert (untuned.test, tuned.test) == (0.5, 0.79)
    assert tuned.interval == pytest.approx(clopper_pearson(79, 100))
    assert tuned.comparison is not None
    assert tuned.comparison.difference == pytest.approx(0.29)
    assert tuned.comparison.p == pytest.approx(mcnemar_exact(79, 21))
    assert tuned.comparison.interval == pytest.approx(paired_interval(np.repeat([1, -1], [79, 21]), 2))
    assert "not shown to beat a coin (50.0%)" in report.answers[1]
    assert "not shown to beat" not in report.answers[2]
    assert "it gains 29.0 points" in report.answers[2]
    assert "not shown to beat a coin (50.0%)" in report.answers[3]
    assert "95% interval (of pairs exact against a coin, a tie counting as half)" in to_markdown(report)
    confusion = read_confusion(report.analysis.sweep.rows[1].cells)
    assert confusion is not None
    assert (confusion.labels, confusion.answers) == (["chosen"], ["chosen", "rejected", "tie"])
    assert confusion.counts == [[79, 21, 0]]
