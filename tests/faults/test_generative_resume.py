"""A language or vision-language training that is told to end in the middle of an epoch, and gone on with, is whole."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import victim
import yaml  # type: ignore[import-untyped]
from outcomes import assert_same

from ftkit.training.checkpoint import read_checkpoint

ROWS, BATCH_SIZE = 12, 2  # six batches in an epoch, three steps


@pytest.fixture
def of_wing(gpt2_folder: Path, idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path) -> Any:
    """By name: module, base model, data module, its rows and further options of it."""
    rows = tmp_path / "rows.jsonl"
    texts = [
        {"id": f"r{n}", "prompt": f"{n} +" + " 1" * (n % 4), "completion": " x" * (1 + n % 5)} for n in range(ROWS)
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    return {
        "language": ("ftkit.CausalLMSFT", gpt2_folder, "ftkit.language.data.TextDataModule", rows, {"bucket": True}),
        "vlm": ("ftkit.vlm.sft.VLMSFT", idefics3_folder, "ftkit.vlm.data.VLMDataModule", vlm_examples("messages"), {}),
        "preferences": (
            "ftkit.vlm.dpo.VLMDPO", idefics3_folder, "ftkit.vlm.data.VLMDataModule", vlm_examples("preference"), {},
        ),
    }  # fmt: skip


def config(path: Path, module: str, model: Path, data: str, rows: Path, options: dict[str, Any]) -> Path:
    """Two epochs of LoRA with dropout and a falling rate, windows of two batches."""
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}}
    scheduler = {"class_path": "torch.optim.lr_scheduler.LinearLR", "init_args": {"total_iters": 6}}
    adapter = {"class_path": "peft.LoraConfig", "init_args": {"lora_dropout": 0.2}}
    tuned = {"base_model": str(model), "adapter": adapter, "max_new_tokens": 4}
    splits = dict.fromkeys(("train", "val", "test"), str(rows))
    saved = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    saved["init_args"] = {"filename": "last", "enable_version_counter": False}  # type: ignore[assignment]
    tree = {
        "seed_everything": 5,
        "model": {"class_path": module, "init_args": {**tuned, "optimizer": optimizer, "scheduler": scheduler}},
        "data": {"class_path": data, "init_args": {**splits, "batch_size": BATCH_SIZE, **options}},
        "trainer": {
            "max_epochs": 2, "accumulate_grad_batches": 2, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1,
            "enable_progress_bar": False, "enable_model_summary": False, "callbacks": [saved],
        },
    }  # fmt: skip
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.mark.parametrize("wing", ["language", pytest.param("vlm", marks=pytest.mark.slow), "preferences"])
def test_ended_in_the_middle_of_an_epoch(wing: str, of_wing: Any, tmp_path: Path) -> None:
    path = config(tmp_path / "config.yaml", *of_wing[wing])
    log, (whole, broken) = tmp_path / "log", (tmp_path / "whole", tmp_path / "broken")

    def ftkit(command: str, folder: Path, *more: str, **strike: Any) -> int:
        arguments = [command, "--config", str(path), "--trainer.default_root_dir", str(folder), *more]
        cache = str(folder.with_suffix(".cache"))  # each its own
        return victim.run(arguments, log=log, **strike, FTKIT_CACHE=cache)

    assert ftkit("fit", whole) == 0, log.read_text()
    assert ftkit("fit", broken, where="generative, mid-epoch", number=signal.SIGTERM) == 143, log.read_text()
    assert "Traceback" not in log.read_text()
    stopped = read_checkpoint(broken / "checkpoints" / "interrupted.ckpt")
    assert (stopped["epoch"], stopped["global_step"]) == (1, 5)  # of 6: after the second window of the second epoch
    assert ftkit("fit", broken, "--resume", "true") == 0, log.read_text()
    expected = read_checkpoint(whole)["state_dict"]
    assert all("lora" in name for name in expected)
    assert any(not torch.equal(stopped["state_dict"][name], expected[name]) for name in expected)
    for folder in (broken, whole) if wing != "preferences" else ():  # answers to compare are not generated
        assert ftkit("test", folder) == 0, log.read_text()
    assert_same(broken, whole)
    assert wing == "preferences" or (whole / "predictions-test.tsv").exists()
