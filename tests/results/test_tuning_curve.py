import numpy as np
import pytest

from ftkit.results.tuning_curve import tuning_curve

RESULTS = [0.91, 0.5, 0.87, 0.955, 0.7, 0.93, 0.2]
# Of opda 0.8.0: average_tuning_curve of confidence_bands(RESULTS, 0.95, 0.0, 1.0, method="ks") at 1, 2, 5, 20.
OPDA = {
    "max": (
        [0.723571, 0.859694, 0.934421, 0.95383],
        [0.276564, 0.445882, 0.674728, 0.84199],
        [0.959274, 0.983124, 0.998149, 1.0],
    ),
    "min": (
        [0.723571, 0.587449, 0.386962, 0.213988],
        [0.276564, 0.107246, 0.009676, 0.0],
        [0.959274, 0.935423, 0.904216, 0.876445],
    ),
}


@pytest.mark.parametrize("mode", ["max", "min"])
def test_it_is_what_opda_computes(mode) -> None:
    for ours, theirs in zip(tuning_curve(RESULTS, 20, mode), OPDA[mode], strict=True):
        np.testing.assert_allclose(ours[[0, 1, 4, 19]], theirs, atol=1e-6)


def test_the_band_covers_the_true_curve_for_all_budgets_at_once() -> None:
    """Of uniform results the best of k is expected to be k / (k + 1)."""
    generator, budgets, missed = np.random.default_rng(0), np.arange(1, 21), 0
    for _ in range(1000):
        curve = tuning_curve(generator.random(8), 20)
        missed += bool(np.any((curve.low > budgets / (budgets + 1)) | (curve.high < budgets / (budgets + 1))))
    assert missed <= 65  # 50 are expected at most


def test_other_bounds() -> None:
    curve = tuning_curve([2.0, 3.0], 3, "min", (2.0, 3.0))
    assert curve.mean.tolist() == [2.5, 2.25, 2.125]
    assert curve.low.min() >= 2.0
    assert curve.high.max() <= 3.0
