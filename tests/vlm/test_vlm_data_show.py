"""``ftkit data show`` of rows with pictures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ftkit.cli import main


def config_of(folder: Path, module: str, rows: Path, target: Path) -> Path:
    sources = ", ".join(f"{name}: {rows}" for name in ("train", "val", "test"))
    target.write_text(
        f"model:\n  class_path: {module}\n  init_args: {{model: {folder}}}\n"
        f"data:\n  class_path: ftkit.VLMDataModule\n  init_args: {{{sources}}}\n"
    )
    return target


def test_a_row_with_pictures_is_shown(
    idefics3_folder: Path, vlm_rows: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(idefics3_folder, "ftkit.VLMSFT", vlm_rows("messages"), tmp_path / "config.yaml")
    assert main(["data", "show", str(config), "--row", "1"]) == 0
    shown = capsys.readouterr().out
    assert "<global-img><image>(x4)" in shown
    assert "What colour?<end_of_utterance>\nAssistant:⟦ green<end_of_utterance>\n⟧" in shown
    assert "pixel_values: (1, 3, 3, 32, 32) float32" in shown
    assert "Rows: train 12, val 12, test 12; answers cut: 0, rows skipped: 0" in shown


def test_of_a_pair_both_answers_are_shown(
    idefics3_folder: Path, vlm_rows: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(idefics3_folder, "ftkit.VLMDPO", vlm_rows("preference"), tmp_path / "config.yaml")
    assert main(["data", "show", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "Row 0 (d0), chosen" in shown
    assert "⟦ red<end_of_utterance>\n⟧" in shown
    assert "Row 0 (d0), rejected" in shown
    assert "⟦ green<end_of_utterance>\n⟧" in shown
