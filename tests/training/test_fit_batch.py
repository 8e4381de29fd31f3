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
from ftkit.training.window import WindowedModule

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


class Late:
    """Makes a model's memory shrink as it trains: room for so many rows from each of some steps on."""

    def __init__(self, model: Mean, rooms: dict[int, int], backwards: bool = False) -> None:
        self.model, self.rooms, self.backwards, self.failed = model, rooms, backwards, False
        model.check = self.check  # type: ignore[method-assign]
        for name in ("weight", "bias"):
            getattr(model.net, name).register_hook(self.in_backward)
        self.through = 0

    def check(self, batch: Any) -> None:
        step = self.model.trainer.global_step
        room = min((room for first, room in self.rooms.items() if step >= first), default=100)
        self.failed, self.through = len(batch[0]) > room, 0
        if self.failed and not self.backwards:
            raise torch.OutOfMemoryError("injected")

    def in_backward(self, gradient: Tensor) -> None:
        self.through += 1
        if self.failed and self.through == 2:  # one parameter has its gradient
            raise torch.OutOfMemoryError("injected")


def same_weights(model: Mean, other: Mean) -> None:
    for name, weight in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("rooms", [{2: 4}, {1: 7, 5: 1}, {0: 4, 3: 2}], ids=str)
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("kind", [Mean, PerToken])
def test_a_later_batch_that_does_not_fit_begins_its_step_again(
    kind: type[Mean], backwards: bool, rooms: dict[int, int], accumulate: int, tmp_path: Path
) -> None:
    whole, split = kind(), kind()
    fit(tmp_path / "whole", whole, Data(), accumulate)
    Late(split, rooms if accumulate == 1 else {first // 2: room for first, room in rooms.items()}, backwards)
    found = fit(tmp_path / "split", split, Data(), accumulate)
    assert found.fitted == min(rooms.values())
    same_weights(split, whole)
    trainer = split.trainer
    assert trainer.global_step == whole.trainer.global_step
    assert trainer.accumulate_grad_batches == accumulate  # left as it was
    assert "advance" not in vars(trainer.fit_loop.epoch_loop)
    counts = trainer.fit_loop.epoch_loop.batch_progress.total
    assert counts.ready == counts.completed == 2 * -(-ROWS // found.fitted)
    steps = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
    assert steps.ready == steps.completed == trainer.global_step
    recorded = json.loads((tmp_path / "split" / "result.json").read_text())["batch"]
    assert recorded == {"asked": 8, "fitted": found.fitted, "accumulate": accumulate * 8 // found.fitted}


def test_the_second_batch_of_a_step_takes_the_first_back_with_it(tmp_path: Path) -> None:
    class Second(Mean):
        def check(self, batch: Any) -> None:
            if self.trainer.global_step == 1 and self._batch_idx % 2 and len(batch[0]) > 4:
                raise torch.OutOfMemoryError("injected")

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self._batch_idx = batch_idx
            return super().training_step(batch, batch_idx)

    whole, split = Mean(), Second()
    fit(tmp_path, whole, Data(), 2)
    assert fit(tmp_path, split, Data(), 2).fitted == 4
    same_weights(split, whole)


@pytest.mark.parametrize("step", [3, 4, 6])
def test_a_run_is_resumed_with_the_size_it_found_later(step: int, tmp_path: Path) -> None:
    def run(resume: Path | None = None) -> Mean:
        model = Mean()
        model.net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1))  # type: ignore[assignment]
        model.net.weight, model.net.bias = model.net[0].weight, model.net[0].bias  # type: ignore[index]
        Late(model, {2: 4})
        torch.manual_seed(2)
        keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
        found = fit(tmp_path, model, Data(), 1, ExactResume(), keep, resume=resume)
        assert found.fitted == 4
        return model

    whole = run()
    stopped = tmp_path / f"step={step}.ckpt"
    assert stopped.is_file()
    resumed = run(resume=stopped)
    assert all(torch.equal(resumed.state_dict()[name], weight) for name, weight in whole.state_dict().items())


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
        def __init__(self) -> None:
            super().__init__()
            self.validated: list[int] = []

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.validated += [self.trainer.global_step] * (batch_idx == 0)

    found = []
    for rooms in ({}, {1: 4}):
        model = Watched()
        Late(model, rooms)
        fit(tmp_path, model, Validated(), val_check_interval=interval, num_sanity_val_steps=0)
        found.append(model.validated)
    assert found[0] == found[1]
    assert len(found[0]) == 2 * times


def test_what_cannot_begin_again_is_said(tmp_path: Path) -> None:
    model = Mean()
    Late(model, {2: 4})
    other = L.Callback()
    with pytest.raises(EnvironmentFault, match=r"larger than those that were tried.*fix: add the callback .*Resume"):
        fit(tmp_path, model, Data(), 1, other)
    assert model.trainer.global_step == 2
    assert model.trainer.accumulate_grad_batches == 1
    model = Mean()
    Late(model, {2: 0})
    with pytest.raises(EnvironmentFault, match="out of memory with a single example"):
        fit(tmp_path, model, Data())

    class Moments(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            raise torch.OutOfMemoryError("moments")

    class Stepping(Mean):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return Moments(self.parameters(), lr=0.1)

    with pytest.raises(torch.OutOfMemoryError, match="moments"):  # the weights have changed
        fit(tmp_path, Stepping(), Data())


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

    with pytest.raises(InputError, match="rows that are counted"):
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
