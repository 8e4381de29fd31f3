"""Spellings of one answer become one, and names that mean different things stay apart."""

# ruff: noqa: RUF001
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.normalize import normalize

SAME = {
    "yes": [
        "yes", "Yes", "YES", " yes\t", "Yes.", "yes!", "Yes?!", '"yes"', "'yes'", "“Yes”", "«yes»", "(yes)", "[Yes]",
        "yes,", "yes:", "\uff59\uff45\uff53", "\uff39\uff25\uff33\uff0e", "**yes**", "**Yes.**", "**Yes**.", "_yes_",
        "`yes`", "- yes", "\u2022 Yes", "\u2014yes\u2014", "¡yes!", "\ufeffyes", "yes\u200b", "\xa0yes", "yes...",
        "<think>\n\n</think>\n\nyes", "<think>Is it? No.</think> Yes.", "yes<|im_end|>", "yes</s>\n",
        "Yes.<end_of_turn>\n", "<|im_start|>yes<|im_end|></s>",
    ],
    "はい": ["はい", "はい。", "「はい」", "はい！", " はい ．", "『はい』。"],
    "да": ["Да", "да.", "«ДА»", "— да"],
    "نعم": ["نعم", "نعم؟", "نعم۔", "«نعم»"],
    "हाँ": ["हाँ", "हाँ।", "हाँ॥"],
    "այո": ["Այո", "այո։"],
    "አዎ": ["አዎ", "አዎ።"],
    "ναι": ["Ναι", "ΝΑΙ.", "ναι·"],
    "1": ["1", "1.0", "1.", "+1", "01", "1.00", "1e0", "10e-1", "\uff11", "\u0661", "(1)", '"1.0"', "1.0.", "**1**"],
    "0": ["0", "0.0", "-0", ".0", "0e5"],
    "-1": ["-1", "-1.0", "\u22121", "\uff0d1", "(-1)", "-1."],
    "0.5": ["0.5", ".5", "0.50", "5e-1", "(.5)"],
    "1000": ["1000", "1e3", "1000.0"],
    "new york": ["New York", "new  york", "NEW\nYORK.", " new york "],
}  # fmt: skip
# Each list holds names of different classes or values.
APART = [
    ["1", "-1", "0", "10", "0.1", "1%", "1,0", "1.0.0", "1/2"],
    ["A", "A+", "A-", "A*", "AA"],
    ["C", "C#", "C++"],
    ["+", "-", "?", "!", ".", ""],
    ["yes", "y", "yesterday", "yes…", "yes no", "yes/no", "1", "true", "oui"],
    ["none", "nan", "null", "", "0"],
    ["12345678901234567890123456789012345", "12345678901234567890123456789012346", "1e9999"],
    ["user", "@user", "#user"],
    ["cat", "dog", "cat dog", "cat_dog", "cat-dog"],
    ["5", "5\u2032"],
]


@pytest.mark.parametrize("expected", SAME)
def test_spellings_of_one_answer_become_one(expected: str) -> None:
    assert {text: normalize(text) for text in SAME[expected]} == dict.fromkeys(SAME[expected], expected)


@pytest.mark.parametrize("names", APART, ids=str)
def test_names_that_mean_different_things_stay_apart(names: list[str]) -> None:
    assert len({normalize(name) for name in names}) == len(names)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=12), st.text("01.e+-*_`~<|>/s…\u2212\uff0e\u3002 \n\"'«»()", max_size=14)))
def test_normalizing_again_changes_nothing(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert bool(once) == bool(text.strip())


@settings(max_examples=300, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False), st.decimals(allow_nan=False, allow_infinity=False))
def test_numbers_are_one_where_they_are_equal(one: object, two: object) -> None:
    assert (normalize(str(one)) == normalize(str(two))) == (one == two)


def test_long_texts_of_punctuation_and_marks_are_read_in_one_pass() -> None:
    """Each part would take minutes if what is left were copied for every character that is taken away."""
    for part in ("(", "- ", "<think>", "</s>", "*", "(<|a|>", " <"):
        assert normalize(part * 200_000 + "yes" + ")" * 200_000).startswith(("yes", "<", "*"))
