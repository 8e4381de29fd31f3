"""Shapes of text records in files as people have them: loaded by the data module, and trained one step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from chat_folders import CHATML, ENDED_BY_TEMPLATE, build_chat_model
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.language.data import TextDataModule
from ftkit.language.sft import CausalLMSFT
from ftkit.training.recorder import RunRecorder


def jsonl(folder: Path, records: list[dict[str, Any]]) -> Path:
    path = folder / "train.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def alpaca(folder: Path) -> Path:
    import pandas

    records = [
        {"instruction": "Add the numbers.", "input": "1 and 2", "output": "3"},
        {"instruction": "Name a color.", "input": "", "output": "red"},
    ]
    pandas.DataFrame(records).to_json(folder / "alpaca.jsonl", orient="records", lines=True)
    return folder / "alpaca.jsonl"


def sharegpt(folder: Path) -> Path:
    told = [("system", "Be brief."), ("human", "1+2?"), ("gpt", "3"), ("human", "And 1 more?"), ("gpt", "4")]
    turns = [{"from": role, "value": text} for role, text in told]
    return jsonl(folder, [{"id": "identity_0", "conversations": turns}] * 2)


def openai(folder: Path) -> Path:
    asked = {"role": "user", "content": [{"type": "input_text", "text": "1+2?"}]}
    return jsonl(folder, [{"messages": [asked, {"role": "assistant", "content": "3"}]}] * 2)


def question_answer(folder: Path) -> Path:
    import datasets

    table = datasets.Dataset.from_dict({"question": ["1+2?", "2+2?"], "answer": [3, 4], "level": ["easy"] * 2})
    table.save_to_disk(folder / "sums")
    return folder / "sums"


def ultrafeedback(folder: Path) -> Path:
    import datasets

    record = {
        "prompt": "1+2?", "prompt_id": "7ca1", "chosen": [said("user", "1+2?"), said("assistant", "3")],
        "rejected": [said("user", "1+2?"), said("assistant", "4")], "score_chosen": 9.0, "score_rejected": 2.5,
        "messages": [said("user", "1+2?"), said("assistant", "3")],
    }  # fmt: skip
    datasets.Dataset.from_list([record] * 2).save_to_disk(folder / "ultrafeedback")
    return folder / "ultrafeedback"


def tags(folder: Path) -> Path:
    return jsonl(folder, [{"prompt": "What does <image> do?", "completion": "<image> shows a picture"}] * 2)


# How a file is written; what stands in the first prompt and is learnt of it, and what is said of the shape.
SHAPES: dict[str, tuple[Callable[[Path], Path], str, str, str]] = {
    "Alpaca": (alpaca, "user\nAdd the numbers.\n\n1 and 2<|im_end|>", "3", "Alpaca (instruction + output)"),
    "ShareGPT": (sharegpt, "system\nBe brief.<|im_end|>", "4", "ShareGPT (conversations)"),
    "OpenAI": (openai, "user\n1+2?<|im_end|>", "3", ""),
    "question and answer": (question_answer, "1+2?", "3", "question and answer (question + answer)"),
    "UltraFeedback": (ultrafeedback, "user\n1+2?<|im_end|>", "3", ""),
    "tags": (tags, "What does <image> do?", "<image> shows a picture", ""),
}


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_is_shown_and_trained_on(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    write, asked, learnt, shape = SHAPES[name]
    source, model = write(tmp_path), build_chat_model(tmp_path / "model", CHATML, ENDED_BY_TEMPLATE)
    data = TextDataModule(source, batch_size=2)
    run = L.Trainer(
        max_steps=1, accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path / "run",
        callbacks=[RunRecorder()], enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        run.fit(CausalLMSFT(str(model), max_new_tokens=4), datamodule=data)
    assert run.global_step == 1
    assert torch.isfinite(run.logged_metrics["train/loss"])
    assert (f"Shape of train examples: {shape}" in caplog.text) == bool(shape)
    report = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["data"]
    assert report.get("shapes", {}) == ({"train": [shape]} if shape else {})
    (config := tmp_path / "config.yaml").write_text(
        f"model:\n  class_path: ftkit.CausalLMSFT\n  init_args: {{base_model: {model}}}\n"
        f"data:\n  class_path: ftkit.TextDataModule\n  init_args: {{train: {source}}}\n"
    )
    assert main(["data", "show", str(config)]) == 0
    shown = capsys.readouterr().out
    assert asked in shown
    assert f"⟦{learnt}<|im_end|>" in shown
    assert (f"Shape of train examples: {shape}\n" in shown) == bool(shape)


def test_ids_come_twice_in_training_alone(tmp_path: Path) -> None:
    records = [{"id": "a", "question": "1+2?", "answer": 3}] * 2
    source = jsonl(tmp_path, records)
    assert [example.id for example in TextDataModule(source).examples("train")] == ["a", "a#2"]
    for split in ("val", "test"):
        data = TextDataModule(source, **{split: source})
        with pytest.raises(InputError, match=r"train\.jsonl:2: id: the id occurs twice, first in line 1"):
            data.examples(split)  # type: ignore[arg-type]
