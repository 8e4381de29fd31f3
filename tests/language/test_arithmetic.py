"""Made-up arithmetic: right answers, held-out operands, nested subsets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.errors import InputError
from ftkit.language.arithmetic import ArithmeticDataModule, Problem, split_of
from ftkit.run_folder import SPLITS

numbers = st.integers(-999, 999)


@given(numbers, st.sampled_from("+-*"), numbers)
def test_an_answer_is_what_python_computes(first: int, operation: str, second: int) -> None:
    problem = Problem(first, operation, second)  # type: ignore[arg-type]
    assert int(problem.answer) == eval(f"({first}) {operation} ({second})")
    assert problem.question == f"{first} {operation} {second}"


@pytest.mark.parametrize(
    ("question", "carries"),
    [
        ((14, "+", 25), False),
        ((15, "+", 25), True),
        ((5, "+", 95), True),
        ((-15, "-", 25), True),  # -(15 + 25)
        ((25, "-", 14), False),
        ((24, "-", 15), True),
        ((14, "-", 25), False),  # -(25 - 14)
        ((15, "-", 24), True),  # -(24 - 15)
        ((25, "+", -14), False),
        ((24, "+", -15), True),
        ((2, "*", 44), False),
        ((3, "*", 44), True),
        ((11, "*", 45), False),
        ((25, "*", 12), True),  # 2 x 5 in the last column
    ],
)
def test_carry_is_what_happens_on_paper(question: tuple[int, str, int], carries: bool) -> None:
    assert Problem(*question).carries is carries  # type: ignore[arg-type]


@given(numbers, numbers)
def test_a_sum_of_magnitudes_carries_if_its_digits_lose_nines(first: int, second: int) -> None:
    """Kummer: each carry takes 9 from the sum of the digits."""
    digits = lambda number: sum(map(int, str(abs(number))))  # noqa: E731
    lost = digits(abs(first)) + digits(abs(second)) - digits(abs(first) + abs(second))
    assert Problem(abs(first), "+", abs(second)).carries == (lost > 0)


@pytest.mark.parametrize("negative", [False, True])
def test_no_pair_of_operands_is_in_two_splits_and_no_problem_comes_twice(negative: bool) -> None:
    data = ArithmeticDataModule(train_size=600, operations=("+", "-", "*"), negative=negative)
    pairs = []
    for split in SPLITS:
        problems = data.problems(split)  # type: ignore[arg-type]
        assert len(set(problems)) == len(problems)
        pairs.append({tuple(sorted((abs(p.first), abs(p.second)))) for p in problems})
    assert not pairs[0] & pairs[1]
    assert not pairs[0] & pairs[2]
    assert not pairs[1] & pairs[2]


def test_a_thousand_are_the_first_of_five_thousand_and_the_test_is_the_same() -> None:
    small, large = ArithmeticDataModule(train_size=1000), ArithmeticDataModule(train_size=5000)
    assert large.problems("train")[:1000] == small.problems("train")
    assert len(large.problems("train")) == 5000
    for split in ("val", "test"):
        assert small.problems(split) == large.problems(split)  # type: ignore[arg-type]
    assert small.data_sha256 != large.data_sha256


def test_what_is_asked_for_is_what_comes() -> None:
    plain = ArithmeticDataModule(train_size=500, digits=2).problems("train")
    assert {problem.operation for problem in plain} == {"+", "-"}
    assert min(min(p.first, p.second) for p in plain) >= 0
    assert max(max(p.first, p.second) for p in plain) <= 99
    assert 0.2 < sum(p.first < 10 for p in plain) / 500 < 0.6  # every second number has one digit
    signed = ArithmeticDataModule(train_size=500, negative=True, digits=3).problems("train")
    assert 0.35 < sum(p.first < 0 for p in signed) / 500 < 0.65
    for carry in (True, False):
        problems = ArithmeticDataModule(train_size=300, carry=carry).problems("train")
        assert {problem.carries for problem in problems} == {carry}
    other = ArithmeticDataModule(train_size=500, data_seed=1)
    assert other.problems("train") != plain
    assert other.data_sha256 != ArithmeticDataModule(train_size=500).data_sha256


def test_examples_are_written_in_the_prompt_style() -> None:
    data = ArithmeticDataModule(train_size=50, prompt_style="Q: {question}\nA:", spaced_digits=True)
    example, problem = next(
        (r, p) for r, p in zip(data.examples("train"), data.problems("train"), strict=True) if p.first > 9
    )
    first, second = " ".join(str(problem.first)), " ".join(str(problem.second))
    assert example.prompt == f"Q: {first} {problem.operation} {second}\nA:"
    assert example.completion.replace(" ", "") == problem.answer
    assert example.columns == problem.columns


def test_other_braces_of_a_prompt_style_are_text() -> None:
    data = ArithmeticDataModule(train_size=1, prompt_style="{sum} {question}", val_size=0)
    assert data.examples("train")[0].prompt == f"{{sum}} {data.problems('train')[0].question}"
    assert data.examples("val") == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"train_size": 0}, "train_size"),
        ({"val_size": -1}, "val_size"),
        ({"test_size": 0}, "test_size"),
        ({"digits": 0}, "digits"),
        ({"operations": ()}, "operations"),
        ({"operations": ("+", "+")}, "operations"),
        ({"prompt_style": "{a} ="}, "prompt_style"),
    ],
)
def test_arguments_that_make_no_sense(bad: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ArithmeticDataModule(**bad)  # type: ignore[arg-type]


def test_more_problems_than_there_are_is_an_error() -> None:
    with pytest.raises(InputError, match="there are only about"):
        ArithmeticDataModule(train_size=250, digits=1).problems("train")  # 100 ordered pairs, 2 operations


def test_about_a_tenth_of_the_pairs_is_held_out_for_each_of_validation_and_test() -> None:
    found = [split_of(first, second) for first in range(100) for second in range(first + 1)]
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert found.count(split) / len(found) == pytest.approx(share, abs=0.02)


def test_a_question_with_another_number_is_no_duplicate() -> None:
    data = ArithmeticDataModule(train_size=300, test_size=50)
    data.datasets = {"train": range(300), "test": range(50)}
    texts = data.labeled_texts(lambda image, example: None)
    data.note_duplicates(texts)
    known = data.known_examples("test")
    assert known is not None
    assert len(known.ids) == 50
    assert set(known.duplicate) <= {"", "exact", "normalized"}
    assert len(set(known.cluster)) > 45
