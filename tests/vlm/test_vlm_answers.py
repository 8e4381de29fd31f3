"""Exact and relaxed match, worked by hand."""

import pytest

from ftkit.vlm.answers import exact_match, relaxed_match

# (prediction, target, exact, relaxed)
CASES = [
    ("14", "14", True, True),
    ("14.0", "14", False, True),
    ("105", "100", False, True),
    ("95", "100", False, True),
    ("105.1", "100", False, False),
    ("-100", "100", False, False),
    ("12%", "12%", True, True),
    ("12", "12%", False, False),
    ("0.12", "12%", False, True),
    ("0", "0", True, True),
    ("0.001", "0", False, False),  # nothing is 5% of zero
    ("Yes", "yes", False, True),
    (" Yes ", "Yes", True, True),
    ("yes.", "yes", False, False),
    ("nan", "14", False, False),
    ("14", "fourteen", False, False),
    ("", "14", False, False),
    ("%", "%", True, True),
]


@pytest.mark.parametrize(("prediction", "target", "exact", "relaxed"), CASES)
def test_match(prediction: str, target: str, exact: bool, relaxed: bool) -> None:
    assert exact_match(prediction, target) is exact
    assert relaxed_match(prediction, target) is relaxed


def test_the_tolerance_can_be_chosen() -> None:
    assert relaxed_match("150", "100", tolerance=0.5)
    assert not relaxed_match("150.1", "100", tolerance=0.5)
