"""What commands print, line by line: their own words and no library's."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

from ftkit.library_output import quiet_libraries
from ftkit.models.loading import load_body

SCRIPT = """
import sys
from ftkit.cli import main
for line in sys.stdin:
    print("$", line.strip(), flush=True)
    print("exit code", main(line.split()), flush=True)
"""
NOTICE = r"notice: using the run folder .*/run, which holds this config\.yaml"
TRAINABLE = r"Trainable: .* parameters \(.*\): h\.3 \(12\), ln_f \(2\), head \(2\)"
LOADED = r"Loaded model weights from the checkpoint at .*\.ckpt"
TRAINED = [r"train/loss .*, val/accuracy .*", "run folder: run", r"next: ftkit test --config run/config\.yaml"]
LOGGED = [r"[┏┃┡│└].*"] * 6  # Lightning's table of loss and accuracy
TESTED = [
    r"test: accuracy .*",
    r"warning: test: .* of its \d+ test examples are right, not significantly more than with always answering .*",
    r"run folder: run \(predictions-test\.tsv\)",
    "next: ftkit evaluate run/predictions-test.tsv",
]
FINDING = r"(ok|n/a) .*"
IMPORTING = r"importing PyTorch and Lightning \.\.\."  # once a process
EXPECTED = {
    "fit --config base.yaml --trainer.default_root_dir run": [IMPORTING, TRAINABLE, *TRAINED],
    "fit --config run/config.yaml --resume --trainer.max_epochs 3": [
        NOTICE,
        TRAINABLE,
        r"Restored all states from the checkpoint at .*\.ckpt",
        *TRAINED,
    ],
    "test --config run/config.yaml": [NOTICE, LOADED, *LOGGED, *TESTED],
    "predict --config run/config.yaml": [NOTICE, LOADED, *TESTED],
    "doctor base.yaml": [FINDING] * 12,
    "ablation run . --out out": [
        r"start +\[0/1\] .*",
        r"done +\[1/1\] .*",
        r"row  name .*",
        r"results: out",
        r"next: ftkit ablation report out",
    ],
    "ablation report out": ["out/report/report.html, .*"],
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, messages_file: Path) -> dict[str, list[str]]:
    """The lines that a process prints on both streams, by command."""
    folder = tmp_path_factory.mktemp("quiet")
    (folder / "rows").mkdir()
    (folder / "rows" / "01_again.yaml").write_text("# Again?\n{}\n")
    config = {
        "model": {"class_path": "GPT2Classifier", "init_args": {"base_model": "demo"}},
        "data": {"class_path": "SpamDataModule", "init_args": {"source": str(messages_file)}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input="\n".join(EXPECTED),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        timeout=300,
        check=True,
    )
    before, *sections = done.stdout.split("$ ")
    assert before == ""
    return {section.splitlines()[0]: section.splitlines()[1:] for section in sections}


@pytest.mark.parametrize("command", EXPECTED)
def test_a_command_prints_its_own_words_alone(command: str, said: dict[str, list[str]]) -> None:
    expected, lines = [*EXPECTED[command], "exit code 0"], said[command]
    if command.startswith("ablation run"):  # the table is tested elsewhere
        lines = [*lines[:3], *lines[-3:]]
    assert len(lines) == len(expected), said[command]
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line)


def test_no_public_name_prints_anything_when_it_is_imported() -> None:
    script = "import ftkit; print(len([getattr(ftkit, name) for name in ftkit.__all__]))"
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert re.fullmatch(r"\d\d\n", done.stdout), done.stdout
    assert done.stderr == ""


def test_the_hook_of_our_modules_is_no_news_in_a_program_either() -> None:
    script = (
        "import ftkit, warnings; warnings.warn('You have overridden `on_before_batch_transfer` in `LightningModule`')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert done.stderr == ""


def test_a_head_that_is_left_out_of_a_classifier_is_no_news(tmp_path: Path) -> None:
    """transformers' own table of keys shows `lm_head.weight | UNEXPECTED`."""
    config = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign, assignment]
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addHandler(handler)
    try:
        quiet_libraries()
        load_body(str(tmp_path), AutoConfig.from_pretrained(tmp_path))
        assert said == []
    finally:
        logger.removeHandler(handler)
