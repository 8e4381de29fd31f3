"""Best checkpoint and early stopping by name: what is kept, what later commands use, and what a resumed run keeps."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from run_files import Ftkit

from ftkit.ablation.sweep import read_sweep
from ftkit.ablation_runs import Ablation
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.cli import main
from ftkit.commands.push import write_repository
from ftkit.commands.runs import load_run
from ftkit.errors import ExitCode
from ftkit.report.ablation_report import read_results
from ftkit.training.checkpoint import AtomicCheckpointIO, find_checkpoint

NAN = ".nan"


def selected(values: list[Any], **options: Any) -> str:
    """A layer that plants a validation curve and selects the best checkpoint by it."""
    curve = {"class_path": "planted.Curve", "init_args": {"values": [float(str(one).strip(".")) for one in values]}}
    saved = {"class_path": "ModelCheckpoint", "init_args": {"filename": "last", "enable_version_counter": False}}
    trainer = {"max_epochs": len(values), "callbacks": [curve, saved]}
    return yaml.safe_dump(
        {"model_selection": "best", "monitor": "val/planted_error", "trainer": trainer, **options}, sort_keys=False
    )


@pytest.fixture(autouse=True)
def logged(quiet: None, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is told by a log."""
    caplog.set_level("INFO", "lightning.pytorch")
    return caplog


@pytest.fixture
def layer(tmp_path: Path) -> Any:
    def write(values: list[Any], **options: Any) -> list[str]:
        path = tmp_path / f"layer-{len(list(tmp_path.glob('layer-*')))}.yaml"
        path.write_text(selected(values, **options))
        return ["--config", str(path)]

    return write


def checkpoint(folder: Path, name: str) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())


def test_the_best_checkpoint_is_the_runs_model(
    ftkit: Ftkit, layer: Any, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    run, chosen = tmp_path / "run", layer([3, 1, 2])
    code, said = ftkit("fit", *chosen)
    assert code == 0, said
    assert "Best checkpoint: lowest val/planted_error 1 at epoch 1 (counted from 0), step 8; it is " in logged.text
    best, last = checkpoint(run, "best.ckpt"), checkpoint(run, "last.ckpt")
    assert (best["global_step"], last["global_step"]) == (8, 12)
    assert not same_weights(best, last)
    written = result(run)
    assert written["model_selection"] == {
        "checkpoint": "best.ckpt", "metric": "val/planted_error", "mode": "min", "value": 1.0, "epoch": 1, "step": 8,
    }  # fmt: skip
    assert written["checkpoint_mb"] == (run / "checkpoints" / "best.ckpt").stat().st_size / 1e6

    moved = tmp_path / "moved"
    shutil.move(run, moved)
    for file in (moved / "checkpoints").iterdir():  # nothing is guessed by file times
        file.touch()
    predictions = {}
    for folder, options in ((moved, []), (tmp_path / "b", ["best.ckpt"]), (tmp_path / "l", ["last.ckpt"])):
        named = ["--ckpt_path", str(moved / "checkpoints" / options[0])] if options else []
        assert (
            main(["test", "--config", str(moved / "config.yaml"), "--trainer.default_root_dir", str(folder), *named])
            == 0
        )
        predictions[folder.name] = (folder / "predictions-test.tsv").read_text()
    assert predictions["moved"] == predictions["b"] != predictions["l"]
    served = load_run(moved)
    names = dict(served.named_parameters())
    assert all(torch.equal(names[name], value) for name, value in best["state_dict"].items())
    written = write_repository(moved, "me/it", tmp_path / "pushed")
    from safetensors.torch import load_file

    pushed = load_file(tmp_path / "pushed" / "trained.safetensors")
    assert all(torch.equal(pushed[name], value) for name, value in best["state_dict"].items())


def test_a_generative_model_has_a_best_checkpoint_too(
    gpt2_folder: Path, layer: Any, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    rows = tmp_path / "rows.jsonl"
    texts = [{"id": f"r{n}", "prompt": f"{n} +", "completion": " x" * (1 + n % 5)} for n in range(8)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    base = {
        "model": {
            "class_path": "ftkit.CausalLMSFT",
            "init_args": {"base_model": str(gpt2_folder), "max_new_tokens": 2, "optimizer": {
                "class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}}},
        },
        "data": {
            "class_path": "ftkit.TextDataModule",
            "init_args": {**dict.fromkeys(("train", "val", "test"), str(rows)), "batch_size": 4},
        },
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
    }  # fmt: skip
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    options = ["--config", str(tmp_path / "base.yaml"), *layer([1, 3, 2]), "--monitor_mode", "max"]
    run = tmp_path / "run"
    assert main(["fit", *options, "--trainer.default_root_dir", str(run)]) == 0
    assert "Best checkpoint: highest val/planted_error 3 at epoch 1 (counted from 0), step 4" in logged.text
    losses = []
    for folder, named in ((run, []), (tmp_path / "b", ["best.ckpt"]), (tmp_path / "l", ["last.ckpt"])):
        more = ["--ckpt_path", str(run / "checkpoints" / named[0])] if named else []
        assert main(["test", *options, "--trainer.default_root_dir", str(folder), *more]) == 0
        losses.append(result(folder)["metrics"]["test"]["test/loss"])
    assert losses[0] == losses[1] != losses[2]


def test_killed_after_any_save_and_resumed_it_is_the_same_best(
    ftkit: Ftkit, layer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    options = [*layer([3, 1, 2, 4, 5], early_stopping={"patience": 2}), "--model.scheduler", "cosine"]
    options += ["--model.warmup", "0.2"]
    run, kept, save = tmp_path / "run", [], AtomicCheckpointIO.save_checkpoint

    def save_and_keep(self: Any, *args: Any, **named: Any) -> None:
        save(self, *args, **named)
        kept.append(tmp_path / f"killed-{len(kept)}")
        shutil.copytree(run, kept[-1])  # what a SIGKILL here leaves, in a folder of another name

    with monkeypatch.context() as patch:
        patch.setattr(AtomicCheckpointIO, "save_checkpoint", save_and_keep)
        code, said = ftkit("fit", *options)
    assert code == 0, said
    told = "Stopped early at epoch 3 (counted from 0): no better val/planted_error in the last 2 validation(s) than 1"
    assert told in logged.text
    assert len(kept) == 6  # best, last; best, last; last; last
    for killed in (kept[0], kept[2], kept[3], kept[4], kept[5]):
        (killed / "checkpoints" / "best.ckpt").touch()  # as after a copy
        logged.clear()
        code, said = ftkit("fit", *options, "--resume", folder=killed)
        assert code == 0, said
        assert told in logged.text
        assert result(killed)["model_selection"] == result(run)["model_selection"]
        for name in ("best.ckpt", "last.ckpt"):
            assert same_weights(checkpoint(killed, name), checkpoint(run, name))
            assert checkpoint(killed, name)["global_step"] == checkpoint(run, name)["global_step"]
        assert (killed / "metrics.csv").read_text() == (run / "metrics.csv").read_text()


def test_a_resumed_run_has_the_patience_that_is_given_now(
    ftkit: Ftkit, layer: Any, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    options = layer([1, 2, 3, 4, 5], early_stopping={"patience": 1})
    assert ftkit("fit", *options)[0] == 0
    assert "Stopped early at epoch 1" in logged.text
    code, said = ftkit("fit", *options, "--early_stopping.patience", "3", "--resume")
    assert code == 0, said
    assert "Stopped early at epoch 3" in logged.text
    assert checkpoint(tmp_path / "run", "last.ckpt")["epoch"] == 3


def test_nan_is_never_the_best_and_does_not_stop(
    ftkit: Ftkit, layer: Any, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    code, said = ftkit("fit", *layer([NAN, NAN, 2, NAN, 3, 1], early_stopping={"patience": 2}))
    assert code == 0, said
    assert "Stopped early" not in logged.text
    assert result(tmp_path / "run")["model_selection"]["epoch"] == 5
    code, said = ftkit("fit", *layer([NAN, 1, NAN, 2]), folder=tmp_path / "early")
    assert code == 0, said
    assert result(tmp_path / "early")["model_selection"]["epoch"] == 1


def test_another_training_in_the_folder_has_its_own_choice(ftkit: Ftkit, layer: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ftkit("fit", *layer([1, 2]))[0] == 0
    assert find_checkpoint(run).name == "best.ckpt"
    assert ftkit("fit", *layer([1, 2], model_selection="last"))[0] == 0
    assert find_checkpoint(run).name == "last.ckpt"
    assert "model_selection" not in result(run)
    code, said = ftkit("fit", *layer([NAN, NAN]))
    assert code == ExitCode.TRAINING
    assert "error: monitor: no validation gave it a value (got 'val/planted_error'); fix: monitor another" in said
    assert result(run)["status"] == "failed"
    assert (run / "checkpoints" / "last.ckpt").is_file()
    code, said = ftkit("test", *layer([NAN, NAN]))
    assert code == ExitCode.INPUT
    assert "holds no checkpoints/best.ckpt" in said  # not the one of the first training


def test_a_training_that_starts_from_another_run_has_its_own_best(ftkit: Ftkit, layer: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert ftkit("fit", *layer([1, 2, 3]), "--trainer.max_epochs", "2", folder=first)[0] == 0
    last = ["--ckpt_path", str(first / "checkpoints" / "last.ckpt")]
    code, said = ftkit("fit", *layer([1, 2, 3]), *last, folder=second)
    assert code == 0, said
    assert result(second)["model_selection"] | {"value": 3.0, "epoch": 2} == result(second)["model_selection"]
    assert checkpoint(second, "best.ckpt")["global_step"] == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--trainer.limit_val_batches", "0"],
            "error: model_selection: needs validation data, and there is none; fix:",
        ),
        (
            ["--trainer.limit_val_batches", "0", "--early_stopping.patience", "1", "--model_selection", "last"],
            "error: early_stopping: needs validation data",
        ),
        (
            ["--trainer.check_val_every_n_epoch", "3"],
            "error: model_selection: the training ends before its first validation; fix: train longer, or validate",
        ),
        (["--trainer.max_steps", "3"], "error: model_selection: the training ends before its first validation"),
        (
            [
                "--trainer.check_val_every_n_epoch",
                "null",
                "--trainer.val_check_interval",
                "9",
                "--model_selection",
                "last",
                "--early_stopping.patience",
                "1",
            ],
            "error: early_stopping: the training ends before its first validation",
        ),
        (
            ["--monitor", "val/planted_eror"],
            "monitor: BestCheckpoint monitors a metric that is not logged (got 'val/pl",
        ),
        (["--monitor", "val/accurcy", "--early_stopping.patience", "1"], "did you mean val/accuracy?"),
        (["--early_stopping.patience", "0"], "error: early_stopping.patience: must be at least 1 (got 0)"),
        (["--model_selection", "bets"], "model_selection: Expected a typing.Literal['best', 'last']"),
        (
            ["--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.filename", "best"],
            "error: trainer.callbacks: is best.ckpt too, which model_selection writes; fix: leave it out, or give it",
        ),
    ],
)
def test_what_cannot_be_selected_by_is_refused(options: list[str], message: str, ftkit: Ftkit, layer: Any) -> None:
    code, said = ftkit("fit", *layer([1, 2]), *options)
    assert code == ExitCode.INPUT
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize("option", [["--model_selection", "best"], ["--early_stopping.patience", "1"]])
def test_a_metric_of_other_data_is_refused_before_the_first_step(
    option: list[str], ftkit: Ftkit, tmp_path: Path
) -> None:
    code, said = ftkit("fit", *option, "--monitor", "val/macro_f1")  # which three and more classes have
    assert code == ExitCode.INPUT
    assert "monitors a metric that is not logged (got 'val/macro_f1'); fix: " in said
    assert "ogged are val/accuracy, val/auroc, " in said
    assert not (tmp_path / "run" / "metrics.csv").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("data", ["ftkit.TextClassificationDataModule", "ftkit.SpamDataModule"])
@pytest.mark.parametrize(
    ("option", "name"),
    [(["--model_selection", "best"], "model_selection"), (["--early_stopping.patience", "1"], "early_stopping")],
)
def test_training_data_alone_are_refused_before_the_model_is_built(
    data: str, option: list[str], name: str, ftkit: Ftkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(self: TextClassifier) -> None:
        raise AssertionError("the model was built")

    monkeypatch.setattr(TextClassifier, "configure_model", build)
    texts = tmp_path / "texts.csv"
    texts.write_text("label,text\n" + "".join(f"{'ham' if n % 2 else 'spam'},{n}\n" for n in range(20)))
    if data == "ftkit.SpamDataModule":
        chosen = ["--trainer.limit_val_batches", "0"]
    else:
        chosen = ["--data", data, "--data.train", str(texts), "--data.fractions", "[1.0, 0.0]"]
    code, said = ftkit("fit", *chosen, *option)
    assert code == ExitCode.INPUT
    assert f"error: {name}: needs validation data, and there is none; fix: give some, or leave the option out" in said


def test_without_the_options_nothing_is_selected(ftkit: Ftkit, tmp_path: Path) -> None:
    code, said = ftkit("fit", "--print_config")
    config = yaml.safe_load(said)
    assert code == 0
    assert (config["model_selection"], config["monitor"], config["monitor_mode"]) == ("last", "val/loss", None)
    assert config["early_stopping"] == {"patience": None, "min_delta": 0.0}


def test_the_best_checkpoint_needs_no_callback_of_the_users(plain: Ftkit, tmp_path: Path) -> None:
    options = ["--trainer.callbacks", "planted.Curve", "--trainer.callbacks.values", "[1, 2]"]
    options += ["--trainer.max_epochs", "2", "--model_selection", "best", "--monitor", "val/planted_error"]
    assert plain("fit", *options)[0] == 0
    assert {file.name for file in (tmp_path / "run" / "checkpoints").glob("*.ckpt")} == {"best.ckpt", "last.ckpt"}
    assert checkpoint(tmp_path / "run", "best.ckpt")["epoch"] == 0


def test_rows_may_differ_in_what_they_select(tiny_config: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "ablation", tmp_path / "out"
    (folder / "rows").mkdir(parents=True)
    base = yaml.safe_load(tiny_config.read_text())
    planted = yaml.safe_load(selected([3, 1, 2, 4], early_stopping={"patience": 2}))
    base["trainer"] |= planted.pop("trainer")
    (folder / "base.yaml").write_text(yaml.safe_dump({**base, **planted}))
    (folder / "rows" / "01_best.yaml").write_text("# Best?\n{}\n")
    (folder / "rows" / "02_last.yaml").write_text("# Last?\nmodel_selection: last\nearly_stopping: {patience: null}\n")
    assert len(Ablation(folder, out=out).run(seeds=[123]).done) == 2
    best, last = (out / row / "seed-123" for row in ("01_best", "02_last"))
    assert checkpoint(last, "last.ckpt")["global_step"] == checkpoint(best, "last.ckpt")["global_step"] == 16
    assert (best / "predictions-test.tsv").read_text() != (last / "predictions-test.tsv").read_text()
    again = ["--config", str(best / "config.yaml"), "--trainer.default_root_dir", str(tmp_path / "again")]
    assert main(["test", *again, "--ckpt_path", str(best / "checkpoints" / "best.ckpt")]) == 0
    assert (tmp_path / "again" / "predictions-test.tsv").read_text() == (best / "predictions-test.tsv").read_text()
    identities = [run.identity["config"] for row in read_sweep(out).rows for run in row.runs]
    assert [one["model_selection"] for one in identities] == ["best", "last"]
    assert [one["early_stopping"]["patience"] for one in identities] == [2, None]
    assert (
        "Tested with the checkpoint that has the best val/planted_error on validation (epochs count from 0): "
        "row 1 (seed 123) epoch 1, 1." in str(read_results(out))
    )
    (folder / "rows" / "01_best.yaml").write_text("# Best?\nmonitor: val/loss\n")
    summary = Ablation(folder, out=out).run(seeds=[123])
    assert ([run.row.number for run in summary.done], [run.row.number for run in summary.reused]) == ([1], [2])
