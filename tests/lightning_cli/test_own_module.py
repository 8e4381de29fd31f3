"""Modules and data of one's own: the same care, and no more."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_files import Ftkit

from ftkit.cli import main
from ftkit.errors import ExitCode, FtkitError
from ftkit.lightning_engine import LightningEngine


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
            ["--trainer.callbacks", "plain_task.NeedsPackage"],
            3,
            "trainer.callbacks: NeedsPackage needs a package that is not installed; fix: pip install absent_package",
        ),
    ],
)
def test_what_a_constructor_of_ones_own_refuses_is_told_in_a_line(
    options: list[str], code: int, message: str, plain: Ftkit, tmp_path: Path
) -> None:
    ended, said = plain("fit", "--model", "plain_task.Choosy", *options)
    assert ended == code, said
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_module_in_the_current_folder_is_found(plain: Ftkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_here.py").write_text("from plain_task import PlainModule\nclass Model(PlainModule): ...\n")
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
        plain("fit", "--model", f"plain_task.{model}")
    assert not isinstance(caught.value, FtkitError)


def test_a_cell_over_data_of_ones_own_is_known_without_a_hash(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("model: plain_task.PlainModule\ndata: plain_task.PlainData\n")
    identity = LightningEngine(lambda step, total: None).identity([tmp_path / "own.yaml"], 1)
    assert identity["data"] is None
    assert identity["config"]["data"]["class_path"] == "plain_task.PlainData"


@pytest.fixture
def sweep(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs an ablation over modules of one's own, a row each: (exit code, what was said)."""

    def run(*models: str, data: str = "plain_task.PlainData") -> tuple[int, str]:
        (tmp_path / "own" / "rows").mkdir(parents=True)
        (tmp_path / "own" / "base.yaml").write_text(f"data: {data}\ntrainer: {{accelerator: cpu, max_epochs: 2}}\n")
        for number, model in enumerate(models, 1):
            (tmp_path / "own" / "rows" / f"0{number}_{model.lower()}.yaml").write_text(f"model: plain_task.{model}\n")
        code = main(["ablation", "run", str(tmp_path / "own"), "--out", str(tmp_path / "out")])
        said = capfd.readouterr()
        return code, said.out + said.err

    return run


def test_ones_own_modules_are_rows_with_what_they_log_and_predict(
    sweep: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said = sweep("Logging", "Predicting")
    assert code == 0, said
    assert "01_logging (seed 123): test/loss/dataloader_idx_0 0" in said
    assert "02_predicting (seed 123): test accuracy 50.00%" in said
    results = [json.loads((tmp_path / "out" / cell / "seed-123" / "result.json").read_text())
               for cell in ("01_logging", "02_predicting")]  # fmt: skip
    logged = {f"test/loss/dataloader_idx_{place}" for place in (0, 1)}
    assert set(results[0]["metrics"]["test"]) == set(results[1]["metrics"]["test"]) == logged
    assert all(value > 0 for value in results[0]["metrics"]["test"].values())
    assert "splits" not in results[0]
    assert results[1]["splits"]["test"] == {"n": 4, "correct": 2, "accuracy": 0.5}
    assert main(["ablation", "table", str(tmp_path / "out"), "--timing", "false"]) == 0
    header, _, first, second = capfd.readouterr().out.splitlines()[:4]
    assert header.split()[:7] == ["row", "name", "train", "val", "test", "95%", "int."]
    assert logged <= set(header.split())
    value = results[0]["metrics"]["test"]["test/loss/dataloader_idx_0"]
    assert f"{value:.4g}" in first
    assert "50.00" in second
    assert main(["ablation", "report", str(tmp_path / "out")]) == 0
    report = (tmp_path / "out" / "report" / "report.md").read_text()
    assert "2 of 2 rows have figures. Without predictions: row 1." in report
    assert f"Its test logged test/loss/dataloader_idx_0 {value:.4g}, " in report


def test_an_ablation_of_logged_figures_alone_has_a_table_and_a_report(
    sweep: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep("Logging")[0] == 0
    for format in ("text", "csv"):
        assert main(["ablation", "table", str(tmp_path / "out"), "--format", format]) == 0
        assert "test/loss/dataloader_idx_0" in capfd.readouterr().out
    assert main(["ablation", "report", str(tmp_path / "out")]) == 0
    assert "Its test logged" in (tmp_path / "out" / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("Untested", "row 01_untested: model: has no test_step, and rows are compared on test (got 'Untested')"),
        (
            "Silent",
            "model: the test leaves nothing to compare: test_step logs no metric and returns no predictions",
        ),
    ],
)
def test_a_row_whose_test_would_say_nothing_is_not_trained(
    model: str, message: str, sweep: Any, tmp_path: Path
) -> None:
    code, said = sweep(model)
    assert code in (ExitCode.INPUT, ExitCode.TRAINING), said
    assert message in said
    assert not list((tmp_path / "out").rglob("metrics.csv"))


def test_the_rehearsal_of_a_test_leaves_a_row_what_it_is_alone(sweep: Any, plain: Ftkit, tmp_path: Path) -> None:
    assert sweep("Predicting")[0] == 0
    assert (
        plain("fit", "--model", "plain_task.Predicting", "--trainer.max_epochs", "2", "--seed_everything", "123")[0]
        == 0
    )
    alone, row = (next(folder.rglob("*.ckpt")) for folder in (tmp_path / "run", tmp_path / "out"))
    weights = [torch.load(file, weights_only=True)["state_dict"]["net.weight"] for file in (alone, row)]
    assert torch.equal(*weights)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_doctor_says_what_it_cannot_examine(rows: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yaml").write_text(
        "model: plain_task.PlainModule\ndata:\n  class_path: plain_task.PlainData\n"
        f"  init_args: {{rows: {rows}}}\ntrainer: {{accelerator: cpu}}\n"
    )
    assert main(["doctor", str(tmp_path / "own.yaml")]) == ExitCode.INPUT
    expected = {1: "data: 0 batches: nothing was trained", 4: "model: only generative modules"}
    assert expected[rows] in capfd.readouterr().err
