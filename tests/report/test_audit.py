"""The audit of real messages against a slow one, planted duplicates and conflicts, and every form of it."""

import base64
import io
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from real_messages import SMS_FILE, needs_messages

import ftkit
from fake_engine import FakeEngine, make_folder
from ftkit.classifier.data import TextClassificationDataModule
from ftkit.classifier.messages import read_messages
from ftkit.classifier.records import messages_of
from ftkit.classifier.splits import balanced_split, stratified_split
from ftkit.cli import main
from ftkit.commands.ablation import ablation_table
from ftkit.examples.duplicates import normalized
from ftkit.report.audit import Audit
from ftkit.report.page import to_html
from ftkit.results.duplicates import LabeledText
from ftkit.training import split_data

SPLITS = ("train", "val", "test")


def _published() -> dict[str, list[dict[str, str]]]:
    messages = messages_of(read_messages(SMS_FILE, "published"))
    rows = balanced_split([int(label == "spam") for label in messages.labels])
    return {
        name: [
            {"id": messages.ids[row], "label": messages.labels[row], "text": messages.texts[row]} for row in rows[name]
        ]
        for name in SPLITS
    }


def _slow(splits: dict[str, list[dict[str, str]]], kind: str) -> dict[str, Any]:
    """The same counts by comparing every two examples as Python sets."""
    every = [(split, one["label"], one["text"]) for split in SPLITS for one in splits[split]]
    texts = [text if kind == "exact" else normalized(text) for _, _, text in every]
    grams = [{text[at : at + 5] for at in range(max(1, len(text) - 4))} for text in texts]
    found: dict[str, Any] = {"pairs": {}}
    in_train: dict[int, list[str]] = {}
    for a in range(len(every)):
        for b in range(a):
            if texts[a] != texts[b]:
                if kind != "near" or len(grams[a]) < 0.6 * len(grams[b]) or len(grams[b]) < 0.6 * len(grams[a]):
                    continue
                shared = len(grams[a] & grams[b])
                if shared < 0.6 * (len(grams[a]) + len(grams[b]) - shared):
                    continue
            name = f"{every[b][0]}-{every[a][0]}"
            found["pairs"][name] = found["pairs"].get(name, 0) + 1
            if every[b][0] == "train":
                in_train.setdefault(a, []).append(every[b][1])
    for split in ("val", "test"):
        for label in ("ham", "spam"):
            here = [in_train.get(place, []) for place, one in enumerate(every) if one[:2] == (split, label)]
            known = [theirs for theirs in here if theirs]
            agree = sum(set(theirs) == {label} for theirs in known)
            counts = {
                "total": len(here),
                "in_train": len(known),
                "same_label": agree,
                "other_label": len(known) - agree,
            }
            found.setdefault(split, {})[label] = counts
    return found


@needs_messages
@pytest.mark.parametrize("kind", ["exact", "normalized", "near"])
def test_the_published_split_has_the_duplicates_that_a_slow_comparison_finds(kind: str) -> None:
    splits = _published()
    found = ftkit.audit(**splits).to_dict()["duplicates"][kind]
    expected = _slow(splits, kind)
    assert {name: count for name, count in found["pairs"].items() if count} == expected["pairs"]
    assert {split: found[split]["by_label"] for split in ("val", "test")} == {
        split: expected[split] for split in ("val", "test")
    }


@needs_messages
def test_the_published_split_in_figures() -> None:
    """The figures of docs/howto/audit.md."""
    found = ftkit.audit(**_published())
    counts = {
        kind: [of_kind[split]["in_train"] for split in ("val", "test")]
        for kind, of_kind in found.to_dict()["duplicates"].items()
    }
    assert counts == {"exact": [12, 36], "normalized": [14, 40], "near": [42, 80]}
    near = found.to_dict()["duplicates"]["near"]
    assert near["test"]["by_label"]["spam"] == {"total": 159, "in_train": 73, "same_label": 73, "other_label": 0}
    assert near["test"]["by_label"]["ham"] == {"total": 141, "in_train": 7, "same_label": 7, "other_label": 0}
    assert near["pairs"] == {
        "train-train": 230, "train-val": 87, "train-test": 144, "val-val": 4, "val-test": 33, "test-test": 21,
    }  # fmt: skip
    assert found.answer.startswith(
        "Duplicates or near-duplicates in train: 42 of 149 val examples (14 the same but for"
    )


@needs_messages
def test_all_messages_split_by_class_in_figures() -> None:
    messages = messages_of(read_messages(SMS_FILE, "published"))
    rows = stratified_split([int(label == "spam") for label in messages.labels], (0.7, 0.1), 123)
    splits = {
        name: [{"label": messages.labels[row], "text": messages.texts[row]} for row in rows[name]] for name in SPLITS
    }
    near = ftkit.audit(**splits).to_dict()["duplicates"]["near"]
    assert (near["val"]["in_train"], near["test"]["in_train"], near["test"]["total"]) == (102, 153, 1117)


@needs_messages
def test_planted_duplicates_and_conflicts_are_found() -> None:
    """60 messages without duplicates are copied into test: as they are, retyped, or with a word changed."""
    splits, rng = _published(), random.Random(1)
    clean = ftkit.audit(train=splits["train"] + splits["val"] + splits["test"])
    alone = {one.id for one in clean.examples} - {pair[key] for pair in clean.pairs() for key in ("id", "duplicate_id")}
    originals = [one for one in splits["train"] if one["id"] in alone and len(one["text"]) >= 80]
    others = [one for one in splits["test"] if one["id"] in alone]
    planted = rng.sample(originals, 60)
    copies, conflicts = [], set()
    for number, one in enumerate(planted):
        text = one["text"]
        if number % 3 == 1:
            text = f"  {text.upper().replace(' ', '  ')}\u00a0"
        elif number % 3 == 2:
            words = text.split()
            text = " ".join([*words[:3], "really", *words[4:]])
        label = one["label"]
        if number % 5 == 0:
            label, _ = ("ham" if label == "spam" else "spam"), conflicts.add(f"copy{number}")
        copies.append({"id": f"copy{number}", "label": label, "text": text})
    found = ftkit.audit(train=splits["train"], test=[*others, *copies])
    leaked = {
        pair["id"]: pair for pair in found.pairs() if pair["split"] == "test" and pair["duplicate_split"] == "train"
    }
    assert leaked.keys() == {one["id"] for one in copies}  # recall and precision of 1
    assert {name for name, pair in leaked.items() if pair["label"] != pair["duplicate_label"]} == conflicts
    assert all(leaked[f"copy{number}"]["duplicate_id"] == one["id"] for number, one in enumerate(planted))
    kinds = [leaked[f"copy{number}"]["kind"] for number in range(60)]
    assert kinds == ["exact", "normalized", "near"] * 20
    test = found.to_dict()["duplicates"]["near"]["test"]
    assert (test["in_train"], test["other_label"]) == (60, len(conflicts))
    assert [pair["id"] in conflicts for pair in found.pairs()][: len(conflicts) + 1] == [True] * len(conflicts) + [
        False
    ]


@pytest.fixture(scope="module")
def found() -> Audit:
    train = [
        {"id": "t1", "label": "ham", "text": "Shall we meet at seven <b>tonight</b>?"},
        {"id": "t2", "label": "spam", "text": "WIN a prize now"},
        {"id": "t3", "label": "spam", "text": "win A PRIZE now"},
        {"id": "t4", "label": "ham", "text": "  "},
        {"id": "t5", "label": "ham", "text": "on my way"},
    ]
    test = [
        {"id": "e1", "label": "ham", "text": "Win a prize now"},
        {"id": "e2", "label": "ham", "text": "Shall we meet at seven <b>tonight</b>!"},
        {"id": "e3", "label": "ham", "text": "something else"},
    ]
    return ftkit.audit(train=train, test=test)


def test_every_count_of_a_small_audit(found: Audit) -> None:
    values = found.to_dict()
    assert values["duplicates"]["exact"]["test"]["in_train"] == 0
    assert values["duplicates"]["normalized"]["pairs"]["train-train"] == 1
    assert values["duplicates"]["normalized"]["pairs"]["train-test"] == 2
    assert values["duplicates"]["near"]["test"] == {
        "total": 3, "in_train": 2, "same_label": 1, "other_label": 1,
        "by_label": {"ham": {"total": 3, "in_train": 2, "same_label": 1, "other_label": 1},
                     "spam": {"total": 0, "in_train": 0, "same_label": 0, "other_label": 0}},
    }  # fmt: skip
    assert values["splits"]["train"]["empty"] == 1
    assert values["splits"]["train"]["labels"] == {"ham": 3, "spam": 2}
    assert values["splits"]["test"]["longest_letters"] == 38
    assert [(pair["id"], pair["duplicate_id"], pair["kind"]) for pair in values["pairs"]] == [
        ("e1", "t2", "normalized"), ("e2", "t1", "near"), ("t3", "t2", "normalized"),
    ]  # fmt: skip
    assert json.loads(found.to_json()) == values


def test_an_audit_shows_itself(found: Audit) -> None:
    frame = found.to_pandas()
    assert frame.loc[0, ["id", "duplicate_id", "label", "duplicate_label"]].tolist() == ["e1", "t2", "ham", "spam"]
    text, html = str(found), found._repr_html_()
    assert "2 of 3 test examples (1 the same but for case and white space, 1 with another label)" in text
    assert "test e2 ham: Shall we meet at seven <b>tonight</b>!" in text
    assert "&lt;b&gt;tonight" in html
    assert "<b>tonight" not in html
    assert "<script" not in html


def test_labels_that_splits_share_unequally_are_noted() -> None:
    train = [{"label": "a" if n % 2 else "b", "text": f"text number {n} of many"} for n in range(100)]
    test = [{"label": "a" if n % 8 else "b", "text": f"{n} other words here"} for n in range(100)]
    assert "The shares of labels differ between splits (chi-squared test, p = " in str(
        ftkit.audit(train=train, test=test)
    )
    assert "do not differ significantly" in str(ftkit.audit(train=train, test=train))


def test_the_command_reads_what_spreadsheets_and_pandas_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.csv").write_bytes('\ufefflabel;text\r\nham;"Hello there; you"\r\nspam;Buy now\r\n'.encode())
    frame = pd.DataFrame({"label": ["spam", "ham"], "text": ["HELLO there; you", "see you"], "id": ["a", "b"]})
    frame.to_parquet(tmp_path / "test.parquet")
    page = tmp_path / "audit.html"
    arguments = ["data", "audit", "--train", str(tmp_path / "train.csv"), "--test", str(tmp_path / "test.parquet")]
    assert main([*arguments, "--json", "--html", str(page)]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["duplicates"]["normalized"]["test"]["other_label"] == 1
    assert values["pairs"][0]["duplicate_text"] == "Hello there; you"
    html = page.read_text(encoding="utf-8")
    assert "Hello there; you" in html
    assert 'type="search"' in html


def test_examples_to_train_on_are_compared_by_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame({"prompt": ["What is 2 + 2?"], "completion": ["4"]}).to_json(
        tmp_path / "train.jsonl", orient="records", lines=True
    )
    asked = [{"role": "user", "content": "what is  2 + 2?"}, {"role": "assistant", "content": "5"}]
    (tmp_path / "test.jsonl").write_text(json.dumps({"messages": asked}) + "\n")
    assert (
        main(["data", "audit", "--train", f"{tmp_path}/train.jsonl", "--test", f"{tmp_path}/test.jsonl", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["duplicates"]["normalized"]["test"]["other_label"] == 1


def test_pictures_are_compared_by_what_they_show(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((120, 90)).save(
            tmp_path / f"{name}.png"
        )
    image.open(tmp_path / "a.png").resize((240, 180)).save(tmp_path / "again.jpg", quality=85)
    lines = [{"prompt": "What is it?", "completion": "x", "image": f"{name}.png"} for name in ("a", "b")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines = [{"prompt": "What is it?", "completion": "y", "image": name} for name in ("again.jpg", "c.png", "b.png")]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = ftkit.audit(train=tmp_path / "train.jsonl", test=tmp_path / "test.jsonl")
    values = found.to_dict()
    images = [values["duplicates"][kind]["test"] for kind in ("image", "similar image")]
    assert images == [{"total": 3, "in_train": 1}, {"total": 3, "in_train": 2}]  # an image has no label
    assert re.search(r"image +test +all +3 +1 +33.3%$", str(found), re.MULTILINE)
    assert [values["duplicates"][kind]["test"]["other_label"] for kind in ("exact", "normalized", "near")] == [1, 1, 2]
    assert "image: images that are the same, whatever is asked about them" in str(found)
    shown = re.findall('data:image/jpeg;base64,([^"]+)', to_html(found.document()))
    assert [image.open(io.BytesIO(base64.b64decode(one))).size for one in shown] == [(120, 90)] * 4
    assert "data:image" not in str(found)


def test_a_picture_that_cannot_be_read_is_named_with_its_example(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    line = {"prompt": "What is it?", "completion": "x", "image": "a.png"}
    (tmp_path / "train.jsonl").write_text(json.dumps(line) + "\n")
    assert main(["data", "audit", "--train", str(tmp_path / "train.jsonl")]) == 2
    assert f"error: {tmp_path}/train.jsonl:1: images: an image cannot be used: " in capsys.readouterr().err


def test_duplicates_of_val_in_test_alone_are_not_said_to_be_in_train() -> None:
    one = {"label": "a", "text": "See you at seven"}
    found = ftkit.audit(train=[{"label": "a", "text": "Something else"}], val=[one], test=[one])
    assert found.answer == "No val or test example has a duplicate in train."
    assert found.to_dict()["duplicates"]["near"]["pairs"]["val-test"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: config: give config files, or --train and perhaps --val and --test"),
        (["--test", "{file}"], "error: config: give config files, or --train and perhaps --val and --test"),
        (["{file}", "--train", "{file}"], "error: config: give config files"),
        (["--train", "{file}", "--threshold", "0"], "error: threshold: must be above 0 and at most 1 (got 0.0)"),
        (["--train", "{file}", "--threshold", "1.5"], "error: threshold: must be above 0 and at most 1 (got 1.5)"),
        (["--train", "{folder}/none.csv"], "none.csv"),
        (["{folder}/none.yaml"], "error: {folder}/none.yaml: there is no such file"),
    ],
)
def test_what_cannot_be_audited_is_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "data.csv"
    file.write_text("label,text\nham,hello\n")
    places = {"file": file, "folder": tmp_path}
    assert main(["data", "audit", *(word.format(**places) for word in arguments)]) == 2
    captured = capsys.readouterr()
    assert message.format(**places) in captured.err
    assert not captured.out


def _demo(tmp_path: Path) -> list[str]:
    """A run over messages of which one of test stands in train, and one of val with another label."""
    messages = [("ham", f"This is message number {number} of an ordinary kind") for number in range(60)]
    messages += [("spam", f"Prize {number * 37}: call 0900 {number}") for number in range(60)]
    labels, texts = map(list, zip(*messages, strict=True))
    split = balanced_split([int(label == "spam") for label in labels])
    test, val = split["test"][0], split["val"][0]
    texts[test] = next(texts[row] for row in split["train"] if labels[row] == labels[test]).upper()
    texts[val] = next(texts[row] for row in split["train"] if labels[row] != labels[val])
    file, config = tmp_path / "messages.tsv", tmp_path / "data.yaml"
    file.write_text("".join(f"{label}\t{text}\n" for label, text in zip(labels, texts, strict=True)))
    config.write_text(json.dumps({"data": {"class_path": "SpamDataModule", "init_args": {"source": str(file)}}}))
    base = Path(__file__).parents[2] / "configs/ch06"
    return [str(base / "base.yaml"), str(base / "demo.yaml"), str(config)]


def test_a_config_is_audited_and_its_training_says_that_duplicates_cross(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = _demo(tmp_path)
    assert main(["data", "audit", *configs, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    counts = {split: values["duplicates"]["normalized"][split] for split in ("val", "test")}
    assert [(one["in_train"], one["other_label"]) for one in counts.values()] == [(1, 1), (1, 0)]
    assert values["splits"]["train"]["tokens"] == {"cut": 0, "tokens lost": 0}
    assert main(["data", "audit", configs[0], configs[2], "--json"]) == 0  # the vocabulary is on the hub
    captured = capsys.readouterr()
    assert json.loads(captured.out)["splits"]["train"]["tokens"] == {}
    assert "notice: tokens are not counted: " in captured.err
    assert main(["doctor", *configs]) == 0
    said = "notice: 1 of 12 val examples (1 with another label or answer) and 1 of 24 test examples have a duplicate in"
    assert said in capsys.readouterr().err


def test_the_notes_of_an_ablation_say_that_duplicates_cross(tmp_path: Path) -> None:
    found = {"test": {"total": 300, "in_train": 40, "other_label": 0}}
    rows = {"01_base": {"result": {"data": {"source": "messages", "duplicates": found}}}, "02_other": {}}
    ftkit.Ablation(make_folder(tmp_path / "study", rows), out=tmp_path / "out").run(seeds=[123], engine=FakeEngine())
    lines = ablation_table(tmp_path / "out").splitlines()
    said = "40 of 300 test examples have a duplicate in train (but for case and white space)."
    assert sum(said in line for line in lines) == 1


def test_of_very_many_examples_a_training_counts_no_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": [LabeledText("a", "hello"), LabeledText("b", "bye")], "test": [LabeledText("c", "Hello ")]}
    data = TextClassificationDataModule([{"text": "x", "label": "y"}])
    data.note_duplicates(splits)
    assert data.report == {"duplicates": {"test": {"total": 1, "in_train": 1, "other_label": 0}}}
    data.report = {}
    data.note_duplicates({**splits, "test": [LabeledText("c", "hello!")]})
    monkeypatch.setattr(split_data, "_COMPARED", 2)
    data.datasets = splits
    data.note_duplicates(splits)
    assert data.report == {}
