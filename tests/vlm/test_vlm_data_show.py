"""``ftkit data show`` of examples with pictures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ftkit.cli import main


def config_of(folder: Path, module: str, examples: Path, target: Path) -> Path:
    sources = ", ".join(f"{name}: {examples}" for name in ("train", "val", "test"))
    target.write_text(
        f"model:\n  class_path: {module}\n  init_args: {{base_model: {folder}}}\n"
        f"data:\n  class_path: ftkit.VLMDataModule\n  init_args: {{{sources}}}\n"
    )
    return target


def test_an_example_with_pictures_is_shown(
    idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(idefics3_folder, "ftkit.VLMSFT", vlm_examples("messages"), tmp_path / "config.yaml")
    assert main(["data", "show", str(config), "--example", "1"]) == 0
    shown = capsys.readouterr().out
    assert "<global-img><image>(x4)" in shown
    assert "What colour?<end_of_utterance>\nAssistant:⟦ green<end_of_utterance>\n⟧" in shown
    assert "pixel_values: (1, 3, 3, 32, 32) float32" in shown
    assert "Examples: train 12, val 12, test 12; answers cut: 0, examples skipped: 0" in shown


def test_of_a_pair_both_answers_are_shown(
    idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(idefics3_folder, "ftkit.VLMDPO", vlm_examples("preference"), tmp_path / "config.yaml")
    assert main(["data", "show", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "Example 0 (d0), chosen" in shown
    assert "⟦ red<end_of_utterance>\n⟧" in shown
    assert "Example 0 (d0), rejected" in shown
    assert "⟦ green<end_of_utterance>\n⟧" in shown
