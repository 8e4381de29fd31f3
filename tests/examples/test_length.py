"""What is too long is cut or left out in training, and never left out in evaluation."""

import pytest

from ftkit.errors import InputError
from ftkit.examples.length import LengthRule
from ftkit.examples.reader import Example


def test_a_prompt_is_never_cut() -> None:
    example = Example("a", "1", "3")
    assert LengthRule(None).fit(example, 10_000, [1, 2]) == [[1, 2]]
    assert LengthRule(5).fit(example, 3, [1, 9]) == [[1, 9]]
    assert LengthRule(5).fit(example, 4, [1, 9], [3, 9]) == [[1], [3]]
    assert LengthRule(5).fit(example, 5, [1, 9]) is None
    assert LengthRule(5, "skip").fit(example, 4, [1, 9]) is None
    with pytest.raises(InputError, match="max_length"):
        LengthRule(1)


def test_no_example_is_left_out_of_an_evaluation() -> None:
    example, rule = (
        Example("a", "1", "3", file="examples.jsonl", line=7),
        LengthRule.for_evaluation(8, max_new_tokens=2),
    )
    assert rule.fit(example, 3, [1, 9]) == [[1, 9]]
    assert rule.fit(example, 6, [1, 2, 9]) == [[1, 2]]
    with pytest.raises(InputError, match=r"examples\.jsonl:7: the prompt has 7 tokens, but only 6 fit"):
        rule.fit(example, 7, [9])
    with pytest.raises(
        InputError, match=r"max_new_tokens: leaves no room for a prompt in the model's context of 8 tokens"
    ):
        LengthRule.for_evaluation(8, max_new_tokens=8)


def test_an_example_stays_whole_where_prompt_and_answer_or_its_room_fit() -> None:
    rule = LengthRule.for_evaluation(8, max_new_tokens=3)
    assert [rule.leaves_whole(length, [1]) for length in (5, 6)] == [True, False]
    assert [rule.leaves_whole(4, [1] * length) for length in (4, 5)] == [True, False]
    assert LengthRule().leaves_whole(10**6, [1])
    assert [LengthRule(limit).within(8).max_length for limit in (None, 5, 9)] == [8, 5, 8]
