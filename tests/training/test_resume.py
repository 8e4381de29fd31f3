"""A training that was stopped and resumed equals one that was not, to the last bit, wherever it was stopped."""

import random
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, WeightedRandomSampler
from torchmetrics import MeanSquaredError

from checksum_file import write_checksum
from ftkit.errors import InputError
from ftkit.storage import verify_checksum
from ftkit.training.checkpoint import AtomicCheckpointIO, find_checkpoint, read_checkpoint
from ftkit.training.curves_logger import CurvesLogger
from ftkit.training.replay_loader import ReplayLoader, reseed
from ftkit.training.resume import ExactResume, compare_settings, resumable, stored_settings
from ftkit.training.safe_stop import SafeStop

ROWS, BATCH = 26, 4  # 7 batches an epoch, the last one of 2 rows


class Noisy(Dataset[Tensor]):
    """Rows to which all three generators add something each time they are read."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Tensor:
        noise = torch.rand(3) + random.random() + float(np.random.rand())
        return torch.tensor([float(index % 5), index / ROWS, 1.0]) + 0.1 * noise


class Stream(IterableDataset[Tensor]):
    """The same without a length."""

    def __iter__(self) -> Iterator[Tensor]:
        rows = Noisy()
        return (rows[index] for index in torch.randperm(ROWS).tolist())


class Net(L.LightningModule):
    """Dropout, a scheduler, and values logged in each of Lightning's ways."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 1))
        self.error = MeanSquaredError()
        self.val_error = MeanSquaredError()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batch = torch.cat(list(batch.values())) if isinstance(batch, dict) else batch
        said, target = self.net(batch).squeeze(1), batch.sum(1)
        loss = (said - target).square().mean()
        self.error(said, target)
        self.log("train/error", self.error, on_step=False, on_epoch=True)
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/worst", loss.detach(), on_step=False, on_epoch=True, reduce_fx="max")
        return loss

    def on_train_epoch_start(self) -> None:
        torch.rand(7)  # a user's hook may draw as well, and is not called again in a resumed epoch

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_error(self.net(batch).squeeze(1), batch.sum(1))
        self.log("val/error", self.val_error)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), "interval": "step"}]


def loader(kind: str) -> Any:
    """Loaders of every kind; `generator` has its own, which moves on from epoch to epoch."""
    generator = torch.Generator().manual_seed(5)
    return {
        "shuffle": lambda: DataLoader(Noisy(), BATCH, shuffle=True),
        "generator": lambda: DataLoader(Noisy(), BATCH, shuffle=True, generator=generator),
        "weighted": lambda: DataLoader(
            Noisy(), BATCH, sampler=WeightedRandomSampler([1.0] * 5 + [3.0] * 21, ROWS, generator=generator)
        ),
        "stream": lambda: DataLoader(Stream(), BATCH),
        "workers": lambda: DataLoader(Noisy(), BATCH, shuffle=True, num_workers=1),
        "two": lambda: {"a": DataLoader(Noisy(), BATCH, shuffle=True), "b": DataLoader(Noisy(), 8, shuffle=True)},
    }[kind]()


class Data(L.LightningDataModule):
    batch_size, data_sha256 = BATCH, "d1"

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.seed: int | None = None
        self.kind = kind

    def train_dataloader(self) -> Any:
        return loader(self.kind)

    def val_dataloader(self) -> Any:
        return DataLoader(torch.arange(12.0).view(4, 3), 2)  # type: ignore[arg-type]  # a tensor is a dataset


class StopAt(L.Callback):
    """Sends a real signal while a batch is trained."""

    def __init__(self, step: int, signal_number: int = signal.SIGTERM) -> None:
        self.left, self.number = step, signal_number

    def on_before_zero_grad(self, *args: Any) -> None:
        if self.left == 0:
            signal.raise_signal(self.number)
        self.left -= 1


def run(
    folder: Path, kind: str = "shuffle", stop: L.Callback | None = None, resume: bool = False, **options: Any
) -> tuple[Net, ExactResume]:
    L.seed_everything(11)
    exact, model = ExactResume(options.pop("allow_changed", False)), options.pop("module", Net)()
    data, more = options.pop("data", None) or Data(kind), options.pop("more", [])
    best = ModelCheckpoint(folder / "checkpoints", monitor="val/error", filename="best", save_weights_only=True)
    trainer = L.Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": 3,
            "default_root_dir": folder,
            "logger": CurvesLogger(folder),
            "plugins": [AtomicCheckpointIO()],
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 2,
            "callbacks": [
                SafeStop(),
                LearningRateMonitor("step"),
                *([stop] if stop else []),
                exact,
                *([best] if options.get("limit_val_batches") != 0 else []),
                *more,
            ],
            **options,
        }
    )
    path = resumable(folder)[0] if resume else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, datamodule=data, ckpt_path=path)
    return model, exact


def interrupted(folder: Path, step: int, **options: Any) -> Path:
    with pytest.raises(SIGTERMException):
        run(folder, stop=StopAt(step), **options)
    found = folder / "checkpoints" / "interrupted.ckpt"
    verify_checksum(found)
    return found


def assert_equal(folder: Path, model: Net, whole_folder: Path, whole: Net) -> None:
    state, expected = model.state_dict(), whole.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert (folder / "metrics.csv").read_bytes() == (whole_folder / "metrics.csv").read_bytes()
    saved = [sorted(file.name for file in (place / "checkpoints").glob("*.ckpt")) for place in (folder, whole_folder)]
    assert saved[0] == saved[1]
    if "best.ckpt" in saved[0]:
        best = [read_checkpoint(place / "checkpoints" / "best.ckpt") for place in (folder, whole_folder)]
        assert (best[0]["epoch"], best[0]["global_step"]) == (best[1]["epoch"], best[1]["global_step"])
    assert not (folder / "checkpoints" / "interrupted.ckpt").exists()
    assert not list(folder.rglob("*.partial"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs that nothing stopped: (folder, model), each made once."""
    done: dict[str, tuple[Path, Net]] = {}

    def make(kind: str, **options: Any) -> tuple[Path, Net]:
        key = f"{kind} {options}"
        if key not in done:
            folder = tmp_path_factory.mktemp("whole")
            done[key] = folder, run(folder, kind, **options)[0]
        return done[key]

    return make


@pytest.mark.parametrize(
    "step", [step if step in (0, 5, 6, 7, 13, 19) else pytest.param(step, marks=pytest.mark.slow) for step in range(20)]
)
def test_stopped_after_any_step(step: int, whole: Any, tmp_path: Path) -> None:
    interrupted(tmp_path, step)
    model, _ = run(tmp_path, resume=True)
    assert_equal(tmp_path, model, *whole("shuffle"))


@pytest.mark.parametrize("step", [2, 8])
@pytest.mark.parametrize("kind", ["generator", "weighted", "stream", "workers", "two"])
def test_whatever_the_loader(kind: str, step: int, whole: Any, tmp_path: Path) -> None:
    interrupted(tmp_path, step, kind=kind)
    model, _ = run(tmp_path, kind, resume=True)
    assert_equal(tmp_path, model, *whole(kind))


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 2},
        {"accumulate_grad_batches": 3, "val_check_interval": 2},
        {"val_check_interval": 3},
        {"val_check_interval": 4, "check_val_every_n_epoch": None},
        {"check_val_every_n_epoch": 2},
        {"limit_train_batches": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("step", [0, 1, 2])
def test_whatever_the_windows_and_validations(options: dict[str, Any], step: int, whole: Any, tmp_path: Path) -> None:
    if options == {"limit_train_batches": 1} and step == 2:
        pytest.skip("that step is the last one")
    interrupted(tmp_path, step, **options)
    model, _ = run(tmp_path, resume=True, **options)
    assert_equal(tmp_path, model, *whole("shuffle", **options))


def test_stopped_several_times(whole: Any, tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(SIGTERMException):
            run(tmp_path, stop=StopAt(4), resume=True)
    model, _ = run(tmp_path, resume=True)
    assert_equal(tmp_path, model, *whole("shuffle"))


def test_a_stop_in_the_last_step_loses_nothing(whole: Any, tmp_path: Path) -> None:
    model, _ = run(tmp_path, stop=StopAt(20))
    assert_equal(tmp_path, model, *whole("shuffle"))


def test_it_changes_no_order_that_a_loader_was_given() -> None:
    rows: Any = range(9)
    given = DataLoader(rows, 2, sampler=[8, 1, 0, 3, 4, 7, 2, 6, 5])
    plain = [batch.tolist() for batch in given]
    replayed = ReplayLoader(given, 1, lambda: 0, lambda: (2, None))
    assert [batch.tolist() for batch in replayed] == plain[2:]
    assert (len(replayed), replayed.batch_size) == (5, 2)


class Drawn(Sampler[int]):
    """An order that is drawn when an iteration begins, not when its first batch is fetched."""

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(ROWS).tolist())


@pytest.mark.parametrize(
    "options",
    [{"batch_size": BATCH, "shuffle": True, "num_workers": 1}, {"batch_size": None, "sampler": Drawn()}],
    ids=["workers that fetch ahead", "a sampler that draws at once"],
)
def test_each_epoch_has_an_order_of_its_own(options: dict[str, Any]) -> None:
    def order(epoch: int, seed: int = 1) -> list[int]:
        loader = DataLoader(range(ROWS), **options)
        batches = ReplayLoader(loader, seed, lambda: epoch, lambda: (0, None))
        return [row for batch in batches for row in torch.as_tensor(batch).view(-1).tolist()]

    assert order(0) == order(0)
    assert order(1) == order(1)
    assert len(set(map(tuple, (order(0), order(1), order(2), order(0, seed=2))))) == 4
    assert sorted(order(1)) == list(range(ROWS))


def test_streams_and_batches_draw_different_numbers() -> None:
    drawn = []
    for place in [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0), (1, 0, 0, 0), (1, 0, 0, 1)]:
        reseed(*place)
        drawn.append((torch.rand(1).item(), random.random(), float(np.random.rand())))
    assert len({number for numbers in drawn for number in numbers}) == 18


def test_the_seed_is_as_before_when_training_ends(tmp_path: Path) -> None:
    run(tmp_path, max_epochs=1)
    assert torch.initial_seed() == 11


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches was 1, is 2"),
        ({"batch_size": 8}, "batch_size was 4, is 8"),
        ({"data_sha256": "d2"}, "data_sha256 was d1, is d2"),
        ({"seed": 5}, "data_seed was None, is 5"),
    ],
)
def test_other_settings_are_refused_or_recorded(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    interrupted(tmp_path, 2)
    data, options = Data("shuffle"), {}
    for name, value in changed.items():
        if hasattr(data, name):
            setattr(data, name, value)
        else:
            options[name] = value
    with pytest.raises(InputError, match=message):
        run(tmp_path, data=data, resume=True, **options)
    _, exact = run(tmp_path, data=data, resume=True, allow_changed=True, **options)
    assert [now for _, now in exact.changed.values()] == list(changed.values())


def test_the_settings_are_in_the_checkpoint_and_all_are_compared(tmp_path: Path) -> None:
    stored = stored_settings(interrupted(tmp_path, 2))
    assert stored == {
        "seed": 11,
        "batch_size": 4,
        "accumulate_grad_batches": 1,
        "data_sha256": "d1",
        "data_seed": None,
        "processes": 1,
    }
    with pytest.raises(InputError, match="seed was 11, is 12"):
        compare_settings(stored, {**stored, "seed": 12})
    assert compare_settings(stored, dict(stored)) == {}


def test_the_newest_good_checkpoint_is_taken(tmp_path: Path) -> None:
    assert resumable(tmp_path) == (None, [])
    good = interrupted(tmp_path, 9)
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(InputError, match=r"training was interrupted; fix: finish it"):
        find_checkpoint(tmp_path)
    torn = tmp_path / "checkpoints" / "torn.ckpt"
    torn.write_bytes(good.read_bytes()[:1000])
    light = tmp_path / "checkpoints" / "weights.ckpt"
    torch.save({"state_dict": {}}, light)
    write_checksum(light)
    found, notices = resumable(tmp_path)
    assert found == good
    assert [str(file) in notice for file, notice in zip((light, torn), notices, strict=True)] == [True, True]


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    path = interrupted(tmp_path, 2)
    checkpoint = torch.load(path, weights_only=True)
    name = next(name for name in checkpoint["callbacks"] if "ExactResume" in name)
    del checkpoint["callbacks"][name]["curves"]
    torch.save(checkpoint, path)
    write_checksum(path)
    with pytest.raises(InputError, match="is of an earlier version of ftkit; fix: train anew"):
        run(tmp_path, resume=True)
