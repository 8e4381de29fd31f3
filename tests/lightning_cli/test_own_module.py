"""Modules and data of one's own: the same care, and no more."""

import sys
from pathlib import Path

import pytest
from run_files import Ftkit

from ftkit.cells import CellEngine
from ftkit.cli import main
from ftkit.errors import ExitCode, FtkitError


def test_a_module_of_ones_own_gets_the_same_care(plain: Ftkit, tmp_path: Path) -> None:
    assert plain("fit")[0] == 0
    code, said = plain("fit", "--ckpt_path", str(tmp_path / "run"), "--model.width", "5", folder=tmp_path / "other")
    assert code == ExitCode.INPUT, said
    assert "step=2.ckpt: the checkpoint does not fit the model: size mismatch for net.weight" in said
    assert "Traceback" not in said
    code, said = plain("fit", "--data.rows", "1", folder=tmp_path / "none")
    assert code == ExitCode.INPUT, said
    assert "data: 0 batches: nothing was trained" in said


def test_steps_of_ones_own_may_return_tensors(plain: Ftkit, tmp_path: Path) -> None:
    for command in ("fit", "validate", "predict"):
        code, said = plain(command, *(["--ckpt_path", str(tmp_path / "run")] if command != "fit" else []))
        assert code == 0, said
    assert not list((tmp_path / "run").glob("predictions-*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.val_check_interval", "1000"], "trainer: `val_check_interval` (1000) must be less than or equal"),
        (["--trainer.limit_train_batches", "0.001"], "trainer: You requested to check 0.001 of the `train_dataloader`"),
    ],
)
def test_what_lightning_refuses_of_the_data_is_told_in_a_line(options: list[str], message: str, plain: Ftkit) -> None:
    code, said = plain("fit", *options)
    assert code == ExitCode.INPUT, said
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--model.width", "10"], 2, "model: Choosy: width is too large; fix: correct its init_args (`--model.help "),
        (["--model.part", "null"], 2, "model: Choosy: TypeError: unsupported operand"),
        (["--model.dict_kwargs.zebra", "1"], 2, "model.zebra: no such option"),
        (
            ["--trainer.callbacks", "plain_wing.NeedsPackage"],
            3,
            "trainer.callbacks: NeedsPackage needs a package that is not installed; fix: pip install absent_package",
        ),
    ],
)
def test_what_a_constructor_of_ones_own_refuses_is_told_in_a_line(
    options: list[str], code: int, message: str, plain: Ftkit, tmp_path: Path
) -> None:
    ended, said = plain("fit", "--model", "plain_wing.Choosy", *options)
    assert ended == code, said
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_module_in_the_current_folder_is_found(plain: Ftkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_here.py").write_text("from plain_wing import PlainModule\nclass Model(PlainModule): ...\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    code, said = plain("fit", "--model", "found_here.Model")
    assert (code, "there is no module found_here" in said) == (ExitCode.INPUT, True)
    monkeypatch.chdir(tmp_path)
    assert plain("fit", "--model", "found_here.Model", "--print_config")[0] == 0
    assert sys.path[-1] == str(tmp_path)  # behind the packages, which it cannot replace
    code, said = plain("fit", "--model", "found_here.Modle")
    assert "module 'found_here' has no attribute 'Modle'; fix: did you mean found_here.Model?" in said


@pytest.mark.parametrize(("model", "message"), [("Raising", "my own"), ("Mislogging", "dataloader_idx")])
def test_an_error_of_ones_own_module_keeps_its_traceback(model: str, message: str, plain: Ftkit) -> None:
    with pytest.raises(Exception, match=message) as caught:
        plain("fit", "--model", f"plain_wing.{model}")
    assert not isinstance(caught.value, FtkitError)


def test_a_cell_over_data_of_ones_own_is_known_without_a_hash(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("model: plain_wing.PlainModule\ndata: plain_wing.PlainData\n")
    identity = CellEngine(lambda step, total: None).identity([tmp_path / "own.yaml"], 1)
    assert identity["data"] is None
    assert identity["config"]["data"]["class_path"] == "plain_wing.PlainData"


@pytest.mark.parametrize("rows", [1, 4])
def test_the_doctor_says_what_it_cannot_examine(rows: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yaml").write_text(
        "model: plain_wing.PlainModule\ndata:\n  class_path: plain_wing.PlainData\n"
        f"  init_args: {{rows: {rows}}}\ntrainer: {{accelerator: cpu}}\n"
    )
    assert main(["doctor", str(tmp_path / "own.yaml")]) == ExitCode.INPUT
    expected = {1: "data: 0 batches: nothing was trained", 4: "model: only generative modules"}
    assert expected[rows] in capfd.readouterr().err
