"""What a run leaves, and when it stops."""

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ftkit.errors import ExitCode, InputError, TrainingFailed
from ftkit.results.known_examples import KnownExamples
from ftkit.run_folder import RESULT_FILE
from ftkit.training.guards import FiniteGuard
from ftkit.training.recorder import RunRecorder, add_to_result

# score, label, id: the prediction is 1 above 0, so that 4 of 7 are right
EXAMPLES = [(2.0, 1, "a"), (-1.0, 1, "b"), (-2.0, 0, "c"), (0.5, 0, "d"), (3.0, 1, "e"), (-4.0, 0, "f"), (1.0, 0, "g")]


class Threshold(L.LightningModule):
    """Compares a score with a bias that learns."""

    class_names = ("no", "yes")
    base = {"id": "none"}  # noqa: RUF012

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.factor = factor

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = (batch["score"] + self.bias).square().mean()
        return loss * self.factor if batch_idx == 1 else loss

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        probability = (batch["score"] + self.bias).sigmoid()
        return {**{key: batch[key] for key in ("id", "label")}, "prediction": (probability > 0.5).long(),
                "probability": probability}  # fmt: skip

    validation_step = predict_step = test_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.125)


class Data(L.LightningDataModule):
    evaluate_splits = ("train", "test")
    report = {"sha256": "d1"}  # noqa: RUF012

    def loader(self, examples: list[Any] = EXAMPLES) -> DataLoader[Any]:
        rows = [{"score": score, "label": label, "id": name} for score, label, name in examples]
        return DataLoader(rows, batch_size=2)  # type: ignore[arg-type]  # a list is a dataset

    train_dataloader = val_dataloader = predict_dataloader = loader

    def test_dataloader(self) -> list[DataLoader[Any]]:
        return [self.loader(EXAMPLES[:2]), self.loader()]


def trainer(folder: Path, **options: Any) -> L.Trainer:
    return L.Trainer(
        default_root_dir=folder,
        **{
            "callbacks": [RunRecorder(), FiniteGuard()],
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        },
    )


class KnownData(Data):
    def known_examples(self, split: str) -> KnownExamples | None:
        return None if split == "train" else KnownExamples(["a"], ["near"], np.array([4]), ["Call me"])


def test_what_is_known_of_the_examples_lies_beside_the_predictions(tmp_path: Path) -> None:
    trainer(tmp_path).test(Threshold(), KnownData(), verbose=False)
    assert rows(tmp_path / "examples-test.tsv")[1:] == [["a", "near", "4", "Call me"]]
    assert not (tmp_path / "examples-train.tsv").exists()
    trainer(tmp_path / "plain").test(Threshold(), Data(), verbose=False)
    assert not (tmp_path / "plain/examples-test.tsv").exists()


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))


def rows(file: Path) -> list[list[str]]:
    return [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]


def test_accuracy_is_the_hand_count_and_predictions_are_by_name(tmp_path: Path) -> None:
    trainer(tmp_path).test(Threshold(), Data(), verbose=False)
    assert result(tmp_path)["splits"] == {
        "train": {"n": 2, "correct": 1, "accuracy": 0.5},
        "test": {"n": 7, "correct": 4, "accuracy": 4 / 7},
    }
    written = rows(tmp_path / "predictions-test.tsv")
    assert written[0] == ["id", "label", "prediction", "probability:yes"]
    assert [row[:3] for row in written[1:4]] == [["a", "yes", "yes"], ["b", "yes", "no"], ["c", "no", "no"]]
    assert [float(row[3]) for row in written[1:]] == pytest.approx(
        [1 / (1 + math.exp(-score)) for score, *_ in EXAMPLES], abs=1e-6
    )
    assert len(rows(tmp_path / "predictions-train.tsv")) == 3


def test_the_seconds_of_a_resumed_training_include_those_before(tmp_path: Path) -> None:
    first = trainer(tmp_path)
    first.fit(Threshold(), Data())
    (recorder,) = (one for one in first.callbacks if isinstance(one, RunRecorder))
    recorder.load_state_dict({"fit": 1000.0, "frozen": 400.0})
    first.save_checkpoint(tmp_path / "stopped.ckpt")
    trainer(tmp_path, max_epochs=2).fit(Threshold(), Data(), ckpt_path=tmp_path / "stopped.ckpt")
    assert 1000 < result(tmp_path)["seconds"]["fit"] < 1100
    assert result(tmp_path)["seconds_frozen"]["fit"] == 400


class Adding(L.Callback):
    """Adds a fact to the result, which must not be there before it is whole."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        add_to_result(trainer, added=1)
        assert not (Path(trainer.default_root_dir) / RESULT_FILE).exists()


@pytest.mark.parametrize("order", [1, -1])
def test_a_result_is_written_when_it_is_whole(order: int, tmp_path: Path) -> None:
    for _ in range(2):  # nor is there that of an earlier training
        trainer(tmp_path, callbacks=[RunRecorder(), Adding()][::order]).fit(Threshold(), Data())
        assert {"added", "steps", "seconds"} <= result(tmp_path).keys()


class Unreadable(Threshold):
    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:  # type: ignore[override]
        return {"id": batch["id"], "label": torch.empty(len(batch["id"]), device="meta")}  # to read it is an error


def test_a_validation_in_training_does_not_wait_for_predictions(tmp_path: Path) -> None:
    trainer(tmp_path).fit(Unreadable(), Data())
    with pytest.raises(NotImplementedError, match="meta"):
        trainer(tmp_path).validate(Unreadable(), Data(), verbose=False)


def test_result_of_fit_and_test_are_merged_also_by_another_process(tmp_path: Path) -> None:
    model = Threshold()
    trainer(tmp_path, max_epochs=2).fit(model, Data())
    fitted = result(tmp_path)
    assert (fitted["steps"], fitted["device"]) == (8, "cpu")
    assert fitted["parameters"] == {"trainable": 1, "total": 1, "names": ["bias"]}
    assert (fitted["base"], fitted["data"]) == ({"id": "none"}, {"sha256": "d1"})
    assert fitted["seconds"]["fit"] > 0
    assert fitted["peak_memory_mb"] > 50
    assert fitted["versions"]["torch"] == torch.__version__.split("+")[0]
    assert fitted["hardware"]["threads"] == torch.get_num_threads()
    assert "splits" not in fitted
    trainer(tmp_path).test(model, Data(), verbose=False)
    merged = result(tmp_path)
    assert merged["seconds"]["fit"] == fitted["seconds"]["fit"]
    timing = {"seconds": 0, "seconds_frozen": 0, "splits": 0, "metrics": 0}
    assert {**merged, **timing} == {**fitted, **timing}
    assert set(merged["splits"]) == {"train", "test"}
    again = trainer(tmp_path)
    again.test(model, Data(), verbose=False)
    with pytest.warns(UserWarning, match=r"test\.tsv, predictions-train\.tsv in .* are not this training's"):
        again.fit(model, Data())
    assert "splits" not in result(tmp_path)  # they were the old weights'


@pytest.mark.parametrize("damaged", ['{"seconds": {"fi', "[1]"])
def test_a_damaged_result_is_told_before_the_test_and_left_as_it_is(damaged: str, tmp_path: Path) -> None:
    (tmp_path / RESULT_FILE).write_text(damaged)
    with pytest.raises(InputError, match=r"result\.json: is damaged: .*; fix: "):
        trainer(tmp_path).test(Threshold(), Data())
    assert (tmp_path / RESULT_FILE).read_text() == damaged
    assert not list(tmp_path.glob("predictions-*"))


def test_seconds_for_frozen_layers_are_kept_of_training_and_of_testing(tmp_path: Path) -> None:
    class Frozen(Threshold):
        @property
        def frozen_seconds(self) -> float:
            return 0.25 if self.trainer.state.fn == "fit" else 0.125

    model = Frozen()
    trainer(tmp_path).fit(model, Data())
    assert result(tmp_path)["seconds_frozen"] == {"fit": 0.25}
    for _ in range(2):  # another evaluation takes the place of the first
        trainer(tmp_path).test(model, Data(), verbose=False)
        assert result(tmp_path)["seconds_frozen"] == {"fit": 0.25, "test": 0.125}


@pytest.mark.parametrize(
    ("function", "expected"),
    [("fit", []), ("validate", ["predictions-val.tsv"]), ("predict", ["predictions-test.tsv"])],
)
def test_predictions_come_from_asking_for_them(function: str, expected: list[str], tmp_path: Path) -> None:
    getattr(trainer(tmp_path), function)(Threshold(), datamodule=Data())
    assert sorted(file.name for file in tmp_path.glob("predictions-*")) == expected
    for name in expected:
        assert [row[0] for row in rows(tmp_path / name)] == ["id", *"abcdefg"]


@pytest.mark.parametrize(("function", "split"), [("validate", "val"), ("predict", "test")])
def test_the_figures_are_those_of_the_predictions_beside_them(function: str, split: str, tmp_path: Path) -> None:
    """A ``predict`` replaces the predictions of a ``test``; its weights may be others."""
    trainer(tmp_path).test(Threshold(), Data(), verbose=False)
    biased = Threshold()
    biased.bias.data.fill_(10.0)  # says yes to everything: 3 of 7
    getattr(trainer(tmp_path), function)(biased, datamodule=Data())
    assert {row[2] for row in rows(tmp_path / f"predictions-{split}.tsv")[1:]} == {"yes"}
    found = result(tmp_path)
    assert found["splits"][split] == {"n": 7, "correct": 3, "accuracy": 3 / 7}
    assert set(found["seconds"]) == {"test"}


@pytest.mark.parametrize("names", [("test",), ("val", "test")])
def test_loaders_without_a_name_are_numbered(names: tuple[str, ...], tmp_path: Path) -> None:
    class Unnamed(Data):
        evaluate_splits = names  # type: ignore[assignment]

        def test_dataloader(self) -> list[DataLoader[Any]]:
            return [self.loader(EXAMPLES[:2]), self.loader(EXAMPLES[:3]), self.loader(EXAMPLES[:4])]

    trainer(tmp_path).test(Threshold(), Unnamed(), verbose=False)
    expected = [*names, "test-1", "test-2"][:3]
    assert {name: counts["n"] for name, counts in result(tmp_path)["splits"].items()} == dict(
        zip(expected, (2, 3, 4), strict=True)
    )
    assert sorted(tmp_path.glob("predictions-*")) == sorted(tmp_path / f"predictions-{name}.tsv" for name in expected)


def test_a_loader_without_batches_does_not_lend_its_name(tmp_path: Path) -> None:
    class Hollow(Data):
        def test_dataloader(self) -> list[DataLoader[Any]]:
            return [self.loader([]), self.loader()]

    trainer(tmp_path).test(Threshold(), Hollow(), verbose=False)
    assert list(result(tmp_path)["splits"]) == ["test"]


def test_a_training_says_what_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("ftkit.training.recorder.rank_zero_info", said.append)
    trainer(tmp_path).fit(Threshold(), Data())
    assert said == ["Trainable: 1 of 1 parameters (100.00%): bias (1)"]


class Answering(Threshold):
    """Says a text, with or without a score, and more columns."""

    score_name = "log_odds:yes"

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        said = ["maybe" if score == 2.0 else "yes" if score > 0 else "no" for score in batch["score"].tolist()]
        label = [self.class_names[index] for index in batch["label"].tolist()]
        columns = {"length": [str(len(word)) for word in said]}
        return {"id": batch["id"], "label": label, "prediction": said, "columns": columns, **self.score(batch)}

    def score(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"score": batch["score"]}


def test_texts_a_score_by_its_name_and_more_columns(tmp_path: Path) -> None:
    trainer(tmp_path).test(Answering(), Data(), verbose=False)
    assert rows(tmp_path / "predictions-train.tsv") == [
        ["id", "label", "prediction", "log_odds:yes", "length"],
        ["a", "yes", "maybe", "2.0", "5"],
        ["b", "yes", "no", "-1.0", "2"],
    ]
    assert result(tmp_path)["splits"]["test"] == {"n": 7, "correct": 3, "accuracy": 3 / 7}


def test_without_a_score_there_is_no_score_column(tmp_path: Path) -> None:
    class Silent(Answering):
        def score(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {}

    trainer(tmp_path).test(Silent(), Data(), verbose=False)
    assert rows(tmp_path / "predictions-train.tsv")[0] == ["id", "label", "prediction", "length"]


def test_a_split_without_predictions_leaves_none(tmp_path: Path) -> None:
    class LossOnly(Threshold):
        def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
            return {}

    trainer(tmp_path).test(LossOnly(), Data(), verbose=False)
    assert not list(tmp_path.glob("predictions-*"))
    assert "splits" not in result(tmp_path)


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step(factor: float, tmp_path: Path) -> None:
    model = Threshold(factor)
    with pytest.raises(TrainingFailed, match=rf"the loss is not finite at step 1, epoch 0, rate 0.125 \(got {factor}"):
        trainer(tmp_path).fit(model, Data())
    assert model.bias.item() == -0.125  # one step on the mean of 2 and -1: -0.125 * 2 * 0.5
    assert TrainingFailed.exit_code == ExitCode.TRAINING == 4


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_before_the_step(value: float, tmp_path: Path) -> None:
    class Planted(Threshold):
        def on_after_backward(self) -> None:
            if self.trainer.global_step == 1:
                self.bias.grad.fill_(value)  # type: ignore[union-attr]

    model = Planted()
    with pytest.raises(TrainingFailed, match="the norm of the gradients is not finite at step 1"):
        trainer(tmp_path).fit(model, Data())
    assert model.bias.item() == -0.125


def test_a_gradient_scaler_is_left_to_its_work(tmp_path: Path) -> None:
    """It finds infinities on purpose, skips the step and lowers its scale."""
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.tensor([math.inf])
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    run = trainer(tmp_path)
    run.precision_plugin.scaler = object()  # type: ignore[attr-defined]
    run.strategy.optimizers = [optimizer]
    guard = FiniteGuard()
    guard.on_before_backward(run, Threshold(), torch.tensor(1.0))
    guard.on_before_optimizer_step(run, Threshold(), optimizer)
    guard.on_before_backward(run, Threshold(), torch.tensor(math.nan))
    with pytest.raises(TrainingFailed, match="the loss is not finite"):
        guard.on_before_optimizer_step(run, Threshold(), optimizer)


def test_the_commit_of_a_hub_model_is_recorded_and_4_bit_weights_are_counted_by_two(tmp_path: Path) -> None:
    from bitsandbytes.nn import Params4bit

    class Tuned(Threshold):
        fingerprint: ClassVar = {"commit": "0123456789" * 4}

        def __init__(self) -> None:
            super().__init__()
            self.packed = Params4bit(torch.zeros(8, 1, dtype=torch.uint8), False, bnb_quantized=True)

    trainer(tmp_path / "hub").fit(Tuned(), Data())
    assert result(tmp_path / "hub")["commit"] == Tuned.fingerprint["commit"]
    assert result(tmp_path / "hub")["parameters"] == {"trainable": 1, "total": 17, "names": ["bias"]}
    trainer(tmp_path / "own").fit(Threshold(), Data())
    assert result(tmp_path / "own")["commit"] is None


def _test_in_two_processes(rank: int, folder: Path, port: int) -> None:
    import os

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", NODE_RANK="0")
    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    strategy = L.pytorch.strategies.DDPStrategy(process_group_backend="gloo")
    trainer(folder, devices=2, strategy=strategy).test(Threshold(), Data(), verbose=False)


def test_two_processes_count_each_example_once(tmp_path: Path) -> None:
    """Seven examples on two processes: the distributed sampler hands out one of them twice."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # A fork has everything imported already.
    mp.start_processes(_test_in_two_processes, (tmp_path, port), nprocs=2, start_method="fork")  # type: ignore[no-untyped-call]
    assert result(tmp_path)["splits"]["test"] == {"n": 7, "correct": 4, "accuracy": 4 / 7}
    assert sorted(row[0] for row in rows(tmp_path / "predictions-test.tsv")[1:]) == list("abcdefg")
