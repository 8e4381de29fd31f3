"""The reader of training examples: every shape, and what is said about examples that cannot be used."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ftkit.errors import InputError
from ftkit.examples import image_files
from ftkit.examples.reader import Example, count_places, image_bytes, read_examples
from ftkit.examples.records import StoredImage
from ftkit.results.predictions import read_predictions, write_predictions


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if len(content) == 1 else list(content)}


def assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


IMAGE = {"type": "image"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "pictures" / name).write_bytes(b"\x89PNG")  # only looked for, not opened
    return tmp_path


def write(folder: Path, *records: Any) -> Path:
    path = folder / "examples.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def read_one(folder: Path, record: Any) -> Example:
    return read_examples(write(folder, record), folder)[0]


QUESTION, ANSWER = user("How many?"), assistant("two")
SHAPES = [
    {"messages": [QUESTION, ANSWER]},
    {"prompt": [QUESTION], "completion": [ANSWER]},
    {"prompt": [QUESTION], "completion": "two"},
    {"prompt": [QUESTION], "chosen": "two", "rejected": "ten"},
    {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [assistant("ten")]},
    {"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, assistant("ten")]},
]


@pytest.mark.parametrize("record", SHAPES, ids=lambda record: "+".join(record))
def test_all_shapes_of_a_conversation_are_one_example(folder: Path, record: dict[str, Any]) -> None:
    example = read_one(folder, record)
    assert example.prompt == [{"role": "user", "content": [text("How many?")]}]
    assert example.completion == "two"
    assert example.rejected == ("ten" if "rejected" in record else None)
    assert (example.id, example.line) == ("r00001", 1)


@pytest.mark.parametrize("names", [("prompt", "completion"), ("prefix", "suffix")])
def test_texts_stay_texts(folder: Path, names: tuple[str, str]) -> None:
    example = read_one(folder, {names[0]: "1+2=", names[1]: "3", "id": 7, "digits": 1, "label": "x", "note": None})
    assert (example.prompt, example.completion, example.id) == ("1+2=", "3", "7")
    assert example.columns == {"digits": "1", "data_label": "x"}  # a prediction file has a label of its own


def test_columns_do_not_pass_for_those_of_a_prediction_file(folder: Path) -> None:
    """A ``score`` of the data would be taken for the model's, and fail for want of a kind after the test."""
    own = {"label": "x", "prediction": "y", "score": 0.7, "probability": 2, "stopped": "late", "log_odds:yes": "high"}
    example = read_one(folder, {"prompt": "1+2=", "completion": "3", **own, "scores": "s"})
    assert example.columns == {f"data_{name}": str(value) for name, value in own.items()} | {"scores": "s"}
    extra = {name: [value] for name, value in example.columns.items()}
    write_predictions(folder / "p.tsv", ["a"], ["3"], ["3"], [0.5], "log_odds:3", {**extra, "stopped": ["yes"]})
    assert read_predictions(folder / "p.tsv").extra == {**extra, "stopped": ["yes"]}


def test_images_stand_where_the_example_says(folder: Path) -> None:
    images = ["pictures/a.png", "pictures/b.png"]
    record = {"messages": [user(IMAGE, text("and"), IMAGE), ANSWER], "images": images}
    example = read_one(folder, record)
    assert example.prompt == [{"role": "user", "content": [IMAGE, text("and"), IMAGE]}]
    assert example.images == tuple((folder / name).resolve() for name in images)
    in_text = read_one(folder, {"messages": [user("<image>and<image>"), ANSWER], "images": images})
    assert in_text.prompt == example.prompt
    inline = [user(*({**IMAGE, "image": name} if name else text("and") for name in (images[0], "", images[1]))), ANSWER]
    assert read_one(folder, {"messages": inline}).images == example.images
    assert read_one(folder, {"messages": inline}).prompt == example.prompt


def test_images_without_a_place_come_before_the_first_question(folder: Path) -> None:
    system = {"role": "system", "content": "Answer."}
    example = read_one(folder, {"messages": [system, QUESTION, ANSWER], "images": ["pictures/a.png", "pictures/b.png"]})
    assert example.prompt[1]["content"] == [IMAGE, IMAGE, text("How many?")]
    assert count_places(example.prompt) == 2
    example = read_one(folder, {"prefix": "yes or no?", "suffix": "no", "image": "pictures/a.png"})
    assert example.prompt == "<image>yes or no?"


OUTSIDE = "outside.png"
FAULTS = [
    ({"question": "?"}, "no known shape"),
    ({"messages": [QUESTION, ANSWER], "prefix": "a", "suffix": "b"}, "several shapes"),
    ({"messages": [QUESTION, QUESTION]}, "one assistant message"),
    ({"messages": [ANSWER]}, "messages: there is no message before the answer"),
    ({"chosen": [ANSWER], "rejected": [ANSWER]}, "chosen: there is no message before the answer"),
    ({"messages": [QUESTION, {**ANSWER, "weight": 1}]}, "nothing else"),
    ({"messages": [{"role": "judge", "content": "?"}, ANSWER]}, "messages\\[0\\]: unknown role"),
    ({"messages": [user(text("a"), {"type": "video"}), ANSWER]}, "unknown part"),
    ({"prompt": "a", "completion": " "}, "completion: the answer is empty"),
    ({"prompt": "a", "completion": "<image>"}, "the answer contains an image, or the text <image>"),
    ({"prompt": "a", "completion": "\ud800"}, "surrogate"),
    ({"chosen": [user("a"), ANSWER], "rejected": [user("b"), ANSWER]}, "differ before the last message"),
    ({"prefix": "a", "suffix": "b", "image": "pictures/none.png"}, "images\\[0\\]: .*the image does not exist"),
    (
        {"prefix": "a", "suffix": "b", "images": ["pictures/a.png", "../outside.png"]},
        "images\\[1\\]: .*is outside the data folder",
    ),
    ({"prefix": "a", "suffix": "b", "image": "pictures/link.png"}, "is outside the data folder"),
    ({"prefix": "a", "suffix": "b", "image": "https://example.org/a.png"}, "never fetched"),
    ({"prefix": "a", "suffix": "b", "image": 5}, "must be the path"),
    ({"prefix": "a", "suffix": "b", "image": "pictures"}, "the image is not a file"),
    ({"prefix": "a", "suffix": "b", "image": "pictures/pipe.png"}, "the image is not a file"),
    ({"prefix": "a", "suffix": "b", "image": "pictures/\0.png"}, "cannot be the path of an image"),
    ({"prefix": "a", "suffix": "b", "image": "pictures/round.png"}, "cannot be the path of an image"),
    ({"prefix": "a", "suffix": "b", "image": "a" * 300}, "cannot be the path of an image"),
    ({"prefix": "a", "suffix": "b", "image": "pictures/link.gif"}, "is outside the data folder"),
    ({"prefix": "<image>a", "suffix": "b", "images": ["pictures/a.png"] * 2}, "2 images for 1 places"),
    ({"prefix": "a", "suffix": "b", "image": "pictures/a.png", "images": []}, "both image and images"),
    (
        {"messages": [user(text("a"), {**IMAGE, "image": "pictures/a.png"}), ANSWER], "images": ["pictures/b.png"]},
        "and beside them",
    ),
    (
        {"messages": [user(text("a"), {**IMAGE, "image": "pictures/a.png"}), ANSWER], "image": "pictures/a.png"},
        "and beside them",
    ),
    ({"prefix": "<image>a", "suffix": "b"}, "0 images for 1 places"),
    ({"prefix": "a", "suffix": "b", "id": ""}, "id: must be"),
    (["not an object"], "not a JSON object"),
]


@pytest.mark.parametrize(("record", "problem"), FAULTS, ids=[problem for _, problem in FAULTS])
def test_an_example_that_cannot_be_used_is_named_by_its_line(folder: Path, record: Any, problem: str) -> None:
    (folder.parent / OUTSIDE).write_bytes(b"\x89PNG")
    (folder / "pictures" / "round.png").symlink_to("round.png")
    os.mkfifo(folder / "pictures" / "pipe.png")
    for link in ("link.png", "link.gif.png"):
        (folder / "pictures" / link).symlink_to(folder.parent / OUTSIDE)
    path = write(folder, {"prompt": "a", "completion": "b"}, record)
    with pytest.raises(InputError, match=problem) as caught:
        read_examples(path, folder)
    assert str(caught.value).startswith(f"{path}:2: ")


def test_a_prepared_folder_serves_the_names_of_its_source(folder: Path) -> None:
    (folder / "pictures" / "c.gif.png").write_bytes(b"\x89PNG")
    example = read_one(folder, {"prefix": "a", "suffix": "b", "image": "pictures/c.gif"})
    assert example.images == ((folder / "pictures" / "c.gif.png").resolve(),)


def test_files_that_cannot_be_read(folder: Path) -> None:
    path = folder / "examples.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "completion": "b"}\r\n\r\n{"prompt": "\xff"}\n')
    with pytest.raises(InputError, match=r"examples\.jsonl:3: not UTF-8 \(byte 53\)"):
        read_examples(path)
    path.write_text('{"prompt": "a", "completion": "b"\n')
    with pytest.raises(InputError, match=r"examples\.jsonl:1: not JSON"):
        read_examples(path)
    path.write_text('{"prompt": "a", "completion": "b", "n": ' + "1" * 5_000 + "}\n")
    with pytest.raises(InputError, match=r"examples\.jsonl:1: not JSON: Exceeds the limit"):
        read_examples(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="contains no examples"):
        read_examples(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_examples(folder / "none.jsonl")
    examples = [{"prompt": "a", "completion": "b", "id": "x"}] * 2
    with pytest.raises(InputError, match=r"examples\.jsonl:2: id: the id occurs twice, first in line 1"):
        read_examples(write(folder, *examples))


def test_a_saved_data_set_gives_the_same_examples(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    for number, name in enumerate(("a.png", "b.png")):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(folder / "pictures" / name)
    names = [str(folder / "pictures" / name) for name in ("a.png", "b.png")]
    records = [
        {
            "messages": [user([text("How many?")]), {**ANSWER, "content": [text("two")]}],
            "images": [name],
            "kind": "count",
        }
        for name in names
    ]
    table = datasets.Dataset.from_list(records).cast_column("images", datasets.List(datasets.Image()))
    table.save_to_disk(folder / "saved")
    examples = read_examples(folder / "saved")
    assert [example.id for example in examples] == ["r00001", "r00002"]
    assert examples[1].prompt == [{"role": "user", "content": [IMAGE, text("How many?")]}]
    assert examples[1].columns == {"kind": "count"}
    stored = [example.images[0] for example in examples]
    assert all(isinstance(image, StoredImage) for image in stored)
    assert [image.read() for image in stored] == [Path(name).read_bytes() for name in names]
    single = table.rename_column("images", "crops").add_column("image", names).cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": single}).save_to_disk(folder / "splits")
    example = read_examples(folder / "splits" / "train")[0]
    assert example.images[0].read() == Path(names[0]).read_bytes()
    assert example.columns == {"kind": "count"}  # other images are no text
    with pytest.raises(InputError, match=r"several splits; fix: name one of them: .*splits/train"):
        read_examples(folder / "splits")
    with pytest.raises(InputError, match="not a saved data set"):
        read_examples(folder / "pictures")
    bare = table.select_columns(["images"])
    bare.save_to_disk(folder / "bare")
    with pytest.raises(InputError, match=r"bare, example 1: the example has no known shape .*images"):
        read_examples(folder / "bare")
    bare.rename_column("images", "content").map(lambda example: {"messages": [example]}, remove_columns="content").cast(
        datasets.Features({"messages": [{"content": [datasets.Image()]}]})
    ).save_to_disk(folder / "inside")
    with pytest.raises(InputError, match=r"inside: messages: has images nested in another value"):
        read_examples(folder / "inside")


def saved_by_path(folder: Path, monkeypatch: pytest.MonkeyPatch, **images: Any) -> Path:
    """A data set of two examples that holds the paths of its images and not their bytes, as older ones do."""
    datasets = pytest.importorskip("datasets")
    ((name, of_examples),) = images.items()
    image = datasets.Image(decode=False)
    kind = datasets.List(image) if isinstance(of_examples[0], list) else image
    text = datasets.Value("string")
    features = datasets.Features({"prefix": text, "suffix": text, name: kind})
    table = datasets.Dataset.from_dict({"prefix": ["a", "a"], "suffix": ["b", "b"], **images}, features=features)
    monkeypatch.setattr("datasets.arrow_writer.embed_table_storage", lambda table, *_, **__: table)
    monkeypatch.setattr(datasets.Dataset, "_estimate_nbytes", lambda table: 0)  # asks each file for its size
    table.save_to_disk(folder / "saved")
    return folder / "saved"


def by_path(path: str | None) -> dict[str, Any]:
    return {"bytes": None, "path": path}


UNSAFE = [
    ("/dev/zero", "is outside the data folder"),
    ("pipe.png", "is not a file"),
    ("gone.png", "does not exist"),
    ("https://example.org/a.png", "never fetched"),
    (None, "must be the path of an image"),
]


@pytest.mark.parametrize(("name", "problem"), UNSAFE, ids=[problem for _, problem in UNSAFE])
def test_paths_in_a_saved_data_set_are_as_safe_as_those_in_a_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str | None, problem: str
) -> None:
    os.mkfifo(folder / "pipe.png")
    good = by_path("pictures/a.png")
    path = saved_by_path(folder, monkeypatch, images=[[good], [good, by_path(name)]])
    with pytest.raises(InputError, match=problem) as caught:
        read_examples(path, folder)
    assert str(caught.value).startswith(f"{path}, example 2: images[1]: ")


def test_a_picture_given_by_its_path_in_a_saved_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved_by_path(folder, monkeypatch, image=[by_path("pictures/a.png"), None])
    first, second = read_examples(path, folder)
    assert first.images == ((folder / "pictures" / "a.png").resolve(),)
    assert second.images == ()


def test_bytes_that_can_be_no_picture_are_not_handed_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "pictures" / "a.png"
    assert image_bytes(path) == b"\x89PNG"
    monkeypatch.setattr(image_files, "MAX_BYTES", 3)
    for image in (path, StoredImage([pa.table({"image": [{"bytes": b"\x89PNG"}]})], 0, "image", None)):
        with pytest.raises(InputError, match="larger than 3 bytes: 4"):
            image_bytes(image)
    path.unlink()
    os.mkfifo(path)  # since the examples were read
    with pytest.raises(InputError, match="not a file"):
        image_bytes(path)
    with pytest.raises(InputError, match="is empty"):
        image_bytes(StoredImage([pa.table({"image": [{"bytes": b""}]})], 0, "image", None))


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("given", [[TOOL], json.dumps([TOOL])], ids=["list", "text"])
def test_tools_are_no_column(folder: Path, given: Any) -> None:
    example = read_one(folder, {"prompt": "1+2=", "completion": "3", "tools": given})
    assert (example.tools, example.columns) == ([TOOL], {})


@pytest.mark.parametrize("given", [None, [], "[]"], ids=str)
def test_no_tools_are_none(folder: Path, given: Any) -> None:
    assert read_one(folder, {"prompt": "1+2=", "completion": "3", "tools": given}).tools == []


def test_tools_of_a_saved_data_set_have_no_entries_of_others(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    other = {"type": "function", "function": {"name": "add", "strict": True}}
    datasets.Dataset.from_list(
        [{"prompt": "a", "completion": "b", "tools": [tool]} for tool in (TOOL, other)]
    ).save_to_disk(folder / "saved")
    assert [example.tools for example in read_examples(folder / "saved")] == [[TOOL], [other]]


@pytest.mark.parametrize("given", ["hammer, saw", "{}", ["weather"], [{}], {"name": "weather"}, 1], ids=str)
def test_tools_that_are_no_functions_are_named(folder: Path, given: Any) -> None:
    with pytest.raises(InputError, match=r"jsonl:1: tools: (is not JSON|must be a list of functions).*rename"):
        read_one(folder, {"prompt": "1+2=", "completion": "3", "tools": given})


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}


def test_calls_of_functions_and_their_results_stay_in_the_conversation(folder: Path) -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": None}]}
    result = {"role": "tool", "content": "sunny", "tool_call_id": "1", "name": "weather"}
    example = read_one(folder, {"messages": [QUESTION, called, result, ANSWER], "tools": [TOOL]})
    assert example.prompt[1:] == [
        {"role": "assistant", "content": [], "tool_calls": [CALL]},
        {**result, "content": [text("sunny")]},
    ]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"role": "assistant", "tool_calls": []}, r"messages\[1\]\.tool_calls: must be a list of calls"),
        ({"role": "assistant", "tool_calls": "weather"}, r"messages\[1\]\.tool_calls: must be a list of calls"),
        ({"role": "tool", "content": "sunny", "name": 1}, r"messages\[1\]\.name: must be text"),
        (
            {"role": "user", "content": "a", "tool_calls": [CALL]},
            r"messages\[1\]: a message must have a role",
        ),
        ({"role": "tool"}, r"messages\[1\]: a message must have a role"),
        ({"content": "a"}, r"messages\[1\]: a message must have a role"),
    ],
    ids=str,
)
def test_calls_that_no_template_takes_are_named(folder: Path, message: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=rf"examples\.jsonl:1: {problem}"):
        read_one(folder, {"messages": [QUESTION, message, ANSWER]})


def test_an_answer_is_no_call(folder: Path) -> None:
    with pytest.raises(InputError, match=r"examples\.jsonl:1: messages: the answer is a function call"):
        read_one(folder, {"messages": [QUESTION, {"role": "assistant", "content": "", "tool_calls": [CALL]}]})
