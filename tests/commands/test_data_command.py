"""``ftkit data show`` marks what is learnt, for text and for pictures alike."""

import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ftkit.cli import main
from ftkit.commands.data import marked


def test_what_is_learnt_is_marked_and_long_runs_are_shortened(gpt2_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gpt2_folder)
    ids = tokenizer("aaaaab 3", add_special_tokens=False)["input_ids"]
    assert marked(ids, [False] * 6 + [True] * 2, tokenizer) == "a(x5)b⟦ 3⟧"
    assert marked(ids, [True, *[False] * 7], tokenizer) == "⟦a⟧a(x4)b 3"


@pytest.fixture
def text_config(gpt2_folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "sums.jsonl").write_text(
        '{"prompt": "1+2=", "completion": "3"}\n{"prompt": "2+2=", "completion": "4"}\n'
    )
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model:\n  class_path: ftkit.CausalLMSFT\n  init_args: {{base_model: {gpt2_folder}}}\n"
        f"data:\n  class_path: ftkit.TextDataModule\n  init_args: {{train: {tmp_path / 'sums.jsonl'}}}\n"
    )
    return config


def test_a_text_example_is_shown(text_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(text_config)]) == 0
    shown = capsys.readouterr().out
    assert "1+2=⟦3<|endoftext|>⟧" in shown
    assert "Example 0 (r00001): 6 tokens, 2 supervised" in shown
    assert main(["data", "show", str(text_config), "--example", "1"]) == 0
    assert "2+2=⟦4" in capsys.readouterr().out
    for example in ("2", "-1"):
        assert main(["data", "show", str(text_config), "--example", example]) == 2
        assert f"example: the train split has 2 examples (got {example})" in capsys.readouterr().err


MODEL = "model:\n  init_args:\n    "


@pytest.mark.parametrize(
    ("settings", "marks"),
    [
        ("pooling: last", r"[^⟦]+<\|endoftext\|>\(x\d+\)⟦<\|endoftext\|>⟧"),
        ("pooling: first", r"⟦.⟧[^⟦]+<\|endoftext\|>\(x\d+\)"),
        ("pooling: last_real", r"[^⟦]+⟦.⟧<\|endoftext\|>\(x\d+\)"),
        ("pooling: mean", r"⟦.+<\|endoftext\|>\(x\d+\)⟧"),
        ("pooling: last\ndata:\n  init_args:\n    padding: none\n    batch_size: 1", r"[^⟦]+⟦.⟧"),
    ],
)
def test_a_message_is_shown_with_the_positions_that_its_label_is_read_from(
    settings: str, marks: str, tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (layer := tmp_path / "layer.yaml").write_text(f"{MODEL}{settings}\n")
    assert main(["data", "show", str(tiny_config), str(layer), "--example", "3"]) == 0
    examples, _, title, text, *_ = capsys.readouterr().out.splitlines()
    assert examples.startswith("Examples: train ")
    assert re.fullmatch(
        r"Example 3 \(\w+\): \d+ tokens(, \d+ of them padding)?; label (ham|spam), pooled between ⟦ and ⟧", title
    )
    assert re.fullmatch(marks, text)


def test_a_example_that_is_not_there_is_refused_with_those_that_are(
    tiny_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "show", str(tiny_config), "--example", "5000"]) == 2
    assert re.search(
        r"error: example: the train split has (\d+) examples \(got 5000\); fix: give 0 to ", capsys.readouterr().err
    )
