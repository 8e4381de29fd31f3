"""What `ftkit fit` and `ftkit test` leave in a run folder, and who may write there."""

import json
import os
import re
import shlex
import shutil
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from run_files import FILES, Ftkit, contents, files_in

from ftkit import folder_choice
from ftkit.cli import main
from ftkit.errors import ExitCode, InputError
from ftkit.lock import exclusive
from ftkit.run_folder import FORMAT, ORDER_FILE, RUNS
from ftkit.storage import sha256_of, verify_checksum
from ftkit.training.checkpoint import AtomicCheckpointIO, read_checkpoint


class Noon(datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz: Any = None) -> "Noon":
        return cls(2026, 11, 29, 12, 3, 30)


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
    assert main(["fit", "--config", str(config)]) == 0
    (made,) = RUNS.glob("2*")
    assert main(["test"]) == 0
    for split in ("train", "val", "test"):
        name = f"predictions-{split}.tsv"
        assert (made / name).read_bytes() == (run_folder / name).read_bytes()


def test_a_new_run_has_a_folder_of_its_own_and_ends_with_what_comes_next(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder_choice, "datetime", Noon)
    fit = ["fit", "--config", str(tiny_config)]
    assert main(fit) == 0
    first = Path("runs/2026-11-29-1203-tiny")
    figures, folder, command = capfd.readouterr().out.splitlines()[-3:]
    assert re.search(r"val/loss [\d.]+, val/accuracy 1", figures)
    assert folder == f"run folder: {first}"
    best = ["--model_selection", "best", "--monitor", "val/f_measure"]
    assert main([*fit, "--trainer.max_epochs", "1", *best]) == 0  # in the same minute
    assert re.search(r"val/accuracy 1.*, val/f_measure 1", capfd.readouterr().out.splitlines()[-3])
    second = Path("runs/2026-11-29-1203-tiny-2")
    assert {run.name: json.loads((run / "result.json").read_text())["steps"] for run in (first, second)} == {
        first.name: 8,
        second.name: 4,
    }
    assert main(shlex.split(command.removeprefix("next: ftkit "))) == 0
    said = capfd.readouterr().out.splitlines()
    n, correct = (json.loads((first / "result.json").read_text())["splits"]["test"][key] for key in ("n", "correct"))
    assert re.fullmatch(rf"test: accuracy [\d.]+% \(95% interval .*; {correct} of {n}\)", said[-3])
    assert said[-2] == f"run folder: {first} (predictions-train.tsv, predictions-val.tsv, predictions-test.tsv)"
    assert main(shlex.split(said[-1].removeprefix("next: ftkit "))) == 0
    assert not list(second.glob("predictions*"))


def test_a_command_without_a_folder_takes_the_newest_run_and_says_which(
    run_folder: Path, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for command in (["test"], ["fit", "--resume"], ["serve"], ["push", "me/it", "--dry_run", "out"]):
        assert main(command) == ExitCode.INPUT
        assert "error: runs: there is no run; fix: train with `ftkit fit`, or name a run's " in capfd.readouterr().err
    config = ["--config", str(tiny_config)]
    assert main(["test", *config]) == ExitCode.INPUT
    assert "error: runs: there is no run of this config; fix: train " in capfd.readouterr().err
    assert list(RUNS.iterdir()) == []
    names = ("2026-11-29-1203-tiny", "2026-11-29-1203-tiny-2", "2026-11-29-1203-tiny-of-mine", "other")
    for age, name in enumerate(names):
        shutil.copytree(run_folder, RUNS / name)
        (RUNS / name / "predictions-test.tsv").unlink()
        for checkpoint in (RUNS / name / "checkpoints").glob("*.ckpt"):
            os.utime(checkpoint, (age, age))
    evaluated = RUNS / "2026-11-30-1203-tiny"  # without a checkpoint: what --untrained leaves is no run to go on with
    evaluated.mkdir()
    for command, options, name in (("predict", config, names[1]), ("predict", [], names[3])):
        assert main([command, *options]) == 0
        meant = f"the newest run{' of tiny' if options else ''}, {RUNS / name}"
        assert f"notice: using {meant}\n" in capfd.readouterr().err
        assert (RUNS / name / "predictions-test.tsv").is_file()
    assert not (RUNS / names[2] / "predictions-test.tsv").exists()
    assert main(["test", *config, "--model.pooling", "first"]) == ExitCode.INPUT
    assert f"model.pooling: the checkpoint {RUNS / names[1]} was trained with" in capfd.readouterr().err
    assert main(["fit", "--resume", *config, "--trainer.max_epochs", "3"]) == 0
    assert json.loads((RUNS / names[1] / "result.json").read_text())["steps"] == 12
    assert main(["push", "me/it", "--dry_run", "out"]) == 0
    assert f"notice: using the newest run, {RUNS / names[1]}\n" in capfd.readouterr().err
    assert Path("out/README.md").is_file()
    assert {run.name for run in RUNS.iterdir()} == {*names, evaluated.name, ORDER_FILE}


def test_what_does_not_run_leaves_no_folder(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fit = ["fit", "--config", str(tiny_config)]
    for refused in (["--model.size", "tiny"], ["--data.source", "missing.tsv"], ["--trainer.max_epochs", "0"]):
        assert main([*fit, *refused]) == ExitCode.INPUT
    assert main([*fit, "--trainer.fast_dev_run", "true"]) == 0
    assert list(RUNS.iterdir()) == []
    assert main(["test", "--config", str(tiny_config), "--untrained"]) == 0
    (made,) = RUNS.glob("2*")
    assert (made / "predictions-test.tsv").is_file()


def test_processes_that_were_started_each_for_itself_are_told_to_name_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder_choice, "rank_zero_only", SimpleNamespace(rank=1))
    monkeypatch.delenv("FTKIT_RUN_FOLDER", raising=False)
    with pytest.raises(InputError, match=r"fix: name one with --trainer\.default_root_dir"):
        folder_choice.make_new_folder("x")
    monkeypatch.setenv("FTKIT_RUN_FOLDER", "runs/of-rank-0")  # Lightning hands it to the processes that it starts
    assert folder_choice.make_new_folder("x") == Path("runs/of-rank-0")
    assert not RUNS.exists()


def test_whoever_goes_on_or_evaluates_by_a_runs_own_config_means_that_run(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one run", tmp_path / RUNS / "other"
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
