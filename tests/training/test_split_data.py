"""What the data modules of all wings have in common."""

import multiprocessing
import os
import signal
import warnings
from typing import Any

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser
from torch.utils.data import RandomSampler

from ftkit.classifier.spam import SpamDataModule
from ftkit.errors import InputError
from ftkit.language.arithmetic import ArithmeticDataModule
from ftkit.language.data import TextDataModule
from ftkit.training.split_data import SplitDataModule
from ftkit.vlm.data import VLMDataModule

MODULES = {SpamDataModule: {}, ArithmeticDataModule: {}, TextDataModule: {"train": "a"}, VLMDataModule: {"train": "a"}}
COMMON = {"batch_size": 3, "seed": 5, "evaluate_splits": ["val", "test"], "num_workers": 1}


class Numbers(SplitDataModule):
    """Ten numbers to learn from, five to validate on, none to test on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.datasets = {"train": list(range(10)), "val": list(range(5)), "test": []}

    def train_dataloader(self) -> Any:
        sampler = RandomSampler(self.datasets["train"])
        return self._loader("train", self.batch_size, sampler, evaluation=False)

    def _collate(self, split: str, evaluation: bool) -> Any:
        return lambda rows: (split, evaluation, rows)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seeded", ["0", "1"])
def test_workers_go_on_when_the_whole_group_of_processes_is_told_to_end(
    seeded: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PL_SEED_WORKERS", seeded)
    batches = iter(Numbers(batch_size=1, num_workers=1).train_dataloader())
    found = [next(batches)[2]]
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid or 0, number)
    found += [rows for _, _, rows in batches]
    assert sorted(found) == [[number] for number in range(10)]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_data_module_has_the_common_options_with_their_help(module: type[SplitDataModule]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(module, "data")
    shown = parser.format_help()
    for name in COMMON:
        assert f"--data.{name} " in shown
    assert "The splits that ``test`` runs over" in shown
    given = parser.parse_object({"data": {**MODULES[module], **COMMON}})
    data = parser.instantiate(given).data
    assert (data.batch_size, data.seed, data.evaluate_splits, data.num_workers) == (3, 5, ("val", "test"), 1)
    assert "num_workers: 1" in parser.dump(given)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"batch_size": 0}, "batch_size: must be at least 1"),
        ({"num_workers": -1}, "num_workers: must be at least 0"),
        ({"evaluate_splits": []}, "evaluate_splits: name one or more splits, each once"),
        ({"evaluate_splits": ["test", "test"]}, "evaluate_splits: name one or more splits, each once"),
        ({"evaluate_splits": ["dev"]}, "evaluate_splits: unknown split .*use train, val, test"),
    ],
    ids=str,
)
def test_the_common_options_are_checked(module: type[SplitDataModule], options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        module(**MODULES[module], **options)


def test_batches_of_training_and_of_evaluation() -> None:
    data = Numbers(batch_size=4, evaluate_splits=["val", "train"])
    train = list(data.train_dataloader())
    assert [(split, evaluation, len(rows)) for split, evaluation, rows in train] == [
        ("train", False, size) for size in (4, 4, 2)
    ]
    assert list(data.val_dataloader()) == [("val", True, [0, 1, 2, 3]), ("val", True, [4])]
    assert [len(loader) for loader in data.test_dataloader()] == [2, 3]
    with pytest.raises(InputError, match=r"data\.test: there are no examples to evaluate"):
        data.predict_dataloader()
    data.datasets["val"] = []
    assert data.val_dataloader() == []


class Model(L.LightningModule):
    """Hands back what it is given."""

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return batch


def test_lightning_can_make_the_loaders_anew_to_predict() -> None:
    """It does, with its own batch sampler, and cannot if an argument was given by its place alone."""
    data = Numbers(batch_size=4)
    data.datasets["test"] = list(range(6))
    run = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    found: Any = run.predict(Model(), datamodule=data)
    assert [rows for _, _, rows in found] == [[0, 1, 2, 3], [4, 5]]


@pytest.mark.parametrize("cuda", [False, True])
def test_batches_are_pinned_where_there_is_a_gpu_and_nobody_is_warned_elsewhere(
    cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    data = Numbers()
    loaders = [data.train_dataloader(), data.val_dataloader()]
    assert [loader.pin_memory for loader in loaders] == [cuda] * 2
    if not cuda:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert [list(loader) for loader in loaders]
