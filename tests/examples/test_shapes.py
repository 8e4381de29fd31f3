"""Shapes of training records as others write them: what each becomes, and what is said of those that cannot be used."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ftkit.errors import InputError
from ftkit.examples import image_files
from ftkit.examples.headerless import headerless_records
from ftkit.examples.image_files import find_image
from ftkit.examples.reader import Example, image_bytes, read_examples
from ftkit.vlm.images import decode_image


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


RED = encoded(Image.new("RGB", (4, 3), (255, 0, 0)))
URI = f"data:image/png;base64,{base64.b64encode(RED).decode()}"
IMAGE = {"type": "image"}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def message(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "content": [text(part) if isinstance(part, str) else part for part in parts]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "images" / name).write_bytes(RED)
    return tmp_path


def write(folder: Path, *records: Any) -> Path:
    path = folder / "records.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def read_one(folder: Path, record: Any, **options: Any) -> Example:
    return read_examples(write(folder, record), **options)[0]


HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
# Record; prompt, completion and rejected answer; columns; how reports call the shape.
TEXTS = {
    "Alpaca": (
        {"instruction": "Add.", "input": "1 and 2", "output": "3", "text": "Below is"},
        ("Add.\n\n1 and 2", "3", None), {"text": "Below is"}, "Alpaca (instruction + output)",
    ),
    "Alpaca, empty input": (
        {"instruction": "Name a color.", "input": "", "output": "red"},
        ("Name a color.", "red", None), {}, "Alpaca (instruction + output)",
    ),
    "Alpaca, blank input": (
        {"instruction": "Name a color.", "input": " ", "output": "red"},
        ("Name a color.", "red", None), {}, "Alpaca (instruction + output)",
    ),
    "Alpaca, no input": (
        {"instruction": "Name a color.", "input": None, "output": "red"},
        ("Name a color.", "red", None), {}, "Alpaca (instruction + output)",
    ),
    "ShareGPT": (
        {"id": "x", "conversations": [
            {"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hey"},
            {"from": "user", "value": "Why?"}, {"from": "assistant", "value": "So."},
        ]},
        ([message("system", "Be brief."), message("user", "Hi"), message("assistant", "Hey"), message("user", "Why?")],
         "So.", None), {}, "ShareGPT (conversations)",
    ),
    "conversations in OpenAI's words": (
        {"conversations": [HI, HELLO]}, ([message("user", "Hi")], "Hello", None), {}, "ShareGPT (conversations)",
    ),
    "results of tools": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "observation", "value": "4"},
                           {"from": "gpt", "value": "Four"}]},
        ([message("user", "Hi"), message("tool", "4")], "Four", None), {}, "ShareGPT (conversations)",
    ),
    "question and answer": (
        {"question": "2+2?", "answer": "4", "label": "easy", "context": "sums"},
        ("2+2?", "4", None), {"data_label": "easy", "context": "sums"}, "question and answer (question + answer)",
    ),
    "query and response": (
        {"query": "2+2?", "response": "4"}, ("2+2?", "4", None), {}, "question and answer (query + response)",
    ),
    "ChartQA": (
        {"query": "How many?", "label": ["14", "fourteen"], "human_or_machine": 0},
        ("How many?", "14", None), {"human_or_machine": "0"}, "ChartQA (query + label)",
    ),
    "UltraFeedback": (
        {"prompt": "Hi ", "prompt_id": "f0e", "messages": [HI, HELLO], "chosen": [HI, HELLO],
         "rejected": [HI, {"role": "assistant", "content": "No"}], "score_chosen": 8.5, "score_rejected": 2},
        ([message("user", "Hi")], "Hello", "No"),
        {"prompt_id": "f0e", "score_chosen": "8.5", "score_rejected": "2"}, "",
    ),
    "preferences with the prompt as messages": (
        {"prompt": [HI], "chosen": [HI, HELLO], "rejected": [HI, {"role": "assistant", "content": "No"}]},
        ([message("user", "Hi")], "Hello", "No"), {}, "",
    ),
    "RLAIF-V": (
        {"ds_name": "RLAIF-V", "question": "Hi", "chosen": "Hello", "rejected": "No", "idx": 3},
        ("Hi", "Hello", "No"), {"ds_name": "RLAIF-V", "idx": "3"}, "RLAIF-V (question + chosen + rejected)",
    ),
    "OpenAI's parts": (
        {"messages": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
        ]},
        ([message("user", "Hi")], "Hello", None), {}, "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_a_record_of_others_is_an_example(folder: Path, name: str) -> None:
    record, (prompt, completion, rejected), columns, shape = TEXTS[name]
    example = read_one(folder, record)
    assert (example.prompt, example.completion, example.rejected) == (prompt, completion, rejected)
    assert (example.columns, example.shape) == (columns, shape)


NUMBERS = [(3, "3"), (-1, "-1"), (0, "0"), (3.0, "3.0"), (0.5, "0.5"), (True, "true"), (False, "false"), ("3", "3")]


@pytest.mark.parametrize(("value", "answer"), NUMBERS)
@pytest.mark.parametrize("names", [("prefix", "suffix"), ("prompt", "completion"), ("question", "answer")])
def test_a_number_is_an_answer(folder: Path, names: tuple[str, str], value: Any, answer: str) -> None:
    assert read_one(folder, {names[0]: "?", names[1]: value}).completion == answer
    assert read_one(folder, {"query": "?", "label": [value]}).completion == answer


def test_numbers_are_preferred_and_rejected_too(folder: Path) -> None:
    example = read_one(folder, {"prompt": "2+2?", "chosen": 4, "rejected": False})
    assert (example.completion, example.rejected) == ("4", "false")


MORE = {"image": "images/1.png"}
IMAGES = {
    "LLaVA": {"conversations": [{"from": "human", "value": "<image>\nColor?"}, {"from": "gpt", "value": "red"}],
              **MORE},
    "a data URI": {"question": "\nColor?", "answer": "red", "image": URI},
    "OpenAI": {"messages": [
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": URI, "detail": "low"}}, {"type": "text", "text": "\nColor?"}]},
        {"role": "assistant", "content": "red"},
    ]},
    "OpenAI's responses": {"messages": [
        {"role": "user", "content": [
            {"type": "input_image", "image_url": URI}, {"type": "input_text", "text": "\nColor?"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "red"}]},
    ]},
    "a part with a path": {"messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": "images/1.png"}, text("\nColor?")]},
        {"role": "assistant", "content": "red"},
    ]},
    "a struct": {"query": "\nColor?", "label": ["red"], "image": {"bytes": None, "path": "images/1.png"}},
    "a wrapped data URI": {"query": "\nColor?", "label": ["red"], "images": [f"{URI[:90]}\n{URI[90:]}"]},
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_wherever_it_stands(folder: Path, name: str) -> None:
    example = read_one(folder, IMAGES[name])
    assert [image_bytes(image) for image in example.images] == [RED]
    asked = (
        example.prompt
        if isinstance(example.prompt, list)
        else [message("user", IMAGE, *example.prompt.split("<image>")[1:])]
    )
    assert asked == [message("user", IMAGE, "\nColor?")]
    assert (example.completion, example.columns) == ("red", {})


def test_the_bytes_say_the_format_of_a_data_uri(folder: Path) -> None:
    jpeg = encoded(Image.new("RGB", (8, 8), "blue"), "JPEG")
    uri = f"data:image/png;charset=x;base64,{base64.b64encode(jpeg).decode()}"
    example = read_one(folder, {"question": "Color?", "answer": "blue", "image": uri})
    assert decode_image(image_bytes(example.images[0]), (255, 255, 255), "x").format == "JPEG"


@pytest.mark.parametrize("value", [b"", {"bytes": b"", "path": "images/1.png"}])
def test_no_bytes_are_no_image(value: Any) -> None:
    with pytest.raises(InputError, match="the file is empty"):
        find_image(value)
    assert find_image({"bytes": RED, "path": "elsewhere/1.png"}) == RED


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"]


@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_pillows_keeps_its_pixels(mode: str) -> None:
    picture = Image.linear_gradient("L").resize((8, 8)).convert("RGB" if mode == "CMYK" else "L").convert(mode)
    data = find_image(picture)
    assert isinstance(data, bytes)
    found = Image.open(io.BytesIO(data))
    assert (found.mode, found.tobytes()) == (mode, picture.tobytes())


def test_an_image_of_pillows_is_upright_and_keeps_its_frames() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(io.BytesIO(encoded(Image.new("RGB", (8, 4)), "JPEG", exif=exif)))
    assert decode_image(find_image(turned), (0, 0, 0), "x").image.size == (4, 8)  # type: ignore[arg-type]
    busy = Image.effect_noise((8, 8), 90).convert("RGB")
    animated = Image.open(io.BytesIO(encoded(Image.new("RGB", (8, 8)), "WEBP", save_all=True, append_images=[busy])))
    opened = decode_image(find_image(animated), (0, 0, 0), "x")  # type: ignore[arg-type]
    assert (opened.frame, opened.frames) == (1, 2)


def test_images_that_are_not_asked_about_are_no_columns(folder: Path) -> None:
    record = {"question": "?", "answer": "red", "mask": {"bytes": None, "path": "m.png"}, "crops": [{"path": "c.png"}]}
    assert read_one(folder, {**record, "note": {"path": "x", "more": 1}}).columns == {
        "note": '{"path": "x", "more": 1}'
    }


LONG = "A" * 400_000
BAD = [
    ({"conversations": [HI, HELLO], "question": "?", "answer": "!"},
     r"the example has several shapes: conversations, question \+ answer \(got .*; fix: leave out or rename"),
    ({"messages": [HI, HELLO], "conversations": [HI, HELLO]}, "several shapes: messages, conversations"),
    ({"instruction": "?", "output": "!", "prompt": "?", "completion": "!"}, r"prompt \+ completion, instruction \+"),
    ({"query": "?", "label": ["!"], "answer": "!"}, r"several shapes: query \+ answer, query \+ label"),
    ({"messages": [HI], "chosen": [HI, HELLO], "rejected": [HI, HELLO]}, r"messages, chosen \+ rejected"),
    ({"instruction": "?", "input": ""}, r"no known shape .*fix: give one of: .*instruction \+ output"),
    ({"instruction": 5, "output": "!"}, "instruction: must be text"),
    ({"instruction": "?", "input": ["a"], "output": "!"}, "input: must be text"),
    ({"conversations": []}, "conversations: must be a list of messages"),
    ({"conversations": [{"from": "human", "value": "?"}]}, "conversations: there is no message before the answer"),
    ({"conversations": [{"from": "human", "value": "?"}] * 2}, "conversations: the answer must be one"),
    ({"conversations": [{"from": "judge", "value": "?"}, {"from": "gpt", "value": "!"}]},
     r"conversations\[0\]: unknown role \(got 'judge'\)"),
    ({"conversations": [{"from": "human", "value": "?", "weight": 0}, {"from": "gpt", "value": "!"}]}, "nothing else"),
    ({"prompt": "Bye", "chosen": [HI, HELLO], "rejected": [HI, HELLO]}, "prompt: the prompt is not that of the conv"),
    ({"prompt": "Hi", "chosen": [HI, HELLO], "rejected": [HELLO, HELLO]}, "chosen and rejected differ before"),
    ({"question": "?", "answer": []}, "answer: must be a text, a number or a message"),
    ({"question": "?", "answer": {}}, "answer: must be a text, a number or a message"),
    ({"question": "?", "answer": float("nan")}, r"answer: must be a text, a number .*got nan"),
    ({"question": "?", "answer": " "}, "answer: the answer is empty"),
    ({"question": "<image>?", "answer": "!"}, "images: 0 images for 1 places .*fix: give them in a column image"),
    ({"question": "?", "answer": "<image>"}, "answer: the answer contains an image, or the text <image>"),
    ({"prompt": "?", "chosen": "!", "rejected": "<image>"}, "rejected: the answer contains an image"),
    ({"prompt": "?", "chosen": "<image>", "rejected": "!"}, "chosen: the answer contains an image"),
    ({"label": "yes", "image": "images/1.png"}, "an image and an answer, but no question .*--data.question"),
    ({"question": "?", "answer": "!", "image": "https://a.b/c.png"}, r"images\[0\]: .*never fetched"),
    ({"messages": [message("user", {"type": "image_url", "image_url": {"url": "http://a.b/c.png"}}), HELLO]},
     "never fetched from a URL"),
    ({"messages": [message("user", {"type": "image_url", "image_url": {"src": "x"}}), HELLO]}, "must be the path of"),
    ({"messages": [message("user", {"type": "input_audio"}), HELLO]}, "unknown part of a message"),
    ({"question": "?", "answer": "!", "image": f"data:image/svg+xml,{LONG}"}, "must be in base64"),
    ({"question": "?", "answer": "!", "image": f"data:image/png;base64,{LONG}!"}, "data URI is damaged"),
    ({"question": "?", "answer": "!", "image": f"data:image/png;base64,{LONG}A"}, "data URI is damaged"),
    ({"question": "?", "answer": "!", "image": "data:image/png;base64,"}, "the file is empty"),
    ({"question": "?", "answer": "!", "image": LONG}, "cannot be the path of an image"),
    ({"question": "?", "answer": "!", "image": [[URI * 2000]]}, "must be the path of an image"),
    ({"question": "?", "answer": "!", "images": [{"bytes": URI * 2000}]}, "data URI is damaged"),
    ({"question": "?", "answer": "!", "image": {"bytes": None, "path": None}}, "must be the path of an image"),
    ({"messages": [message("user", {"type": "image", "data": URI * 2000}), HELLO]}, "unknown part of a message"),
    ({"messages": URI * 2000}, "must be a list of messages"),
    ({"question": "?", "answer": "!", "id": [URI * 2000]}, "id: must be text"),
]  # fmt: skip


@pytest.mark.parametrize(("record", "problem"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_a_record_that_cannot_be_used_is_named_in_few_words(folder: Path, record: Any, problem: str) -> None:
    path = write(folder, {"question": "?", "answer": "!"}, record)
    with pytest.raises(InputError, match=problem) as caught:
        read_examples(path)
    said = str(caught.value)
    assert said.startswith(f"{path}:2: ")
    assert len(said) < len(str(path)) + 600
    assert "A" * 70 not in said
    assert URI[:90] not in said


def test_a_data_uri_of_too_many_bytes_is_refused_before_it_is_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "MAX_BYTES", 50)
    monkeypatch.setattr("base64.b64decode", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(InputError, match="larger than 50 bytes"):
        read_one(folder, {"question": "?", "answer": "!", "image": URI})


def test_what_looks_like_a_place_is_text_where_there_are_no_images(folder: Path) -> None:
    turn = {"role": "assistant", "content": "Write <image>."}
    records: list[dict[str, Any]] = [
        {"prompt": "What is <image>?", "completion": "<image> is a tag"},
        {"messages": [message("user", "What is <image>?"), turn, HI, {"role": "assistant", "content": "No <image>"}]},
    ]
    for record in records:
        example = read_one(folder, record, images=False)
        assert "<image>" in example.completion
        with pytest.raises(InputError, match=r"0 images for|holds an image"):
            read_one(folder, record)
    assert example.prompt == [
        message("user", "What is <image>?"),
        message("assistant", "Write <image>."),
        message("user", "Hi"),
    ]
    with pytest.raises(InputError, match="0 images for 1 places"):
        read_one(folder, {"messages": [message("user", IMAGE, "?"), HELLO]}, images=False)
    shown = read_one(folder, {"prompt": "<image>?", "completion": "!", "image": "images/1.png"}, images=False)
    assert len(shown.images) == 1  # and the model says that it takes none
    asked = {"messages": [message("user", "<image>Color?"), HELLO], "image": "images/1.png"}
    assert read_one(folder, asked, images=False).prompt == [message("user", IMAGE, "Color?")]
    with pytest.raises(InputError, match="completion: the answer contains an image"):
        read_one(folder, {"prompt": "?", "completion": [message("assistant", IMAGE)]}, images=False)


def test_ids_that_come_again(folder: Path) -> None:
    ids = ["a", "b", "a", "a#2", "a", 7, 7]
    path = write(folder, *({"question": "?", "answer": str(number), "id": one} for number, one in enumerate(ids)))
    found = read_examples(path, repeated_ids=True)
    assert [example.id for example in found] == ["a", "b", "a#2", "a#2#2", "a#3", "7", "7#2"]
    assert [example.completion for example in found] == [str(number) for number in range(7)]
    with pytest.raises(InputError, match=r":3: id: the id occurs twice, first in line 1 \(got 'a'\)"):
        read_examples(path)


ASKED = [
    {"image": "images/1.png", "label": "yes"},
    {"image": "images/1.png", "suffix": "yes", "prefix": ""},
    {"images": ["images/1.png"], "answer": "yes", "question": ""},
]


@pytest.mark.parametrize("record", ASKED)
def test_one_question_for_all_images(folder: Path, record: dict[str, Any]) -> None:
    example = read_one(folder, {**record, "kind": "ad"}, question="Approved?")
    assert (example.prompt, example.completion) == ("<image>Approved?", "yes")
    assert (example.columns, example.shape) == ({"kind": "ad"}, "")


def test_a_question_of_its_own_is_kept(folder: Path) -> None:
    own = {"question": "Color?", "answer": "red", "image": "images/1.png"}
    assert read_one(folder, own, question="Approved?").prompt == "<image>Color?"
    with pytest.raises(InputError, match=r"several columns could be the answer \(got \['answer', 'label'\]\)"):
        read_one(folder, {"image": "images/1.png", "answer": "yes", "label": "no"}, question="Approved?")
    with pytest.raises(InputError, match="no known shape"):
        read_one(folder, {"answer": "yes"}, question="Approved?")


def headerless(*lines: str) -> list[dict[str, Any]]:
    def refuse(place: int, problem: str, **details: Any) -> InputError:
        return InputError(problem, file="ads.tsv", line=place, **details)

    cells = [line.split("\t") for line in lines]
    records = [(line, {str(n): cell or None for n, cell in enumerate(row)}) for line, row in enumerate(cells, start=1)]
    found = list(headerless_records(records, refuse))
    assert [place for place, _ in found] == [place for place, _ in records]
    return [record for _, record in found]


WHOLE = [
    "1\tTrue\tads\timages/1.png\tyes", "2\tFalse\tads\timages/2.png\tyes", "3\tTrue\treview\timages/3.png\tI see",
    "4\tFalse\timage\timages/4.png\tno", "5\tTrue\tlabel\timages/5.png\tNo.",
]  # fmt: skip


@pytest.mark.parametrize("first", range(5))
def test_a_table_without_a_header_in_any_order(first: int) -> None:
    lines = [WHOLE[first], *WHOLE[:first], *WHOLE[first + 1 :]]
    for found in (headerless(*lines), headerless(*(line.rpartition("\t")[0] for line in lines))):
        wanted = {"1": "yes", "2": "no", "3": "yes", "4": "no", "5": "yes"}
        assert {record["id"]: record["label"] for record in found} == wanted
        assert all(record["image"] == f"images/{record['id']}.png" for record in found)
        assert "ads" in {record["column 3"] for record in found}
    assert {record["id"]: record.get("prediction") for record in headerless(*lines)}["3"] == "I see"


def test_a_path_and_its_answer() -> None:
    assert headerless("images/1.png\tyes", "images/2.png\tno") == [
        {"id": "images/1.png", "image": "images/1.png", "label": "yes"},
        {"id": "images/2.png", "image": "images/2.png", "label": "no"},
    ]
    assert [record["label"] for record in headerless("1.png\tFalse", "2.png\tTrue")] == ["no", "yes"]
    assert [record["label"] for record in headerless("1.png\tTRUE", "2.png\tFALSE")] == ["yes", "no"]
    assert [record["label"] for record in headerless("1.png\tja", "2.png\tnein")] == ["ja", "nein"]
    assert [record["image"] for record in headerless("yes\t1.png", "no\t2.png")] == ["1.png", "2.png"]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["images/1.png\tmaybe"], "ads.tsv:1: no header, and no columns of images"),
        (["love it\tyes", "hate it\tno"], "ads.tsv:1: no header, and no columns of images"),
        (["1\tmaybe\ta.png\tyes", "2\tTrue\tb.png\tno", "3\tFalse\tc.png\tno"], "ads.tsv:1: column 2: .*'maybe'"),
        (["a.png\tyes", "b.png\tno", "c.png\tperhaps"], "ads.tsv:3: column 2.*: .*'perhaps'"),
        (["images/1.png\tyes", "images/2.png\t"], "ads.tsv:2: column 2.*: there is no expected answer"),
        (["1\tTrue\ta.png\tyes"] * 1000 + ["2\tperhaps\tb.png\tno"], "ads.tsv:1001: column 2: .*no expected answer"),
        (["1\tTrue\tyes\ta.png\tyes", "2\tTrue\tno\tb.png\tyes"], "ads.tsv:2: two expected answers"),
        (["https://a.b/1.png\tyes"], "no columns of images"),
    ],
)  # fmt: skip
def test_a_table_without_a_header_that_cannot_be_used(lines: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        headerless(*lines)
