"""A pushed vision-language model: what its card says of its use works."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftkit import VLMSFT
from ftkit.cli import main
from ftkit.commands.push import push

ADAPTERS = {
    "lora": {"--model.adapter": "peft.LoraConfig", "--model.adapter.r": 4},
    "oft": {"--model.adapter": "peft.OFTConfig", "--model.adapter.oft_block_size": 8},
}


@pytest.fixture(scope="module", params=ADAPTERS)
def run(
    request: pytest.FixtureRequest,
    vlm_examples: Callable[[str], Path],
    idefics3_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run of two steps, so fast that its adapters change what the model says."""
    folder = tmp_path_factory.mktemp("runs") / "colours"
    examples = str(vlm_examples("messages"))
    options = {
        "--model": "ftkit.VLMSFT", "--model.base_model": idefics3_folder, **ADAPTERS[request.param],
        "--model.optimizer": "torch.optim.SGD",
        "--model.optimizer.lr": 1.0, "--data": "ftkit.VLMDataModule", "--data.train": examples, "--data.val": examples,
        "--data.evaluate_splits": "[val]",
        "--trainer.max_steps": 2, "--trainer.limit_val_batches": 0, "--trainer.accelerator": "cpu",
        "--trainer.enable_progress_bar": "false", "--trainer.default_root_dir": folder,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTKIT_CACHE", str(folder.with_name("cache")))
        assert main(["fit", *(str(word) for option in options.items() for word in option)]) == 0
    return folder


def test_the_card_of_preferences_says_whose_share_it_tells(
    vlm_examples: Callable[[str], Path], idefics3_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = str(vlm_examples("preference"))
    options = {
        "--model": "ftkit.VLMDPO", "--model.base_model": idefics3_folder, "--data": "ftkit.VLMDataModule",
        "--data.train": examples, "--data.test": examples, "--trainer.max_steps": 1, "--trainer.accelerator": "cpu",
        "--trainer.enable_progress_bar": "false", "--trainer.default_root_dir": tmp_path / "run",
    }  # fmt: skip
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    for command in ("fit", "test"):
        assert main([command, *(str(word) for option in options.items() for word in option)]) == 0
    push(tmp_path / "run", "me/preferences", dry_run=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| split | n | preference accuracy |" in card
    assert "exact match" not in card


@pytest.mark.parametrize("merge", [False, True])
def test_the_card_tells_how_to_load_it(
    run: Path, idefics3_folder: Path, merge: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "me" / "colours"
    push(run, "me/colours", dry_run=out, format="transformers" if merge else None)
    card = (out / "README.md").read_text()
    assert "ftkit serve" not in card  # it serves texts only
    assert ("peft" in card.partition("## Use")[2]) != merge
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    (tmp_path / idefics3_folder.name).symlink_to(idefics3_folder)  # the adapters name their base by its last part
    monkeypatch.chdir(tmp_path)  # where me/colours is a folder
    loaded: dict[str, Any] = {}
    exec(code[1], loaded)
    tuned = VLMSFT.load(run, dtype="float32")
    inputs = loaded["inputs"]  # of a picture and a question
    assert "pixel_values" in inputs
    with torch.no_grad():
        expected = tuned.net(**inputs).logits
        torch.testing.assert_close(loaded["model"].float()(**inputs).logits, expected, atol=1e-3, rtol=1e-3)
        base = VLMSFT(base_model=str(idefics3_folder), dtype="float32")
        base.configure_model()
        assert not torch.allclose(base.net(**inputs).logits, expected, atol=1e-2)  # or the adapters could be missing
