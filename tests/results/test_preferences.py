import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ftkit.cli import main
from ftkit.commands.evaluate import evaluate_command as evaluate
from ftkit.errors import ExitCode, InputError
from ftkit.report.preference_report import PreferenceEvaluation
from ftkit.results.paired import paired_interval, sign_flip_test
from ftkit.results.predictions import read_predictions, write_predictions
from ftkit.results.preferences import (
    Outcomes,
    half_points,
    interval_of_counts,
    is_preference_file,
    preference_interval,
    read_preferences,
)
from ftkit.results.statistics import clopper_pearson, mean_interval, wilson_interval

NAMES = {1: "chosen", 0: "tie", -1: "rejected"}


@pytest.fixture
def pairs(tmp_path):
    """Write a preference file of margins."""

    def write(name, margins, ties="tie", score="log_odds:chosen", **columns):
        predictions = [{**NAMES, 0: ties}[int(np.sign(margin))] for margin in margins]
        ids, labels = [f"pair-{k}" for k in range(len(margins))], ["chosen"] * len(margins)
        extra = {column: map(str, values) for column, values in columns.items()}
        write_predictions(tmp_path / name, ids, labels, predictions, margins if score else None, score, extra)
        return tmp_path / name

    return write


def _spoken(capsys) -> str:
    return re.sub(r"\s+", " ", capsys.readouterr().out)


def test_79_of_100_pairs_are_better_than_a_coin(pairs, capsys):
    margins = np.r_[np.linspace(0.1, 2, 79), -np.linspace(0.1, 1, 21)]
    evaluation = evaluate([pairs("after.tsv", margins)])
    out = _spoken(capsys)
    assert isinstance(evaluation, PreferenceEvaluation)
    (report,) = evaluation.reports
    assert (report.outcomes.won, report.outcomes.lost, report.outcomes.tied) == (79, 21, 0)
    assert report.outcomes.p == pytest.approx(stats.binomtest(79, 100).pvalue)
    assert report.outcomes.interval == pytest.approx(clopper_pearson(79, 100))
    assert "won=79 lost=21 tied=0 preference accuracy: 0.7900 (0.6971 to 0.8651)" in out
    assert (
        "79 of 100 pairs are won (exact binomial test against 50%, p = 4.3e-09): significantly better than chance."
        in out
    )
    assert "worse" not in out
    mean, interval = report.means["margin"]
    assert mean == pytest.approx(margins.mean())
    assert interval == pytest.approx(stats.ttest_1samp(margins, 0).confidence_interval())


@pytest.mark.parametrize("ties", ["tie", "rejected"])  # a margin of 0 is a tie, whatever a file calls it
def test_an_untuned_model_ties_on_every_pair_and_is_at_chance(pairs, capsys, ties):
    (report,) = evaluate([pairs("before.tsv", [0.0] * 100, ties)]).reports
    assert (report.outcomes.won, report.outcomes.lost, report.outcomes.tied) == (0, 0, 100)
    assert (report.outcomes.accuracy, report.outcomes.p) == (0.5, 1.0)
    low, high = report.outcomes.interval
    assert low < 0.5 < high
    assert "Every pair is a tie" in _spoken(capsys)


def test_files_without_margins_are_read_too(pairs, capsys):
    (report,) = evaluate([pairs("plain.tsv", [1, 1, 1, 0, -1, 1], score=None)]).reports
    assert (report.outcomes.won, report.outcomes.lost, report.outcomes.tied, report.means) == (4, 1, 1, {})
    assert report.outcomes.accuracy == 4.5 / 6
    assert "too few pairs to be told from chance; 6 alike are needed. 1 of 6 pairs are ties" in _spoken(capsys)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_the_interval_of_a_preference_accuracy_agrees_with_the_exact_test(won, lost, tied):
    if won + lost + tied == 0:
        return
    outcomes = Outcomes.of(np.repeat([2, 0, 1], [won, lost, tied]))
    low, high = outcomes.interval
    assert (low <= 0.5 <= high) == (outcomes.p >= 0.05)
    assert 0 <= low < high <= 1
    assert low <= outcomes.accuracy <= high


def test_the_interval_of_counts_is_wilsons_without_ties_counted():
    assert interval_of_counts(100, 79) == wilson_interval(79, 100)
    assert interval_of_counts(100, 79, 0) == clopper_pearson(79, 100)
    assert interval_of_counts(100, 60, 10) == preference_interval(60, 30, 10)


def test_after_training_is_compared_with_before_pair_by_pair(pairs, capsys):
    margins = np.r_[np.linspace(0.1, 2, 30), -np.linspace(0.1, 1, 8), np.zeros(2)]
    after = pairs("after.tsv", margins, drift_chosen=margins - 1, drift_rejected=-margins)
    before = pairs("before.tsv", np.r_[-np.ones(3), np.zeros(37)], drift_chosen=np.zeros(40))
    (pair,) = evaluate([after, before], against=before).comparisons
    gained = 2 * (np.sign(margins) - np.r_[-np.ones(3), np.zeros(37)]).astype(int) // 2
    assert (pair.n, pair.only_model, pair.only_reference) == (40, 30, 8)
    assert pair.p == pytest.approx(sign_flip_test(gained))
    assert pair.differences["accuracy"] == pytest.approx(gained.sum() / 80)
    assert pair.intervals["accuracy"] == pytest.approx(paired_interval(gained, 2))
    expected = stats.ttest_1samp(margins - np.r_[-np.ones(3), np.zeros(37)], 0).confidence_interval()
    assert pair.intervals["margin"] == pytest.approx(expected)
    assert "drift_rejected" not in pair.differences  # only one of the two files has it
    out = _spoken(capsys)
    assert "after.tsv: significantly better (p =" in out
    assert "went better went worse" in out
    assert "p (sign flips)" in out


def test_margins_that_grow_while_the_chosen_answers_become_unlikely_are_named(pairs, capsys):
    margins, drift = np.linspace(0.5, 1, 20), np.linspace(-2, -1, 20)
    evaluate([pairs("a.tsv", margins, drift_chosen=drift)])
    assert "The margin grew while the chosen answers became less likely" in _spoken(capsys)
    evaluate([pairs("b.tsv", margins, drift_chosen=-drift)])
    out = _spoken(capsys)
    assert "became less likely" not in out
    assert "drift, chosen 1.5000 (1.3" in out


def test_slices_are_tested_together(pairs, capsys):
    margins = np.r_[np.ones(16), -np.ones(4), np.ones(10), -np.ones(10)]
    (report,) = evaluate([pairs("a.tsv", margins, kind=["chart"] * 20 + ["photo"] * 20)], slice="kind").reports
    chart, photo = report.slices["chart"], report.slices["photo"]
    assert (chart.won, chart.lost, photo.won, photo.lost) == (16, 4, 10, 10)
    assert (chart.p_holm, photo.p_holm) == (pytest.approx(2 * chart.p), 1.0)


def test_every_form_of_the_report_says_the_same(pairs, tmp_path, capsys):
    path = pairs("a.tsv", [1.0] * 9 + [-1.0, 0.0])
    assert main(["evaluate", str(path), "--json"]) == ExitCode.DONE
    record = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert record["kind"] == "preference"
    (file,) = record["files"]
    assert (file["n"], file["won"], file["lost"], file["tied"], file["accuracy"]) == (11, 9, 1, 1, 9.5 / 11)
    assert main(["evaluate", str(path), "--markdown", "--html", str(tmp_path / "page.html")]) == ExitCode.DONE
    assert "| a.tsv | 11 | 9 | 1 | 1 | 0.8636 (" in _spoken(capsys)
    page = (tmp_path / "page.html").read_text()
    assert "9 of 10 pairs are won" in page
    assert page.count('class="chart"') == 1


@pytest.mark.parametrize("option", ["positive", "threshold_from"])
def test_pairs_have_no_classes(pairs, tmp_path, option):
    with pytest.raises(InputError, match=f"{option}: needs a yes/no question, and there are pairs of a chosen"):
        evaluate([pairs("a.tsv", [1.0, -1.0])], **{option: tmp_path / "t.json"})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a\tchosen\tchosen\t0.5\nb\tchosen\tchosen\t-0.1", ":3: log_odds:chosen: the prediction is chosen, but"),
        ("a\tchosen\tchosen\t0.5\nb\tyes\tchosen\t0.1", ":3: label: not a pair as the others of the file are"),
        ("a\tchosen\tchosen\t0.5\nb\tchosen\tboth\t0.1", ":3: prediction: not a pair as the others of the file are"),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_itself_is_refused(tmp_path, rows, message):
    path = tmp_path / "a.tsv"
    path.write_text(f"id\tlabel\tprediction\tlog_odds:chosen\n{rows}\n")
    with pytest.raises(InputError, match=message):
        read_preferences(path)


def test_drift_must_be_numbers_and_scores_those_of_the_chosen_answer(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("id\tlabel\tprediction\tdrift_chosen\na\tchosen\ttie\tnan\n")
    with pytest.raises(InputError, match=r"a.tsv:2: drift_chosen: is not a number \(got 'nan'\)"):
        read_preferences(path)
    path.write_text("id\tlabel\tprediction\tlog_odds:rejected\na\tchosen\trejected\t0.5\n")
    with pytest.raises(InputError, match="the score of a pair is that of the chosen answer"):
        read_preferences(path)
    path.write_text("id\tlabel\tprediction\tprobability:chosen\na\tchosen\tchosen\t0.75\nb\tchosen\ttie\t0.5\n")
    assert read_preferences(path).measures["margin"] == pytest.approx([np.log(3), 0.0])


def test_other_files_are_no_preferences(tmp_path):
    write_predictions(tmp_path / "a.tsv", ["a", "b"], ["yes", "no"], ["yes", "yes"])
    assert not is_preference_file(tmp_path / "a.tsv")
    assert half_points(read_predictions(tmp_path / "a.tsv")).tolist() == [2, 0]


@pytest.mark.parametrize(("score", "values"), [("log_odds", [0.0, -0.5, 0.0]), ("probability", [0.5, 0.25, 0.5])])
def test_a_pair_whose_score_favors_neither_answer_is_a_tie(tmp_path, score, values):
    """In the table of an ablation as in ``ftkit evaluate``."""
    columns = "abc", ["chosen"] * 3, ["tie", "rejected", "chosen"]
    write_predictions(tmp_path / "a.tsv", *columns)
    assert half_points(read_predictions(tmp_path / "a.tsv")).tolist() == [1, 0, 2]
    write_predictions(tmp_path / "a.tsv", *columns, values, f"{score}:chosen")
    assert half_points(read_predictions(tmp_path / "a.tsv")).tolist() == [1, 0, 1]
    assert read_preferences(tmp_path / "a.tsv").correct.tolist() == [1, 0, 1]


def test_a_mean_without_spread_claims_nothing():
    assert mean_interval(np.zeros(3)) == (0.0, None)
    assert mean_interval(np.array([2.0])) == (2.0, None)
    assert mean_interval(np.array([np.inf, 1.0]))[1] is None
