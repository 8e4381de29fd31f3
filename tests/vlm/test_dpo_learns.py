"""Preferences about pictures are learnt, and hold for pictures that were never seen."""

import csv
import json
import random
import statistics
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from peft import LoraConfig
from test_vlm_learns import COLOURS, SHAPES, draw_examples

from ftkit.results.predictions import read_predictions
from ftkit.training.recorder import RunRecorder
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.sft import VLMSFT
from vlm_folders import build_idefics3

ANSWERS = {"What colour?": list(COLOURS), "What shape?": list(SHAPES), "How many bars?": ["1", "2", "3", "4"]}


def pairs(folder: Path, count: int, seed: int) -> Path:
    """Examples of drawn pictures: the right answer is chosen, another one to the same question rejected."""
    rng = random.Random(seed)
    examples = []
    for line in draw_examples(folder, count, seed).read_text().splitlines():
        example = json.loads(line)
        asked, told = example.pop("messages")
        wrong = rng.choice([answer for answer in ANSWERS[example["question"]] if answer != told["content"]])
        examples.append({**example, "prompt": [asked], "chosen": told["content"], "rejected": wrong})
    path = folder / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(example)}\n" for example in examples))
    return path


def trainer(folder: Path, epochs: int) -> L.Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    options: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "logger": False, "callbacks": [RunRecorder()]}
    return L.Trainer(default_root_dir=folder, max_epochs=epochs, gradient_clip_val=1.0, **options, **quiet)


def half_trained(folder: Path) -> Path:
    """A small model that knows what answers look like, and a part of them."""
    data = VLMDataModule(str(draw_examples(folder / "sft", 640, seed=1)), fractions=(0.9, 0.05), batch_size=32, seed=1)
    torch.manual_seed(1)
    module = VLMSFT(
        base_model=str(build_idefics3(folder / "model", tiles=1, spread=False)), freeze_vision=False,
        seed=1, max_new_tokens=8, optimizer=lambda params: torch.optim.AdamW(params, lr=2e-3, weight_decay=0.01),
    )  # fmt: skip
    trainer(folder, epochs=2).fit(module, datamodule=data)
    module.export(folder / "sft-model")
    return folder / "sft-model"


@pytest.mark.slow
def test_unseen_pairs_are_preferred_rightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    train, test = pairs(tmp_path / "train", 640, seed=2), pairs(tmp_path / "test", 240, seed=3)
    data = VLMDataModule(str(train), test=str(test), batch_size=16, evaluation_batch_size=60, seed=1)
    module = VLMDPO(
        base_model=str(half_trained(tmp_path)), beta=0.2, adapter=LoraConfig(r=16, lora_alpha=32), seed=1,
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-3, weight_decay=0.0),
    )  # fmt: skip
    run = trainer(tmp_path, epochs=4)

    def gaps() -> list[float]:
        """By how much the chosen answer of each unseen pair is the likelier one."""
        run.test(module, datamodule=data, verbose=False)
        with (tmp_path / "predictions-test.tsv").open() as file:
            examples = csv.DictReader(file, delimiter="\t")
            return [float(example["logps_chosen"]) - float(example["logps_rejected"]) for example in examples]

    before = gaps()
    run.fit(module, datamodule=data)
    after = gaps()
    moved = [late - early for early, late in zip(before, after, strict=True)]
    rightly = [sum(gap > 0 for gap in gaps) / len(gaps) for gaps in (before, after)]
    accuracy = float(read_predictions(tmp_path / "predictions-test.tsv").correct.mean())
    print(f"chosen likelier {rightly[0]:.3f} -> {rightly[1]:.3f}; moved {statistics.fmean(moved):.2f}; {accuracy:.3f}")
    # Right and wrong answers are the same words: only who looks at the picture can tell.
    assert accuracy > 0.7
    assert rightly[1] > rightly[0] + 0.1
    assert statistics.fmean(moved) > 5 * statistics.stdev(moved) / len(moved) ** 0.5
