from pathlib import Path

import pytest

from ftkit.results.answer_counts import labels_and_answers, unanswered

CAT, DOG, COW = "cat", "dog", "cow"


@pytest.mark.parametrize(
    ("labels", "answers", "expected"),
    [
        ([CAT] * 11 + [DOG] * 9, [CAT] * 20, "hardly ever answered: dog (9 labels, 0 answers)"),
        ([CAT] * 11 + [DOG] * 11, [CAT] * 21 + [DOG], "hardly ever answered: dog (11 labels, 1 answers)"),
        ([CAT] * 11 + [DOG] * 10, [CAT] * 20 + [DOG], ""),  # a tenth
        ([CAT] * 11 + [DOG] * 4, [CAT] * 15, ""),  # too few to say
        (
            [CAT] * 9 + [DOG] * 9,
            [COW] * 18,
            "hardly ever answered: cat (9 labels, 0 answers), dog (9 labels, 0 answers)",
        ),
        ([CAT] * 11 + [DOG] * 9 + [""] * 20, [CAT] * 40, "hardly ever answered: dog (9 labels, 0 answers)"),
        ([""] * 20, [CAT] * 20, ""),
        ([f"text {number // 5}" for number in range(105)], ["no text"] * 105, ""),  # no classes
    ],
)
def test_a_class_that_is_hardly_ever_answered_is_named(
    labels: list[str], answers: list[str], expected: str, tmp_path: Path
) -> None:
    lines = [f"{number}\t{pair[0]}\t{pair[1]}\n" for number, pair in enumerate(zip(labels, answers, strict=True))]
    (tmp_path / "predictions.tsv").write_text("".join(["id\tlabel\tprediction\n", *lines]), encoding="utf-8")
    assert unanswered(labels_and_answers(tmp_path / "predictions.tsv")) == expected
