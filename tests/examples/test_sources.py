"""What a source of training data is taken for, its columns and places, and those that cannot be used."""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from source_files import RECORDS, SOURCES, frame, saved_splits

from ftkit.cli import main
from ftkit.errors import EnvironmentFault, InputError, UnavailableError
from ftkit.examples.reader import read_examples
from ftkit.examples.records import StoredImage
from ftkit.examples.sources import open_source
from ftkit.results.predictions import read_predictions


def records(given: Any, **options: Any) -> list[dict[str, Any]]:
    return [record for _, record in open_source(given, **options)]


def table(folder: Path, content: str, name: str = "a.csv") -> Path:
    (folder / name).write_bytes(content.encode())
    return folder / name


@pytest.mark.parametrize("name", [name for name in SOURCES if "Dict" not in name])
def test_every_source_is_read_again_and_has_one_hash(name: str, tmp_path: Path) -> None:
    (given,) = SOURCES[name](tmp_path).values()
    source = open_source(given)
    assert [record for _, record in source] == [record for _, record in source] == RECORDS
    assert list(pickle.loads(pickle.dumps(source))) == list(source)  # as ddp_spawn sends a data module
    assert source.columns[-3:] == ["prompt", "completion", "note"]
    assert source.sha256 == open_source(RECORDS).sha256 != open_source(RECORDS[:3]).sha256
    assert source.folder == (tmp_path / "saved" if "saved" in name else tmp_path if isinstance(given, Path) else None)
    assert open_source(given, columns={"text": "note"}).columns == ["text", *[c for c in source.columns if c != "note"]]


def test_places_are_lines_of_text_and_else_numbers(tmp_path: Path) -> None:
    text = open_source(table(tmp_path, 'prompt,completion\n"a\nb",c\n\nd,e\n'))
    assert [place for place, _ in text] == [2, 5]
    assert str(text.error(5, "wrong", field="prompt")).endswith("a.csv:5: prompt: wrong")
    listed = open_source(table(tmp_path, '\n[\n{"prompt": "a"},\n{"prompt": "b"}]', "a.json"))
    assert [place for place, _ in listed] == [1, 2]
    assert str(listed.error(2, "wrong")).endswith("a.json, example 2: wrong")
    assert [place for place, _ in open_source(frame([{"a": 1}] * 1001))] == list(range(1, 1002))
    assert str(open_source([{"a": 1}]).error(1, "wrong")) == "a list, example 1: wrong"
    assert str(open_source(frame([{"a": 1}])).error(None, "wrong")) == "a data frame: wrong"


HEADERS = {
    "v1,v2,,,\nham,Go,,,\nspam,Win,,,\n": ["v1", "v2", "", "", ""],
    "sentence;polarity\nfine, really;good\nbad, too;bad\n": ["sentence", "polarity"],
    "Satz\tStimmung\nschön\tgut\n": ["Satz", "Stimmung"],
    "review.text|review.stars\nfine|5\n": ["review.text", "review.stars"],
    "ham;Go, now, please\nspam;Win\nham;Ok\n": ["0", "1"],
    "ham\tGo, now\nspam\tWin\nham\tOk\n": ["0", "1"],
    "ads/1.jpg,yes\nads/2.jpg,no\n": ["0", "1"],
    "7;True;cat;a.png;no\n8;False;cat;b.png;no\n": ["0", "1", "2", "3", "4"],
    "0,1\nfine,good\nbad,bad\n": ["0", "1"],
    "text\nyes\nno\n": ["text"],
    'text,label\n"a; b; c",x\n"d; e",y\n': ["text", "label"],
}


@pytest.mark.parametrize("content", HEADERS)
def test_headers_and_separators_are_found(content: str, tmp_path: Path) -> None:
    source = open_source(table(tmp_path, content, "a.txt" if "\t" in content else "a.csv"))
    assert source.names == HEADERS[content]
    assert len(list(source)) == content.count("\n") - (HEADERS[content][0] != "0" or content.startswith("0,1"))


def test_the_sms_file_of_kaggle(tmp_path: Path) -> None:
    path = table(tmp_path, 'v1,v2,,,\r\nham,"Go, now",,,\r\nspam,Win £5,,,\r\n')
    expected = [{"label": "ham", "text": "Go, now"}, {"label": "spam", "text": "Win £5"}]
    assert records(path, columns={"label": "v1", "text": "v2"}) == expected
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.csv:3: not UTF-8 \(byte 35\) .*convert it by `iconv -f latin1 -t utf-8`"):
        records(path)


def test_text_stays_text_and_what_is_missing_is_none(tmp_path: Path) -> None:
    given = table(tmp_path, "text,label,n\n007,NA,1.0\nNone,,nan\n")
    assert records(given) == [{"text": "007", "label": "NA", "n": "1.0"}, {"text": "None", "label": None, "n": "nan"}]
    typed = frame(
        [{"text": "a", "n": 1, "list": [{"x": 1}], "f": 0.5}, {"text": None, "n": 2, "list": None, "f": None}]
    )
    plain = [{"text": "a", "n": 1, "list": [{"x": 1}], "f": 0.5}, {"text": None, "n": 2, "list": None, "f": None}]
    assert records(typed) == plain
    assert all(type(record["n"]) is int for record in records(typed))
    typed.to_parquet(tmp_path / "a.parquet")
    assert records(tmp_path / "a.parquet") == plain
    assert records(__import__("pandas").read_parquet(tmp_path / "a.parquet")) == plain  # lists are arrays there
    assert records([{"text": "a", "mixed": 1}, {"mixed": "b"}]) == [{"text": "a", "mixed": 1}, {"mixed": "b"}]


def test_classes_of_a_data_set_are_named_and_its_format_is_of_no_matter() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    given = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    expected = [{"text": "a", "label": "pos"}, {"text": "b", "label": "neg"}, {"text": "c", "label": None}]
    assert records(given) == records(given.with_format("numpy")) == expected
    assert records(given.select([2, 0])) == [expected[2], expected[0]]


def test_images_of_parquet_files_stay_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [
        {"question": "?", "answer": "yes", "image": {"bytes": b"\x89PNG" + bytes([n]), "path": None}} for n in (1, 2)
    ]
    frame(rows).to_parquet(tmp_path / "pandas.parquet")
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    table.to_parquet(tmp_path / "datasets.parquet")
    for name in ("pandas", "datasets"):
        examples = read_examples(tmp_path / f"{name}.parquet")
        assert all(isinstance(example.images[0], StoredImage) for example in examples)
        assert [example.images[0].read() for example in examples] == [row["image"]["bytes"] for row in rows]  # type: ignore[union-attr,index]


def test_a_long_list_is_read_piece_by_piece(tmp_path: Path) -> None:
    longest = 'ä😀\\"' * 60_000  # more than three pieces
    many = [{"prompt": longest if n == 700 else f"ü{n}", "n": [n, {"a": [n]}]} for n in range(9_000)]
    for text in (
        json.dumps(many),
        json.dumps(many, ensure_ascii=False),
        json.dumps(many, indent=1, ensure_ascii=False),
    ):
        assert records(table(tmp_path, text, "a.json")) == many
        with pytest.raises(InputError, match=r"a\.json: not JSON: .*\(item 9000 of the list\)"):
            records(table(tmp_path, text[:-4], "a.json"))
    raw = json.dumps(many, ensure_ascii=False).encode()
    place = raw.rindex("ü".encode())
    (tmp_path / "a.json").write_bytes(raw[:place] + b"\xff" + raw[place + 1 :])
    with pytest.raises(InputError, match=rf"a\.json: not UTF-8 \(byte {place}\) \(got b'.xff'\)"):
        records(tmp_path / "a.json")
    begun = (
        b'[{"a": "'.ljust(2**16 - 1, b"x") + "ä".encode()[:1]
    )  # a piece ends within a character, which is a wrong one
    (tmp_path / "a.json").write_bytes(begun + b'"}]')
    with pytest.raises(InputError, match=r"a\.json: not UTF-8 \(byte 65535\)"):
        records(tmp_path / "a.json")


REFUSED: dict[str, tuple[str, str, str]] = {
    "two columns of one needed name": ("a.csv", "text,text,label\na,b,c\n", "a.csv:1: two columns have the same name"),
    "a row too short": ("a.csv", "text;label\na;b\nc\n", r"a\.csv:3: expected 2 columns, found 1"),
    "an empty file": ("a.csv", "", r"a\.csv: holds no examples"),
    "an empty JSON list": ("a.json", "[]", r"a\.json: holds no examples"),
    "a header alone": ("a.csv", "prompt,completion\n", r"a\.csv: holds no examples"),
    "mixed types": ("a.json", '[{"prompt": "a", "completion": "b"}, ["c"]]', r"a\.json: item 2 is not a JSON obj"),
    "no Parquet file": ("a.parquet", "PAR0", r"a\.parquet: not a Parquet file"),
    "a damaged gzip file": ("a.csv.gz", "text,label\n", r"a\.csv\.gz: cannot be read: Not a gzipped file"),
    "no known shape": ("a.csv", "v1,v2\na,b\n", r"a\.csv:2: the example has no known shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_cannot_be_used(case: str, tmp_path: Path) -> None:
    name, content, problem = REFUSED[case]
    with pytest.raises(InputError, match=problem):
        read_examples(table(tmp_path, content, name))


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = table(tmp_path, "sentence,sentiment,sentiment\na,b,c\n")
    with pytest.raises(
        InputError,
        match=r"columns\.text: no such column \(got 'sentense'\); fix: the columns are sentence, .*; use sentence",
    ):
        open_source(path, columns={"text": "sentense"})
    with pytest.raises(InputError, match=r"columns\.label: two columns have the same name \(got 'sentiment'\)"):
        open_source(path, columns={"label": "sentiment"})
    with pytest.raises(InputError, match=r"a data frame: columns\.text: no such column \(got 'x'\)"):
        open_source(frame([{"a": 1}]), columns={"text": "x"})
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    assert records(tmp_path / "a.jsonl", columns={"c": "b"}) == [{"a": 1}, {"c": 2}]


def test_objects_and_names_that_are_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(InputError, match=r"is no source of data \(got 'int'\)"):
        open_source(3)
    with pytest.raises(InputError, match=r"a list, example 2: must be a dict \(got 'b'\)"):
        records([{"a": 1}, "b"])
    with pytest.raises(InputError, match=r"train/imdb: cannot be read: No such file"):
        open_source("train/imdb")  # nothing is looked up in the network
    with pytest.raises(InputError, match=r"splits: split: no such split .*fix: use one of train, validation"):
        open_source(saved_splits(tmp_path), "test")
    with pytest.raises(InputError, match=r"holds several splits; fix: name one of them: .*splits/train"):
        open_source(tmp_path / "splits")
    with pytest.raises(InputError, match=r"split: has no splits \(got 'train'\)"):
        open_source(datasets.Dataset.from_list(RECORDS), "train")
    with pytest.raises(InputError, match=r"dataset: neither a folder nor the name of a data set on the hub"):
        open_source("a.csv", "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(EnvironmentFault, match="needs the package datasets; fix: pip install datasets"):
        open_source(tmp_path / "splits" / "train")


@pytest.mark.parametrize("name", ["stanfordnlp/imdb", "nyu-mll/glue:sst2"])
def test_a_data_set_of_the_hub_offline(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(UnavailableError, match=rf"^{name} is not in the cache .* the hub cannot be reached"):
        open_source(name, "train")
    arguments = ["fit", "--model", "CausalLMSFT", "--data", "TextDataModule", "--data.dataset", name]
    assert main([*arguments, "--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.logger", "false"]) == 3
    assert capsys.readouterr().err.startswith(f"error: {name} is not in the cache")


def test_prediction_files_of_spreadsheets(tmp_path: Path) -> None:
    content = "id;label;prediction;probability:yes\r\na;yes;yes;0,75\r\nb;no;yes;0,5\r\n"
    found = read_predictions(table(tmp_path, "\ufeff" + content))
    assert (found.labels, found.scores.tolist()) == (["yes", "no"], [0.75, 0.5])  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"a\.csv:3: probability:yes: the score is not a probability .*'0\.5\.1'"):
        read_predictions(table(tmp_path, content.replace("0,5\r", "0,5,1\r")))
    listed = [{"id": "a", "label": "yes", "prediction": "no"}, {"id": "b", "label": "no", "prediction": "no"}]
    assert read_predictions(table(tmp_path, json.dumps(listed), "a.json")).predictions == ["no", "no"]
