"""Killed twice, at different places, with checkpoints inside the epochs: the run ends as one that was never killed."""

import json
import signal
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import victim
import yaml  # type: ignore[import-untyped]
from outcomes import assert_same

from ftkit.training.checkpoint import read_checkpoint

# 12 examples in three batches, windows of two batches: two steps an epoch, the second of a ragged window.
EPOCHS = 3
PLACES = [
    ("after a checkpoint", "second batch"),
    ("second batch", "during save"),
    ("during save", "after a checkpoint"),
]


@pytest.fixture
def tasks(
    gpt2_folder: Path, idefics3_folder: Path, vlm_examples: Callable[[str], Path], messages_file: Path, tmp_path: Path
) -> dict[str, tuple[str, Path, str, dict[str, Any]]]:
    """By name: module, base model, data module and its options."""
    texts = tmp_path / "texts.jsonl"
    rows = [{"id": f"r{n}", "prompt": f"{n} +" + " 1" * (n % 4), "completion": " x" * (1 + n % 5)} for n in range(12)]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labelled = tmp_path / "labelled.tsv"
    lines = [line.split("\t", 1) for line in messages_file.read_text().splitlines()[:12]]
    labelled.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for label, text in lines))
    colours = vlm_examples("messages")
    answers = colours.with_name("yes-or-no.jsonl")
    asked = [json.loads(line) for line in colours.read_text().splitlines()]
    for number, row in enumerate(asked):
        row["messages"][-1]["content"] = "yes" if number % 2 else "no"
    answers.write_text("".join(json.dumps(row) + "\n" for row in asked))

    def splits(file: Path) -> dict[str, str]:
        return dict.fromkeys(("train", "val", "test"), str(file))

    texts_of, pictures = "ftkit.TextDataModule", "ftkit.VLMDataModule"
    return {
        "classifier": ("ftkit.TextClassifier", gpt2_folder, "ftkit.TextClassificationDataModule", splits(labelled)),
        "language": ("ftkit.CausalLMSFT", gpt2_folder, texts_of, {**splits(texts), "bucket": True}),
        "vlm": ("ftkit.VLMSFT", idefics3_folder, pictures, splits(colours)),
        "preferences": ("ftkit.VLMDPO", idefics3_folder, pictures, splits(vlm_examples("preference"))),
        "yes or no": ("ftkit.VLMYesNo", idefics3_folder, pictures, splits(answers)),
    }


def config(path: Path, module: str, model: Path, data: str, options: dict[str, Any]) -> Path:
    """LoRA with dropout and a falling rate; one callback saves after each step, another keeps every second one."""
    adapter = {"class_path": "peft.LoraConfig", "init_args": {"lora_dropout": 0.2}}
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}}
    tuned = {"base_model": str(model), "adapter": adapter, "optimizer": optimizer, "scheduler": "linear"}
    if module != "ftkit.TextClassifier":
        tuned["max_new_tokens"] = 4
    saves = [
        {"every_n_train_steps": 1, "filename": "last", "enable_version_counter": False},
        {"every_n_train_steps": 2, "filename": "kept-{step}", "save_top_k": -1},
    ]
    kind = "lightning.pytorch.callbacks.ModelCheckpoint"
    size = 4 if module == "ftkit.TextClassifier" else 5  # three batches of the examples that there are
    tree = {
        "seed_everything": 5,
        "model": {"class_path": module, "init_args": tuned},
        "data": {"class_path": data, "init_args": {**options, "batch_size": size}},
        "trainer": {
            "max_epochs": EPOCHS, "accumulate_grad_batches": 2, "accelerator": "cpu", "devices": 1,
            "log_every_n_steps": 1, "enable_progress_bar": False, "enable_model_summary": False,
            "callbacks": [{"class_path": kind, "init_args": init_args} for init_args in saves],
        },
    }  # fmt: skip
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def same(found: Any, expected: Any) -> bool:
    """Compare trees of tensors and plain values, bit by bit."""
    if isinstance(expected, torch.Tensor):
        return torch.equal(found, expected)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[name], expected[name]) for name in expected)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


FAST = ("classifier", PLACES[0])
CASES = [
    pytest.param(*case, id=f"{case[0]}: {' then '.join(case[1])}", marks=[] if case == FAST else [pytest.mark.slow])
    for case in product(("classifier", "language", "vlm", "preferences", "yes or no"), PLACES)
]


@pytest.mark.parametrize(("task", "places"), CASES)
def test_it_ends_as_if_nothing_had_been(task: str, places: tuple[str, str], tasks: Any, tmp_path: Path) -> None:
    path, log = config(tmp_path / "config.yaml", *tasks[task]), tmp_path / "log"
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def ftkit(command: str, folder: Path, *more: str, **strike: Any) -> int:
        arguments = [command, "--config", str(path), "--trainer.default_root_dir", str(folder), *more]
        return victim.run(arguments, log=log, **strike, FTKIT_CACHE=str(folder.with_suffix(".cache")))

    assert ftkit("fit", whole) == 0, log.read_text()
    steps = []
    for number, place in enumerate(places):
        more = ["--resume", "true"] if number else []
        assert ftkit("fit", broken, *more, where=place, number=signal.SIGKILL) == -signal.SIGKILL, log.read_text()
        steps += [read_checkpoint(file)["global_step"] for file in broken.glob("checkpoints/last.ckpt")]
    assert not steps or steps[-1] < 2 * EPOCHS
    assert ftkit("fit", broken, "--resume", "true") == 0, log.read_text()
    for folder in (broken, whole) if task != "preferences" else ():  # answers to compare are not generated
        assert ftkit("test", folder) == 0, log.read_text()
    assert_same(broken, whole)
    for name in ("last.ckpt", "kept-step=2.ckpt", "kept-step=4.ckpt", "kept-step=6.ckpt"):
        found, expected = (read_checkpoint(folder / "checkpoints" / name) for folder in (broken, whole))
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
            assert same(found[part], expected[part]), f"{name}: {part}"
