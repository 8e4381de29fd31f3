"""What `ftkit fit` and `ftkit test` leave in a run folder, and who may write there."""

import json
import os
import shutil
from pathlib import Path

import pytest
from run_files import FILES, Ftkit, contents, files_in

from ftkit.cli import main
from ftkit.errors import ExitCode
from ftkit.lock import exclusive
from ftkit.run_folder import DEFAULT_FOLDER, FORMAT
from ftkit.storage import sha256_of, verify_checksum
from ftkit.training.checkpoint import AtomicCheckpointIO, read_checkpoint


def test_fit_and_test_leave_a_complete_run_folder(run_folder: Path, gpt2_folder: Path, messages_file: Path) -> None:
    assert files_in(run_folder) == {*FILES, ".lock"}
    verify_checksum(run_folder / "checkpoints" / "last.ckpt")
    result = json.loads((run_folder / "result.json").read_text())
    assert {name: split["n"] for name, split in result["splits"].items()} == {"train": 33, "val": 4, "test": 11}
    for name, split in result["splits"].items():
        rows = [row.split("\t") for row in (run_folder / f"predictions-{name}.tsv").read_text().splitlines()]
        assert rows[0] == ["id", "label", "prediction", "probability:spam"]
        assert split["correct"] == sum(row[1] == row[2] for row in rows[1:])
        assert split["accuracy"] == split["correct"] / split["n"]
    assert result["splits"]["train"]["accuracy"] > 0.9  # these messages can be learnt: the weights tested are trained
    assert (result["steps"], result["seed"], result["device"]) == (8, 123, "cpu")
    assert result["parameters"]["trainable"] == 12_704 + 64 + 66  # a block of width 32, the final norm, the head
    assert result["parameters"]["total"] == 8_224 + 2_048 + 3 * 12_704 + 64 + 66
    assert result["base"]["source"] == str(gpt2_folder)
    size = (run_folder / "checkpoints" / "last.ckpt").stat().st_size
    assert result["checkpoint_mb"] == size / 1e6
    assert result["data"]["source"] == str(messages_file)
    assert result["data"]["sha256"] == sha256_of(messages_file)
    assert set(result["seconds"]) == {"fit", "test"}
    assert {"hardware", "versions", "peak_memory_mb"} <= set(result)
    header, *curve = (run_folder / "metrics.csv").read_text().splitlines()
    assert {"step", "epoch", "train/loss", "val/loss", "val/accuracy"} <= set(header.split(","))
    assert sum(row.split(",")[header.split(",").index("train/loss")] != "" for row in curve) == 8


def test_the_resolved_config_repeats_the_run_as_it_stands(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_folder / "config.yaml"
    assert "dropout: 0.0" in config.read_text()  # resolved: it holds what the command line left out
    monkeypatch.chdir(tmp_path)
    for command in ("fit", "test"):
        folder = [] if command == "fit" else ["--trainer.default_root_dir", DEFAULT_FOLDER]
        assert main([command, "--config", str(config), *folder]) == 0
    for split in ("train", "val", "test"):
        name = f"predictions-{split}.tsv"
        assert (tmp_path / DEFAULT_FOLDER / name).read_bytes() == (run_folder / name).read_bytes()


def test_whoever_goes_on_or_evaluates_by_a_runs_own_config_means_that_run(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one run", tmp_path / DEFAULT_FOLDER
    for folder in (one, other):
        shutil.copytree(run_folder, folder)
    (one / "predictions-test.tsv").unlink()
    before = contents(other)
    monkeypatch.chdir(tmp_path)
    assert main(["test", "--config", "one run/config.yaml"]) == 0
    assert f"notice: using the run folder {one}, which holds this config.yaml" in capfd.readouterr().err
    assert (one / "predictions-test.tsv").read_bytes() == (run_folder / "predictions-test.tsv").read_bytes()
    assert main(["fit", "--config", "one run/config.yaml", "--resume", "--trainer.max_epochs", "3"]) == 0
    assert json.loads((one / "result.json").read_text())["steps"] == 12
    assert contents(other) == before


def test_test_takes_the_trained_weights_or_says_that_there_are_none(
    ftkit: Ftkit, run_folder: Path, tmp_path: Path
) -> None:
    trained, before = tmp_path / "trained", (run_folder / "predictions-test.tsv").read_bytes()
    shutil.copytree(run_folder, trained)
    for options in (
        [],
        ["--ckpt_path", str(trained / "checkpoints" / "last.ckpt")],
        ["--ckpt_path", str(trained)],
    ):
        (trained / "predictions-test.tsv").unlink()
        assert ftkit("predict", *options, folder=trained)[0] == 0
        assert (trained / "predictions-test.tsv").read_bytes() == before
    for command in ("test", "validate", "predict"):
        code, said = ftkit(command)
        assert code == ExitCode.INPUT
        assert "no such checkpoint; fix: train first" in said


def test_a_fast_dev_run_leaves_a_run_folder_as_it_is(ftkit: Ftkit, run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    before, result = contents(tmp_path / "run"), json.loads((run_folder / "result.json").read_text())
    for command in ("fit", "validate", "test", "predict"):
        code, said = ftkit(command, "--trainer.fast_dev_run", "true")
        assert code == 0, said
        assert "notice: fast_dev_run: nothing is kept, and the run folder is left as it is" in said
        assert ftkit("fit", "--trainer.fast_dev_run", "2", "--resume")[0] == 0
        assert contents(tmp_path / "run") == before
    assert ftkit("test")[0] == 0
    tested = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {**tested, "seconds": None, "seconds_frozen": None} == {**result, "seconds": None, "seconds_frozen": None}
    assert tested["seconds"]["fit"] == result["seconds"]["fit"]
    assert ftkit("fit", "--trainer.fast_dev_run", "true", folder=tmp_path / "new")[0] == 0
    assert not (tmp_path / "new").exists()


def test_a_run_folder_of_another_format_is_refused_by_name(ftkit: Ftkit, run_folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    file, checkpoint = run / "result.json", run / "checkpoints" / "last.ckpt"
    result = json.loads(file.read_text())
    assert (result["format"], read_checkpoint(run)["format"]) == (FORMAT, FORMAT)
    file.write_text(json.dumps({**result, "format": FORMAT - 1}))
    fix = "this ftkit reads format 2; fix: use a new output folder, or the version of ftkit that wrote this one"
    code, said = ftkit("test")
    assert code == ExitCode.INPUT
    assert f"result.json: was written in format 1, and {fix}" in said
    content = read_checkpoint(run)
    del content["format"]
    AtomicCheckpointIO().save_checkpoint(content, checkpoint)
    for command in ("test", "fit"):
        code, said = ftkit(command, *(["--resume", "true"] if command == "fit" else []))
        assert code == ExitCode.INPUT
        assert f"last.ckpt: was written in an unnumbered format, and {fix}" in said


def test_an_output_folder_that_cannot_be_made_is_the_environments_fault(ftkit: Ftkit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, said = ftkit("fit", folder=tmp_path / "file" / "run")
    assert code == ExitCode.ENVIRONMENT, said
    assert str(tmp_path / "file") in said


def test_a_second_training_in_the_folder_is_turned_away(ftkit: Ftkit, tmp_path: Path) -> None:
    with exclusive(tmp_path / "run"):
        code, said = ftkit("fit")
    assert code == ExitCode.ENVIRONMENT, said
    assert f"{tmp_path / 'run'}: process {os.getpid()} on" in said
    assert files_in(tmp_path / "run") == {".lock"}


def test_a_training_that_breaks_ends_with_4_and_keeps_the_last_checkpoint(ftkit: Ftkit, tmp_path: Path) -> None:
    code, said = ftkit("fit", "--model.optimizer.lr", "1e30", "--trainer.max_epochs", "3")
    assert code == ExitCode.TRAINING, said
    assert "is not finite at step 1, epoch 0, rate 1e+30" in said
    assert "Traceback" not in said
