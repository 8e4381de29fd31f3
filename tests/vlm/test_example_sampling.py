"""Training examples by ratio and by outcome."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from ftkit.errors import InputError
from ftkit.results.classes import Classes
from ftkit.results.predictions import write_predictions
from ftkit.vlm.sampling import OUTCOMES, outcome, outcomes_of_examples, read_outcomes, sample_examples

FALSE_ANSWERS = OUTCOMES - {"tp", "tn"}

# 84.4% yes, as in the practitioner's data; outcomes of an untuned model on 1,039 examples.
COUNTS = {"tp": 652, "tn": 57, "fp": 115, "fn": 215}
LABELS = [label for name, count in COUNTS.items() for label in ["yes" if name in ("tp", "fn") else "no"] * count]
FOUND = [name for name, count in COUNTS.items() for _ in range(count)]


def drawn(values: list[str], examples: list[int]) -> Counter[str]:
    assert len(set(examples)) == len(examples)
    return Counter(values[example] for example in examples)


@pytest.mark.parametrize(
    ("ratio", "yes", "no"), [((1, 1), 32, 32), ((2, 1), 43, 21), ((1, 2), 21, 43), ((1, 0), 64, 0), ((0, 3), 0, 64)]
)
def test_by_ratio(ratio: tuple[int, int], yes: int, no: int) -> None:
    assert drawn(LABELS, sample_examples(LABELS, 64, 0, ratio)) == Counter(yes=yes) + Counter(no=no)


def test_only_false_answers() -> None:
    found = drawn(FOUND, sample_examples(LABELS, 64, 0, outcomes=FOUND, keep=FALSE_ANSWERS))
    assert set(found) == {"fp", "fn"}
    assert found.total() == 64


def test_no_true_positives() -> None:
    found = drawn(FOUND, sample_examples(LABELS, 64, 0, outcomes=FOUND, keep=OUTCOMES - {"tp"}))
    assert set(found) == {"tn", "fp", "fn"}


def test_ratio_and_outcome_together() -> None:
    examples = sample_examples(LABELS, 30, 0, ratio=(1, 2), outcomes=FOUND, keep={"fp", "fn"})
    assert drawn(FOUND, examples) == {"fn": 10, "fp": 20}


def test_without_a_ratio_every_example_is_as_likely() -> None:
    labels = ["yes"] * 8 + ["no"] * 2
    hits = Counter(example for seed in range(2_000) for example in sample_examples(labels, 3, seed))
    assert all(500 < hits[example] < 700 for example in range(10))  # 600 expected, standard deviation 20


def test_with_a_ratio_every_example_of_a_class_is_as_likely() -> None:
    labels = ["yes"] * 8 + ["no"] * 2
    hits = Counter(example for seed in range(2_000) for example in sample_examples(labels, 2, seed, ratio=(1, 1)))
    assert all(175 < hits[example] < 325 for example in range(8))  # 250 expected, standard deviation 15
    assert all(875 < hits[example] < 1125 for example in (8, 9))


def test_the_seed_decides() -> None:
    first = sample_examples(LABELS, 64, 1, (1, 1))
    assert sample_examples(LABELS, 64, 1, (1, 1)) == first
    assert set(sample_examples(LABELS, 64, 2, (1, 1))) != set(first)
    assert sample_examples(["yes", "no"] * 4, 4, 123, (1, 1)) == [3, 5, 0, 6]  # on every machine


def test_the_classes_are_mixed() -> None:
    half = Counter(LABELS[example] for example in sample_examples(LABELS, 64, 0, (1, 1))[:32])
    assert 8 < half["yes"] < 24


@pytest.mark.parametrize("ratio", [None, (1, 1), (2, 1), (1, 3)])
def test_a_larger_draw_contains_a_smaller_one(ratio: tuple[int, int] | None) -> None:
    draws = [set(sample_examples(LABELS, n, 5, ratio)) for n in range(1, 100)]
    assert all(smaller < larger for smaller, larger in pairwise(draws))


def test_too_few_examples_say_how_many_there_are() -> None:
    with pytest.raises(InputError, match='200 examples labelled "no" are requested, but there are 172; fix'):
        sample_examples(LABELS, 400, 0, (1, 1))
    with pytest.raises(InputError, match="2,000 examples are requested, but there are 1,039; fix"):
        sample_examples(LABELS, 2_000, 0)
    with pytest.raises(InputError) as caught:
        sample_examples(LABELS, 240, 0, (1, 1), FOUND, {"fp", "fn"})
    assert (
        'sample: 120 examples labelled "no" with the outcome fn or fp are requested, but there are 115 '
        "(all examples: 215 fn, 115 fp, 0 neither, 57 tn, 652 tp)"
    ) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": (0, 0)}, "ratio: "),
        ({"ratio": (-1, 2)}, "ratio: "),
        ({"keep": {"tp"}}, "keep: examples can be chosen by outcome only with a prediction file"),
        ({"keep": {"true"}, "outcomes": FOUND}, r"keep: no such outcome \(got \['true'\]\); fix: use fn, fp"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_examples(**{"labels": LABELS, "sample": 4, "seed": 0} | options)  # type: ignore[arg-type]


def test_labels_that_name_no_class() -> None:
    with pytest.raises(InputError, match=r"label: the label names neither class \(got 'maybe'\); fix: use yes or no"):
        sample_examples(["yes", "maybe"], 1, 0)
    assert sample_examples(["spam", "ham"], 1, 0, (1, 0), classes=Classes("spam", "ham")) == [0]


def test_outcomes() -> None:
    answers = ["yes", "no", " Yes. ", "NO", "", "yes and no"]
    assert [outcome("yes", answer) for answer in answers] == ["tp", "fn", "tp", "fn", "neither", "neither"]
    assert [outcome("no", answer) for answer in answers] == ["fp", "tn", "fp", "tn", "neither", "neither"]


def test_outcomes_of_a_prediction_file(tmp_path: Path) -> None:
    path = tmp_path / "predictions.tsv"
    write_predictions(path, "abcde", ["yes", "yes", "no", "no", "no"], ["yes", "no", "yes", "no", "perhaps"])
    by_id = read_outcomes(path)
    assert by_id == {"a": "tp", "b": "fn", "c": "fp", "d": "tn", "e": "neither"}
    assert outcomes_of_examples(["e", "b", "d"], ["no", "yes", "no"], by_id) == ["neither", "fn", "tn"]
    examples = sample_examples(["no", "yes", "no"], 2, 0, outcomes=["neither", "fn", "tn"], keep=FALSE_ANSWERS)
    assert sorted(examples) == [0, 1]


def test_outcomes_of_the_practitioners_own_files(tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    examples = ["True\tyes", "True\tno", "FALSE\tNo.", "false\tyes", "False\tI see a cat", "True\t1", "\tyes"]
    # Nobody has judged the last one.
    expected = dict(zip("1234567", ["tp", "fn", "tn", "fp", "neither", "tp"], strict=False))
    path.write_text("".join(f"{k}\t{example}\n" for k, example in enumerate(examples, 1)))
    assert read_outcomes(path) == expected
    cells = (example.replace("\t", f"\tcat\t./images/{k}.jpg\t") for k, example in enumerate(examples, 1))
    path.write_text("".join(f"{k}\t{example}\n" for k, example in enumerate(cells, 1)))
    assert read_outcomes(path) == expected | {f"images/{k}.jpg": result for k, result in expected.items()}


def test_an_image_that_examples_of_several_outcomes_share_names_none_of_them(tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    path.write_text(
        "".join(f"{k}\tTrue\t{k % 2}.jpg\t{answer}\n" for k, answer in enumerate(["yes", "no", "yes", "yes"]))
    )
    assert read_outcomes(path) == {"0": "tp", "1": "fn", "2": "tp", "3": "tp", "0.jpg": "tp"}


def test_a_file_of_other_classes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.tsv"
    write_predictions(path, ["a"], ["spam"], ["ham"])
    with pytest.raises(InputError, match=r"predictions\.tsv: label: the label names neither class"):
        read_outcomes(path)


def test_examples_and_predictions_must_be_of_the_same_examples() -> None:
    by_id = {"a": "tp", "b": "fp", "c": "neither"}
    with pytest.raises(InputError, match=r"2 of 3 examples are not in the prediction file \(got 'x, y'\)"):
        outcomes_of_examples(["x", "a", "y"], ["no", "yes", "no"], by_id)
    with pytest.raises(InputError, match="another label for b: its outcome is fp"):
        outcomes_of_examples(["a", "b"], ["yes", "yes"], by_id)
    assert outcomes_of_examples(["c", "c"], ["yes", "no"], by_id) == ["neither", "neither"]
