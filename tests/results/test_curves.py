import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.calibration import calibration_curve
from torchmetrics.functional import classification

from ftkit.results.curves import BINS, Calibration, Curve, brier, probability_of


def _data(n, seed, levels=None):
    rng = np.random.default_rng(seed)
    target = (rng.random(n) < 0.3).astype(np.int8)
    score = np.clip(rng.normal(0.4 + 0.2 * target, 0.2), 0, 1)
    return target, score if levels is None else np.round(score * levels) / levels


@pytest.mark.parametrize("levels", [None, 3, 20])
def test_scikit_learn_and_torchmetrics_agree(levels):
    target, score = _data(500, 1, levels)
    curve = Curve.of(target, score)
    preds, labels = torch.tensor(score), torch.tensor(target, dtype=torch.long)
    assert curve.auroc().value == pytest.approx(metrics.roc_auc_score(target, score), abs=1e-12)
    assert curve.average_precision().value == pytest.approx(metrics.average_precision_score(target, score), abs=1e-12)
    assert brier(target, score).value == pytest.approx(metrics.brier_score_loss(target, score), abs=1e-12)
    assert curve.auroc().value == pytest.approx(float(classification.binary_auroc(preds, labels)), abs=1e-6)
    theirs = float(classification.binary_average_precision(preds, labels))
    assert curve.average_precision().value == pytest.approx(theirs, abs=1e-6)
    fpr, tpr, thresholds = metrics.roc_curve(target, score, drop_intermediate=False)
    np.testing.assert_array_equal(curve.threshold, thresholds[1:])
    np.testing.assert_allclose(curve.tp / curve.positives, tpr[1:])
    np.testing.assert_allclose(curve.fp / curve.negatives, fpr[1:])


def test_calibration_agrees():
    target, score = _data(800, 2)
    found = Calibration.of(target, score)
    observed, predicted = calibration_curve(target, score, n_bins=BINS)
    np.testing.assert_allclose(found.observed[found.count > 0], observed)
    np.testing.assert_allclose(found.predicted[found.count > 0], predicted)
    preds, labels = torch.tensor(score), torch.tensor(target, dtype=torch.long)
    theirs = float(classification.binary_calibration_error(preds, labels, n_bins=BINS))
    assert found.error().value == pytest.approx(theirs, abs=1e-6)


def test_calibration_by_hand():
    """Two bins: mean 0.2 with half positive, mean 0.9 with all positive: 2/3 * 0.3 + 1/3 * 0.1."""
    found = Calibration.of(np.array([1, 0, 1]), np.array([0.1, 0.3, 0.9]), bins=2)
    assert found.error().value == pytest.approx(2 / 3 * 0.3 + 1 / 3 * 0.1)
    assert Calibration.of(np.array([1]), np.array([1.0])).count[-1] == 1


def test_parts_of_any_size_sum_to_the_same(monkeypatch):
    target, score = _data(500, 4, 40)
    curve = Curve.of(target, score)
    expected = curve.auroc(), curve.average_precision()
    for size in (1, 3, 17):
        monkeypatch.setattr(Curve._steps, "__defaults__", (size,))
        assert (curve.auroc().value, curve.average_precision().value) == pytest.approx([f.value for f in expected])


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=2, max_size=30))
def test_auroc_is_the_share_of_pairs_in_order(rows):
    target, score = np.array([t for t, _ in rows]).astype(np.int8), np.array([s for _, s in rows])
    found = Curve.of(target, score).auroc()
    high, low = score[target == 1], score[target == 0]
    if not len(high) or not len(low):
        assert found.value is None
        return
    gaps = high[:, None] - low[None, :]
    assert found.value == pytest.approx((np.sum(gaps > 0) + np.sum(gaps == 0) / 2) / gaps.size, abs=1e-12)


@pytest.mark.parametrize(("label", "reason"), [(0, "no positives"), (1, "no negatives")])
def test_an_absent_class_leaves_them_undefined(label, reason):
    curve = Curve.of(np.full(5, label), np.linspace(0, 1, 5))
    assert curve.auroc() == curve.average_precision() == (None, reason)


def test_no_examples():
    empty = np.empty(0)
    curve = Curve.of(empty, empty)
    assert curve.auroc().reason == curve.average_precision().reason == "no examples"
    assert brier(empty, empty).reason == Calibration.of(empty, empty).error().reason == "no examples"


def test_log_odds_become_probabilities():
    log_odds = np.array([-np.inf, -800.0, 0.0, np.log(3), np.inf])
    np.testing.assert_allclose(probability_of(log_odds, "log_odds"), [0, 0, 0.5, 0.75, 1], atol=1e-15)


def test_thinning_keeps_the_ends():
    target, score = _data(5000, 3)
    curve = Curve.of(target, score)
    thin = curve.thinned(100)
    assert len(thin.threshold) == 100
    assert (thin.threshold[0], thin.threshold[-1]) == (curve.threshold[0], curve.threshold[-1])
    assert (thin.tp[-1], thin.fp[-1]) == (curve.positives, curve.negatives)
