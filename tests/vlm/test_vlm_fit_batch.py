"""A batch of pictures that does not fit is split, and the adapters are those of the whole batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from ftkit.training.checkpoint import trainable_parameters
from ftkit.training.fit_batch import FitBatch
from ftkit.training.resume import ExactResume
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.dpo import VLMDPO
from ftkit.vlm.model import VLMModule
from ftkit.vlm.sft import VLMSFT

SHAPE_OF: dict[type[VLMModule], str] = {VLMSFT: "messages", VLMDPO: "preference"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))


def fit(folder: Path, kind: type[VLMModule], model: Path, examples: Path, room: int = 100) -> Any:
    """A run in which more than ``room`` examples are out of memory, amid a backward pass."""

    class Small(kind):  # type: ignore[misc, valid-type]
        full, failures = False, 0

        def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
            self.full = len(batch["id"]) > room
            return super().training_step(batch, batch_idx)

        def on_fit_start(self) -> None:
            first, *_ = trainable_parameters(self).values()
            first.register_hook(self.fail)  # most others have their gradients by then

        def fail(self, gradient: Tensor) -> None:
            if self.full:
                self.failures += 1
                raise torch.OutOfMemoryError("injected")

    L.seed_everything(1)
    module = Small(base_model=str(model), seed=1, optimizer=lambda params: torch.optim.AdamW(params, lr=1e-2, eps=1e-3))
    callback = FitBatch()
    L.Trainer(
        accelerator="cpu", max_epochs=2, default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[callback, ExactResume()],
        limit_val_batches=0,
    ).fit(module, datamodule=VLMDataModule(*[str(examples)] * 3, batch_size=8, seed=1))  # fmt: skip
    return module, callback


def learnt(module: VLMModule) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainable_parameters(module).values()])


@pytest.mark.parametrize("kind", list(SHAPE_OF))
def test_the_adapters_are_those_of_the_whole_batch(
    kind: type[VLMModule], idefics3_folder: Path, vlm_examples: Callable[[str], Path], tmp_path: Path
) -> None:
    examples = vlm_examples(SHAPE_OF[kind])  # 12 of them: batches of 8 and 4
    whole, found = fit(tmp_path, kind, idefics3_folder, examples)
    assert (found.fitted, whole.failures) == (8, 0)
    split, found = fit(tmp_path, kind, idefics3_folder, examples, room=2)
    assert (found.fitted, split.failures) == (2, 2)
    assert split.trainer.global_step == whole.trainer.global_step == 4
    torch.testing.assert_close(learnt(split), learnt(whole), atol=2e-5, rtol=0)
