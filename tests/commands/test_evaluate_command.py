import json
import re
from pathlib import Path

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from evaluated_files import RECORD
from ftkit.commands.evaluate import evaluate_command as evaluate
from ftkit.errors import InputError
from ftkit.results import scan as scan_module
from ftkit.results.predictions import write_predictions
from ftkit.results.statistics import wilson_interval
from page_reader import Page


@pytest.fixture
def scored(tmp_path):
    """Write a file with scores, slices and a few rambling answers."""

    def write(name, skill, seed, n=400, kind="probability"):
        rng = np.random.default_rng(seed)
        yes = np.random.default_rng(n).random(n) < 0.84
        odds = skill * yes + rng.normal(0.8, 1, n)
        answers = np.where(odds >= 0, "yes", "no").tolist()
        answers[3] = "I can't\tsay"
        scores = 1 / (1 + np.exp(-odds)) if kind == "probability" else odds
        write_predictions(
            tmp_path / name,
            [f"images/{k}.jpg" for k in range(n)],
            np.where(yes, "yes", "no").tolist(),
            answers,
            scores,
            f"{kind}:yes",
            {"population": ["photo" if k % 4 else "<ad> & more" for k in range(n)]},
        )
        return tmp_path / name

    return write


@pytest.mark.parametrize(("counts", "accuracy", "precision", "recall", "f_measure"), RECORD)
def test_the_record_is_printed_to_the_last_digit(count_file, capsys, counts, accuracy, precision, recall, f_measure):
    path = count_file("out.tsv", *counts)
    evaluate([path], unrounded=True)
    tp, tn, fp, fn = counts
    last = "undefined (precision and recall are 0)" if f_measure is None else f_measure
    assert capsys.readouterr().out.split("\n\n")[0] == (
        f"Overall: {path}\n  Tp={tp} Tn={tn} Fp={fp} Fn={fn}\n  accuracy:  {accuracy}\n  precision: {precision}\n"
        f"  recall:    {recall}\n  F-measure: {last}"
    )


def test_several_files_side_by_side(count_file, capsys):
    evaluate([count_file("after.tsv", 854, 17, 155, 13), count_file("before.tsv", 652, 57, 115, 215)])
    out = capsys.readouterr().out
    assert re.search(r"figure +after.tsv +before.tsv\n +n +1039 +1039\n", out)
    assert re.search(r"specificity +0\.0988 \(0\.0626 to 0\.1526\) +0\.3314 \(0\.2654 to 0\.4047\)\n", out)


def test_always_yes_is_called_what_it_is(count_file, capsys):
    evaluation = evaluate([count_file("yes.tsv", 840, 0, 160, 0)])
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "Always answering yes scores accuracy 0.8400, F-measure 0.9130." in out
    assert "right on 0 examples that this baseline gets wrong, and wrong on 0 that it gets right (exact McNemar" in out
    assert "It gives every example the same answer, whatever the label." in out
    assert "It answers yes to 100.0%; 84.0% are yes." in out
    assert "balanced accuracy 0.5000" in out
    assert "Matthews correlation (MCC) undefined (every answer is the same)" in out
    assert not evaluation.reports[0].baselines.beats_majority()


def test_a_majority_that_is_none_is_said_to_be_none(count_file, capsys):
    evaluate([count_file("a.tsv", 8, 5, 5, 2)])
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "Always answering yes, which is as frequent as the other class, scores accuracy 0.5000" in out
    evaluate([count_file("b.tsv", 8, 5, 5, 3)])
    assert "Always answering yes scores accuracy" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_a_file_with_one_class_gives_no_number_for_the_other(count_file, capsys):
    evaluate([count_file("safe.tsv", 21, 0, 0, 4)])
    out = capsys.readouterr().out
    assert "specificity                 undefined (no negatives)\n" in out
    assert "accuracy                   undefined (recall or specificity is undefined)" in out


def test_json_holds_every_digit_and_no_nan(count_file, scored, capsys):
    path = count_file("a.tsv", 0, 5, 18, 41)
    evaluate([path], json=True)
    record = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    (file,) = record["files"]
    assert file["counts"] == {
        "tp": 0, "tn": 5, "fp": 18, "fn": 41, "unparsed_positive": 0, "unparsed_negative": 0, "unparsed": 0,
    }  # fmt: skip
    assert file["figures"]["accuracy"] == 0.078125
    assert file["figures"]["f_measure"] is None
    assert file["undefined"]["f_measure"] == "precision and recall are 0"
    one, two, val = scored("a.tsv", 2, 1), scored("b.tsv", 1, 2), scored("val.tsv", 2, 3, n=300)
    evaluate([one, two], against=two, threshold_from=val, slice="population", json=True)
    record = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert [pair["name"] for pair in record["comparisons"]] == [str(one)]
    assert set(record["files"][0]["slices"]) == {"photo", "<ad> & more"}
    assert record["files"][0]["unparsed_answers"] == {"I can't\tsay": 1}
    assert record["threshold"]["source"] == "val.tsv"
    assert len(record["at_threshold"]) == 2


def test_slices_add_up_to_the_whole(scored):
    report = evaluate([scored("a.tsv", 2, 1)], slice="population").reports[0]
    photo, ad = report.slices["photo"].counts, report.slices["<ad> & more"].counts
    assert photo + ad == report.counts
    assert (photo.n, ad.n) == (300, 100)


def test_before_and_after_are_compared_on_the_same_examples(scored, capsys):
    before, after = scored("before.tsv", 0.5, 1), scored("after.tsv", 3, 2)
    evaluate([before, after], against=before)
    out = capsys.readouterr().out
    assert f"Compared with {before}, on the same examples\n  - after.tsv: significantly better (p" in out
    assert "before.tsv: better" not in out


def test_the_reference_is_known_by_any_path(count_file, tmp_path, monkeypatch):
    """Compared with itself it would count in Holm's correction."""
    count_file("a.tsv", 90, 50, 3, 17)
    count_file("b.tsv", 103, 51, 2, 4)
    monkeypatch.chdir(tmp_path)
    files = [Path("a.tsv"), Path("b.tsv")]
    for against in (Path("b.tsv"), tmp_path / "b.tsv"):
        assert [one.name for one in evaluate(files, against=against).comparisons] == ["a.tsv"]


def test_slices_are_tested_together(tmp_path, capsys):
    """Six more right than the majority has p = 0.031 alone, and is no news among two slices."""
    labels = ["yes"] * 20 + ["no"] * 6 + ["yes"] * 20 + ["no"] * 6
    answers = ["yes"] * 20 + ["no"] * 6 + ["yes"] * 26
    sites = ["north"] * 26 + ["south"] * 26
    names = [str(k) for k in range(52)]
    write_predictions(tmp_path / "a.tsv", names, labels, answers, extra={"site": sites})
    report = evaluate([tmp_path / "a.tsv"], slice="site").reports[0]
    north = report.slices["north"].baselines
    assert (north.p_majority, north.p_holm) == (pytest.approx(2 * 0.5**6), pytest.approx(4 * 0.5**6))
    assert not north.beats_majority()
    assert report.baselines.p_holm == report.baselines.p_majority
    assert report.baselines.beats_majority()
    out = capsys.readouterr().out
    assert re.search(r"north .* no\n", out)
    assert "for all slices of a file together (exact McNemar, Holm)" in re.sub(r"\s+", " ", out)


def test_too_few_disagreements_are_said_to_be_too_few(count_file, capsys):
    evaluate([count_file("a.tsv", 100, 50, 3, 7)], against=count_file("b.tsv", 103, 51, 2, 4))
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "the two differ on 4 of 160 examples; fewer than 6 can never be significant." in out


def test_too_few_disagreements_are_too_few_even_alone(count_file, capsys):
    """Holm tests all but the clearest of several comparisons at more than the level by their number."""
    reference = count_file("reference.tsv", 100, 50, 5, 5)
    files = [count_file(f"{lost}.tsv", 100 - lost, 50, 5, 5 + lost) for lost in (6, 30, 40)]
    comparisons = evaluate(files, against=reference).comparisons
    assert [one.p_holm <= 0.05 for one in comparisons] == [True, True, True]
    assert [one.reach.possible for one in comparisons] == [True, True, True]
    assert "never" not in capsys.readouterr().out
    evaluate([count_file("7.tsv", 93, 50, 5, 12), count_file("6.tsv", 94, 50, 5, 11)], against=reference)
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "7.tsv: significantly worse (p = 0.031)" in out
    assert "6.tsv: significantly worse (p = 0.031)" in out


def test_unrounded_intervals_have_all_digits_too(count_file, capsys):
    files = [count_file("a.tsv", 100, 50, 5, 5), count_file("b.tsv", 60, 50, 5, 45)]
    for options in ({}, {"markdown": True}):
        evaluation = evaluate(files, against=files[1], unrounded=True, **options)
        out = capsys.readouterr().out
        intervals = re.findall(r"\((-?[\d.e-]+) to (-?[\d.e-]+)\)", out)
        assert len(intervals) > 10
        shown = {float(end) for interval in intervals for end in interval}
        assert set(evaluation.reports[0].intervals["mcc"]) <= shown
        assert set(evaluation.comparisons[0].intervals["accuracy"]) <= shown


@pytest.mark.parametrize("kind", ["probability", "log_odds"])
def test_a_threshold_is_chosen_saved_and_used_again(scored, tmp_path, kind):
    val, test = scored("val.tsv", 2, 3, n=300, kind=kind), scored("test.tsv", 2, 4, kind=kind)
    chosen = evaluate([test], threshold_from=val, costs=(5, 1), save_threshold=tmp_path / "t.json")
    again = evaluate([test], threshold_from=tmp_path / "t.json")
    assert chosen.threshold == again.threshold
    assert chosen.threshold.criterion == "mean cost at fp=5, fn=1"
    assert chosen.at_threshold[0].counts == again.at_threshold[0].counts
    assert chosen.at_threshold[0].counts.fp < chosen.reports[0].counts.fp
    with pytest.raises(InputError, match="the threshold was chosen on this very file"):
        evaluate([val], threshold_from=tmp_path / "t.json")


def test_what_is_expected_elsewhere_says_which_answers_it_is_about(scored, tmp_path, capsys):
    """Files of one name are known by their folders, and the names of files stay in one piece."""
    (tmp_path / "a-long-name").mkdir()
    one, two, val = scored("a-long-name/test.tsv", 2, 1), scored("test.tsv", 1, 2), scored("val.tsv", 2, 3, n=300)
    evaluate([one, two], threshold_from=val)
    out = capsys.readouterr().out
    assert f"{one}: id = " in out
    elsewhere = out[out.index("At another prevalence") : out.index("\n\nFiles")]
    assert "specificity stay as they are at the fixed threshold." in re.sub(r"\s+", " ", elsewhere)
    assert re.findall(r"^  (\S+) +accuracy ", elsewhere, re.MULTILINE) == ["a-long-name/test.tsv", "test.tsv"]
    evaluate([one])
    assert "if recall and specificity stay as they are." in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_no_figure_at_another_prevalence_stands_without_an_interval(tmp_path, capsys):
    """Twelve examples, all right: a precision of 1.0000 alone would claim to be sure."""
    labels = ["yes", "no"] * 6
    write_predictions(tmp_path / "a.tsv", map(str, range(12)), labels, labels)
    evaluate([tmp_path / "a.tsv"], markdown=True, html=tmp_path / "page.html")
    out = capsys.readouterr().out
    elsewhere = out[out.index("## At another prevalence") : out.index("## Files")]
    rows = [line.split(" | ")[2:] for line in elsewhere.splitlines() if line.startswith("| a.tsv")]
    cells = [cell.strip(" |") for row in rows for cell in row]
    assert len(cells) == 3 * 4
    assert all(re.fullmatch(r"1\.0000 \(0\.\d{4} to 1\.0000\)", cell) for cell in cells)
    drawn = Page((tmp_path / "page.html").read_text()).values(-1)
    band = [record for record in drawn if record.get("low") is not None]
    assert len(band) > 40
    assert all(record["low"] < record["high"] for record in band if 0 < record["x"] < 1)


def test_answers_that_contradict_their_score_are_reported(tmp_path, capsys):
    ids, labels, answers = ["a", "b", "c"], ["yes", "no", "yes"], ["yes", "yes", "no"]
    write_predictions(tmp_path / "a.tsv", ids, labels, answers, [0.9, 0.2, 0.5], "probability:yes")
    evaluate([tmp_path / "a.tsv"])
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "a.tsv: 1 answers contradict their score at 0.5 (first: b, line 3)" in out


def test_positive_by_name_turns_everything_around(scored):
    path = scored("a.tsv", 2, 1)
    yes, no = (evaluate([path], positive=name).reports[0] for name in ("yes", "no"))
    assert (yes.counts.tp, yes.counts.fp, yes.counts.unparsed_positive) == (
        no.counts.tn, no.counts.fn, no.counts.unparsed_negative,
    )  # fmt: skip
    assert yes.figures["auroc"].value == pytest.approx(no.figures["auroc"].value)
    assert yes.figures["brier"].value == pytest.approx(no.figures["brier"].value)
    assert evaluate([path]).reports[0].positive == "yes"


def test_thousands_of_different_answers_do_not_hide_a_class(text_file):
    """The negative class comes up only after more free answers than are kept."""
    rambling = [f"{k}\tyes\tI cannot say, number {k}\n" for k in range(1500)]
    path = text_file("id\tlabel\tprediction\n" + "".join(rambling) + "x\tno\tno\ny\tno\tyes\nz\tyes\tno\n")
    assert str(evaluate([path]).reports[0].counts) == "Tp=0 Tn=1 Fp=1 Fn=1 unparsed=1500"
    assert len(scan_module.scan(path).predictions) == 1000


def test_markdown_tables_are_whole(scored, capsys):
    evaluate([scored("a|b.tsv", 2, 1), scored("c.tsv", 1, 2)], against=scored("c.tsv", 1, 2), markdown=True)
    out = capsys.readouterr().out
    assert "## All figures, with 95% intervals" in out
    for table in re.findall(r"(?:^\|.*\n)+", out, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.strip().split("\n")}
        assert len(widths) == 1


def test_the_page_is_whole_and_fetches_nothing(scored, tmp_path):
    one, two, val = scored("a.tsv", 2, 1), scored("b.tsv", 1, 2), scored("val.tsv", 2, 3, n=300)
    evaluate([one, two], against=two, threshold_from=val, slice="population", html=tmp_path / "out.html")
    page = Page((tmp_path / "out.html").read_text())
    assert page.open == []
    assert page.loads == ["data:,"]
    # confusion each, ROC, PR, calibration, thresholds each, prevalence
    assert page.places == len(page.charts) == 2 + 3 + 2 + 1
    assert "<ad> & more" in page.words


def test_the_comparison_stands_before_the_table_of_answers_and_the_charts(scored, tmp_path):
    one, two = scored("a.tsv", 2, 1), scored("b.tsv", 1, 2)
    evaluate([one, two], against=two, html=tmp_path / "out.html")
    words = Page((tmp_path / "out.html").read_text()).words
    heads = ["Evaluation", "Accuracy", f"Compared with {two}", "Answers, yes being positive", "Charts", "All figures"]
    assert [words.index(head) for head in heads] == sorted(words.index(head) for head in heads)


def test_bands_of_roc_and_of_precision_are_wilson_intervals_at_each_threshold(scored, tmp_path):
    report = evaluate([scored("a.tsv", 2, 1)], html=tmp_path / "out.html").reports[0]
    page = Page((tmp_path / "out.html").read_text())
    roc, precision = page.values(1), page.values(2)
    curve = report.curve
    place = len(curve.tp) // 2
    low, high = wilson_interval(int(curve.tp[place]), int(curve.tp[place] + curve.fp[place]))
    (band,) = [one for one in precision if one.get("order") == place and "low" in one]
    assert (band["low"], band["high"]) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    # At a false-positive rate of 0.3: rectangles of both rates, each interval covering the root of 95%.
    corners = [
        (*wilson_interval(fp, curve.negatives, 0.95**0.5), *wilson_interval(tp, curve.positives, 0.95**0.5))
        for fp, tp in zip([0, *curve.fp.tolist()], [0, *curve.tp.tolist()], strict=True)
    ]
    (edge,) = [one for one in roc if one["x"] == 0.3 and "low" in one]
    assert edge["low"] == pytest.approx(max(below for _, right, below, _ in corners if right <= 0.3), abs=1e-5)
    assert edge["high"] == pytest.approx(min(above for left, _, _, above in corners if left >= 0.3), abs=1e-5)
    assert all(one["low"] <= one["high"] for one in roc if "low" in one)


def test_confusions_of_all_files_are_shaded_on_one_scale(scored, tmp_path):
    evaluate([scored("a.tsv", 4, 1), scored("b.tsv", 0.1, 2)], html=tmp_path / "out.html")
    page = Page((tmp_path / "out.html").read_text())
    scales = [chart["layer"][0]["encoding"]["opacity"]["scale"]["domain"] for chart in page.charts[:2]]
    assert scales == [[0, 1], [0, 1]]


@pytest.mark.parametrize("counts", [(21, 0, 0, 4), (0, 0, 0, 3), (840, 0, 160, 0), (0, 5, 18, 41), (0, 3, 0, 0)])
def test_pages_of_degenerate_files(count_file, tmp_path, counts):
    evaluate([count_file("a.tsv", *counts)], html=tmp_path / "out.html")
    page = Page((tmp_path / "out.html").read_text())
    assert page.open == []
    assert page.places == len(page.charts) >= 1


def test_pages_of_scores_for_one_class(tmp_path):
    write_predictions(tmp_path / "a.tsv", ["a", "b"], ["no"] * 2, ["no"] * 2, [0.1, 0.2], "probability:yes")
    report = evaluate([tmp_path / "a.tsv"], html=tmp_path / "out.html").reports[0]
    assert report.figures["auroc"].text() == "undefined (no positives)"


def test_it_can_be_a_command(count_file):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(evaluate, as_positional=True)
    path = count_file("a.tsv", 4, 3, 2, 1)
    options = parser.parse_args([str([str(path)]), "--positive", "no", "--costs", "[5, 1]", "--json", "true"])
    assert (options.files, options.positive, options.costs, options.json) == ([Path(path)], "no", (5.0, 1.0), True)


def test_a_run_folder_is_its_predictions(scored, tmp_path, capsys):
    for run, skill in (("a", 2), ("b", 1)):
        (tmp_path / run).mkdir()
        for split, seed in (("val", 1), ("test", 2)):
            scored(f"{run}/predictions-{split}.tsv", skill, seed)
    evaluate([tmp_path / "a"], against=tmp_path / "b", threshold_from=tmp_path / "a")
    folders = capsys.readouterr().out
    files = [tmp_path / run / f"predictions-{split}.tsv" for run, split in (("a", "test"), ("b", "test"), ("a", "val"))]
    evaluate([files[0]], against=files[1], threshold_from=files[2])
    assert folders == capsys.readouterr().out
