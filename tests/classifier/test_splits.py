import numpy as np
import pandas as pd
import pytest
from real_messages import SMS_FILE, needs_messages

from ftkit.classifier.messages import read_messages
from ftkit.classifier.records import messages_of
from ftkit.classifier.spam import SpamDataModule
from ftkit.classifier.splits import balanced_split, divide_grouped, divide_stratified, stratified_split
from ftkit.errors import InputError
from ftkit.examples.duplicates import find_duplicates
from ftkit.results.duplicates import LabeledText
from ftkit.run_folder import SPLITS


def pandas_split(frame: pd.DataFrame, seed: int, train: float, val: float) -> dict[str, list[int]]:
    """The published steps, in pandas."""
    spam = frame[frame["label"] == 1]
    ham = frame[frame["label"] == 0].sample(len(spam), random_state=seed)
    balanced = pd.concat([ham, spam]).sample(frac=1, random_state=seed).reset_index(drop=True)
    balanced = balanced.sample(frac=1, random_state=seed).reset_index(drop=True)
    train_end = int(len(balanced) * train)
    val_end = train_end + int(len(balanced) * val)
    parts = balanced[:train_end], balanced[train_end:val_end], balanced[val_end:]
    return {name: part["row"].tolist() for name, part in zip(SPLITS, parts, strict=True)}


def as_lists(split):
    return {name: rows.tolist() for name, rows in split.items()}


@pytest.mark.parametrize(("ham", "spam"), [(40, 10), (301, 77), (50, 50), (5000, 747)])
@pytest.mark.parametrize(("seed", "train", "val"), [(123, 0.7, 0.1), (0, 0.5, 0.3), (2**32 - 1, 0.8, 0.15)])
def test_balanced_split_draws_what_pandas_draws(ham, spam, seed, train, val):
    labels = np.random.default_rng(1).permutation([0] * ham + [1] * spam).tolist()
    frame = pd.DataFrame({"row": range(len(labels)), "label": labels})
    assert as_lists(balanced_split(labels, (train, val), seed)) == pandas_split(frame, seed, train, val)


@needs_messages
def test_published_split_of_the_real_messages():
    messages = messages_of(read_messages(SMS_FILE, "published"))
    labels = [int(label == "spam") for label in messages.labels]
    split = as_lists(balanced_split(labels))
    assert {name: len(rows) for name, rows in split.items()} == {"train": 1045, "val": 149, "test": 300}
    frame = pd.DataFrame({"row": range(len(labels)), "label": labels})
    assert split == pandas_split(frame, 123, 0.7, 0.1)
    ids = [messages.ids[row] for name in SPLITS for row in split[name]]
    assert len(set(ids)) == 1494


@pytest.mark.parametrize(("ham", "spam"), [(30, 10), (10, 30), (20, 20)])
def test_balanced_split_has_both_classes_alike_and_no_row_twice(ham, spam):
    labels = [0] * ham + [1] * spam
    rows = np.concatenate(list(balanced_split(labels, seed=7).values()))
    smaller = min(ham, spam)
    assert len(set(rows.tolist())) == len(rows) == 2 * smaller
    assert sum(labels[row] for row in rows) == smaller


def test_seeds_give_other_splits():
    labels = [0] * 100 + [1] * 50
    assert as_lists(balanced_split(labels, seed=1)) != as_lists(balanced_split(labels, seed=2))
    assert as_lists(stratified_split(labels, (0.7, 0.1), 1)) != as_lists(stratified_split(labels, (0.7, 0.1), 2))


def test_stratified_split_uses_every_row_in_equal_proportions_shuffled():
    labels = [0] * 400 + [1] * 60
    split = as_lists(stratified_split(labels, (0.7, 0.1), seed=123))
    assert sorted(row for rows in split.values() for row in rows) == list(range(460))
    assert {name: len(rows) for name, rows in split.items()} == {"train": 322, "val": 46, "test": 92}
    assert {name: sum(row >= 400 for row in rows) for name, rows in split.items()} == {
        "train": 42,
        "val": 6,
        "test": 12,
    }
    assert all(rows != sorted(rows) for rows in split.values())
    first = [row >= 400 for row in split["train"]]
    assert 0 < sum(first[:160]) < 42  # the classes are mixed, not one after the other


@pytest.mark.parametrize("split", [balanced_split, stratified_split])
def test_refusals(split):
    labels = [0] * 30 + [1] * 30
    for fractions in ((0.9, 0.1), (0.0, 0.5), (0.5, -0.1), (1.2, 0.1)):
        with pytest.raises(InputError, match=r"fractions: must be two positive fractions"):
            split(labels, fractions, 1)
    with pytest.raises(InputError, match=r"fractions: 0 messages in the split val"):
        split([0] * 4 + [1] * 4, (0.7, 0.1), 1)
    for seed in (-1, 2**32):
        with pytest.raises(InputError, match="split_seed: must be from 0"):
            split(labels, (0.7, 0.1), seed)


def test_the_first_part_has_an_example_of_each_class():
    split = divide_stratified(range(9), {"train": 0.5, "val": 0.5}, seed=1)
    assert sorted(split["train"].tolist()) == list(range(9))
    assert len(split["val"]) == 0


@pytest.mark.parametrize("parts", [{"train": 0.7, "val": 0.1, "test": 0.2}, {"train": 0.85, "val": 0.15}])
def test_a_grouped_split_keeps_groups_whole_and_classes_alike(parts):
    rng = np.random.default_rng(3)
    groups = np.sort(rng.integers(0, 250, 600)).tolist()  # of 1 to 7 examples
    labels = [int(rng.random() < 0.2) if place % 3 else 2 for place in range(600)]
    split = as_lists(divide_grouped(labels, groups, parts, seed=5))
    assert sorted(place for places in split.values() for place in places) == list(range(600))
    where = {(groups[place], name) for name, places in split.items() for place in places}
    assert len(where) == len(set(groups))
    for name, part in parts.items():
        assert len(split[name]) == pytest.approx(600 * part, abs=6)
        for label in range(3):
            share = sum(labels[place] == label for place in split[name]) / labels.count(label)
            assert share == pytest.approx(part, abs=0.02)
    assert as_lists(divide_grouped(labels, groups, parts, seed=5)) == split
    assert as_lists(divide_grouped(labels, groups, parts, seed=6)) != split


def test_one_large_group_goes_into_one_part_and_small_data_is_divided_too():
    labels, groups = [0, 1] * 30, [0] * 30 + list(range(1, 31))
    split = as_lists(divide_grouped(labels, groups, {"train": 0.6, "val": 0.2, "test": 0.2}, seed=1))
    assert sum(bool(set(places) & set(range(30))) for places in split.values()) == 1
    small = as_lists(divide_grouped([0, 0, 1, 1], [0, 1, 2, 3], {"train": 0.5, "val": 0.5}, seed=1))
    assert sorted(map(len, small.values())) == [2, 2]


@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        ([0, 1] * 10, [0] * 20),  # one group
        ([0, 1] * 10, [0] * 10 + [1] * 10),  # fewer groups than parts
        ([0] * 10 + [1] * 10, [0] * 19 + [1]),
    ],
)
def test_groups_that_leave_a_part_empty_are_refused(labels, groups):
    with pytest.raises(
        InputError, match=r"split: \d groups of duplicates cannot be divided .* \(got 'grouped'\)"
    ) as refused:
        divide_grouped(labels, groups, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=1)
    assert "val and test an example" in str(refused.value)


def test_a_class_that_train_would_not_get_is_refused():
    labels = [0] * 4 + [1] * 4 + [2] * 20
    groups = [0] * 4 + [1] * 4 + list(range(2, 22))  # two classes are one group each, and go into different halves
    with pytest.raises(InputError, match="so that train has each class"):
        divide_grouped(labels, groups, {"train": 0.5, "val": 0.5}, seed=1)
    one = divide_grouped([0] * 4 + [2] * 20, [*groups[:4], *groups[8:]], {"train": 0.5, "val": 0.5}, seed=1)
    assert set(range(4)) <= set(one["train"].tolist())


@needs_messages
def test_a_grouped_split_of_the_real_messages_has_no_duplicates_between_its_parts():
    data = SpamDataModule(str(SMS_FILE), split="grouped")
    _, splits = data.examples()
    assert {name: len(splits[name]) for name in SPLITS} == {"train": 3903, "val": 557, "test": 1114}
    assert {name: sum(one.label for one in splits[name]) for name in SPLITS} == {"train": 523, "val": 74, "test": 150}
    texts = {name: [LabeledText(one.id, one.text, str(one.label)) for one in splits[name]] for name in SPLITS}
    pairs = find_duplicates(texts).examples["near"].pair_counts()
    assert pairs["train-train"] > 1000
    assert [pairs[name] for name in ("train-val", "train-test", "val-test")] == [0, 0, 0]
