"""A training that SIGKILL ends right after a checkpoint, before what follows it, is whole once it is resumed."""

import os
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from test_resume import Net, assert_equal, run

from ftkit.training.checkpoint import AtomicCheckpointIO

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["ftkit.training.resume", "test_resume"])


class Plateau(Net):
    """Halves its rate after each epoch that is not far better than the one before."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=10.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val/error"}}


def steps(every: int = 1) -> dict[str, Any]:
    return {"every_n_train_steps": every, "save_top_k": -1}


# By name: the checkpoints that can be resumed from, and further options.
TRAININGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "every step": (steps(), {"val_check_interval": 3}),
    "every other step, every row": (steps(2), {"log_every_n_steps": 1}),
    "windows of two": (steps(), {"accumulate_grad_batches": 2, "val_check_interval": 2}),
    "no validation": (steps(), {"limit_val_batches": 0}),
    "so many steps": (steps(), {"max_steps": 10, "max_epochs": -1}),
    "after validation": ({"save_top_k": -1, "save_on_train_epoch_end": False}, {"val_check_interval": 3}),
    "after an epoch": ({"save_top_k": -1}, {}),
    "stopped early": (steps(), {"stops": True, "max_epochs": 8}),
    "stopped early, after an epoch": ({"save_top_k": -1}, {"stops": True, "max_epochs": 8}),
    "stopped early, after validation": (
        {"save_top_k": -1, "save_on_train_epoch_end": False},
        {"stops": True, "max_epochs": 8, "val_check_interval": 3},
    ),
    "plateau, after an epoch": ({"save_top_k": -1}, {"module": Plateau}),
    "plateau, every step": (steps(), {"module": Plateau}),
}
FAST = [
    ("every step", 2), ("every step", 9), ("every other step, every row", 0), ("windows of two", 3),
    ("no validation", 6), ("so many steps", 9), ("after validation", 1), ("after an epoch", 2), ("stopped early", 13),
    ("stopped early, after an epoch", 1), ("stopped early, after validation", 1), ("plateau, after an epoch", 1),
    ("plateau, every step", 6),
]  # fmt: skip


def train(folder: Path, name: str, resume: bool = False) -> Net:
    saved, options = TRAININGS[name]
    options = dict(options)
    module, stops = options.pop("module", Net), options.pop("stops", False)
    callbacks = [EarlyStopping("val/error", patience=1, min_delta=1e9)] if stops else []
    saved = {"filename": "{epoch}-{step}", "enable_version_counter": False, **saved}
    resumable = ModelCheckpoint(folder / "checkpoints", **saved)
    return run(folder, resume=resume, module=module, more=[*callbacks, resumable], **options)[0]


def killed(folder: Path, name: str, after: int) -> None:
    """Train, in a process of its own, and die when the given checkpoint that can be resumed from is saved."""
    torch.set_num_threads(1)
    real, left = AtomicCheckpointIO.save_checkpoint, [after]

    def save(self: AtomicCheckpointIO, checkpoint: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        real(self, checkpoint, *args, **kwargs)
        if "optimizer_states" in checkpoint:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    AtomicCheckpointIO.save_checkpoint = save  # type: ignore[method-assign]
    train(folder, name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trainings that nothing ended: (folder, model), each made once."""
    done: dict[str, tuple[Path, Net]] = {}

    def make(name: str) -> tuple[Path, Net]:
        if name not in done:
            folder = tmp_path_factory.mktemp("whole")
            done[name] = folder, train(folder, name)
        return done[name]

    return make


@pytest.mark.parametrize(
    ("name", "after"),
    [
        pytest.param(name, after, marks=() if (name, after) in FAST else (pytest.mark.slow,))
        for name in TRAININGS
        for after in range(21)
    ],
)
def test_nothing_is_lost(name: str, after: int, whole: Any, tmp_path: Path) -> None:
    folder, model = whole(name)
    if after >= sum(1 for file in (folder / "checkpoints").glob("*.ckpt") if file.stem != "best"):
        pytest.skip("there are not so many checkpoints")
    process = CONTEXT.Process(target=killed, args=(tmp_path, name, after))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert_equal(tmp_path, train(tmp_path, name, resume=True), folder, model)
