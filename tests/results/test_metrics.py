import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from evaluated_files import RECORD
from ftkit.results.metrics import PROPORTIONS, Counts, figure_values, figures_of

CELLS = st.integers(0, 40)


@pytest.mark.parametrize(("counts", "accuracy", "precision", "recall", "f_measure"), RECORD)
def test_the_record_to_the_last_digit(counts, accuracy, precision, recall, f_measure):
    figures = figures_of(Counts(*counts))
    found = [figures[name].value for name in ("accuracy", "precision", "recall", "f_measure")]
    assert found == [accuracy, precision, recall, f_measure]


def test_by_hand():
    """3 of 4 positives and 4 of 6 negatives right: MCC = (3*4 - 2*1) / sqrt(5 * 4 * 6 * 5)."""
    figures = figures_of(Counts(tp=3, tn=4, fp=2, fn=1), beta=2)
    expected = {
        "accuracy": 7 / 10,
        "precision": 3 / 5,
        "recall": 3 / 4,
        "f_measure": 2 / 3,
        "f_beta": 5 * 0.6 * 0.75 / (4 * 0.6 + 0.75),
        "specificity": 4 / 6,
        "npv": 4 / 5,
        "balanced_accuracy": (3 / 4 + 4 / 6) / 2,
        "mcc": 10 / 600**0.5,
        "prevalence": 4 / 10,
        "predicted_positive_rate": 5 / 10,
    }
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(expected, abs=1e-15)


def test_an_unparsed_answer_is_an_error_and_no_prediction():
    figures = figures_of(Counts(tp=6, tn=2, fp=1, fn=1, unparsed_positive=3, unparsed_negative=2))
    assert figures["accuracy"].value == 8 / 15
    assert figures["recall"].value == 6 / 10
    assert figures["specificity"].value == 2 / 5
    assert figures["precision"].value == 6 / 7
    assert figures["predicted_positive_rate"].value == 7 / 15
    target = np.repeat([1, 1, 1, 0, 0, 0], [6, 1, 3, 2, 1, 2])
    answer = np.repeat([1, 0, -1, 0, 1, -1], [6, 1, 3, 2, 1, 2])
    assert figures["mcc"].value == pytest.approx(metrics.matthews_corrcoef(target, answer), abs=1e-12)
    assert Counts.of(target, answer) == Counts(6, 2, 1, 1, 3, 2)


@pytest.mark.parametrize(
    ("counts", "name", "reason"),
    [
        (Counts(0, 5, 0, 3), "precision", "nothing was answered with the positive class"),
        (Counts(0, 5, 0, 3), "f_measure", "nothing was answered with the positive class"),
        (Counts(0, 5, 2, 3), "f_measure", "precision and recall are 0"),
        (Counts(0, 5, 2, 0), "recall", "no positives"),
        (Counts(0, 5, 2, 0), "f_measure", "no positives"),
        (Counts(0, 5, 2, 0), "mcc", "no positives"),
        (Counts(0, 5, 2, 0), "balanced_accuracy", "no positives"),
        (Counts(5, 0, 0, 2), "specificity", "no negatives"),
        (Counts(5, 0, 0, 2), "mcc", "no negatives"),
        (Counts(5, 0, 0, 2), "balanced_accuracy", "no negatives"),
        (Counts(5, 0, 2, 0), "npv", "nothing was answered with the negative class"),
        (Counts(5, 0, 2, 0), "mcc", "every answer is the same"),
        (Counts(0, 0, 0, 0, 3, 3), "mcc", "every answer is the same"),
        (Counts(0, 0, 0, 0), "accuracy", "no examples"),
        (Counts(0, 0, 0, 0), "prevalence", "no examples"),
    ],
)
def test_undefined_figures_say_why(counts, name, reason):
    figure = figures_of(counts)[name]
    assert figure.value is None
    assert figure.text() == f"undefined ({reason})"


@settings(max_examples=150)
@given(CELLS, CELLS, CELLS, CELLS)
def test_scikit_learn_agrees(tp, tn, fp, fn):
    counts = Counts(tp, tn, fp, fn)
    if counts.n == 0:
        return
    y, p = np.repeat([1, 0, 0, 1], [tp, tn, fp, fn]), np.repeat([1, 0, 1, 0], [tp, tn, fp, fn])
    theirs = {
        "accuracy": metrics.accuracy_score,
        "precision": metrics.precision_score,
        "recall": metrics.recall_score,
        "f_measure": metrics.f1_score,
        "f_beta": lambda y, p: metrics.fbeta_score(y, p, beta=0.5),
        "specificity": lambda y, p: metrics.recall_score(y, p, pos_label=0),
        "npv": lambda y, p: metrics.precision_score(y, p, pos_label=0),
        "balanced_accuracy": metrics.balanced_accuracy_score,
        "mcc": metrics.matthews_corrcoef,
    }
    for name, figure in figures_of(counts, beta=0.5).items():
        if name in theirs and figure.value is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert figure.value == pytest.approx(theirs[name](y, p), abs=1e-12), name


@settings(max_examples=100)
@given(CELLS, CELLS, CELLS, CELLS, CELLS, CELLS)
def test_swapping_the_classes_swaps_the_figures(tp, tn, fp, fn, up, un):
    ours, theirs = figures_of(Counts(tp, tn, fp, fn, up, un)), figures_of(Counts(tn, tp, fn, fp, un, up))
    for name, other in (("precision", "npv"), ("recall", "specificity"), ("accuracy", "accuracy"), ("mcc", "mcc")):
        assert ours[name].value == (None if theirs[other].value is None else pytest.approx(theirs[other].value))


def test_proportions_are_the_figures():
    counts = Counts(5, 7, 2, 3, 1, 4)
    figures = figures_of(counts)
    for name, share in PROPORTIONS.items():
        successes, trials = share(counts)
        assert figures[name].value == successes / trials


def test_many_tables_at_once():
    tables = np.random.default_rng(0).integers(0, 9, (3, 5, 2, 3))
    together = figure_values(tables)
    for place in np.ndindex(3, 5):
        alone = figure_values(tables[place])
        assert all(np.array_equal(together[name][place], alone[name], equal_nan=True) for name in alone)


def test_ten_million_examples_do_not_overflow():
    figures = figures_of(Counts(8_000_000, 1_000_000, 600_000, 400_000))
    expected = (8e6 * 1e6 - 6e5 * 4e5) / (8.6e6 * 8.4e6 * 1.6e6 * 1.4e6) ** 0.5
    assert figures["mcc"].value == pytest.approx(expected, rel=1e-12)
