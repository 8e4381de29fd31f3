"""Relaxed match, worked by hand."""

import pytest

from ftkit.vlm.answers import relaxed_match

# (prediction, target, relaxed)
CASES = [
    ("14", "14", True),
    ("14.0", "14", True),
    ("105", "100", True),
    ("95", "100", True),
    ("105.1", "100", False),
    ("-100", "100", False),
    ("12%", "12%", True),
    ("12", "12%", False),
    ("0.12", "12%", True),
    ("0", "0", True),
    ("0.001", "0", False),  # nothing is 5% of zero
    ("Yes", "yes", True),
    (" Yes ", "Yes", True),
    ("yes.", "yes", False),
    ("nan", "14", False),
    ("NaN", "nan", True),
    ("Inf", "inf", True),
    ("14", "inf", False),
    ("14", "fourteen", False),
    ("", "14", False),
    ("%", "%", True),
]


@pytest.mark.parametrize(("prediction", "target", "relaxed"), CASES)
def test_match(prediction: str, target: str, relaxed: bool) -> None:
    assert relaxed_match(prediction, target) is relaxed


def test_the_tolerance_can_be_chosen() -> None:
    assert relaxed_match("150", "100", tolerance=0.5)
    assert not relaxed_match("150.1", "100", tolerance=0.5)
