"""Runs of one process and of several, on the same rows, for the scale-out tests."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.distributed.tensor import DTensor

from ftkit.training.checkpoint import AtomicCheckpointIO
from ftkit.training.guards import FiniteGuard
from ftkit.training.recorder import RunRecorder

# Makes module and data module; given the rows in a batch of one process.
Make = Callable[[int], tuple[L.LightningModule, L.LightningDataModule]]


def run(folder: Path, make: Make, batch_size: int, strategy: Any = "auto", devices: int = 1, **options: Any) -> None:
    """Train two epochs, validating each, and test; the folder gets the checkpoint, predictions and figures."""
    L.seed_everything(7, verbose=False)
    ckpt_path = options.pop("ckpt_path", None)
    module, data = make(batch_size)
    trainer = L.Trainer(
        **{
            "default_root_dir": folder,
            "accelerator": "cpu",
            "devices": devices,
            "strategy": strategy,
            "max_epochs": 2,
            "num_sanity_val_steps": 0,
            "logger": False,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "plugins": [AtomicCheckpointIO()],
            "callbacks": [
                RunRecorder(),
                FiniteGuard(),
                ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, enable_version_counter=False),
            ],
            **options,
        }
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    held = (parameter.to_local() if isinstance(parameter, DTensor) else parameter for parameter in module.parameters())
    torch.save(sum(part.numel() for part in held), folder / f"held{trainer.global_rank}.pt")
    trainer.test(module, datamodule=data, verbose=False)
    metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}
    torch.save(metrics, folder / f"metrics{trainer.global_rank}.pt")


def run_in_two(folder: Path, make: Make, batch_size: int, strategy: str = "ddp", **options: Any) -> None:
    """The same with two processes."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = (port, folder, make, batch_size, strategy, options)
    # A fork has everything imported already.
    mp.start_processes(_process, arguments, nprocs=2, start_method="fork")


def _process(
    rank: int, port: int, folder: Path, make: Make, batch_size: int, strategy: Any, options: dict[str, Any]
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", NODE_RANK="0")
    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    chosen = DDPStrategy(process_group_backend="gloo") if strategy == "ddp" else strategy
    with suppress(SIGTERMException):  # told to end: that is no failure, for which the other process would be killed
        run(folder, make, batch_size, chosen, devices=2, **options)


def weights(folder: Path, epoch: int = 1) -> dict[str, torch.Tensor]:
    """What was trained, by name."""
    return torch.load(folder / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]


def assert_same_run(one: Path, other: Path, tolerance: float) -> None:
    """Weights, losses and metrics agree; the prediction files have the same rows in the same order."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    start = weights(one, epoch=0)
    assert any(not torch.equal(start[name], first[name]) for name in first)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=tolerance, rtol=0, msg=f"{name} differs")
    expected = torch.load(one / "metrics0.pt")
    for file in sorted(other.glob("metrics*.pt")):
        found = torch.load(file)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert abs(found[name] - value) < max(tolerance, 1e-6), (file.name, name, found[name], value)
    for file in one.glob("predictions-*.tsv"):
        assert _predicted(file) == _predicted(other / file.name)


def _predicted(file: Path) -> list[list[str]]:
    """Id, label and prediction of each row."""
    return [line.split("\t")[:3] for line in file.read_text(encoding="utf-8").split("\n")]
