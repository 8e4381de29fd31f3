"""Shapes of records with images in files as people have them: loaded by the data module, and trained one step."""

import base64
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pandas
import pytest
import torch
from PIL import Image

from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.examples.reader import read_examples
from ftkit.examples.sources import open_source
from ftkit.training.recorder import RunRecorder
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.sft import VLMSFT
from ftkit.vlm.yes_no import VLMYesNo

COLORS = ("red", "green", "blue", "white")


def picture(color: str) -> Image.Image:
    return Image.new("RGB", (20, 20), color)


def encoded(color: str, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture(color).save(buffer, form)
    return buffer.getvalue()


def uri(color: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(encoded(color)).decode()}"


def jsonl(folder: Path, records: list[dict[str, Any]]) -> Path:
    path = folder / "train.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def llava(folder: Path) -> Path:
    (folder / "coco").mkdir()
    records = []
    for color in COLORS:
        (folder / "coco" / f"{color}.jpg").write_bytes(encoded(color, "JPEG"))
        told = [{"from": "human", "value": "<image>\nWhich color?"}, {"from": "gpt", "value": color}]
        again = [{"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Yes."}]
        records.append({"id": f"0000{color}", "image": f"coco/{color}.jpg", "conversations": told + again})
    text_only = [{"from": "human", "value": "Name a color."}, {"from": "gpt", "value": "red"}]
    return jsonl(folder, [*records, {"id": "text", "conversations": text_only}])


def openai(folder: Path) -> Path:
    records = []
    for color in COLORS:
        asked = [{"type": "text", "text": "Which color?"}, {"type": "image_url", "image_url": {"url": uri(color)}}]
        told = [{"role": "user", "content": asked}, {"role": "assistant", "content": color}]
        records.append({"messages": [{"role": "system", "content": "Be brief."}, *told]})
    return jsonl(folder, records)


def chartqa(folder: Path) -> Path:
    import datasets

    records = [
        {"image": picture(color), "query": "Which color?", "label": [color], "human_or_machine": number % 2}
        for number, color in enumerate(COLORS)
    ]
    kinds = datasets.ClassLabel(names=["human", "machine"])
    table = datasets.Dataset.from_list(records).cast_column("human_or_machine", kinds)
    assert isinstance(table.features["image"], datasets.Image)
    table.save_to_disk(folder / "ChartQA")
    return folder / "ChartQA"


def rlaif(folder: Path) -> Path:
    import datasets

    records = [
        {"ds_name": "RLAIF-V", "image": {"bytes": encoded(color), "path": f"{color}.jpg"}, "question": "Which color?",
         "chosen": color, "rejected": "none", "origin_dataset": "made", "idx": number, "image_path": f"{color}.jpg"}
        for number, color in enumerate(COLORS)
    ]  # fmt: skip
    datasets.Dataset.from_list(records).cast_column("image", datasets.Image()).save_to_disk(folder / "rlaif")
    return folder / "rlaif"


def answers(folder: Path) -> Path:
    (folder / "white.png").write_bytes(encoded("white"))
    records = [{"question": "How many?", "answer": count, "image": "white.png"} for count in (1, 2.5, True, "4")]
    return jsonl(folder, records)


def parquet(folder: Path) -> Path:
    import pandas

    records = [{"image": {"bytes": encoded(c), "path": None}, "question": "Which color?", "answer": c} for c in COLORS]
    pandas.DataFrame(records).to_parquet(folder / "train.parquet")
    return folder / "train.parquet"


def pictures(folder: Path) -> list[dict[str, Any]]:
    return [{"image": picture(color), "question": "Which color?", "answer": color} for color in COLORS]


def frame(folder: Path) -> Any:
    import pandas

    return pandas.DataFrame(pictures(folder))


def table(folder: Path) -> Path:
    import pandas

    records = []
    for color in COLORS:
        (folder / f"{color}.png").write_bytes(encoded(color))
        records.append({"image": f"{color}.png", "question": "Which color?", "answer": color})
    pandas.DataFrame(records).to_csv(folder / "train.csv", index=False)
    return folder / "train.csv"


def scans(folder: Path) -> Path:
    picture("red").save(folder / "red.tif", save_all=True, append_images=[picture("blue")])
    picture("blue").save(folder / "blue.avif")
    records = [{"prefix": "Which color?", "suffix": color, "image": f"{color}.{end}"} for color, end in
               (("red", "tif"), ("blue", "avif"))] * 2  # fmt: skip
    return jsonl(folder, records)


# How a file is written; the prompt's text in it, the first answer, and what is said of the shape.
SHAPES: dict[str, tuple[Callable[[Path], Any], str, str, str]] = {
    "LLaVA": (llava, "Which color?", "red", "ShareGPT (conversations)"),
    "OpenAI": (openai, "Which color?", "red", ""),
    "ChartQA": (chartqa, "Which color?", "red", "ChartQA (query + label)"),
    "RLAIF-V": (rlaif, "Which color?", "red", "RLAIF-V (question + chosen + rejected)"),
    "question and answer": (answers, "How many?", "1", "question and answer (question + answer)"),
    "Parquet of structs": (parquet, "Which color?", "red", "question and answer (question + answer)"),
    "images of Pillow": (pictures, "Which color?", "red", "question and answer (question + answer)"),
    "a frame of images": (frame, "Which color?", "red", "question and answer (question + answer)"),
    "CSV": (table, "Which color?", "red", "question and answer (question + answer)"),
    "TIFF and AVIF": (scans, "Which color?", "red", ""),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))


def trained(module: L.LightningModule, data: VLMDataModule, folder: Path) -> dict[str, Any]:
    """The data of the result of one step."""
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", devices=1, logger=False, default_root_dir=folder, callbacks=[RunRecorder()],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 1
    assert torch.isfinite(trainer.logged_metrics["train/loss"])
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))["data"]


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_is_trained_on(
    name: str, idefics3_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write, question, answer, shape = SHAPES[name]
    source = write(tmp_path)
    data = VLMDataModule(source, source, batch_size=2, evaluate_splits=["val"])
    of_module = VLMDPO if name == "RLAIF-V" else VLMSFT
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        report = trained(of_module(base_model=str(idefics3_folder), max_new_tokens=4), data, tmp_path / "run")
    first = data.examples("train")[0]
    texts = first.prompt if isinstance(first.prompt, str) else json.dumps(first.prompt)
    assert question in texts
    assert (len(first.images), first.shape) == (1, shape)
    assert report.get("shapes", {}).get("train", []) == ([shape] if shape else [])
    assert (f"Shape of train examples: {shape}" in caplog.text) == bool(shape)
    inputs = data.datasets["train"][0]
    taught = data.datasets["train"].encoder.processor.tokenizer.decode(inputs.answers[0])
    assert taught.strip().startswith("Yes." if name == "LLaVA" else answer)
    assert "pixel_values" in inputs.images


@pytest.mark.parametrize("name", ["LLaVA", "OpenAI", "ChartQA", "RLAIF-V", "question and answer"])
def test_each_shape_is_shown(
    name: str, idefics3_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, question, _, shape = SHAPES[name]
    model = "ftkit.VLMDPO" if name == "RLAIF-V" else "ftkit.VLMSFT"
    source = write(tmp_path)
    (config := tmp_path / "config.yaml").write_text(
        f"model:\n  class_path: {model}\n  init_args: {{base_model: {idefics3_folder}}}\n"
        f"data:\n  class_path: ftkit.VLMDataModule\n"
        f"  init_args: {{train: {source}, val: {source}, evaluate_splits: [val]}}\n"
    )
    assert main(["data", "show", str(config)]) == 0
    shown = capsys.readouterr().out
    assert question in shown
    assert "  pixel_values: (" in shown
    assert (f"Shape of train examples: {shape}\n" in shown) == bool(shape)


GOOD = (True, False, False, True, False, True)


def headerless(folder: Path, of_record: bool, first: int = 0) -> Path:
    """Moderation data without a header: as in the record, with a model's answers, or a path and its answer."""
    (folder / "images").mkdir(exist_ok=True)
    lines = []
    for number, good in enumerate(GOOD):
        (folder / "images" / f"{number}.png").write_bytes(encoded(COLORS[number % 4]))
        category = ("ads", "review", "label", "image", "answer", "id")[number]  # also names of columns
        whole = f"{100 + number}\t{good}\t{category}\timages/{number}.png\t{'yes' if number % 2 else 'no'}"
        lines.append(whole if of_record else f"images/{number}.png\t{'yes' if good else 'no'}")
    path = folder / ("record.tsv" if of_record else "pairs.tsv")
    path.write_text("".join(f"{line}\n" for line in [*lines[first:], *lines[:first]]))
    return path


@pytest.mark.parametrize("of_record", [True, False])
@pytest.mark.parametrize("first", range(6))
def test_moderation_data_without_a_header_in_any_order(of_record: bool, first: int, tmp_path: Path) -> None:
    source = headerless(tmp_path, of_record, first)
    found = {example.images[0]: example for example in read_examples(source, question="Approved?")}
    for number, good in enumerate(GOOD):
        example = found[(tmp_path / "images" / f"{number}.png").resolve()]
        assert (example.prompt, example.completion) == ("<image>Approved?", "yes" if good else "no")
        assert example.id == (f"{100 + number}" if of_record else f"images/{number}.png")
        assert example.columns.get("data_prediction") == (("no", "yes")[number % 2] if of_record else None)
    of_frame = pandas.read_csv(source, sep="\t", header=None)  # of numbers and booleans, too
    read = read_examples(of_frame, tmp_path, question="Approved?")
    assert [(one.id, one.completion, one.images) for one in read] == [
        (one.id, one.completion, one.images) for one in found.values()
    ]
    header = "id\tlabel\tkind\timage\tanswer\n" if of_record else "image\tlabel\n"
    (named := tmp_path / "named.tsv").write_text(header + source.read_text())
    assert open_source(named).columns == header.split()
    with pytest.raises(InputError, match=r"tsv:1: the example has an image and an answer, but no question"):
        read_examples(source)
    source.write_text(source.read_text() + ("9\tmaybe\tads\timages/1.png\tno\n" if of_record else "images/1.png\t?\n"))
    with pytest.raises(InputError, match=rf"{source.name}:7: column 2.*: .*no expected answer \(got '(maybe|\?)'\)"):
        read_examples(source, question="Approved?")


@pytest.mark.parametrize("of_record", [True, False])
@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"ratio": (1, 2), "sample": 3}, {"yes": 1, "no": 2}),
        ({"keep": ["fn"], "sample": 1}, {"yes": 1}),  # 0 is good, and was answered no
        ({"keep": ["fp", "tp"], "sample": 3}, {"yes": 2, "no": 1}),  # 1, 3 and 5
    ],
)
def test_moderation_data_are_sampled_by_ratio_and_outcome(
    of_record: bool, options: dict[str, Any], sizes: dict[str, int], paligemma_folder: Path, tmp_path: Path
) -> None:
    outcomes = {} if "ratio" in options else {"outcomes": str(headerless(tmp_path, of_record=True, first=3))}
    source = headerless(tmp_path, of_record)
    data = VLMDataModule(
        source, source, question="Approved?", seed=1, evaluate_splits=["val"], batch_size=3, **options, **outcomes
    )
    report = trained(VLMYesNo(base_model=str(paligemma_folder), max_new_tokens=4), data, tmp_path / "run")
    assert report["sizes"]["train"] == sum(sizes.values())
    assert Counter(example.completion for example in data.datasets["train"].examples) == sizes


def test_one_question_is_asked_of_every_image(paligemma_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for color in COLORS:
        (tmp_path / "images" / f"{color}.png").write_bytes(encoded(color))
    labels = ("yes", "no", "no", "yes")
    source = jsonl(
        tmp_path, [{"image": f"images/{c}.png", "label": label} for c, label in zip(COLORS, labels, strict=True)]
    )
    data = VLMDataModule(
        source, source, question="Approved?", batch_size=2, sample=2, ratio=(1, 1), evaluate_splits=["val"]
    )
    report = trained(VLMYesNo(base_model=str(paligemma_folder), max_new_tokens=4), data, tmp_path / "run")
    assert report["sizes"]["train"] == 2
    assert {example.prompt for example in data.examples("train")} == {"<image>Approved?"}
