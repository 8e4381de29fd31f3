"""How labels and answers are read that are spelled in other ways, missing, or not known to be positive."""

# ruff: noqa: RUF001
import json
import re

import pytest

from ftkit.cli import main
from ftkit.commands.evaluate import evaluate_command as evaluate
from ftkit.errors import InputError
from ftkit.results import scan as scan_module
from ftkit.results import table_files
from ftkit.results.predictions import read_predictions


@pytest.fixture
def table(text_file):
    """Write labels and answers under a header."""

    def write(labels, answers, name="a.tsv"):
        rows = (f"{k}\t{label}\t{answer}\n" for k, (label, answer) in enumerate(zip(labels, answers, strict=True)))
        return text_file("id\tlabel\tprediction\n" + "".join(rows), name)

    return write


def counted(path, **options):
    report = evaluate([path], **options).reports[0]
    return str(report.counts), report.positive, report.negative


# Each case: labels, answers, and the counts once spelling is ignored. As they are spelled, no answer is a label.
SPELLED = {
    "full stops": (["yes", "yes", "no"], ["Yes.", "no!", "No"], "Tp=1 Tn=1 Fp=0 Fn=1"),
    "floats of pandas": (["1.0", "1.0", "0.0"], ["1", "0", "0"], "Tp=1 Tn=1 Fp=0 Fn=1"),
    "labels without decimals": (["1", "1", "0"], ["1.0", "0.0", "0.0"], "Tp=1 Tn=1 Fp=0 Fn=1"),
    "1 and 0 for True and False": (["True", "True", "False"], ["1", "0", "0"], "Tp=1 Tn=1 Fp=0 Fn=1"),
    "True and False for 1 and 0": (["1", "1", "0"], ["True", "false", "FALSE"], "Tp=1 Tn=1 Fp=0 Fn=1"),
    "yes and no for True and False": (["True", "True", "False"], ["yes", "no", "no"], "Tp=1 Tn=1 Fp=0 Fn=1"),
    "names of a pipeline": (["1", "1", "0"], ["LABEL_1", "LABEL_0", "LABEL_0"], "Tp=1 Tn=1 Fp=0 Fn=1"),
    "Japanese full stops": (["はい", "はい", "いいえ"], ["はい。", "いいえ。", "「いいえ」"], "Tp=1 Tn=1 Fp=0 Fn=1"),
    "wide letters": (["yes", "yes", "no"], ["ＹＥＳ", "ｎｏ", "ＮＯ"], "Tp=1 Tn=1 Fp=0 Fn=1"),
    "Arabic": (["نعم", "نعم", "لا"], ["نعم۔", "لا؟", "«لا»"], "Tp=1 Tn=1 Fp=0 Fn=1"),
    "thoughts": (["yes", "no", "no"], ["<think></think>yes", "<think>m</think> yes", "no</s>"], "Tp=1 Tn=1 Fp=1 Fn=0"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPELLED)
def test_answers_that_only_miss_the_classes_by_their_spelling_are_no_errors_of_the_model(table, case):
    labels, answers, counts = SPELLED[case]
    path = table(labels, answers)
    with pytest.raises(InputError) as caught:
        evaluate([path])
    assert re.fullmatch(
        rf"{path}: prediction: all 3 answers are neither \S+ nor \S+ as they are spelled \(got .*\); "
        "fix: give --normalize-labels, which reads 3 of them",
        str(caught.value),
    )
    assert counted(path, normalize_labels=True)[0] == counts


def test_the_command_ends_with_the_code_of_bad_input(table, capsys):
    path = str(table(["yes", "no"], ["Yes.", "No."]))
    assert main(["evaluate", path]) == 2
    assert "fix: give --normalize-labels" in capsys.readouterr().err
    assert main(["evaluate", path, "--normalize-labels"]) == 0


def test_what_some_answers_are_spelled_like_is_said_before_any_figure(table, capsys, tmp_path):
    path = table(["yes", "no", "no", "yes", "yes"], ["yes", "No", "perhaps", "Yes.", ""])
    expected = (
        "4 of 5 answers are neither yes nor no and count as errors, 1 of them empty or null "
        "(--normalize-labels reads 2 of them)."
    )
    evaluate([path], html=tmp_path / "a.html")
    assert re.sub(r"\s+", " ", capsys.readouterr().out).startswith(f"Warnings - {expected} Overall: ")
    page = (tmp_path / "a.html").read_text()
    assert page.index(expected) < page.index('class="card"')
    evaluate([path], markdown=True)
    assert capsys.readouterr().out.startswith(f"# Evaluation\n\n## Warnings\n\n- {expected}\n\n## Answers")
    evaluate([path], json=True)
    assert json.loads(capsys.readouterr().out)["files"][0]["warnings"] == [expected]
    fine = table(["yes", "no"], ["yes", "no"], "fine.tsv")
    evaluate([fine, path])
    assert re.sub(r"\s+", " ", capsys.readouterr().out).startswith(f"Warnings - a.tsv: {expected} Overall: ")


def test_answers_that_name_no_class_in_any_spelling_are_said_to_be_all(table, capsys):
    path = table(["yes", "no"], ["I see a dog", ""])
    for options, advice in (({}, "would read none of them"), ({"normalize_labels": True}, "is given")):
        assert counted(path, **options)[0] == "Tp=0 Tn=0 Fp=0 Fn=0 unparsed=2"
        assert re.sub(r"\s+", " ", capsys.readouterr().out).startswith(
            "Warnings - All 2 answers are neither yes nor no and count as errors, 1 of them empty or null "
            f"(--normalize-labels {advice})."
        )


def test_spellings_are_read_however_many_answers_came_before(table):
    """More answers than are kept, each with a thought of its own and spelled in another way."""
    answers = [f"<think>{k}</think> {'Yes' if k % 3 else 'No'}{'.' * (k % 7)}" for k in range(3000)]
    path = table(
        ["True" if k % 2 else "False" for k in range(3000)], [*(f"hm {k}" for k in range(1200)), *answers[1200:]]
    )
    assert counted(path, normalize_labels=True)[0] == "Tp=600 Tn=300 Fp=600 Fn=300 unparsed=1200"
    assert len(scan_module.scan(path, normalize_labels=True).predictions) == 1000


# Each case: labels and answers of a file whose classes differ by what spelling ignores, or are called by one word.
APART = {
    "case": (["C", "c", "c"], ["C", "c", "C"]),
    "width": (["x", "\uff58", "\uff58"], ["x", "\uff58", "x"]),
    "full stop": (["a.", "a", "a"], ["a.", "a", "a."]),
    "decimals": (["2.0", "2", "2"], ["2.0", "2", "2.0"]),
}


@pytest.mark.parametrize("case", APART)
@pytest.mark.parametrize("named", [True, False])
def test_two_classes_are_never_made_one(table, case, named):
    labels, answers = APART[case]
    path = table(labels, answers)
    written = ", ".join(map(repr, sorted(set(labels))))
    with pytest.raises(InputError) as caught:
        evaluate([path], normalize_labels=True, positive=labels[0] if named else None)
    problem = f"all labels are one class when spelling is ignored: {written}"
    assert str(caught.value) == f"{path}: label: {problem}; fix: leave --normalize-labels out"
    assert counted(path, positive=labels[0]) == ("Tp=1 Tn=1 Fp=1 Fn=0", labels[0], labels[1])


@pytest.mark.parametrize(
    ("labels", "answers", "positive"),
    [
        (["yes", "1", "1"], ["yes", "1", "yes"], "yes"),
        (["true", "yes", "yes"], ["true", "yes", "true"], "true"),
        (["A-", "A+", "A+"], ["a-", "a+", "A-"], "a-"),
        (["-1", "1", "1"], ["-1.0", "1.0", "-1"], "-1"),
    ],
)
def test_words_that_mean_the_same_elsewhere_stay_two_classes_where_labels_tell_them_apart(
    table, labels, answers, positive
):
    assert counted(table(labels, answers), normalize_labels=True, positive=positive)[0] == "Tp=1 Tn=1 Fp=1 Fn=0"


def test_an_answer_that_would_be_both_classes_is_neither(table):
    path = table(["yes", "1", "1"], ["true", "false", "1"])
    assert counted(path, normalize_labels=True, positive="yes")[0] == "Tp=0 Tn=1 Fp=0 Fn=0 unparsed=2"


def test_labels_that_are_read_as_one_class_are_named(table):
    path = table(["Yes", "yes", "no", "NO"], ["yes"] * 4)
    notes = evaluate([path], normalize_labels=True).models[0].notes
    assert notes == ["the labels 'Yes', 'yes' are read as one class", "the labels 'NO', 'no' are read as one class"]


@pytest.mark.parametrize(
    ("positive", "negative"),
    [("1.0", "0.0"), ("LABEL_1", "LABEL_0"), ("oui", "non"), ("Ja", "Nein"), ("sí", "no"), ("はい", "いいえ"),
     ("да", "нет"), ("pos", "neg"), ("POSITIVE", "NEGATIVE"), ("TRUE", "FALSE"), ("spam", "ham"),
     ("toxic", "not toxic"), ("1", "-1")],
)  # fmt: skip
def test_the_usual_class_is_positive_whichever_is_more_frequent(table, positive, negative):
    for one, two in ((positive, negative), (negative, positive)):
        path = table([one, one, two], [one, two, two])
        assert counted(path)[1:] == (positive, negative)
    # Where one class is labelled alone, the answers and the pair say what the other is called.
    for label in (positive, negative):
        assert set(counted(table([label] * 2, [positive, negative]))[1:]) == {positive, negative}


def test_of_other_classes_both_are_named_and_none_is_advised(table):
    for labels in (["unsafe", "safe", "safe"], ["safe", "unsafe", "unsafe"]):
        with pytest.raises(InputError, match=r"fix: give --positive safe or --positive unsafe$"):
            evaluate([table(labels, labels)])


def test_a_positive_class_in_another_spelling_is_told_the_way_out(table):
    path = table(["1.0", "0.0"], ["1.0", "1.0"])
    with pytest.raises(InputError, match=r"got '1'\); fix: use 0.0 or 1.0, or give --normalize-labels"):
        evaluate([path], positive="1")
    assert counted(path, positive="1", normalize_labels=True) == ("Tp=1 Tn=0 Fp=1 Fn=0", "1", "0")


def test_examples_without_a_label_are_left_out_and_counted(table, capsys):
    labels = ["yes", "", "no", "  ", "no", "yes"]
    answers = ["yes", "yes", "no", "no", "yes", "yes"]
    report = evaluate([table(labels, answers)]).reports[0]
    assert str(report.counts) == "Tp=2 Tn=1 Fp=1 Fn=0"
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert out.startswith("Warnings - 2 of 6 examples have no label and are left out of all figures. Overall: ")
    whole = evaluate([table(["yes", "no", "no", "yes"], ["yes", "no", "yes", "yes"])]).reports[0]
    assert report.figures == whole.figures
    assert report.intervals == whole.intervals


def test_free_texts_without_a_label_are_left_out_and_counted(table, capsys):
    labels = [f"text {k}" if k % 3 else "" for k in range(90)]
    report = evaluate([table(labels, labels)]).reports[0]
    assert (report.share.n, report.share.right) == (60, 60)
    assert "30 of 90 examples have no label" in re.sub(r"\s+", " ", capsys.readouterr().out)


@pytest.mark.parametrize("name", ["none", "None", "nan", "NA", "null", "0"])
def test_a_class_may_have_the_name_of_nothing(table, name):
    path = table(["spam", name, name], ["spam", name, "spam"])
    assert counted(path, positive="spam") == ("Tp=1 Tn=1 Fp=1 Fn=0", "spam", name)


def test_examples_are_named_by_their_own_lines_where_some_have_no_label(text_file, monkeypatch):
    """Rows are counted without them, and blocks may hold no other ones."""
    rows = [f"{k}\t{'' if 20 <= k < 60 else 'yes' if k % 2 else 'no'}\tno\t0.9\tx\n" for k in range(100)]
    head = "id\tlabel\tprediction\tprobability:no\tsite\n"
    path = text_file(head + "".join([*rows[:70], rows[70].replace("0.9", "0.1"), *rows[71:]]))
    twice = text_file(head + "".join(rows) + rows[65], "b.tsv")
    for size in (table_files.BLOCK_BYTES, 64):
        monkeypatch.setattr(table_files, "BLOCK_BYTES", size)
        found = evaluate([path], slice="site")
        report = found.reports[0]
        assert (report.counts.n, report.slices["x"].counts.n) == (60, 60)
        assert found.models[0].notes == ["1 answers contradict their score at 0.5 (first: 70, line 72)"]
        with pytest.raises(InputError, match=r"b.tsv:102: id: the id occurs twice, first in line 67 \(got '65'\)"):
            evaluate([twice])


def test_a_file_without_any_label_is_refused(table):
    with pytest.raises(InputError, match=r"a.tsv: label: no example has a label; fix: evaluate examples whose class"):
        evaluate([table(["", ""], ["yes", "no"])])


@pytest.mark.parametrize("missing", ["null", "NaN"])
def test_a_null_stops_no_file(text_file, missing):
    """pandas writes null for what is missing, and json NaN."""
    rows = [('"yes"', '"yes"'), ('"no"', missing), (missing, '"no"'), ('"no"', '"no"')]
    lines = [f'{{"id": {k}, "label": {label}, "prediction": {answer}}}' for k, (label, answer) in enumerate(rows)]
    for first in range(4):  # nor does it where it comes first
        path = text_file("\n".join(lines[first:] + lines[:first]), "a.jsonl")
        found = evaluate([path])
        assert str(found.reports[0].counts) == "Tp=1 Tn=1 Fp=0 Fn=0 unparsed=1"
        unlabeled, empty = found.models[0].warnings
        assert unlabeled == "1 of 4 examples have no label and are left out of all figures."
        assert "1 of 3 answers are neither yes nor no and count as errors, 1 of them empty or null" in empty
        assert read_predictions(path).predictions.count(None) == 1


def test_the_record_counts_as_its_own_scripts_do(text_file, capsys):
    """True is the expected answer yes: Tp, Tn, Fp, Fn of the published record, and its accuracy."""
    cases = [("True", "yes", 652), ("False", "no", 57), ("False", "yes", 115), ("True", "no", 215)]
    rows = [f"{flag}\tcat\timages/{flag}{answer}{k}.jpg\t{answer}" for flag, answer, n in cases for k in range(n)]
    text = "".join(f"{k}\t{row}\n" for k, row in enumerate(rows))
    for spelled in (
        text,
        text.replace("True\t", "TRUE\t").replace("False\t", "FALSE\t"),
        text.replace("True\t", "true\t"),
    ):
        evaluate([text_file(spelled)], unrounded=True)
        assert capsys.readouterr().out.split("\n\n")[0].split("\n")[1:4] == [
            "  Tp=652 Tn=57 Fp=115 Fn=215", "  accuracy:  0.6823869104908566", "  precision: 0.8500651890482399",
        ]  # fmt: skip


def test_the_record_with_answers_of_all_kinds(text_file):
    answers = ["Yes", "no.", "I see a cat", "", "NO"]
    rows = [f"{k}\t{k < 3}\tcat\timages/{k}.jpg\t{answer}\n" for k, answer in enumerate(answers)]
    assert counted(text_file("".join(rows)))[0] == "Tp=1 Tn=1 Fp=0 Fn=0 unparsed=3"
    assert counted(text_file("".join(rows)), normalize_labels=True)[0] == "Tp=1 Tn=1 Fp=0 Fn=1 unparsed=2"


# Ids that come twice lie in different blocks, of which each is read on its own.
LONG = {
    "a.tsv": lambda rows: "id\tlabel\tprediction\n" + "".join("\t".join(row) + "\n" for row in rows),
    "a.csv": lambda rows: "id,label,prediction\n" + "".join(",".join(row) + "\n" for row in rows),
    "b.csv": lambda rows: 'id,label,"prediction"\n' + "".join(",".join(row) + "\n" for row in rows),
    "a.jsonl": lambda rows: "".join(
        json.dumps(dict(zip(("id", "label", "prediction"), row, strict=True))) + "\n" for row in rows
    ),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("free", [True, False])
def test_an_id_that_comes_twice_in_two_blocks_is_refused(text_file, monkeypatch, name, free):
    monkeypatch.setattr(table_files, "BLOCK_BYTES", 256)
    monkeypatch.setattr(table_files, "BLOCK_ROWS", 20)
    rows = [(f"id-{k}", f"text {k}" if free else "yes" if k % 2 else "no", "yes") for k in range(200)]
    path = text_file(LONG[name]([*rows, rows[7]]), name)
    line = 1 + (name != "a.jsonl")
    message = rf"{name}:{200 + line}: id: the id occurs twice, first in line {7 + line} \(got 'id-7'\)"
    for read in (lambda: evaluate([path]), lambda: read_predictions(path)):
        with pytest.raises(InputError, match=message):
            read()
    evaluate([text_file(LONG[name](rows), name)])
