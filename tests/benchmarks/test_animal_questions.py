"""Questions about animals are balanced, no picture is in two splits, and a wheel's pickles are arrays or refused."""

import gzip
import json
import pickle
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from animal_wheel import animal_wheel

import animal_questions as animals

SIZES = {"train": 18, "val": 2, "test": 9}


def test_without_the_picture_half_of_the_answers_are_right(tmp_path: Path) -> None:
    pictures, labels = animals.read(animal_wheel(tmp_path))
    assert len(pictures) == len(labels) == 299  # one was there twice
    parts = animals.split(labels, SIZES)
    assert len({int(number) for part in parts.values() for number in part}) == 10 * sum(SIZES.values())
    for name in ("train", "test"):
        asked = animals.questions("yes_no", parts[name], labels)
        for field in ("picture", "text"):
            yes = Counter(getattr(one, field) for one in asked if one.answer == "yes")
            assert {value: 2 * count for value, count in yes.items()} == Counter(getattr(one, field) for one in asked)
        right = [(one.text == f"{animals.ANIMALS[labels[one.picture]]}?") == (one.answer == "yes") for one in asked]
        assert all(right)
    which = animals.questions("which", parts["test"], labels)
    assert set(Counter(one.answer for one in which).values()) == {9}


def test_shuffled_pictures_are_the_same_ones_dealt_out_anew(tmp_path: Path) -> None:
    asked = [animals.Question(number, "bear?", "yes" if number % 2 else "no") for number in range(50)]
    rows = []
    for shuffled in (False, True):
        animals.write(tmp_path / "rows.jsonl", asked, shuffled)
        rows.append([json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()])
    own, other = ([row["image"] for row in found] for found in rows)
    assert own == [f"images/{number}.png" for number in range(50)]
    assert sorted(other) == sorted(own)
    assert other != own
    assert [row["suffix"] for row in rows[0]] == [row["suffix"] for row in rows[1]]


def test_a_pickle_of_anything_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.whl", "w") as file:
        for name in ("data", "label"):
            file.writestr(animals.INSIDE.format(name), gzip.compress(pickle.dumps(len)))
    with pytest.raises(pickle.UnpicklingError, match=r"no part of an array: builtins\.len"):
        animals.read(tmp_path / "bad.whl")


def test_logistic_regression_reads_the_pixels() -> None:
    pictures = np.zeros((40, 28, 28), np.uint8)
    pictures[::2] = 255
    asked = [animals.Question(number, "bear?", "no" if number % 2 else "yes") for number in range(40)]
    assert animals.logistic(pictures, {"train": asked[:20], "test": asked[20:]}) == 1.0
