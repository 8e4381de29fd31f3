"""Signals: the first one stops the training at a safe point, the second one at once."""

import json
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ftkit.run_folder import FORMAT
from ftkit.storage import CHECKSUM_SUFFIX
from ftkit.training.checkpoint import AtomicCheckpointIO, read_checkpoint
from ftkit.training.safe_stop import SafeStop


class Signalled(L.LightningModule):
    """Gets signals in chosen batches, counted over the run."""

    def __init__(self, *signals: tuple[int, int]) -> None:
        super().__init__()
        self.weight, self.signals, self.seen = nn.Parameter(torch.ones(1)), signals, 0

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        for batch_number, number in self.signals:
            if batch_number == self.seen:
                signal.raise_signal(number)
        self.seen += 1
        return (self.weight * batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, module: Signalled, stop: SafeStop, **options: Any) -> None:
    rows: Any = torch.ones(8, 1)
    L.Trainer(
        accelerator="cpu", max_epochs=1, default_root_dir=folder, logger=False, callbacks=[stop],
        plugins=[AtomicCheckpointIO()], enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, **options,
    ).fit(module, DataLoader(rows))  # fmt: skip


def test_it_waits_for_the_end_of_a_window(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    module = Signalled((1, signal.SIGTERM))
    with pytest.raises(SIGTERMException):
        fit(tmp_path, module, SafeStop(), accumulate_grad_batches=4)
    assert module.seen == 4
    stored = read_checkpoint(tmp_path / "checkpoints" / "interrupted.ckpt")
    assert stored["global_step"] == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == {"format": FORMAT, "status": "interrupted", "reason": "SIGTERM", "epoch": 0, "step": 1}
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("number", "ending"), [(signal.SIGINT, SystemExit), (signal.SIGTERM, SIGTERMException)], ids=["INT", "TERM"]
)
def test_a_second_signal_ends_at_once_and_saves_nothing(number: int, ending: Any, tmp_path: Path) -> None:
    module, before = Signalled((1, number), (2, number)), signal.getsignal(signal.SIGINT)
    with pytest.raises(ending):
        fit(tmp_path, module, SafeStop(), accumulate_grad_batches=4)
    signal.signal(signal.SIGINT, before)  # Lightning leaves it ignored
    assert module.seen == 2
    assert not (tmp_path / "checkpoints" / "interrupted.ckpt").exists()


def test_a_training_that_ends_removes_what_an_interrupted_one_left(tmp_path: Path) -> None:
    left = [tmp_path / "checkpoints" / f"interrupted.ckpt{suffix}" for suffix in ("", CHECKSUM_SUFFIX)]
    left[0].parent.mkdir()
    for file in left:
        file.write_bytes(b"")
    fit(tmp_path, Signalled(), SafeStop())
    assert not list(left[0].parent.iterdir())
