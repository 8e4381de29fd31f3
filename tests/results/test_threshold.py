import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.commands.evaluate import evaluate_command as evaluate
from ftkit.errors import InputError
from ftkit.results.answers import binary_answers
from ftkit.results.curves import Curve
from ftkit.results.metrics import Counts, figures_of
from ftkit.results.predictions import write_predictions
from ftkit.results.scan import scan
from ftkit.results.threshold import Costs, Threshold, choose_threshold, freeze_threshold


@pytest.fixture
def scored_file(tmp_path):
    def write(name, scores, labels, kind="probability", positive="yes"):
        predictions = ["yes"] * len(labels)
        names = [f"{name}{k}" for k in range(len(labels))]
        write_predictions(tmp_path / name, names, labels, predictions, scores, f"{kind}:{positive}")
        return tmp_path / name

    return write


def read_answers(paths, positive=None):
    return binary_answers([scan(path) for path in paths], positive, False)


ROWS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])), min_size=2, max_size=25)


@settings(max_examples=80)
@given(ROWS, st.sampled_from(["accuracy", "balanced_accuracy", "f_measure", "mcc"]))
def test_no_threshold_is_better(rows, criterion):
    target, score = np.array([t for t, _ in rows]).astype(np.int8), np.array([s for _, s in rows])
    everywhere = [
        figures_of(Counts.of(target, (score >= t).astype(np.int8)))[criterion].value for t in (0, 0.2, 0.4, 0.6, 0.8, 1)
    ]
    defined = [value for value in everywhere if value is not None]
    if not defined:
        with pytest.raises(InputError, match="undefined at every threshold"):
            choose_threshold(Curve.of(target, score), criterion, "probability")
        return
    value, achieved = choose_threshold(Curve.of(target, score), criterion, "probability")
    assert achieved == pytest.approx(max(defined))
    at_value = figures_of(Counts.of(target, (score >= value).astype(np.int8)))[criterion].value
    assert at_value == pytest.approx(achieved)


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([-np.inf, -1.0, 1.0, np.inf])), min_size=2, max_size=12),
    st.sampled_from(["accuracy", "specificity", "balanced_accuracy"]),
)
def test_infinite_log_odds_promise_nothing_that_no_threshold_gives(rows, criterion):
    target, score = np.array([t for t, _ in rows]).astype(np.int8), np.array([s for _, s in rows])
    everywhere = [
        figures_of(Counts.of(target, (score >= t).astype(np.int8)))[criterion].value
        for t in (-np.inf, -1, 1, np.inf, 2)
    ]
    defined = [value for value in everywhere if value is not None]
    if not defined:
        return
    value, achieved = choose_threshold(Curve.of(target, score), criterion, "log_odds")
    assert figures_of(Counts.of(target, (score >= value).astype(np.int8)))[criterion].value == achieved
    assert achieved == pytest.approx(max(defined))


def test_costs_move_the_threshold():
    """False positives at 0.6 and below; a missed positive at 0.5 costs less or more than the one at 0.6."""
    target, score = np.array([1, 0, 1, 0]), np.array([0.9, 0.6, 0.5, 0.1])
    curve = Curve.of(target, score)
    assert choose_threshold(curve, Costs(fp=5, fn=1), "probability") == (0.9, 0.25)
    assert choose_threshold(curve, Costs(fp=1, fn=5), "probability") == (0.5, 0.25)
    value, cost = choose_threshold(curve, Costs(fp=1, fn=0), "probability")
    assert (value >= 0.9, cost) == (True, 0.0)


@pytest.mark.parametrize(("kind", "value"), [("probability", 0.6), ("log_odds", 0.1)])
def test_of_equally_good_thresholds_the_one_nearest_to_the_neutral_score_is_taken(kind, value):
    curve = Curve.of(np.array([1, 0, 1, 0]), np.array([0.6, 0.3, 0.1, 0.05]))
    assert choose_threshold(curve, "accuracy", kind) == (value, 0.75)


def test_answering_no_to_all_is_possible():
    curve = Curve.of(np.array([0, 0, 0, 1]), np.array([0.9, 0.8, 0.7, 0.1]))
    value, achieved = choose_threshold(curve, "accuracy", "probability")
    assert value > 0.9
    assert achieved == 0.75


def test_chosen_frozen_read_and_applied(scored_file, tmp_path):
    val = scored_file("val.tsv", [0.9, 0.8, 0.75, 0.2], ["yes", "yes", "no", "no"])
    test = scored_file("test.tsv", [0.85, 0.79, 0.9, 0.8], ["yes", "yes", "no", "no"])
    validation, answers = read_answers([val, test])
    threshold = freeze_threshold(validation, "balanced_accuracy")
    assert (threshold.value, threshold.achieved, threshold.n, threshold.source) == (0.8, 1.0, 4, "val.tsv")
    threshold.save(tmp_path / "threshold.json")
    again = Threshold.load(tmp_path / "threshold.json")
    assert again == threshold
    assert again.apply(answers).tolist() == [1, 0, 1, 1]
    with pytest.raises(InputError, match="was chosen on this very file"):
        again.apply(validation)


@pytest.mark.parametrize("scores", [[np.inf, np.inf, -np.inf, -np.inf], [np.inf, 1.0, -np.inf, -np.inf]])
def test_an_infinite_threshold_is_saved_shown_and_used_again(scored_file, tmp_path, scores, capsys):
    labels = ["yes", "no", "no", "no"]
    val, test = (scored_file(name, scores, labels, "log_odds") for name in ("val.tsv", "test.tsv"))
    saved, page = tmp_path / "t.json", tmp_path / "page.html"
    chosen = evaluate([test], threshold_from=val, threshold_metric="specificity", save_threshold=saved, json=True)
    assert chosen.threshold.value == np.inf
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["threshold"]["value"] == "inf"
    assert json.loads(saved.read_text(), parse_constant=pytest.fail)["value"] == "inf"
    assert evaluate([test], threshold_from=saved, html=page).threshold == chosen.threshold
    assert "Thresholds:" in page.read_text()


def test_scores_of_the_other_class_are_turned(scored_file):
    yes, no = read_answers([
        scored_file("a.tsv", [0.9, 0.25], ["yes", "no"]),
        scored_file("b.tsv", [0.1, 0.75], ["yes", "no"], positive="no"),
    ], positive="yes")  # fmt: skip
    np.testing.assert_allclose(yes.score, no.score)
    odds, turned = read_answers([
        scored_file("c.tsv", [2.0, -1.0], ["yes", "no"], kind="log_odds"),
        scored_file("d.tsv", [-2.0, 1.0], ["yes", "no"], kind="log_odds", positive="no"),
    ], positive="yes")  # fmt: skip
    assert odds.score.tolist() == turned.score.tolist() == [2.0, -1.0]


def test_a_threshold_does_not_fit_everything(scored_file, tmp_path):
    val = scored_file("val.tsv", [0.9, 0.2], ["yes", "no"])
    odds = scored_file("odds.tsv", [0.9, 0.2], ["yes", "no"], kind="log_odds")
    write_predictions(tmp_path / "plain.tsv", ["a", "b"], ["yes", "no"], ["yes", "no"])
    validation, other, plain = read_answers([val, odds, tmp_path / "plain.tsv"])
    threshold = freeze_threshold(validation, "accuracy")
    for answers, got in ((other, "log_odds"), (plain, "no scores")):
        with pytest.raises(InputError) as caught:
            threshold.apply(answers)
        assert str(caught.value) == (
            f"{answers.path}: the threshold needs scores probability:yes (got '{got}'); fix: choose on validation, "
            "apply to test"
        )
    (turned,) = read_answers([scored_file("turned.tsv", [0.9, 0.2], ["yes", "no"], positive="no")])
    with pytest.raises(InputError, match=r"\(got 'no and yes'\); fix: give --positive yes$"):
        threshold.apply(turned)
    with pytest.raises(InputError, match="no scores to choose a threshold from"):
        freeze_threshold(plain, "accuracy")
    with pytest.raises(InputError, match="no such criterion"):
        freeze_threshold(validation, "loss")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"value": 1}', "\ufeff"])
def test_other_files_are_no_threshold(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(InputError, match="not a threshold file"):
        Threshold.load(tmp_path / "t.json")


@pytest.mark.parametrize(
    "change",
    [{"value": "0.9"}, {"value": math.nan}, {"value": 53}, {"value": True}, {"achieved": "best"}, {"positive": 1}],
)
def test_a_threshold_file_must_hold_what_was_saved(scored_file, tmp_path, change):
    (validation,) = read_answers([scored_file("val.tsv", [0.9, 0.2], ["yes", "no"])])
    freeze_threshold(validation, "accuracy").save(tmp_path / "t.json")
    record = json.loads((tmp_path / "t.json").read_text())
    (tmp_path / "t.json").write_text(json.dumps(record | change))
    with pytest.raises(InputError, match="not a threshold file"):
        Threshold.load(tmp_path / "t.json")


@pytest.mark.parametrize("costs", [(-1, 1), (0, 0), (np.nan, 1), (1, np.nan), (np.inf, 1)])
def test_costs_must_cost(costs):
    with pytest.raises(InputError, match="costs: must be finite, not negative, and not all 0"):
        Costs(*costs)
