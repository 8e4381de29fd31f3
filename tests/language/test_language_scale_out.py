"""A language model on two processes learns, validates and predicts what it does on one."""

import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from peft import LoraConfig

from ftkit import CausalLMSFT
from ftkit.errors import InputError
from ftkit.language.data import TextDataModule
from ftkit.results.predictions import read_predictions
from ftkit.training.checkpoint import read_checkpoint
from ftkit.training.guards import FiniteGuard
from ftkit.training.recorder import RunRecorder
from ftkit.training.resume import ExactResume
from ftkit.training.safe_stop import SafeStop
from ftkit.training.sharding import FullySharded, shard
from scale_out import assert_same_run, run, run_in_two, weights

# 19 examples are 2 * 8 + 3 in batches of 4 on two processes: the last one is of 2 examples here and 1 there.
TRAIN, VAL, TEST = 19, 5, 7


@pytest.fixture(scope="module")
def still_folder(gpt2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GPT-2 without dropout, which two processes would draw for other examples than one does."""
    folder = Path(shutil.copytree(gpt2_folder, tmp_path_factory.mktemp("weights") / "still"))
    config = json.loads((folder / "config.json").read_text())
    config |= dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {}
    for split, count in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        examples = [
            {"id": f"{split}{i}", "prompt": f"{'say ' * (i % 3)}{i}:", "completion": " " + "ab" * (1 + 5 * i % 8)}
            for i in range(count)
        ]
        paths[split] = tmp_path / f"{split}.jsonl"
        paths[split].write_text("".join(f"{json.dumps(example)}\n" for example in examples), encoding="utf-8")
    return paths


def maker(still_folder: Path, files: dict[str, Path], data: dict[str, Any], **options: Any) -> Any:
    def make(batch_size: int) -> tuple[CausalLMSFT, TextDataModule]:
        options.setdefault("optimizer", lambda parameters: torch.optim.SGD(parameters, lr=0.05))
        module = CausalLMSFT(str(still_folder), seed=3, max_new_tokens=4, **options)
        return module, TextDataModule(**files, batch_size=batch_size, **data)

    return make


@pytest.mark.parametrize(
    ("data", "options", "trainer"),
    [
        ({"bucket": True}, {}, {}),
        ({}, {"adapter": LoraConfig()}, {"accumulate_grad_batches": 2}),
    ],
    ids=["all, buckets", "lora, accumulated"],
)
def test_two_processes_are_one_with_twice_the_batch(
    data: dict[str, Any],
    options: dict[str, Any],
    trainer: dict[str, Any],
    still_folder: Path,
    files: dict[str, Path],
    tmp_path: Path,
) -> None:
    make = maker(still_folder, files, data, **options)
    run(tmp_path, make, 8, **trainer)
    run_in_two(tmp_path / "two", make, 4, **trainer)
    assert_same_run(tmp_path, tmp_path / "two", 1e-6)
    assert read_predictions(tmp_path / "two" / "predictions-test.tsv").ids == [f"test{i}" for i in range(TEST)]


@pytest.mark.parametrize("adapter", [None, LoraConfig(target_modules="all-linear")], ids=["all", "lora"])
def test_weights_in_parts_are_whole_weights(
    adapter: Any, still_folder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    make = maker(still_folder, files, {}, adapter=adapter)
    run(tmp_path, make, 8)
    run_in_two(tmp_path / "two", make, 4, "fsdp2")
    assert_same_run(tmp_path, tmp_path / "two", 1e-5)
    whole, *parts = (torch.load(folder) for folder in (tmp_path / "held0.pt", *(tmp_path / "two").glob("held*.pt")))
    assert len(parts) == 2
    assert max(parts) < 0.51 * whole


@pytest.mark.parametrize("first", [pytest.param("one process", marks=pytest.mark.slow), "fsdp2"])
def test_a_run_goes_on_with_another_number_of_processes(
    first: str, still_folder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    """Momentum and schedule go on too, so the optimizer's state has found its parameters."""
    adamw = lambda parameters: torch.optim.AdamW(parameters, lr=1e-3)  # noqa: E731
    make = maker(still_folder, files, {}, adapter=LoraConfig(target_modules="all-linear"), optimizer=adamw)
    run(tmp_path, make, 8)
    start = tmp_path / "two"
    if first == "fsdp2":
        run_in_two(start, make, 4, "fsdp2", max_epochs=1)
        run(tmp_path / "on", make, 8, ckpt_path=start / "epoch=0.ckpt")
    else:
        run(start, make, 8, max_epochs=1)
        run_in_two(tmp_path / "on", make, 4, "fsdp2", ckpt_path=start / "epoch=0.ckpt")
    for name, value in weights(tmp_path).items():
        torch.testing.assert_close(weights(tmp_path / "on")[name], value, atol=1e-5, rtol=0)


class Told(L.Callback):
    """Tells the second process to end, in the first batch of a window of the second epoch."""

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.global_rank, trainer.current_epoch, batch_idx) == (1, 1, 0):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_one_of_two_processes_is_told_to_end(
    strategy: str, still_folder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    adamw = lambda parameters: torch.optim.AdamW(parameters, lr=1e-3)  # noqa: E731
    make = maker(still_folder, files, {}, adapter=LoraConfig(target_modules="all-linear"), optimizer=adamw)
    options = {"accumulate_grad_batches": 2, "max_epochs": 3}
    for folder, more in ((tmp_path / "whole", []), (tmp_path / "stopped", [Told()])):
        saved = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, enable_version_counter=False)
        callbacks = [SafeStop(), RunRecorder(), FiniteGuard(), saved, ExactResume(), *more]
        run_in_two(folder, make, 4, strategy, **options, callbacks=callbacks)
    assert json.loads((folder / "result.json").read_text())["reason"] == "SIGTERM"
    left = folder / "checkpoints" / "interrupted.ckpt"
    assert read_checkpoint(left)["global_step"] == 3
    assert not (folder / "epoch=1.ckpt").exists()
    run_in_two(folder, make, 4, strategy, **options, callbacks=callbacks[:-1], ckpt_path=left)
    assert not left.exists()
    expected, found = (weights(tmp_path / name, epoch=2) for name in ("whole", "stopped"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-7, rtol=0)


def test_what_cannot_be_sharded_is_refused(still_folder: Path) -> None:
    from lightning.pytorch.strategies import ModelParallelStrategy

    module = CausalLMSFT(str(still_folder))
    module.trainer = SimpleNamespace(strategy=ModelParallelStrategy())  # type: ignore[assignment]
    with pytest.raises(InputError, match="fsdp2"):
        shard(module, torch.nn.Linear(1, 1))
    module.trainer = SimpleNamespace(strategy=FullySharded())  # type: ignore[assignment]
    module.preference = True  # type: ignore[assignment]
    with pytest.raises(InputError, match="preferences"):
        shard(module, torch.nn.Linear(1, 1))
    module = CausalLMSFT(str(still_folder), quantization="nf4", adapter=LoraConfig())
    module.trainer = SimpleNamespace(strategy=FullySharded())  # type: ignore[assignment]
    with pytest.raises(InputError, match="quantiz"):
        shard(module, torch.nn.Linear(1, 1))
