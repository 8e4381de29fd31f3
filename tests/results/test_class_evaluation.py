"""Files of three and more classes: which files these are, their figures against scikit-learn, and the report."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

import ftkit
from ftkit.commands.evaluate import evaluate_command as evaluate
from ftkit.errors import InputError
from ftkit.report.binary_report import Evaluation
from ftkit.report.class_report import ClassEvaluation
from ftkit.report.exact_report import ExactEvaluation
from ftkit.results import table_files
from ftkit.results.class_metrics import class_figures, class_values, present
from ftkit.results.intervals import count_intervals, table_limits
from ftkit.results.metrics import Counts, figures_of
from ftkit.results.predictions import read_predictions, write_predictions
from ftkit.results.statistics import mcnemar_exact, wilson_interval
from page_reader import Page

MOODS = ("negative", "neutral", "positive")


@pytest.fixture
def classified(tmp_path):
    """Write answers of a made-up classifier: the labels depend on ``n`` and ``names`` only, the answers on ``seed``."""

    def write(name, names=MOODS, n=240, skill=1.5, seed=0, scores=True, junk=(), order=None):
        k, rng = len(names), np.random.default_rng(seed)
        labels = np.random.default_rng(1).choice(k, n, p=np.arange(1, k + 1) / np.arange(1, k + 1).sum())
        logits = rng.normal(size=(n, k)) + skill * np.eye(k)[labels]
        table = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        answers = [
            junk[row % len(junk)] if junk and row % 7 == 0 else names[c] for row, c in enumerate(table.argmax(1))
        ]
        order = list(range(k)) if order is None else order
        write_predictions(
            tmp_path / name,
            [f"example {row}" for row in range(n)],
            [names[c] for c in labels],
            answers,
            table[:, order] if scores else None,
            [f"probability:{names[c]}" for c in order] if scores else None,
            {"site": [f"site {row % 2}" for row in range(n)]},
        )
        return tmp_path / name

    return write


def reference(path, classes):
    """The figures by scikit-learn."""
    found = read_predictions(path)
    y, classes = np.array(found.labels), list(classes)
    answers = np.array([answer if answer in classes else "(no class)" for answer in found.predictions])
    recall = [metrics.recall_score(y, answers, labels=[c], average="macro") for c in classes if c in found.labels]
    figures = {
        "accuracy": metrics.accuracy_score(y, answers),
        "macro_f1": metrics.f1_score(y, answers, labels=classes, average="macro"),
        "micro_f1": metrics.f1_score(y, answers, labels=classes, average="micro"),
        "balanced_accuracy": np.mean(recall),
        "mcc": metrics.matthews_corrcoef(y, answers),
    }
    if found.scores is not None:
        figures["auroc"] = metrics.roc_auc_score(y, found.scores, multi_class="ovr", labels=classes)
        figures["log_loss"] = metrics.log_loss(y, found.scores, labels=classes)
    by_class = metrics.classification_report(y, answers, labels=classes, output_dict=True, zero_division=0)
    return figures, by_class


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"skill": 8},
        {"scores": False},
        {"scores": False, "junk": ("I cannot say", "positive, or negative")},
        {"names": tuple("abcdefghijkl"), "n": 700},
        {"names": tuple(f"{k:02}" for k in range(50)), "n": 1500, "skill": 3},
    ],
)
def test_the_figures_are_those_of_scikit_learn(classified, options):
    path = classified("a.tsv", **options)
    evaluation = evaluate([path])
    assert isinstance(evaluation, ClassEvaluation)
    (report,) = evaluation.reports
    assert report.classes == options.get("names", MOODS)
    figures, by_class = reference(path, report.classes)
    assert {name: report.figures[name].value for name in figures} == pytest.approx(figures)
    for one in report.by_class:
        expected = by_class[one.name]
        shown = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
        assert {n: one.figures[n].value for n in shown} == pytest.approx({n: expected[s] for n, s in shown.items()})
        assert (one.n, one.answered) == (expected["support"], read_predictions(path).predictions.count(one.name))
    for name, (low, high) in report.intervals.items():
        assert low < report.figures[name].value <= high, name
        assert (low, high) != (0, 1)
    assert report.intervals["accuracy"] == wilson_interval(report.share.right, report.share.n)
    assert report.table.sum() == report.share.n == len(read_predictions(path))


def test_blocks_of_any_size_give_the_same(classified, monkeypatch):
    path = classified("a.tsv", junk=("perhaps",))
    whole = evaluate([path], slice="site").reports[0].to_dict()
    monkeypatch.setattr(table_files, "BLOCK_BYTES", 300)
    assert evaluate([path], slice="site").reports[0].to_dict() == whole


def test_a_class_has_the_figures_that_it_has_against_the_rest(classified):
    path = classified("a.tsv")
    report = evaluate([path]).reports[0]
    for one in report.by_class:
        against_rest = evaluate([path], positive=one.name)
        binary, notes = against_rest.reports[0], against_rest.models[0].notes
        assert (binary.positive, binary.negative) == (one.name, f"not {one.name}")
        for name, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f_measure"), ("auroc", "auroc")):
            assert one.figures[name].value == pytest.approx(binary.figures[theirs].value)
            if name != "auroc":
                assert one.intervals[name] == pytest.approx(binary.intervals[theirs])
        others = ", ".join(name for name in MOODS if name != one.name)
        assert f"not {one.name}: {others}" in notes
        assert not any("contradict" in note for note in notes)


def test_with_two_classes_tables_have_the_figures_and_intervals_of_yes_and_no():
    counts = Counts(tp=20, tn=31, fp=9, fn=5, unparsed_positive=2, unparsed_negative=1)
    table = np.array([[31, 9, 1], [5, 20, 2]])
    figures, intervals = class_figures(table, 0.95, 0)
    theirs, limits = figures_of(counts), count_intervals(counts)
    for name in ("accuracy", "balanced_accuracy", "mcc"):
        assert figures[name].value == pytest.approx(theirs[name].value)
        assert intervals[name] == pytest.approx(limits[name], abs=0.004)  # other draws


def test_degenerate_tables():
    one_answer = np.array([[0, 7, 0, 0], [0, 5, 0, 0], [0, 0, 0, 0]])
    values = class_values(present(one_answer), one_answer)
    labels, answers = ["a"] * 7 + ["b"] * 5, ["b"] * 12
    assert values["macro_f1"] == pytest.approx(metrics.f1_score(labels, answers, average="macro"))
    assert (values["balanced_accuracy"], np.isnan(values["mcc"])) == (0.5, True)
    figures, intervals = class_figures(one_answer, 0.95, 0)
    assert (figures["micro_f1"], intervals["micro_f1"]) == (figures["accuracy"], intervals["accuracy"])
    assert figures["mcc"].text() == "undefined (every answer is the same)"
    assert "mcc" not in intervals
    one_label = np.array([[3, 4, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    figures, intervals = class_figures(one_label, 0.95, 0)
    assert figures["mcc"].text() == "undefined (every label is the same)"
    assert figures["balanced_accuracy"].value == 3 / 8
    assert intervals["micro_f1"] != intervals["accuracy"]  # an answer names no class
    assert intervals["accuracy"] == wilson_interval(3, 8)
    labels, answers = ["a"] * 8, ["a"] * 3 + ["b"] * 4 + ["?"]
    expected = metrics.f1_score(labels, answers, labels=["a", "b"], average="macro", zero_division=0)
    assert figures["macro_f1"].value == pytest.approx(expected)
    perfect = np.diag([5, 5, 5, 5])
    figures, intervals = class_figures(np.pad(perfect, [(0, 0), (0, 1)]), 0.95, 0)
    assert figures["macro_f1"].value == 1
    assert 0.7 < intervals["macro_f1"][0] < 0.95


@pytest.mark.parametrize(("k", "n", "right"), [(3, 40, 0.7), (10, 10, 0.9)])
def test_the_intervals_cover_what_they_say(k, n, right, monkeypatch):
    monkeypatch.setattr("ftkit.results.intervals._TABLES", 400)
    chances = np.pad(
        np.full((k, k), (1 - right) / (k - 1)) + np.eye(k) * (right - (1 - right) / (k - 1)), [(0, 0), (0, 1)]
    )
    truth = class_values(np.ones(k, bool), chances * n)
    rng, missed = np.random.default_rng(0), dict.fromkeys(("macro_f1", "balanced_accuracy", "mcc"), 0)
    for turn in range(150):
        _, intervals = class_figures(np.array([rng.multinomial(n, row) for row in chances]), 0.95, turn)
        for name in missed:
            low, high = intervals[name]
            missed[name] += not low <= truth[name] <= high
    assert max(missed.values()) <= 15  # of 7.5; more have a chance of 0.5%


def test_draws_in_parts_are_the_same_draws(monkeypatch):
    table, extra = np.array([[5, 3, 2], [1, 8, 0]]), np.array([[0, 1, 0], [1, 0, 0]])
    whole = table_limits(table, extra, extra, lambda drawn: {"cell": drawn[:, 0, 1]})
    monkeypatch.setattr("ftkit.results.intervals._CELLS", 70_000)  # parts of 1,166 tables
    assert table_limits(table, extra, extra, lambda drawn: {"cell": drawn[:, 0, 1]}) == whole


def rows(text_file, labels, answers, name="a.tsv"):
    lines = (f"{k}\t{label}\t{answer}\n" for k, (label, answer) in enumerate(zip(labels, answers, strict=True)))
    return text_file("id\tlabel\tprediction\n" + "".join(lines), name)


COLORS = ["red", "green", "blue"] * 5


@pytest.mark.parametrize(
    ("labels", "answers", "kind", "why"),
    [
        (COLORS, COLORS, ClassEvaluation, ""),
        (COLORS, ["red"] + ["Red."] * 14, ClassEvaluation, ""),  # a class, however it is spelled
        (COLORS, ["red"] * 8 + ["perhaps"] * 7, ClassEvaluation, ""),
        (COLORS, ["red"] * 7 + ["perhaps"] * 8, ExactEvaluation, "most answers are none of them"),
        ([*COLORS, "pink"], [*COLORS, "pink"], ExactEvaluation, "'pink' comes once"),
        (COLORS[:12], COLORS[:12], ExactEvaluation, "each comes 4.0 times on average"),
        ([*COLORS, "Blue", "Blue"], [*COLORS, "Blue", "Blue"], ExactEvaluation, "each comes 4.2 times on average"),
        ([*COLORS * 2, "Blue", "Blue"], [*COLORS * 2, "red", "red"], ExactEvaluation, "some differ in spelling only"),
        ([str(k % 10 + 1) for k in range(80)], ["7"] * 80, ClassEvaluation, ""),  # ratings
        ([str(k % 19) for k in range(190)], ["7"] * 190, ExactEvaluation, "all are numbers"),  # sums
        ([f"{k % 51} up" for k in range(510)], ["7 up"] * 510, ExactEvaluation, "more than 50 different labels"),
        ([f"{k % 50} up" for k in range(500)], ["7 up"] * 500, ClassEvaluation, ""),
        (["yes", "no"] * 30 + ["maybe"] * 6, ["yes", "no"] * 30 + ["maybe"] * 6, ClassEvaluation, ""),
        (["yes", "no"] * 40 + ["maybe"] * 2, ["maybe"] + ["yes", "no"] * 40 + ["no"], ClassEvaluation, ""),  # answered
    ],
)
def test_what_is_taken_for_classes(text_file, capsys, labels, answers, kind, why):
    evaluation = evaluate([rows(text_file, labels, answers)])
    assert type(evaluation) is kind
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    k = len(set(labels))
    assert f"{k} classes: " in out if kind is ClassEvaluation else out.startswith(("Exact match", "Warnings"))
    assert why in getattr(evaluation, "why", "")


@pytest.mark.parametrize(
    ("labels", "answers"),
    [
        (["yes", "no"] * 40 + ["maybe"], ["yes", "no"] * 40 + ["maybe"]),  # once
        (["yes", "no"] * 40 + ["maybe"] * 6, ["yes", "no"] * 43),  # never answered
    ],
)
def test_slips_of_the_pen_among_yes_and_no_are_no_third_class(text_file, labels, answers):
    told = (
        r"label: unknown label \(got 'maybe'\); fix: use no or yes; a third class is one that comes at least twice and"
    )
    with pytest.raises(InputError, match=told):
        evaluate([rows(text_file, labels, answers)])


def test_ratings_are_in_the_order_of_numbers_and_classes_of_columns_in_that_of_the_file(text_file, classified):
    labels = [str(k % 10 + 1) for k in range(80)]
    assert evaluate([rows(text_file, labels, labels)]).reports[0].classes == tuple(map(str, range(1, 11)))
    one, two = classified("b.tsv", order=[2, 0, 1]), classified("c.tsv")
    turned, straight = evaluate([one]).reports[0], evaluate([two]).reports[0]
    assert turned.classes == ("positive", "negative", "neutral")
    for name in ("macro_f1", "auroc", "log_loss", "calibration_error"):
        assert turned.figures[name].value == pytest.approx(straight.figures[name].value)
    assert evaluate([rows(text_file, labels, labels)]).reports[0].majority == "1"
    alike = ["10", "9", "8"] * 9  # of equally frequent ones the first as texts are sorted, which the report says
    assert evaluate([rows(text_file, alike, alike)]).reports[0].majority == "10"
    both = evaluate([two, one]).reports  # the order of the first file
    assert both[0].table.tolist() == both[1].table.tolist()
    assert both[1].figures["log_loss"].value == pytest.approx(straight.figures["log_loss"].value)


def test_answers_in_another_spelling_are_found_and_named(text_file, capsys):
    path = rows(text_file, COLORS, [f"{color.title()}!" for color in COLORS])
    with pytest.raises(
        InputError, match=r"all 15 answers are none of the 3 classes .* --normalize-labels, which reads 15"
    ):
        evaluate([path])
    assert evaluate([path], normalize_labels=True).reports[0].share.right == 15
    capsys.readouterr()
    path = rows(text_file, COLORS, [*COLORS[:10], "Green.", "pink", "", "pink", "blue"])
    report = evaluate([path]).reports[0]
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert out.startswith(
        "Warnings - 4 of 15 answers are none of the 3 classes and count as errors, 1 of them empty or null "
        "(--normalize-labels reads 1 of them)."
    )
    assert "right=11 wrong=4 unparsed=4" in out
    assert "micro F1" in out
    assert "4 answers (26.7%) name none of the classes and count as errors: 'pink' x 2, 'Green.' x 1, '' x 1." in out
    assert report.errors[0].answer is None
    assert [error.count for error in report.errors] == [2, 1, 1]


def test_the_report_says_what_is_confused_by_slice_and_against_the_majority(classified, capsys):
    path = classified("a.tsv")
    report = evaluate([path], slice="site").reports[0]
    found = read_predictions(path)
    pairs = list(zip(found.labels, found.predictions, strict=True))
    for error in report.errors:
        assert error.count == pairs.count((error.label, error.answer)) > 0
        assert error.example == found.ids[pairs.index((error.label, error.answer))]
    counts = [error.count for error in report.errors]
    assert (counts, sum(counts)) == (sorted(counts, reverse=True), report.share.n - report.share.right)
    better = sum(label == answer != "positive" for label, answer in pairs)
    worse = sum(label == "positive" != answer for label, answer in pairs)
    assert (report.majority, report.better, report.worse) == ("positive", better, worse)
    assert report.p_majority == report.p_holm == mcnemar_exact(better, worse)
    for site in (0, 1):
        part = report.slices[f"site {site}"]
        assert part.table.sum() == part.share.n == 120
        assert part.share.right == sum(label == answer for label, answer in pairs[site::2])
        expected = metrics.f1_score(*zip(*pairs[site::2], strict=True), average="macro")
        assert part.figures["macro_f1"].value == pytest.approx(expected)
    assert max(part.p_holm / part.p_majority for part in report.slices.values()) == pytest.approx(2)
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert out.startswith("Overall: ")
    assert "3 classes: negative, neutral, positive right=" in out
    assert "Every answer is one of the classes, so micro F1 is the accuracy." in out
    assert out.count("micro F1") == 1
    assert "Labels in rows, answers in columns" in out


def test_of_many_classes_the_largest_confusions_are_shown(classified, capsys):
    evaluate([classified("a.tsv", tuple("abcdefghijklm"), 800)])
    out = capsys.readouterr().out
    assert "13 classes: a, b, c, d, e, f, g, h, i, j, k, l and 1 more" in out
    assert "Labels in rows" not in out
    assert "The most frequent errors" in out


def test_two_files_are_compared_by_mcnemar_and_in_macro_f1(classified, capsys):
    one, two = classified("a.tsv", skill=2), classified("b.tsv", skill=1, seed=1, scores=False)
    evaluation = evaluate([one], against=two)
    (pair,) = evaluation.comparisons
    right = [read_predictions(path).correct for path in (one, two)]
    assert (pair.only_model, pair.only_reference) == (
        int((right[0] & ~right[1]).sum()),
        int((~right[0] & right[1]).sum()),
    )
    assert pair.p == mcnemar_exact(pair.only_model, pair.only_reference)
    figures = [reference(path, MOODS)[0] for path in (one, two)]
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "mcc"):
        assert pair.differences[name] == pytest.approx(figures[0][name] - figures[1][name])
        low, high = pair.intervals[name]
        assert low < pair.differences[name] < high < low + 0.4
    assert "macro F1 difference" in capsys.readouterr().out
    back = ftkit.compare(two, one)
    assert back.differences["macro_f1"] == pytest.approx(-pair.differences["macro_f1"])
    assert back.intervals["macro_f1"] == pytest.approx([-end for end in pair.intervals["macro_f1"][::-1]], abs=0.02)


def test_a_class_that_only_one_file_answers_does_not_move_the_interval_of_the_difference(text_file):
    """A class without examples counts in the macro F1 of the file that answers it, and in no draw of the other's."""
    names = [f"probability:{name}" for name in ("a", "b", "c", "d")]
    labels = ["a", "b", "c"] * 40

    def write(path, answers):
        write_predictions(path, map(str, range(120)), labels, answers, [[0.25] * 4] * 120, names)

    one, two = (text_file("", name) for name in ("one.tsv", "two.tsv"))
    write(one, [*labels[:-1], "d"])
    write(two, [*labels[:-1], "b"])
    (pair,) = evaluate([one], against=two).comparisons
    low, high = pair.intervals["macro_f1"]
    assert pair.differences["macro_f1"] == pytest.approx(-0.25, abs=0.01)
    assert low < pair.differences["macro_f1"] < high < -0.2


def test_a_class_against_the_rest_has_thresholds(classified, tmp_path):
    val, test, saved = classified("val.tsv", seed=3), classified("test.tsv"), tmp_path / "t.json"
    chosen = evaluate([test], positive="neutral", threshold_from=val, save_threshold=saved)
    assert isinstance(chosen, Evaluation)
    found = read_predictions(test)
    reached = found.scores[:, 1] >= chosen.threshold.value
    assert chosen.at_threshold[0].counts.tp == int((reached & (np.array(found.labels) == "neutral")).sum())
    again = evaluate([test], positive="neutral", threshold_from=saved)
    assert again.at_threshold[0].counts == chosen.at_threshold[0].counts
    with pytest.raises(
        InputError, match="the threshold is for neutral as the positive class and not neutral as the other"
    ):
        evaluate([test], positive="negative", threshold_from=saved)
    compared = evaluate([test], positive="neutral", against=val).comparisons[0]
    assert "f_measure" in compared.differences


def test_options_that_make_no_sense_for_classes_are_refused(classified):
    path, plain = classified("a.tsv"), classified("b.tsv", scores=False)
    for options, message in (
        ({"threshold_from": path}, "threshold_from: needs a yes/no question, and there are 3 classes; fix: name"),
        ({"beta": 2.0}, "beta: needs a yes/no question, and there are 3 classes"),
        ({"positive": "Neutral"}, "positive: no label is the positive class (got 'Neutral'); fix: use negative or "
         "neutral or positive, or give --normalize-labels"),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            evaluate([path], **options)
        assert message in str(caught.value)
    with pytest.raises(InputError, match="no scores to choose a threshold from"):
        evaluate([path], positive="neutral", threshold_from=plain)


def test_score_columns_that_are_not_those_of_the_labels_are_refused_by_name(tmp_path):
    def written(name, labels, classes):
        scores = np.full((len(labels), len(classes)), 1 / len(classes))
        names = [f"probability:{one}" for one in classes]
        write_predictions(tmp_path / name, map(str, range(len(labels))), labels, labels, scores, names)
        return tmp_path / name

    path = written("a.tsv", ["a", "b", "d"], "abc")
    with pytest.raises(
        InputError, match=r"a.tsv:4: label: the label has no score column \(got 'd'\); fix: use a or b or c"
    ):
        evaluate([path])
    path, other = written("b.tsv", ["a", "b", "b"], "abc"), written("c.tsv", ["a", "b", "b"], "abe")
    with pytest.raises(InputError, match=r"c.tsv: header: the score columns are not those of .*b.tsv \(got 'c, e'\)"):
        evaluate([path, other])
    report = evaluate([path]).reports[0]  # a class without an example is one all the same
    assert report.classes == ("a", "b", "c")
    assert report.by_class[2].figures["recall"].text() == "undefined (no examples)"
    assert report.by_class[2].figures["auroc"].text() == "undefined (no positives)"
    with pytest.raises(InputError, match="the score columns are not those of"):
        evaluate([written("d.tsv", ["a", "A", "b"], "aAb")], normalize_labels=True)


def test_log_loss_is_undefined_where_a_label_is_impossible(tmp_path):
    names = [f"probability:{one}" for one in "abc"]
    write_predictions(tmp_path / "a.tsv", "xyz", "abc", "abb", [(1, 0, 0), (0, 1, 0), (0, 1, 0)], names)
    report = evaluate([tmp_path / "a.tsv"]).reports[0]
    assert report.figures["log_loss"].text() == "undefined (1 labels have probability 0)"
    assert report.figures["calibration_error"].value == pytest.approx(1 / 3)


def test_json_holds_everything_unrounded(classified, capsys):
    evaluate([classified("a.tsv", scores=False)], slice="site", json=True)
    record = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert record["kind"] == "classes"
    (file,) = record["files"]
    figures, by_class = reference(file["name"], MOODS)
    assert file["figures"] == pytest.approx(figures)
    assert file["classes"] == list(MOODS)
    assert sum(map(sum, file["table"].values())) == file["n"] == 240
    assert file["by_class"]["neutral"]["figures"]["recall"] == pytest.approx(by_class["neutral"]["recall"])
    assert set(file["slices"]) == {"site 0", "site 1"}
    assert "by_class" not in file["slices"]["site 0"]  # of 50 classes they would cost more than all the rest
    assert set(file["errors"][0]) == {"label", "answer", "count", "example"}


def test_the_page_and_markdown_are_whole(classified, tmp_path, capsys):
    names = ("<b>|", "bad", "good", "so: so")
    one, two = classified("a.tsv", names), classified("b.tsv", names, seed=1)
    evaluate([one, two], against=two, slice="site", markdown=True, html=tmp_path / "out.html")
    out = capsys.readouterr().out
    for table in re.findall(r"(?:^\|.*\n)+", out, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.strip().split("\n")}) == 1
    page = Page((tmp_path / "out.html").read_text())
    assert page.open == []
    assert page.places == len(page.charts) == 4  # recalls and confusion of each
    assert "<b>|" in page.words
    recalls = {row["name"]: row["value"] for row in page.values(0) if "name" in row}
    assert recalls["good"] == pytest.approx(reference(one, names)[1]["good"]["recall"])
    evaluation = ftkit.evaluate(one)
    assert evaluation._repr_markdown_().startswith("# Evaluation")


def test_an_undefined_difference_says_why(classified, text_file, capsys):
    moods = classified("a.tsv", scores=False)
    found = read_predictions(moods)
    write_predictions(moods.parent / "b.tsv", found.ids, found.labels, ["neutral"] * len(found.ids))
    evaluate([moods, moods.parent / "b.tsv"], against=moods.parent / "b.tsv")
    assert "undefined (every answer is the same in b.tsv)" in re.sub(r"\s+", " ", capsys.readouterr().out)
    evaluate([moods], against=moods.parent / "b.tsv")
    assert "undefined (in one of them, on these examples)" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_ties_examples_of_errors_and_levels(tmp_path):
    names = [f"probability:{one}" for one in "cab"]  # not in alphabetical order
    labels, answers = list("ccaab") * 4, ["a", "?", "c", "a", "b"] * 4
    scores = [(0.2, 0.7, 0.1)] * len(labels)
    ids, sites = [f"e{n}" for n in range(len(labels))], [f"s{n % 2}" for n in range(len(labels))]
    write_predictions(tmp_path / "a.tsv", ids, labels, answers, scores, names, {"site": sites})
    report = ftkit.evaluate(tmp_path / "a.tsv", slice="site", level=0.8).reports[0]
    assert report.classes == ("c", "a", "b")
    assert (report.majority, report.tied, report.majority_count) == ("a", 2, 8)  # of equals the first by its name
    errors = [(error.label, error.answer, error.count, error.example) for error in report.errors]
    assert errors == [("c", "a", 4, "e0"), ("c", None, 4, "e1"), ("a", "c", 4, "e2")]
    assert report.share.interval == wilson_interval(8, 20, 0.8)
    assert (report.better, report.worse) == (4, 4)
    none = ftkit.evaluate(tmp_path / "a.tsv").reports[0].by_class[0]
    assert (none.n, none.answered) == (8, 4)
    calibrated = report.figures["calibration_error"].value
    assert calibrated == pytest.approx(0.7 - 0.4)  # all say 0.7 for class a, which 8 of 20 are


def test_a_class_without_examples_and_answers_says_so(tmp_path):
    names = [f"probability:{one}" for one in "abc"]
    write_predictions(tmp_path / "a.tsv", "xyz", "abb", "abb", [(0.5, 0.3, 0.2)] * 3, names)
    figures = evaluate([tmp_path / "a.tsv"]).reports[0].by_class[2].figures
    assert figures["f1"].text() == "undefined (no examples, and never answered)"
    assert figures["precision"].text() == "undefined (never answered)"


def test_slices_are_corrected_together_and_worse_is_not_better(text_file):
    labels, answers = list("aab") * 20 + ["c"] * 6, ["b", "b", "c"] * 20 + ["c"] * 6
    report = evaluate([rows(text_file, labels, answers)]).reports[0]
    assert report.p_majority < 0.01
    assert report.better < report.worse
    assert not report.beats_majority()  # significantly worse
    part = report
    assert not replace(part, better=9, worse=1, p_majority=0.02, p_holm=0.08).beats_majority()
    assert replace(part, better=9, worse=1, p_majority=0.02, p_holm=0.02).beats_majority()


def test_a_dot_at_0_does_not_cover_the_name_of_its_class(classified):
    (chart, *_) = ftkit.evaluate(classified("a.tsv")).figures()
    layers = chart.chart.to_dict()["layer"]
    padding = next(
        layer["encoding"]["y"]["axis"]["labelPadding"] for layer in layers if "axis" in layer["encoding"].get("y", {})
    )
    size = next(layer["mark"]["size"] for layer in layers if layer["mark"]["type"] == "circle")
    assert padding > np.sqrt(size / np.pi) + 2
