"""Conversations from a file to the prediction file: what a template adds is learnt, and no part of an answer."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from chat_folders import CHATML, ENDED_BY_TEMPLATE, QWEN3, TEMPLATES, TOOL, build_chat_model, perfectly_tuned
from ftkit.cli import main
from ftkit.errors import InputError
from ftkit.language.data import TextDataModule
from ftkit.language.sft import CausalLMSFT
from ftkit.models.generation import Answers
from ftkit.results.predictions import read_predictions
from ftkit.training.recorder import RunRecorder
from ftkit.training.resume import compare_settings, settings

COLOURS = ["blue", "A red one.", "1 , 2", "green"]


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def asked_twice(**more: Any) -> dict[str, Any]:
    turns = [said("user", "1+1?"), said("assistant", "2"), said("user", "2+2?"), said("assistant", "4")]
    return {"messages": [said("system", "Be brief."), *turns], **more}


def write(folder: Path, examples: list[dict[str, Any]]) -> Path:
    path = folder / "examples.jsonl"
    path.write_text("".join(f"{json.dumps(example)}\n" for example in examples), encoding="utf-8")
    return path


def trainer(folder: Path, **options: Any) -> L.Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return L.Trainer(
        max_steps=1, accelerator="cpu", devices=1, default_root_dir=folder, callbacks=[RunRecorder()],
        enable_checkpointing=False, **{**quiet, **options},
    )  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_perfectly_tuned_model_is_always_right(name: str, tmp_path: Path) -> None:
    model = build_chat_model(tmp_path / "model", *TEMPLATES[name])
    examples = write(tmp_path, [{"messages": [said("user", "Which?"), said("assistant", one)]} for one in COLOURS])
    module, data = (
        CausalLMSFT(str(model), max_new_tokens=64),
        TextDataModule(examples, examples, examples, batch_size=3),
    )
    perfectly_tuned(module)
    for stage, split in (("validate", "val"), ("test", "test"), ("predict", "test")):
        run = trainer(tmp_path / stage)
        getattr(run, stage)(module, datamodule=data)
        found = read_predictions(tmp_path / stage / f"predictions-{split}.tsv")
        assert found.predictions == found.labels == COLOURS
        assert set(found.extra["stopped"]) == {"yes"}
        if stage != "predict":
            assert run.logged_metrics[f"{split}/accuracy"] == 1


def test_answers_to_questions_are_without_what_the_template_adds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = CausalLMSFT(str(build_chat_model(tmp_path / "model", *TEMPLATES["qwen3"])))
    written = Answers(["<think>\n\n</think>\n\nblue", "<think>\nHm.\n</think>\n\nred", "blue"], [True] * 3)
    monkeypatch.setattr(module, "generate", lambda prompts: written)
    assert module.answer(["a", "b", "c"]) == ["blue", "<think>\nHm.\n</think>\n\nred", "blue"]


@pytest.mark.parametrize(
    ("supervise", "learnt", "line"),
    [
        ("last", ["4<|im_end|>\n"], "the last assistant turn of each conversation (3 of 5 assistant turns)"),
        (
            "all",
            ["2<|im_end|>\n", "4<|im_end|>\n"],
            "all assistant turns that answer something (5 of 5 assistant turns)",
        ),
    ],
)
def test_a_step_on_turns_and_tools_says_what_is_learnt(
    supervise: Any, learnt: list[str], line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_tools = CHATML.replace("{% for", "{{ tools | tojson if tools }}{% for", 1)
    model = build_chat_model(tmp_path / "model", with_tools, ENDED_BY_TEMPLATE)
    single = {"messages": [said("user", "3+3?"), said("assistant", "6")]}
    examples = write(tmp_path, [asked_twice(tools=[TOOL]), asked_twice(), single])
    module = CausalLMSFT(str(model), max_new_tokens=4)
    data = TextDataModule(examples, examples, examples, batch_size=3, supervise=supervise)
    run = trainer(tmp_path / "run")
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        run.fit(module, datamodule=data)
    assert f"Supervised: {line}" in caplog.text
    assert run.global_step == 1
    assert torch.isfinite(run.logged_metrics["val/loss"])
    inputs = next(iter(data.val_dataloader()))["inputs"]
    first, labels = module.tokenizer.decode(inputs["input_ids"][0]), inputs["labels"][0]
    assert '"name": "weather"' in first
    assert module.tokenizer.decode(labels[labels != -100]) == "".join(learnt)
    assert "weather" not in module.tokenizer.decode(inputs["input_ids"][1])
    assert json.loads((tmp_path / "run" / "result.json").read_text())["data"]["supervised_turns"] == {
        "supervise": supervise,
        "supervised": 3 if supervise == "last" else 5,
        "turns": 5,
    }


def test_data_show_marks_every_turn_that_is_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build_chat_model(tmp_path / "model", CHATML, ENDED_BY_TEMPLATE)
    examples = write(tmp_path, [asked_twice()])
    (config := tmp_path / "config.yaml").write_text(
        f"model:\n  class_path: ftkit.CausalLMSFT\n  init_args: {{base_model: {model}}}\n"
        f"data:\n  class_path: ftkit.TextDataModule\n  init_args: {{train: {examples}, supervise: all}}\n"
    )
    assert main(["data", "show", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "Supervised: all assistant turns that answer something (2 of 2 assistant turns)" in shown
    assert "assistant\n⟦2<|im_end|>\n⟧<|im_start|>user\n2+2?" in shown
    assert "assistant\n⟦4<|im_end|>\n⟧" in shown


def test_a_resumed_training_learns_the_same_turns_and_tools(tmp_path: Path) -> None:
    engine = L.Trainer(logger=False, barebones=True)
    examples = write(tmp_path, [asked_twice()])
    stored, now = (settings(engine, TextDataModule(examples, supervise=which)) for which in ("last", "all"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"other settings: data\.supervise was last, is all"):
        compare_settings(stored, now)
    stored = settings(engine, TextDataModule(examples))
    other = settings(engine, TextDataModule(write(tmp_path, [asked_twice(tools=[TOOL])])))
    assert compare_settings(stored, other, allow_changed=True).keys() == {"data_sha256"}


def test_turns_that_cannot_be_learnt_are_refused_by_their_line(tmp_path: Path) -> None:
    model = build_chat_model(tmp_path / "model", QWEN3, ENDED_BY_TEMPLATE)
    single = {"messages": [said("user", "3+3?"), said("assistant", "6")]}
    data = TextDataModule(write(tmp_path, [single, asked_twice()]), supervise="all")
    with pytest.raises(InputError, match=r"examples\.jsonl:2: supervise: the assistant turn in message 3 differs"):
        trainer(tmp_path).fit(CausalLMSFT(str(model)), datamodule=data)
