"""Free texts are compared with the expected text: by hand, by reference implementations, and where it ends."""

import json
import re

import numpy as np
import pytest

from ftkit.commands.evaluate import evaluate_command as evaluate
from ftkit.errors import InputError
from ftkit.report.binary_report import Evaluation
from ftkit.report.exact_report import ExactEvaluation
from ftkit.results import table_files
from ftkit.results.paired import paired_interval
from ftkit.results.predictions import write_predictions
from ftkit.results.statistics import mcnemar_exact, wilson_interval
from page_reader import Page


@pytest.fixture
def sums(tmp_path):
    """Write answers to additions, wrong on the given examples; labels are many, lengths are slices."""

    def write(name, wrong, n=200, answers=None):
        labels = [str(3 * k % 101) for k in range(n)]
        given = [f"{int(label) + 1}" if k in wrong else label for k, label in enumerate(labels)]
        given = [(answers or {}).get(k, answer) for k, answer in enumerate(given)]
        lengths = ["1 digit" if len(label) == 1 else "2 digits" for label in labels]
        write_predictions(tmp_path / name, [f"sum-{k}" for k in range(n)], labels, given, extra={"length": lengths})
        return tmp_path / name

    return write


def test_accuracy_with_its_interval_by_slice(sums, capsys):
    evaluation = evaluate([sums("a.tsv", range(0, 200, 4))], slice="length")
    assert isinstance(evaluation, ExactEvaluation)
    (report,) = evaluation.reports
    assert (report.share.n, report.share.right, report.share.accuracy) == (200, 150, 0.75)
    assert report.share.interval == wilson_interval(150, 200)
    labels = [str(3 * k % 101) for k in range(200)]
    for name, length in (("1 digit", 1), ("2 digits", 2)):
        rows = [k for k, label in enumerate(labels) if len(label) == length]
        if length == 2:
            rows += [k for k, label in enumerate(labels) if label == "100"]
        assert (report.slices[name].n, report.slices[name].right) == (len(rows), sum(k % 4 > 0 for k in rows))
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "right=150 wrong=50 accuracy: 0.7500 (0.6857 to 0.8049)" in out
    assert "more than 50 different labels" in out
    assert "Precision, recall and what else needs a positive class do not apply" in out
    assert "Tp=" not in out
    assert "a.tsv sum-0 0 1" in out  # the first wrong answer


def test_json_is_unrounded_and_says_what_it_is(sums, capsys):
    path = sums("a.tsv", range(67))
    evaluate([path], slice="length", json=True)
    record = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert record["kind"] == "exact_match"
    (file,) = record["files"]
    assert (file["n"], file["right"], file["accuracy"]) == (200, 133, 133 / 200)
    assert file["interval"] == list(wilson_interval(133, 200))
    assert file["first_wrong"][1] == {"id": "sum-1", "label": "3", "prediction": "4"}
    assert set(file["slices"]) == {"1 digit", "2 digits"}


def test_two_files_are_compared_on_shared_ids(sums, capsys):
    one, two = sums("a.tsv", range(10)), sums("b.tsv", range(40), n=180)
    (pair,) = evaluate([one, two], against=two).comparisons
    assert (pair.n, pair.only_model, pair.only_reference) == (180, 30, 0)
    assert pair.p == pair.p_holm == mcnemar_exact(30, 0)
    assert pair.differences == {"accuracy": pytest.approx(30 / 180)}
    assert pair.intervals["accuracy"] == paired_interval(np.repeat([1, 0], [30, 150]))
    assert pair.missing == (20, [f"sum-{k}" for k in range(180, 185)])
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "a.tsv: significantly better (p =" in out
    assert "b.tsv: better" not in out


def test_other_labels_are_not_compared(sums, tmp_path):
    one = sums("a.tsv", range(10))
    (tmp_path / "b.tsv").write_text(one.read_text().replace("sum-7\t21\t", "sum-7\t22\t"))
    with pytest.raises(InputError, match=r"a.tsv:9: label: 1 labels differ .*\(got 'sum-7'\)"):
        evaluate([one], against=tmp_path / "b.tsv")


def test_always_the_same_answer_is_the_baseline(text_file, capsys):
    rows = [(k, "7" if k < 60 else str(100 + k), "7") for k in range(100)]
    path = text_file("id\tlabel\tprediction\n" + "".join(f"{k}\t{label}\t{answer}\n" for k, label, answer in rows))
    (report,) = evaluate([path]).reports
    assert (report.majority, report.majority_count, report.better, report.worse) == ("7", 60, 0, 0)
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "would be right on 60 of 100 (60.0%); the model is not significantly different from that" in out


@pytest.mark.parametrize("size", [64, table_files.BLOCK_BYTES])
def test_of_labels_of_one_frequency_the_first_by_its_name_is_the_baseline(text_file, capsys, monkeypatch, size):
    """Whatever the order of the rows and of the hashes of the labels, and in whichever block they come."""
    monkeypatch.setattr(table_files, "BLOCK_BYTES", size)
    words = ["pear", "fig", "apple", "lime", "kiwi", "plum", "date"]
    rows = [(f"{word}-{k}", word) for word in words for k in range(3)] + [("cherry-0", "cherry")]
    for turn in range(0, len(rows), 4):
        turned = rows[turn:] + rows[:turn]
        lines = "".join(f"{name}\t{word}\t{'apple' if name == 'fig-0' else word}\n" for name, word in turned)
        report = evaluate([text_file("id\tlabel\tprediction\n" + lines)]).reports[0]
        assert (report.majority, report.tied, report.majority_count) == ("apple", 7, 3)
        assert (report.better, report.worse) == (18, 0)
        said = "Always answering 'apple', the first in alphabetical order of 7 labels that are equally frequent,"
        assert said in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_what_case_and_blanks_cost_is_said(sums, capsys):
    answers = {0: " 0", 1: "3.", 2: "", 3: "nine"}
    path = sums("a.tsv", [], answers=answers)
    report = evaluate([path]).reports[0]
    assert (report.share.right, report.answers.nearly, report.answers.empty) == (196, 2, 1)
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert out.startswith("Warnings - 2 of 4 wrong answers are right but for their spelling")
    assert "--normalize-labels counts them as right" in out
    assert "1 answers are empty or null" in out
    again = evaluate([path], normalize_labels=True).reports[0]
    assert (again.share.right, again.answers.nearly) == (198, 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<think>\n\n</think>\n\n", ""),
        ("<think>\nThe sky.\n</think>\n", "<|im_end|>"),
        ("", "</s>"),
        ("<|im_start|>", "\n"),
    ],
)
def test_marks_of_a_chat_template_around_each_answer_are_no_errors_of_the_model(sums, capsys, before, after):
    path = sums("a.tsv", [3], answers={k: f"{before}{3 * k % 101}{after}" for k in range(200) if k != 3})
    report = evaluate([path]).reports[0]
    assert (report.share.right, report.answers.nearly) == (0, 199)
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert out.startswith("Warnings - 199 of 200 wrong answers are right but for their spelling")
    assert evaluate([path], normalize_labels=True).reports[0].share.right == 199


def test_other_text_around_each_answer_is_shown(sums, capsys):
    answers = {k: f"Sure! The sum is {3 * k % 101}.\n### End" for k in range(200) if k % 3}
    path = sums("a.tsv", [], answers=answers)
    evaluate([path])
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert out.startswith(
        r"Warnings - 133 of 133 wrong answers hold the expected text, each with 'Sure! The sum is ' before it and "
        r"'.\n### End' behind it."
    )
    harmless = [
        {},
        {k: f"1000{3 * k % 101}" for k in range(200)},  # no text around a number, but another number
        {k: f"{k} times {3 * k % 101}" for k in range(200)},
        {k: f"The sum is {3 * k % 101}" if k < 20 else "perhaps" for k in range(200)},
    ]
    for answers in harmless:
        evaluate([sums("b.tsv", [], answers=answers)])
        assert capsys.readouterr().out.startswith("Exact match")


def test_what_is_no_character_is_compared_and_shown(tmp_path, capfdbinary):
    half = ["\ud800", "a", "b"]
    write_predictions(tmp_path / "a.tsv", ["1", "2", "3"], half, ["\ud800 ", "a", "c"])
    for normalize, right in ((False, 1), (True, 2)):
        report = evaluate([tmp_path / "a.tsv"], normalize_labels=normalize, html=tmp_path / "a.html").reports[0]
        assert report.share.right == right
        assert "\ufffd".encode() in capfdbinary.readouterr().out


def test_blocks_of_any_size_give_the_same(sums, monkeypatch):
    path = sums("a.tsv", range(0, 200, 3))
    whole = evaluate([path], slice="length").reports[0]
    monkeypatch.setattr(table_files, "BLOCK_BYTES", 64)
    parts = evaluate([path], slice="length").reports[0]
    assert parts.to_dict() == whole.to_dict()


def test_ids_that_come_twice_and_slices_that_are_too_many_are_refused(text_file):
    rows = "".join(f"{k}\t{k}\t{k}\tsite {k}\n" for k in range(60))
    with pytest.raises(InputError, match=r"a.tsv:62: id: the id occurs twice, first in line 9 \(got '7'\)"):
        evaluate([text_file("id\tlabel\tprediction\tsite\n" + rows + "7\t1\t1\tsite 1\n")])
    path = text_file("id\tlabel\tprediction\tsite\n" + rows)
    with pytest.raises(InputError, match="more than 50 different values to slice by"):
        evaluate([path], slice="site")
    with pytest.raises(InputError, match="no such column to slice by; fix: use one of: site"):
        evaluate([path], slice="place")


@pytest.mark.parametrize(
    ("labels", "answers", "kind"),
    [
        (["yes", "no"], ["no", "perhaps"], Evaluation),
        (["yes"], ["I see a dog"], Evaluation),
        (["0", "1", "1"], ["0", "10", "1"], Evaluation),
        ([str(k % 10) for k in range(40)], ["7"] * 40, ExactEvaluation),  # 1 and 0 are among them
        (["positive", "neutral", "negative"], ["neutral"] * 3, ExactEvaluation),
        (["42", "7"], ["42", "8"], ExactEvaluation),
        (["a cat"], ["a dog"], ExactEvaluation),
    ],
)
def test_what_is_taken_for_a_yes_no_question(text_file, labels, answers, kind):
    rows = "".join(f"{k}\t{pair[0]}\t{pair[1]}\n" for k, pair in enumerate(zip(labels, answers, strict=True)))
    assert type(evaluate([text_file("id\tlabel\tprediction\n" + rows)])) is kind


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (["a cat", "a cat"], "labels of one kind, such as 'a cat'"),
        (["42", "7", "7"], "2 different labels, such as '7', '42'"),
    ],
)
def test_the_report_says_what_the_labels_are_instead(text_file, labels, why):
    rows = "".join(f"{k}\t{label}\tx\n" for k, label in enumerate(labels))
    assert evaluate([text_file("id\tlabel\tprediction\n" + rows)]).why == why


def test_a_named_class_or_a_score_asks_for_a_yes_no_question(text_file):
    path = text_file("id\tlabel\tprediction\na\t42\t42\nb\t7\t8\nc\t7\tseven\n")
    report = evaluate([path], positive="42").reports[0]
    assert str(report.counts) == "Tp=1 Tn=0 Fp=0 Fn=0 unparsed=2"
    with pytest.raises(InputError, match=r"threshold_from: needs a yes/no question"):
        evaluate([path], threshold_from=path)
    with pytest.raises(InputError, match="costs: there is no threshold to choose"):
        evaluate([path], costs=(1.0, 2.0))
    scored = text_file("id\tlabel\tprediction\tprobability:42\na\t42\t42\t0.9\nb\t7\t8\t0.1\n", "b.tsv")
    assert evaluate([scored]).reports[0].positive == "42"


def test_markdown_and_page_are_whole(sums, text_file, tmp_path, capsys):
    odd = "<b>|\\u2028"
    one, two = sums("a.tsv", range(10), answers={0: odd, 1: "two\nlines"}), sums("b.tsv", range(40))
    evaluate([one, two], against=two, slice="length", markdown=True, html=tmp_path / "out.html")
    out = capsys.readouterr().out
    assert out.startswith(f"# Exact match\n\n## Compared with {two}, on the same examples\n\n- a.tsv: significantly")
    assert "## Answers that equal the expected text" in out
    for table in re.findall(r"(?:^\|.*\n)+", out, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.strip().split("\n")}) == 1
    page = Page((tmp_path / "out.html").read_text())
    assert page.open == []
    assert page.places == len(page.charts) == 1
    assert odd in page.words
