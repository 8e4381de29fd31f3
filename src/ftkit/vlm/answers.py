"""The relaxed accuracy of ChartQA."""

import math


def relaxed_match(prediction: str, target: str, tolerance: float = 0.05) -> bool:
    """Return whether an answer is right by ChartQA's relaxed accuracy.

    A number may differ from the expected one by a share of it, ``tolerance``; a text has to be equal except for case.
    ``12%`` is the number 0.12. An expected 0 needs the same text, because no other number is within 5% of it.

    Source: Masry et al. 2022, ChartQA, section 5.1, as published with Pix2Struct (Lee et al. 2023).

    Example:
        >>> [relaxed_match(answer, "200") for answer in ("209.9", "211", "two hundred")]
        [True, False, False]
        >>> relaxed_match("blue", "Blue"), relaxed_match("0.125", "12%"), relaxed_match("0.0", "0")
        (True, True, False)
    """
    said, expected = _number(prediction), _number(target)
    if said is None or not expected:
        return prediction.strip().lower() == target.strip().lower()
    return abs(said - expected) / abs(expected) <= tolerance


def _number(text: str) -> float | None:
    text = text.strip()
    try:
        number = float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
