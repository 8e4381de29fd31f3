import numpy as np
import pytest

from ftkit.results.intervals import at_prevalence, prevalence_intervals
from ftkit.results.metrics import Counts, figures_of
from ftkit.results.statistics import clopper_pearson


def test_prevalence_shift_by_hand():
    """Recall 0.9, specificity 0.8: of 1000 with 10 positives, 9 + 198 are answered positive."""
    counts = Counts(tp=90, tn=80, fp=20, fn=10)
    rare, here, none = at_prevalence(counts, [0.01, 0.5, 0.0])
    assert rare["precision"].value == pytest.approx(9 / (9 + 198))
    assert rare["accuracy"].value == pytest.approx((9 + 792) / 1000)
    assert rare["npv"].value == pytest.approx(792 / 793)
    assert {name: here[name].value for name in here} == pytest.approx(
        {name: figures_of(counts)[name].value for name in here}
    )
    assert none["precision"].value == 0.0
    only_negatives = at_prevalence(Counts(0, 4, 1, 0), [0.0, 0.1])
    assert only_negatives[0]["accuracy"].value == 0.8
    assert only_negatives[1]["accuracy"].value is None
    assert at_prevalence(Counts(5, 0, 0, 1), [0.5])[0]["accuracy"].reason == "recall or specificity is undefined"


def test_a_figure_at_another_prevalence_has_an_interval_or_is_undefined():
    """Twelve examples, all right: no precision is sure."""
    for counts in (Counts(6, 6, 0, 0), Counts(6, 0, 6, 0), Counts(0, 6, 0, 6), Counts(3, 2, 1, 4, 1, 1)):
        shares = [0.01, 0.5, 0.9]
        expected, intervals = at_prevalence(counts, shares), prevalence_intervals(counts, shares)
        for figures, limits in zip(expected, intervals, strict=True):
            assert limits.keys() == {name for name, figure in figures.items() if figure.value is not None}
            for name, (low, high) in limits.items():
                assert low < high
                assert low - 1e-9 <= figures[name].value <= high + 1e-9


def test_where_one_side_is_all_there_is_the_interval_is_the_exact_one():
    """At a prevalence of 1 the accuracy is the recall, at 0 it is the specificity."""
    none, all_of_them = prevalence_intervals(Counts(18, 30, 10, 2), [0.0, 1.0])
    assert none["accuracy"] == pytest.approx(clopper_pearson(30, 40), abs=0.004)
    assert all_of_them["accuracy"] == pytest.approx(clopper_pearson(18, 20), abs=0.004)


def test_the_interval_of_the_precision_covers_the_truth():
    rng, recall, specificity, share = np.random.default_rng(0), 0.8, 0.9, 0.05
    truth = recall * share / (recall * share + (1 - specificity) * (1 - share))
    covered = []
    for tp, tn in zip(rng.binomial(40, recall, 200).tolist(), rng.binomial(60, specificity, 200).tolist(), strict=True):
        low, high = prevalence_intervals(Counts(tp, tn, 60 - tn, 40 - tp), [share])[0]["precision"]
        covered.append(low <= truth <= high)
    assert np.mean(covered) >= 0.95
