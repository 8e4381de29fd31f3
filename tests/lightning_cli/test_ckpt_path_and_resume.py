"""`--ckpt_path` and `--resume`: going on from a checkpoint, and which ones are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from run_files import Ftkit, contents

from ftkit.errors import ExitCode
from ftkit.storage import sha256_of


def test_fit_goes_on_from_a_checkpoint(ftkit: Ftkit, run_folder: Path, tmp_path: Path) -> None:
    code, said = ftkit("fit", "--ckpt_path", str(run_folder), "--trainer.max_epochs", "3")
    assert code == 0, said
    assert ftkit("fit", "--trainer.max_epochs", "3", folder=tmp_path / "whole")[0] == 0
    resumed, whole, first = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        for folder in (tmp_path / "run", tmp_path / "whole", run_folder)
    )
    assert resumed["global_step"] == 12
    names = list(whole["state_dict"])
    assert all(torch.equal(resumed["state_dict"][name], whole["state_dict"][name]) for name in names)
    assert not all(torch.equal(first["state_dict"][name], whole["state_dict"][name]) for name in names)


def spoilt(run_folder: Path, into: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    checkpoint = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, into / "spoilt.ckpt")
    return into / "spoilt.ckpt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["hyper_parameters"].update(_class_path="canary_module.Model"), "is a checkpoint of another class"),
        (lambda c: c["base"].update(source="/another"), "trained on another base"),
        (lambda c: c["state_dict"].pop("net.head.bias"), "1 missing: net.head.bias"),
    ],
)
def test_a_strange_checkpoint_is_refused_before_it_is_used(
    change: Any, message: str, ftkit: Ftkit, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "canary_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    checkpoint = spoilt(run_folder, tmp_path, change)
    for command in ("fit", "test"):
        code, said = ftkit(command, "--ckpt_path", str(checkpoint), "--trainer.max_epochs", "3")
        assert code == ExitCode.INPUT, said
        assert message in said


def test_options_that_contradict_the_checkpoint_are_refused(ftkit: Ftkit, run_folder: Path, tmp_path: Path) -> None:
    for command in ("fit", "test"):
        code, said = ftkit(command, "--ckpt_path", str(run_folder), "--model.pooling", "mean")
        assert code == ExitCode.INPUT, said
        assert "model.pooling: the checkpoint" in said
        assert "was trained with 'last' (got 'mean')" in said
    assert not (tmp_path / "run").exists()
    assert ftkit("test", "--ckpt_path", str(run_folder), "--model.pooling", "last")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed_everything", "124"], "seed was 123, is 124"),
        (["--data.batch_size", "4"], "batch_size was 8, is 4"),
        (["--trainer.accumulate_grad_batches", "2"], "accumulate_grad_batches was 1, is 2"),
        (["--data.split_seed", "7"], "data.split_seed was 123, is 7"),
    ],
)
def test_other_settings_are_refused_on_resuming_unless_allowed(
    options: list[str], message: str, ftkit: Ftkit, run_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    before = contents(tmp_path / "run")
    code, said = ftkit("fit", "--resume", "true", "--trainer.max_epochs", "3", *options)
    assert code == ExitCode.INPUT, said
    assert message in said
    assert "--allow_changed: the result" in said
    assert contents(tmp_path / "run") == before
    assert ftkit("fit", "--resume", "true", "--trainer.max_epochs", "3", *options, "--allow_changed", "true")[0] == 0
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())["changed_on_resume"]
    assert [f"{name} was {old}, is {new}" for name, (old, new) in recorded.items()] == [message]


def test_changed_data_are_refused_on_resuming(
    ftkit: Ftkit, run_folder: Path, messages_file: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "other.tsv").write_text(messages_file.read_text().replace("win", "won"))
    code, said = ftkit("fit", "--resume", "true", "--data.source", str(tmp_path / "other.tsv"))
    assert code == ExitCode.INPUT, said
    assert f"data_sha256 was {sha256_of(messages_file)}, is {sha256_of(tmp_path / 'other.tsv')}" in said


def test_resume_starts_anew_where_there_is_nothing(ftkit: Ftkit, run_folder: Path, tmp_path: Path) -> None:
    code, said = ftkit("fit", "--resume", "true")
    assert code == 0, said
    assert f"no checkpoint to resume from in {tmp_path / 'run'}; training starts from the beginning" in said
    assert "resume" not in (tmp_path / "run" / "config.yaml").read_text()
    code, said = ftkit("fit", "--resume", "true", "--ckpt_path", str(run_folder))
    assert (code, "choose one of --resume and --ckpt_path" in said) == (2, True)


def weights_only(tmp_path: Path) -> list[str]:
    saving = {"filename": "last", "save_weights_only": True, "enable_version_counter": False}
    saved = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": saving}
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [saved]}}))
    return ["--config", str(tmp_path / "weights.yaml")]


def test_a_finished_training_is_not_trained_again(ftkit: Ftkit, tmp_path: Path) -> None:
    options = weights_only(tmp_path)
    assert ftkit("fit", *options)[0] == 0
    before = contents(tmp_path / "run")
    code, said = ftkit("fit", *options, "--resume")
    assert code == 0, said
    assert f"the training in {tmp_path / 'run'} is finished; it kept weights only" in said
    assert contents(tmp_path / "run") == before


def test_an_interrupted_training_is_not_replaced(ftkit: Ftkit, tmp_path: Path) -> None:
    stop = {"class_path": "stops.StopAfter", "init_args": {"step": 3}}
    (tmp_path / "stop.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [stop]}}))
    assert ftkit("fit", "--config", str(tmp_path / "stop.yaml"))[0] == ExitCode.TERMINATED
    before = contents(tmp_path / "run")
    code, said = ftkit("fit", *weights_only(tmp_path))
    assert code == ExitCode.INPUT, said
    assert "interrupted.ckpt: is the state of an interrupted training, which would be lost; fix: continue it" in said
    assert contents(tmp_path / "run") == before
    assert ftkit("fit", "--trainer.fast_dev_run", "true")[0] == 0
    assert contents(tmp_path / "run") == before
    assert ftkit("fit", *weights_only(tmp_path), "--resume")[0] == 0
    assert not (tmp_path / "run/checkpoints/interrupted.ckpt").exists()


def test_resume_takes_the_newest_good_checkpoint_and_names_the_bad_one(
    ftkit: Ftkit, run_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    torn = tmp_path / "run" / "checkpoints" / "newer.ckpt"
    torn.write_bytes(b"half")
    code, said = ftkit("fit", "--resume", "true", "--trainer.max_epochs", "3")
    assert code == 0, said
    assert f"notice: {torn}: cannot be read as a checkpoint" in said or f"notice: {torn}: holds more than" in said
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 12
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["ckpt_path"] is None  # it starts a new run
