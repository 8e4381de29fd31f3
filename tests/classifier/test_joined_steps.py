"""Messages that are learnt one by one come as one batch for a step, and the weights are those of the single ones."""

import re
from itertools import chain
from pathlib import Path
from typing import Any

import families
import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint

from ftkit import GPT2Classifier, SpamDataModule
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.training.resume import ExactResume

MESSAGES = 33  # 4 windows of 8 and a message


class Batches(L.Callback):
    """Notes the names of each batch's messages."""

    def __init__(self) -> None:
        self.names: list[list[str]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.names.append(batch["id"])


@pytest.fixture
def run(gpt2_folder: Path, messages_file: Path, cache: Path) -> Any:
    """Trains, and returns module and batches."""

    def fit(
        options: dict[str, Any],
        data: dict[str, Any],
        ckpt: Path | None = None,
        folder: Path = gpt2_folder,
        **trainer: Any,
    ) -> tuple[TextClassifier, list[list[str]]]:
        L.seed_everything(7)
        seen = Batches()
        module = families.classifier(folder, seed=3, optimizer=lambda p: torch.optim.SGD(p, lr=0.05), **options)
        given = {"split": "balanced", "padding": "none", "batch_size": 1, "seed": 5, **data}
        settings = {"max_epochs": 2, "accumulate_grad_batches": 8, "enable_checkpointing": False, **trainer}
        L.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            **{**settings, "callbacks": [seen, ExactResume(), *settings.get("callbacks", [])]},
        ).fit(module, datamodule=SpamDataModule(str(messages_file), **given), ckpt_path=ckpt)  # fmt: skip
        return module, seen.names

    return fit


@pytest.mark.parametrize(
    ("family", "options", "data", "accumulate", "size"),
    [
        ("gpt2_folder", {}, {}, 8, 8),
        ("gpt2_folder", {"trainable": "last_layer", "pooling": "mean"}, {"order": "published"}, 8, 8),
        ("gpt2_folder", {"trainable": 1, "pooling": "first"}, {"drop_last": False}, 12, 6),
        ("gpt2_folder", {"causal_mask": False, "mask_padding": True, "cache_frozen": False}, {"num_workers": 1}, 32, 8),
        ("llama_folder", {}, {}, 8, 8),
    ],
    ids=str,
)
def test_the_weights_are_those_of_single_messages(
    family: str,
    options: dict[str, Any],
    data: dict[str, Any],
    accumulate: int,
    size: int,
    run: Any,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"folder": request.getfixturevalue(family), "accumulate_grad_batches": accumulate}
    joined, batches = run(options, data, **settings)
    assert [len(names) for names in batches] == 2 * [*[size] * (MESSAGES // size), MESSAGES % size]
    assert joined.trainer.accumulate_grad_batches == accumulate  # as it was found
    monkeypatch.setattr(SpamDataModule, "join_steps", lambda *args: None)
    single, messages = run(options, data, **settings)
    assert [len(names) for names in messages] == 2 * [1] * MESSAGES
    assert [*chain(*batches)] == [*chain(*messages)]
    assert joined.trainer.global_step == single.trainer.global_step == 2 * -(-MESSAGES // accumulate)
    untrained = type(single)(**single.hparams)
    untrained.configure_model()
    for name, weight in single.state_dict().items():
        torch.testing.assert_close(joined.state_dict()[name], weight, atol=1e-6, rtol=0)
    moved = single.net.head.weight - untrained.net.head.weight
    assert moved.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "data", "trainer"),
    [
        ({"trainable": "last_two_blocks"}, {}, {}),  # more is held for each message
        ({"trainable": "lora"}, {}, {}),
        ({"dropout": 0.1}, {}, {}),  # drawn for other shapes
        ({"class_weights": [1.0, 2.0]}, {}, {}),  # no plain mean
        ({"causal_mask": False}, {}, {}),  # padding is attended to
        ({}, {"padding": "longest"}, {}),
        ({}, {"batch_size": 2, "padding": 12}, {}),
        ({}, {}, {"val_check_interval": 3}),
        ({}, {}, {"val_check_interval": 0.5}),
        ({}, {}, {"val_check_interval": 16, "check_val_every_n_epoch": None}),  # counted over the ends of epochs
        ({}, {}, {"limit_train_batches": 20}),
        ({}, {}, {"overfit_batches": 9}),
        ({}, {}, {"fast_dev_run": 9}),
        ({}, {}, {"accumulate_grad_batches": 1, "callbacks": [GradientAccumulationScheduler({0: 8})]}),
        ({}, {}, {"accumulate_grad_batches": 11}),  # no smaller part of it makes whole steps
    ],
    ids=lambda value: ", ".join(value),
)
def test_where_the_step_would_be_another_they_stay_single(
    options: dict[str, Any], data: dict[str, Any], trainer: dict[str, Any], run: Any
) -> None:
    _, batches = run(options, data, **trainer)
    assert {len(names) for names in batches} == {data.get("batch_size", 1)}


def test_validation_comes_after_as_many_messages(run: Any) -> None:
    validations: list[int] = []

    class Validations(L.Callback):
        def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
            validations.append(trainer.global_step)

    joined, batches = run({}, {}, callbacks=[Validations()], val_check_interval=16, num_sanity_val_steps=0)
    assert max(map(len, batches)) == 8
    assert validations == [2, 4, 7, 9]  # each epoch has five steps
    assert joined.trainer.val_check_interval == 16


def test_a_trainer_whose_training_failed_counts_single_messages_again(
    gpt2_folder: Path, messages_file: Path, cache: Path
) -> None:
    class Fails(L.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            assert (trainer.accumulate_grad_batches, trainer.val_check_interval) == (1, 2)
            raise RuntimeError("as planned")

    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        accelerator="cpu", callbacks=[Fails()], accumulate_grad_batches=8, val_check_interval=16,
        num_sanity_val_steps=0, **options,
    )  # fmt: skip
    data = SpamDataModule(str(messages_file), split="balanced", padding="none", batch_size=1)
    with pytest.raises(RuntimeError, match="as planned"):
        trainer.fit(GPT2Classifier(size=None, base_model=str(gpt2_folder)), datamodule=data)
    assert (trainer.accumulate_grad_batches, trainer.val_check_interval) == (8, 16)


def test_a_resumed_run_ends_at_the_same_bits(run: Any, tmp_path: Path) -> None:
    whole, batches = run({}, {})
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)
    run({}, {}, enable_checkpointing=True, callbacks=[saved])
    files = {int(re.search(r"step=(\d+)", file.name)[1]): file for file in tmp_path.glob("*.ckpt")}  # type: ignore[index]
    resumed, rest = run({}, {}, ckpt=files[7])
    assert rest == batches[7:]
    for name, weight in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight), name
