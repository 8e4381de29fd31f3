"""What a source of training data is taken for, its columns and places, and those that cannot be used."""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from source_files import RECORDS, SOURCES, frame, saved_splits

from ftkit.cli import main
from ftkit.errors import EnvironmentFault, InputError, UnavailableError
from ftkit.examples.data_sets import splits_of
from ftkit.examples.reader import read_examples
from ftkit.examples.records import StoredImage
from ftkit.examples.sources import open_source
from ftkit.language.data import TextDataModule
from ftkit.results import text_files
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
        line = text[:-4].count("\n") + 1
        with pytest.raises(InputError, match=rf"a\.json:{line}: not JSON: .*\(item 9000 of the list\)"):
            records(table(tmp_path, text[:-4], "a.json"))
        line = text[:-1].rstrip().count("\n") + 1
        with pytest.raises(InputError, match=rf"a\.json:{line}: not JSON: the list does not go on \(item 9001 of the"):
            records(table(tmp_path, text + "{}", "a.json"))
    raw = json.dumps(many, ensure_ascii=False, indent=1).encode()
    place = raw.rindex("ü".encode())
    (tmp_path / "a.json").write_bytes(raw[:place] + b"\xff" + raw[place + 1 :])
    line = raw.count(b"\n", 0, place) + 1
    with pytest.raises(InputError, match=rf"a\.json:{line}: not UTF-8 \(byte {place}\) \(got b'.xff'\)"):
        records(tmp_path / "a.json")


def test_a_list_that_is_too_long_for_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, json.dumps([{"a": "x" * 100}] * 10), "a.json")
    size = path.stat().st_size
    monkeypatch.setattr(text_files, "MAX_LIST_BYTES", size)
    assert len(records(path)) == 10
    monkeypatch.setattr(text_files, "MAX_LIST_BYTES", size - 1)
    with pytest.raises(InputError, match=r"a\.json:1: the row is longer .*; fix: write JSON lines: one object a line"):
        records(path)


def test_the_hash_is_that_of_contents() -> None:
    from PIL import Image

    def hashes(color: str) -> set[str]:
        pictures = [[{"images": [Image.new("RGB", (2, 2), color)], "image": Image.new("L", (2, 2))}] for _ in range(3)]
        return {open_source(one).sha256 for one in (*pictures, frame(pictures[0]))}

    assert len(hashes("red")) == len(hashes("red") | hashes("red")) == 1
    assert hashes("red") != hashes("blue")
    long = [[{"vector": numpy.arange(5_000) % at}] for at in (4_999, 5_000)]  # which print alike
    assert open_source(long[0]).sha256 != open_source(long[1]).sha256


def test_values_of_a_list_are_plain() -> None:
    given = [{1: numpy.int64(3), "text": numpy.str_("a"), "none": float("nan"), "list": numpy.arange(2)}]
    (record,) = records(given)
    assert record == {"1": 3, "text": "a", "none": None, "list": [0, 1]}
    assert [type(value) for value in record.values()] == [int, str, type(None), list]


def test_a_cell_may_hold_an_image(tmp_path: Path) -> None:
    uri = "data:image/png;base64," + "A" * 1_500_000
    path = table(tmp_path, f'image,question,answer\n"{uri}",?,yes\n')
    assert records(path)[0]["image"] == uri


REFUSED: dict[str, tuple[str, str, str]] = {
    "two columns of one needed name": ("a.csv", "text,text,label\na,b,c\n", "a.csv:1: two columns have the same name"),
    "a row too short": ("a.csv", "text;label\na;b\nc\n", r"a\.csv:3: expected 2 columns, found 1"),
    "an empty file": ("a.csv", "", r"a\.csv: contains no examples"),
    "an empty JSON list": ("a.json", "[]", r"a\.json: contains no examples"),
    "a header alone": ("a.csv", "prompt,completion\n", r"a\.csv: contains no examples"),
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
    doubled = frame([{"text": "a", "b": "c"}]).set_axis(["text", "text"], axis=1)
    doubled.to_csv(path, index=False)
    for given, at in ((doubled, "a data frame"), (path, r"a\.csv:1")):
        with pytest.raises(InputError, match=rf"{at}: two columns have the same name \(got 'text'\)"):
            open_source(given)
    with pytest.raises(InputError, match=r"a data frame: columns\.text: no such column \(got 'x'\)"):
        open_source(frame([{"a": 1}]), columns={"text": "x"})
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    assert records(tmp_path / "a.jsonl", columns={"c": "b"}) == [{"a": 1}, {"c": 2}]


def test_objects_and_names_that_are_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(InputError, match=r"is not a data source \(got 'int'\)"):
        open_source(3)
    with pytest.raises(InputError, match=r"a list, example 2: must be a dict \(got 'b'\)"):
        records([{"a": 1}, "b"])
    with pytest.raises(InputError, match=r"train/imdb: cannot be read: No such file"):
        open_source("train/imdb")  # nothing is looked up in the network
    with pytest.raises(InputError, match=r"has several splits; fix: name one of them: .*splits/train, /"):
        open_source(saved_splits(tmp_path))
    with pytest.raises(InputError, match=r"set: has several splits; .*: train, validation, or give it as dataset$"):
        open_source(datasets.load_from_disk(tmp_path / "splits"))
    for name in ("a.csv", "a b"):
        with pytest.raises(InputError, match=r"dataset: neither a folder nor the name of a data set on the hub"):
            splits_of(name)
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
        splits_of(name)
    arguments = ["fit", "--model", "CausalLMSFT", "--data", "TextDataModule", "--data.dataset", name]
    assert main([*arguments, "--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.logger", "false"]) == 3
    assert capsys.readouterr().err.startswith(f"error: {name} is not in the cache")


def in_cache(folder: Path, name: str, configuration: str) -> None:
    """Prepare a data set as ``load_dataset`` leaves one of the hub in its cache."""
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list([{**record, "configuration": configuration} for record in RECORDS])
    short, names = name.rpartition("/")[2], {"builder_name": "parquet", "config_name": configuration}
    place = folder / name.replace("/", "___") / configuration / "0.0.0" / ("a" * 40)
    place.mkdir(parents=True)
    with datasets.arrow_writer.ArrowWriter(path=str(place / f"{short}-train.arrow"), features=made.features) as writer:
        for record in made:
            writer.write(record)
        count, size = writer.finalize()
    split = datasets.SplitInfo("train", size, count, dataset_name=short)
    info = {"dataset_name": short, "version": datasets.Version("0.0.0"), "splits": datasets.SplitDict({"train": split})}
    vars(made.info).update(names | info | {"download_size": 0, "dataset_size": size, "download_checksums": {}})
    made.info.write_to_directory(str(place))


def test_a_data_set_of_the_hub_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    for configuration in ("one", "two"):
        in_cache(tmp_path, "me/toy", configuration)
    in_cache(tmp_path, "imdb", "plain_text")
    (found,) = splits_of("me/toy:two").values()
    assert [record["configuration"] for _, record in found] == ["two"] * len(RECORDS)
    assert found.title == "me/toy:two (train)"
    assert [record["prompt"] for _, record in splits_of("imdb")["train"]] == [one["prompt"] for one in RECORDS]
    module = TextDataModule(dataset="me/toy:one", columns={"reply": "note"}, fractions=(1.0, 0.0))
    assert [example.completion for example in module.examples("train")] == [one["completion"] for one in RECORDS]
    with pytest.raises(UnavailableError, match=r"me/toy is not in the cache .*: There are multiple 'me/toy' config"):
        splits_of("me/toy")
    with pytest.raises(UnavailableError, match=r"me/toy:no is not in the cache .*: Couldn't find cache"):
        splits_of("me/toy:no")


@pytest.mark.parametrize("shuffled", [False, True])
def test_images_of_a_data_set_are_not_copied(shuffled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    pictures = [[{"bytes": b"PNG%d" % (10 * n + m), "path": None} for m in range(n % 3)] for n in range(50)]
    ones = [{"bytes": None if n % 2 else b"%d" % n, "path": f"{n}.png"} for n in range(49)]
    given = datasets.Dataset.from_dict({"images": pictures, "one": [*ones, None], "n": list(range(50))})
    given = given.cast_column("images", datasets.List(datasets.Image()))
    given = given.shuffle(seed=1) if shuffled else given
    monkeypatch.delattr(datasets.Dataset, "cast_column")  # which rewrites the whole data set
    monkeypatch.delattr(datasets.Dataset, "map")
    read = records(given)
    assert [record["n"] for record in read] == (list(given["n"]) if shuffled else list(range(50)))
    for record in read:
        assert [image.read() for image in record["images"]] == [one["bytes"] for one in pictures[record["n"]]]
        one = record["one"]
        found = one.read() if isinstance(one, StoredImage) else one
        assert found == (
            None if record["n"] == 49 else f"{record['n']}.png" if record["n"] % 2 else b"%d" % record["n"]
        )


def test_prediction_files_of_spreadsheets(tmp_path: Path) -> None:
    content = "id;label;prediction;probability:yes\r\na;yes;yes;0,75\r\nb;no;yes;0,5\r\n"
    found = read_predictions(table(tmp_path, "\ufeff" + content))
    assert (found.labels, found.scores.tolist()) == (["yes", "no"], [0.75, 0.5])  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"a\.csv:3: probability:yes: the score is not a probability .*'0\.5\.1'"):
        read_predictions(table(tmp_path, content.replace("0,5\r", "0,5,1\r")))
    listed = [{"id": "a", "label": "yes", "prediction": "no"}, {"id": "b", "label": "no", "prediction": "no"}]
    assert read_predictions(table(tmp_path, json.dumps(listed), "a.json")).predictions == ["no", "no"]
