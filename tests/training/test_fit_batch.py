"""A batch that does not fit is split, and the weights are those of the batch that was asked for."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchmetrics import MeanMetric

from ftkit.errors import EnvironmentFault, InputError
from ftkit.training.fit_batch import FitBatch, elements, is_out_of_memory
from ftkit.training.recorder import RunRecorder
from ftkit.training.resume import ExactResume
from ftkit.training.windowed_module import WindowedModule

ROWS = 29  # batches of 8: the last one holds 5


class Data(L.LightningDataModule):
    def __init__(self, drop_last: bool = False) -> None:
        super().__init__()
        self.batch_size, self.drop_last = 8, drop_last

    def train_dataloader(self) -> DataLoader[Any]:
        features = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
        length = torch.arange(ROWS) % 4 + 1
        return DataLoader(TensorDataset(features, length), self.batch_size, shuffle=True, drop_last=self.drop_last)


class Mean(L.LightningModule):
    """A mean loss; more than ``room`` rows are out of memory."""

    base = None

    def __init__(self, room: int = 100) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net, self.room, self.seen = nn.Linear(3, 1), room, MeanMetric()
        self.steps: list[int] = []

    def check(self, batch: Any) -> None:
        if len(batch[0]) > self.room:
            raise torch.OutOfMemoryError("injected")
        self.seen(1.0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.check(batch)
        loss = (self.net(batch[0]).squeeze(1) - batch[1]).square().mean()
        self.log("train/loss", loss)
        return loss

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.steps.append(self.trainer.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class PerToken(Mean, WindowedModule):
    """A loss per token, divided by the tokens of the window."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.check(batch)
        total = (batch[1] * (self.net(batch[0]).squeeze(1) - 1).square()).sum()
        return self.window_loss(total, int(batch[1].sum()))


def fit(
    folder: Path,
    model: Mean,
    data: Data,
    accumulate: int = 1,
    *callbacks: L.Callback,
    resume: Path | None = None,
    **options: Any,
) -> FitBatch:
    callback = FitBatch()
    L.seed_everything(3)
    L.Trainer(
        accelerator="cpu", max_epochs=2, default_root_dir=folder, logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        accumulate_grad_batches=accumulate, callbacks=[callback, RunRecorder(), *(callbacks or [ExactResume()])],
        enable_progress_bar=False, enable_model_summary=False, **options,
    ).fit(model, datamodule=data, ckpt_path=resume)  # fmt: skip
    return callback


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("room", "fitted"), [(8, 8), (7, 4), (3, 2), (1, 1)])
@pytest.mark.parametrize("kind", [Mean, PerToken])
def test_the_weights_are_those_of_the_whole_batch(
    kind: type[Mean], room: int, fitted: int, drop_last: bool, accumulate: int, tmp_path: Path
) -> None:
    whole, split = kind(), kind(room)
    fit(tmp_path / "whole", whole, Data(drop_last), accumulate)
    found = fit(tmp_path / "split", split, Data(drop_last), accumulate)
    assert found.fitted == fitted
    assert split.trainer.global_step == whole.trainer.global_step == 2 * -(-(3 if drop_last else 4) // accumulate)
    for name, weight in whole.state_dict().items():
        assert torch.allclose(split.state_dict()[name], weight, atol=1e-6), name
    recorded = json.loads((tmp_path / "split" / "result.json").read_text())["batch"]
    assert recorded == {"asked": 8, "fitted": fitted, "accumulate": accumulate * 8 // fitted}


def test_nothing_is_left_of_the_trial(tmp_path: Path) -> None:
    model = Mean(2)
    fit(tmp_path, model, Data())
    assert model.seen.weight == 2 * 15  # the micro-batches of two epochs, and not those that were tried
    assert "log" not in vars(model)


def test_the_largest_batch_is_that_which_the_step_gets(tmp_path: Path) -> None:
    class Lighter(Mean):
        """Some rows are taken out before a batch is moved to the device."""

        def __init__(self) -> None:
            super().__init__()
            self.offered: list[int] = []
            self.tried = 0

        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            kept = batch[0][:, 0] < 0
            self.offered.append(int(kept.sum()))
            return [part[kept] for part in batch]

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.tried = self.tried or len(batch[0])
            return super().training_step(batch, batch_idx)

    model = Lighter()
    fit(tmp_path, model, Data(drop_last=True))
    assert model.tried == max(model.offered[:3]) > model.offered[0]


def same_weights(model: Mean, other: Mean) -> None:
    for name, weight in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, atol=1e-6, rtol=0, msg=name)


def test_loaders_that_are_made_anew_are_split_too(tmp_path: Path) -> None:
    whole, split = Mean(), Mean(3)
    for model in (whole, split):
        fit(tmp_path, model, Data(), reload_dataloaders_every_n_epochs=1)
    assert split.trainer.global_step == whole.trainer.global_step
    same_weights(split, whole)


@pytest.mark.parametrize(("interval", "times"), [(2, 2), (1.0, 1)])
def test_validation_comes_after_the_same_steps(interval: Any, times: int, tmp_path: Path) -> None:
    class Validated(Data):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(TensorDataset(torch.ones(32, 3), torch.ones(32)), self.batch_size)

        val_dataloader = train_dataloader

    class Watched(Mean):
        def __init__(self, room: int) -> None:
            super().__init__(room)
            self.validated: list[int] = []

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.validated += [self.trainer.global_step] * (batch_idx == 0)

    found = []
    for room in (100, 4):
        model = Watched(room)
        fit(tmp_path, model, Validated(), val_check_interval=interval, num_sanity_val_steps=0)
        found.append(model.validated)
    assert found[0] == found[1]
    assert len(found[0]) == 2 * times


def test_a_later_batch_that_does_not_fit_ends_the_run_and_leaves_the_trainer_as_it_was(tmp_path: Path) -> None:
    class Later(Mean):
        def check(self, batch: Any) -> None:
            if self.trainer.global_step >= 2 or len(batch[0]) > 4:
                raise torch.OutOfMemoryError("injected")

    model = Later()
    with pytest.raises(torch.OutOfMemoryError, match="injected"):
        fit(tmp_path, model, Data())
    assert model.trainer.global_step == 2
    assert model.trainer.accumulate_grad_batches == 1


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(InputError, match="probe_batches: must be at least 1"):
        FitBatch(probe_batches=0)
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    options["enable_progress_bar"] = False
    with pytest.raises(InputError, match=r"trainer.devices: .* single process.*got 2.*fix: lower data.batch_size"):
        FitBatch().setup(L.Trainer(devices=2, strategy="ddp", **options), Mean(), "fit")
    manual = Mean()
    manual.automatic_optimization = False
    with pytest.raises(InputError, match="automatic optimization"):
        FitBatch().setup(L.Trainer(devices=1, **options), manual, "fit")

    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([torch.zeros(3)])

    class Streamed(Data):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(Stream(), self.batch_size)

    with pytest.raises(InputError, match="examples that are counted"):
        L.Trainer(callbacks=[FitBatch()], **options).fit(Mean(), datamodule=Streamed())


def test_a_resumed_run_keeps_the_size() -> None:
    callback = FitBatch()
    callback.load_state_dict({"fitted": 2})
    assert callback.fitted == 2
    assert callback.state_dict() == {"fitted": 2}


def test_what_cannot_be_fitted_is_said(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"out of memory with a single example.*fix: cut the examples"):
        fit(tmp_path, Mean(0), Data())
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[FitBatch()])
    with pytest.raises(InputError, match="needs a data module with batch_size"):
        trainer.fit(Mean(), Data().train_dataloader())

    class Broken(Mean):
        def check(self, batch: Any) -> None:
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        fit(tmp_path, Broken(), Data())


def test_helpers() -> None:
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("else"))
    assert elements([torch.zeros(2), {"a": torch.zeros(3), "b": "text"}]) == 5
