"""What Lightning and torch refuse of callbacks, loggers, schedulers and strategies: told in a line, before training."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from run_files import Ftkit

from ftkit.errors import ExitCode

PLATEAU = "lightning.pytorch.cli.ReduceLROnPlateau"


def callback(name: str, **options: str) -> list[str]:
    named = (word for key, value in options.items() for word in (f"--trainer.callbacks.{key}", value))
    return ["--trainer.callbacks+", name, *named]


def scheduler(name: str, **options: str) -> list[str]:
    named = (word for key, value in options.items() for word in (f"--model.scheduler.{key}", value))
    return ["--model.scheduler", name, *named]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            callback("EarlyStopping", monitor="val/loss", mode="smaller"),
            "callbacks: EarlyStopping: `mode` can be min, max",
        ),
        (callback("ModelCheckpoint", save_top_k="-2"), "callbacks: ModelCheckpoint: Invalid value for save_top_k=-2"),
        (callback("ModelCheckpoint", save_top_k="3"), "callbacks: ModelCheckpoint: ModelCheckpoint(save_top_k=3"),
        (callback("Timer", duration="soon"), "callbacks: Timer: `Timer(duration='soon')` is not a valid duration"),
        (callback("ModelPruning", pruning_fn="zebra"), "callbacks: ModelPruning: The provided `pruning_fn` zebra"),
        (callback("ModelCheckpoint"), "trainer: Found more than one stateful callback of type `ModelCheckpoint`"),
        (scheduler("OneCycleLR", max_lr="0.1", total_steps="-3"), "scheduler: OneCycleLR: Expected positive integer"),
        (scheduler("OneCycleLR", max_lr="0.1"), "model.scheduler: OneCycleLR: You must define either total_steps OR"),
        (scheduler("StepLR"), "step_size"),
        (scheduler("LinearLR", start_factor="2"), "model.scheduler: LinearLR: Starting multiplicative factor"),
        (scheduler(PLATEAU, monitor="val/loss", factor="2"), "scheduler: ReduceLROnPlateau: Factor should be < 1.0"),
        (
            scheduler("torch.optim.lr_scheduler.ReduceLROnPlateau"),
            "model.scheduler: needs a metric to monitor (got 'torch.optim.lr_scheduler.ReduceLROnPlateau'); "
            f"fix: use {PLATEAU} with monitor: val/loss",
        ),
        (["--trainer.check_val_every_n_epoch", "0"], "trainer.check_val_every_n_epoch: must be at least 1 (got 0)"),
        (["--trainer.val_check_interval", "0"], "trainer.val_check_interval: must be positive (got 0)"),
        (["--seed_everything=-1"], "seed_everything: must be from 0 to 4294967295 (got -1)"),
        (["--seed_everything", "4294967296"], "seed_everything: must be from 0 to 4294967295 (got 4294967296)"),
        (["--trainer.devices", "-3"], "trainer: `devices` selected with `CPUAccelerator` should be an int > 0."),
        (["--trainer.strategy", "ddp_spawn"], "trainer.strategy: trains in spawned or forked processes"),
        (["--trainer.strategy", "ddp_notebook"], "trainer.strategy: trains in spawned or forked processes"),
        (["--trainer.strategy", "ddp_fork_find_unused_parameters_true"], "trains in spawned or forked processes"),
        (
            callback("ModelCheckpoint", every_n_epochs="2", filename="{epoch}-{val/accuracy:.3f}"),
            "fix: use auto_insert_metric_name: false with filename: 'epoch={epoch}-val_accuracy={val/accuracy:.3f}'",
        ),
        (
            callback("ModelCheckpoint", every_n_epochs="2", filename="best/{epoch}"),
            "a checkpoint's name may have no slash (got 'best/{epoch}'); fix: use '{epoch}', and dirpath for a folder",
        ),
        (
            callback("ModelCheckpoint", every_n_epochs="2", filename="{epoch"),
            "filename: is not a valid format: expected '}'",
        ),
    ],
)
def test_an_argument_that_cannot_be_used(options: list[str], message: str, ftkit: Ftkit, tmp_path: Path) -> None:
    code, said = ftkit("fit", *options)
    assert code == ExitCode.INPUT, said
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("package", "options", "message"),
    [
        (
            "tensorboard",
            ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "logs"],
            "TensorBoardLogger needs a package that is not installed; fix: pip install 'ftkit[tensorboard]'",
        ),
        (
            "mlflow",
            ["--trainer.logger", "MLFlowLogger"],
            "MLFlowLogger needs a package that is not installed; fix: pip install",
        ),
        ("torch_xla", ["--trainer.strategy", "xla"], "trainer: a package is not installed; fix: pip install torch_xla"),
    ],
)
def test_a_missing_package(package: str, options: list[str], message: str, ftkit: Ftkit, tmp_path: Path) -> None:
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    code, said = ftkit("fit", *options)
    assert code == ExitCode.ENVIRONMENT, said
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            callback("EarlyStopping", monitor="val_loss"),
            "trainer.callbacks.monitor: EarlyStopping monitors a metric that",
        ),
        (scheduler(PLATEAU, monitor="val_loss"), "model.scheduler.monitor: ReduceLROnPlateau monitors a metric that"),
    ],
)
def test_a_metric_that_is_not_logged(options: list[str], message: str, ftkit: Ftkit, tmp_path: Path) -> None:
    code, said = ftkit("fit", *options)
    assert code == ExitCode.INPUT, said
    assert message in said
    assert "(got 'val_loss'); fix: did you mean val/loss? Logged are val/accuracy, val/auroc, " in said
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_callback_that_does_not_suit_the_trainer(ftkit: Ftkit) -> None:
    code, said = ftkit("fit", *callback("LearningRateMonitor"), "--trainer.logger", "false")
    assert code == ExitCode.INPUT, said
    assert "trainer.callbacks: lr_monitor: Cannot use `LearningRateMonitor` callback with `Trainer` that has no" in said


def test_a_folder_that_a_logger_cannot_write(ftkit: Ftkit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, said = ftkit("fit", "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", str(tmp_path / "file"))
    assert code == ExitCode.ENVIRONMENT, said
    assert f"error: {tmp_path / 'file'}" in said
    assert "Traceback" not in said
