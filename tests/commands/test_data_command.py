"""``ftkit data show`` marks what is learnt, for text and for pictures alike."""

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
        f"model:\n  class_path: ftkit.CausalLMSFT\n  init_args: {{model: {gpt2_folder}}}\n"
        f"data:\n  class_path: ftkit.TextDataModule\n  init_args: {{train: {tmp_path / 'sums.jsonl'}}}\n"
    )
    return config


def test_a_text_row_is_shown(text_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(text_config)]) == 0
    shown = capsys.readouterr().out
    assert "1+2=⟦3<|endoftext|>⟧" in shown
    assert "Row 0 (r00001): 6 tokens, 2 learnt" in shown
    assert main(["data", "show", str(text_config), "--row", "1"]) == 0
    assert "2+2=⟦4" in capsys.readouterr().out
    assert main(["data", "show", str(text_config), "--row", "2"]) == 2
    assert "row: the train split has 2 rows" in capsys.readouterr().err


def test_a_classifier_has_no_answers(tiny_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(tiny_config)]) == 2
    assert "not trained on answers" in capsys.readouterr().err
