import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from ftkit.results.assessment import assess
from ftkit.results.baselines import baselines_of
from ftkit.results.curves import Curve
from ftkit.results.intervals import MAX_EXAMPLES, count_intervals, score_intervals
from ftkit.results.metrics import Counts, figure_values, figures_of
from ftkit.results.settings import Settings
from ftkit.results.statistics import wilson_interval


def test_always_yes_at_84_percent_shows_no_skill():
    baselines = baselines_of(Counts(tp=840, tn=0, fp=160, fn=0))
    assert baselines.majority_is_positive
    assert (baselines.better, baselines.worse, baselines.p_majority) == (0, 0, 1.0)
    assert not baselines.beats_majority()
    assert baselines.majority["accuracy"].value == 0.84
    assert baselines.majority["f_measure"].text() == "0.9130"
    assert baselines.majority["balanced_accuracy"].value == 0.5
    assert baselines.prior["accuracy"].value == pytest.approx(0.84**2 + 0.16**2)
    assert baselines.p_related == 1.0


def test_the_majority_may_be_the_negative_class():
    baselines = baselines_of(Counts(tp=30, tn=880, fp=5, fn=70, unparsed_positive=5, unparsed_negative=10))
    assert not baselines.majority_is_positive
    assert (baselines.better, baselines.worse) == (30, 15)
    assert baselines.p_majority == pytest.approx(mcnemar([[0, 30], [15, 0]], exact=True).pvalue)
    assert baselines.majority["specificity"].value == 1.0
    assert baselines.majority["precision"].value is None


def test_fisher_is_scipys():
    baselines = baselines_of(Counts(tp=854, tn=17, fp=155, fn=13))
    expected = stats.fisher_exact([[854, 13], [155, 17]], alternative="greater").pvalue
    assert baselines.p_related == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("counts", [Counts(30, 5, 5, 10), Counts(1850, 60, 340, 350)])  # by sums, and the normal law
def test_guessing_at_the_prior_by_simulation(counts):
    baselines = baselines_of(counts)
    rng = np.random.default_rng(0)
    rate = counts.positives / counts.n
    right = rng.binomial(counts.positives, rate, 200_000) + rng.binomial(counts.negatives, 1 - rate, 200_000)
    assert baselines.prior["accuracy"].value == pytest.approx(right.mean() / counts.n, rel=1e-3)
    assert 0.2 < baselines.p_prior < 0.9
    assert baselines.p_prior == pytest.approx(np.mean(right >= counts.correct), abs=0.005)


@pytest.mark.parametrize("counts", [Counts(30, 5, 5, 10), Counts(7, 0, 0, 3), Counts(0, 6, 2, 0)])
def test_guessing_at_the_prior_has_the_figures_of_the_average_table(counts):
    rate = counts.positives / counts.n
    shares = np.array([[rate, 1 - rate, 0], [1 - rate, rate, 0]])
    expected = figure_values(np.array([[counts.positives], [counts.negatives]]) * shares)
    prior = baselines_of(counts).prior
    assert prior.keys() == expected.keys()
    for name, figure in prior.items():
        # Nothing is said of a class that is absent, where the table would have a share of nothing.
        defined = not np.isnan(expected[name])
        assert (figure.value is not None) == defined, name
        assert figure.value is None or figure.value == pytest.approx(float(expected[name]), abs=1e-12), name


@pytest.mark.parametrize("n", [50, 5000])
def test_nobody_guesses_worse_where_there_is_one_class(n):
    assert baselines_of(Counts(n - 5, 0, 0, 5)).p_prior == 1.0


def test_of_classes_of_one_size_the_positive_one_is_the_majority():
    baselines = baselines_of(Counts(tp=6, tn=7, fp=3, fn=1, unparsed_positive=3))
    assert baselines.majority_is_positive
    assert (baselines.better, baselines.worse) == (7, 4)  # an answer that is neither is wrong too


def test_one_class_or_nothing_leaves_the_tests_undefined():
    assert math.isnan(baselines_of(Counts(5, 0, 0, 1)).p_related)
    assert baselines_of(Counts(5, 0, 0, 1)).prior["specificity"].reason == "no negatives"
    assert baselines_of(Counts(0, 0, 0, 0)).p_majority == 1.0


def test_shares_have_wilsons_interval_and_the_rest_a_seeded_one():
    counts = Counts(tp=652, tn=57, fp=115, fn=215)
    intervals = count_intervals(counts)
    assert intervals["recall"] == wilson_interval(652, 867)
    assert intervals["npv"] == wilson_interval(57, 272)
    assert intervals == count_intervals(counts)
    assert intervals["mcc"] != count_intervals(counts, seed=1)["mcc"]


def test_count_intervals_are_those_of_resampled_examples_but_for_one_more_example():
    counts = Counts(tp=80, tn=12, fp=8, fn=15, unparsed_positive=5)
    rng = np.random.default_rng(0)
    answers = np.repeat([1, 0, -1], [80, 15, 5])
    recall = (rng.choice(answers, (4000, 100)) == 1).mean(1)
    specificity = (rng.choice(np.repeat([0, 1], [12, 8]), (4000, 20)) == 0).mean(1)
    expected = np.quantile((recall + specificity) / 2, [0.025, 0.975]).tolist()
    low, high = count_intervals(counts)["balanced_accuracy"]
    assert expected[0] - 0.04 < low < expected[0]
    assert high == pytest.approx(expected[1], abs=0.012)


def test_an_undefined_figure_has_no_interval():
    assert "mcc" not in count_intervals(Counts(tp=5, tn=0, fp=5, fn=0))
    assert "recall" not in count_intervals(Counts(tp=0, tn=5, fp=5, fn=0))


@pytest.mark.parametrize("counts", [Counts(84, 0, 16, 0), Counts(6, 6, 0, 0), Counts(0, 9, 0, 3), Counts(1, 0, 0, 0)])
def test_every_defined_figure_has_an_interval_that_holds_it(counts):
    """Also where every answer is right, or the same: a point would claim to be sure."""
    intervals = count_intervals(counts)
    figures = {name: figure.value for name, figure in figures_of(counts).items() if figure.value is not None}
    assert intervals.keys() == figures.keys()
    for name, (low, high) in intervals.items():
        assert low < high
        assert low - 1e-9 <= figures[name] <= high + 1e-9


def test_a_score_figure_that_no_resample_moves_has_no_interval():
    perfect = score_intervals(np.repeat([0, 1], 20), np.linspace(0, 1, 40), "probability")
    assert "auroc" not in perfect
    assert "brier" in perfect


def test_score_intervals_cover_the_figure_and_shrink():
    def drawn(n, seed):
        rng = np.random.default_rng(seed)
        target = (rng.random(n) < 0.4).astype(np.int8)
        return target, np.clip(rng.normal(0.4 + 0.2 * target, 0.2), 0, 1)

    widths = []
    for n in (200, 3200):
        target, score = drawn(n, n)
        low, high = score_intervals(target, score, "probability", resamples=200)["auroc"]
        assert low < Curve.of(target, score).auroc().value < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)
    hits = []
    for seed in range(60):  # P(positive scores above negative) = Phi(0.2 / (0.2 * sqrt(2)))
        low, high = score_intervals(*drawn(150, seed), "probability", resamples=150)["auroc"]
        hits.append(low < stats.norm.cdf(1 / math.sqrt(2)) < high)
    assert np.mean(hits) > 0.85


def test_every_score_interval_holds_its_own_figure():
    """That of the calibration error does not where the model is well calibrated, so there is none."""
    rng = np.random.default_rng(2)
    for _ in range(12):
        score = rng.beta(0.5, 0.5, 300)
        target = (rng.random(300) < score).astype(np.int8)
        figures = assess(
            target,
            (score >= 0.5).astype(np.int8),
            "yes",
            "no",
            score=score,
            kind="probability",
            settings=Settings(intervals=False),
        ).figures
        intervals = score_intervals(target, score, "probability", resamples=100)
        assert set(intervals) == {"auroc", "average_precision", "brier"}
        for name, (low, high) in intervals.items():
            assert low <= figures[name].value <= high, name


def test_score_intervals_where_there_are_none():
    assert score_intervals(np.ones(5), np.linspace(0, 1, 5), "probability") == {}
    many = np.arange(MAX_EXAMPLES + 1)
    assert score_intervals(many % 2, many / len(many), "probability") == {}
