"""`ftkit fit` and its kin on a tiny model: the files they leave, what they refuse, and the cells of a sweep."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]

from ftkit import cells, lightning_cli
from ftkit.ablation.ledger import key_of
from ftkit.cells import CellEngine
from ftkit.cli import main
from ftkit.errors import ExitCode, FtkitError, InputError
from ftkit.lock import exclusive
from ftkit.run_folder import DEFAULT_FOLDER
from ftkit.storage import sha256_of, verify_checksum
from ftkit.training.guards import Climb

FILES = {
    "config.yaml", "result.json", "metrics.csv", "hparams.yaml", "predictions-train.tsv", "predictions-val.tsv",
    "predictions-test.tsv", "checkpoints/last.ckpt", "checkpoints/last.ckpt.sha256",
}  # fmt: skip
Ftkit = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("lightning"), "level", logging.WARNING)


@pytest.fixture
def ftkit(tiny_config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Ftkit:
    """Runs a command on the tiny config: (exit code, what was said)."""

    def run(command: str, *options: str, folder: Path = tmp_path / "run") -> tuple[int, str]:
        capfd.readouterr()
        base = ["--config", str(tiny_config), "--trainer.default_root_dir", str(folder)]
        code = main([command, *base, *options])
        said = capfd.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture(scope="module")
def run_folder(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ftkit fit` and `ftkit test` leave."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    for command in ("fit", "test"):
        assert main([command, "--config", str(tiny_config), "--trainer.default_root_dir", str(folder)]) == 0
    return folder


def files_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def contents(folder: Path) -> dict[str, str]:
    return {name: sha256_of(folder / name) for name in files_in(folder)}


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
    assert f"notice: the run is the one in {one}, where its config.yaml lies" in capfd.readouterr().err
    assert (one / "predictions-test.tsv").read_bytes() == (run_folder / "predictions-test.tsv").read_bytes()
    assert main(["fit", "--config", "one run/config.yaml", "--resume", "--trainer.max_epochs", "3"]) == 0
    assert json.loads((one / "result.json").read_text())["steps"] == 12
    assert contents(other) == before


def test_test_takes_the_trained_weights_or_says_that_there_are_none(ftkit: Ftkit, run_folder: Path) -> None:
    before = (run_folder / "predictions-test.tsv").read_bytes()
    for options in (
        [],
        ["--ckpt_path", str(run_folder / "checkpoints" / "last.ckpt")],
        ["--ckpt_path", str(run_folder)],
    ):
        (run_folder / "predictions-test.tsv").unlink()
        assert ftkit("predict", *options, folder=run_folder)[0] == 0
        assert (run_folder / "predictions-test.tsv").read_bytes() == before
    for command in ("test", "validate", "predict"):
        code, said = ftkit(command)
        assert code == ExitCode.INPUT
        assert "no such checkpoint; fix: train first" in said


def test_layers_of_configs_and_the_command_line_win_in_turn(ftkit: Ftkit, tmp_path: Path) -> None:
    layer = tmp_path / "layer.yaml"
    layer.write_text(
        "model:\n  init_args:\n    pooling: mean\n    optimizer:\n      init_args:\n        lr: 0.5\n"
        "trainer:\n  max_epochs: 7\n"
    )
    code, said = ftkit("fit", "--config", str(layer), "--trainer.max_epochs", "9", "--print_config")
    assert code == 0
    config = yaml.safe_load(said)
    model = config["model"]["init_args"]
    assert (model["pooling"], model["trainable"]) == ("mean", "last_block")
    assert (model["optimizer"]["init_args"]["lr"], model["optimizer"]["init_args"]["weight_decay"]) == (0.5, 0.1)
    assert config["trainer"]["max_epochs"] == 9
    assert not (tmp_path / "run").exists()


def test_another_optimizer_may_be_named(tiny_config: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer.yaml"
    layer.write_text(
        "model:\n  init_args:\n    optimizer:\n      class_path: torch.optim.SGD\n"
        "      init_args:\n        lr: 0.25\n        momentum: 0.5\n        weight_decay: 0.0\n"
    )
    cli = lightning_cli.FtkitCLI(["--config", str(tiny_config), "--config", str(layer)], run=False)
    cli.model.configure_model()
    optimizer = cli.model.configure_optimizers()
    assert type(optimizer) is torch.optim.SGD
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.init_args.poling", "first"], "model.poling: no such option; fix: did you mean pooling?"),
        (["--data.paddng", "longest"], "data.paddng: no such option; fix: did you mean padding?"),
        (["--trainer.max_epoch", "3"], "trainer.max_epoch: no such option; fix: did you mean trainer.max_epochs?"),
        (["--model.optimizer.lrr", "1"], "model.optimizer.lrr: no such option; fix: did you mean lr?"),
        (
            ["--model.pooling",
            "frist"], "model.pooling: expected one of first, last, last_real, mean, mean_real (got 'frist')",
        ),
        (["--model.dropout", "high"], "model.dropout: expected float (got 'high')"),
        (["--data.batch_size", "8.5"], "data.batch_size: expected int (got '8.5')"),
        (["--data.padding", "longst"], "data.padding: expected one of longest, context, none or int (got 'longst')"),
        (["--trainer.max_epochs", "many"], "trainer.max_epochs: expected int (got 'many')"),
        (["--model.optimizer.lr", "nan"], "model.optimizer.lr: expected float (got 'nan')"),
        (["--model", "ftkit.GPT3Classifier"], "did you mean ftkit.GPT2Classifier?"),
        (["--model.optimizer", "torch.optim.SDG"], "did you mean torch.optim.SGD?"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: config: there is no such file"),
    ],
)  # fmt: skip
def test_misspelt_and_mistyped_options_are_named(
    options: list[str], message: str, ftkit: Ftkit, tmp_path: Path
) -> None:
    code, said = ftkit("fit", *options)
    assert code == ExitCode.INPUT
    assert message in said.replace(str(Path.cwd()) + "/", "")
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  init_args:\n    poling: first\n", "model.poling: no such option; fix: did you mean pooling?"),
        (
            "modle:\n  init_args:\n    pooling: first\n",
            "modle.init_args.pooling: no such option; fix: did you mean model?",
        ),
        ("trainer:\n  max_epoch: 5\n", "trainer.max_epoch: no such option; fix: did you mean trainer.max_epochs?"),
        (
            "model:\n  init_args:\n    optimizer:\n      init_args:\n        lrr: 1\n",
            "model.optimizer.lrr: no such option",
        ),
        ("model:\n  init_args:\n    pooling: frist\n", "model.pooling: expected one of first, last"),
        (
            "trainer:\n  callbacks:\n    - class_path: ModelCheckpoint\n      init_args: {filenam: x}\n",
            "filenam: no such option; fix: did you mean filename?",
        ),
        ("model: [1\n", "layer.yaml:2: not valid YAML: "),
    ],
)  # fmt: skip
def test_mistakes_in_a_config_file_are_named(text: str, message: str, ftkit: Ftkit, tmp_path: Path) -> None:
    (tmp_path / "layer.yaml").write_text(text)
    code, said = ftkit("fit", "--config", str(tmp_path / "layer.yaml"))
    assert code == ExitCode.INPUT
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ["--trainer.accelerator", "gpu"],
            3,
            "trainer.accelerator: No supported gpu backend found!; fix: for a CPU: --trainer.accelerator cpu",
        ),
        (["--trainer.max_epochs", "0"], 2, "trainer.max_epochs: nothing would be trained"),
        (["--trainer.max_epochs", "-2"], 2, "max_epochs"),
        (["--trainer.max_steps", "0"], 2, "nothing would be trained"),
        (["--trainer.accumulate_grad_batches", "0"], 2, "trainer.accumulate_grad_batches: must be at least 1"),
        (["--model.optimizer.lr", "0"], 2, "model.optimizer.lr: the learning rate must be positive (got 0.0)"),
        (["--model.optimizer.lr=-1"], 2, "Invalid learning rate: -1.0"),
        (["--model.dropout", "1"], 2, "dropout: is a probability below 1 (got 1.0)"),
        (["--model.class_weights", "[1]"], 2, "class_weights: takes one positive weight a class"),
        (["--model.trainable", "4"], 2, "trainable: the backbone has 3 blocks (got 4)"),
        (["--model.size", "small"], 2, "size: holds 3 layers x 32, but size small is 12 x 768"),
        (["--model.source", "hub", "--model.size", "small"], 3, "`hf download openai-community/gpt2`"),
        (["--data.batch_size", "64"], 2, "batch_size: 0 batches"),
        (["--data.padding", "65"], 2, "padding: 65 tokens in a context of 64"),
        (["--data.padding", "none"], 2, "fix: batch_size 1 with accumulate_grad_batches 8, or pooling last_real"),
        (["--ckpt_path", "/nowhere.ckpt"], 2, "/nowhere.ckpt: no such checkpoint"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_with_the_way_out(
    options: list[str], code: int, message: str, ftkit: Ftkit, tmp_path: Path
) -> None:
    ended, said = ftkit("fit", *options)
    assert ended == code, said
    assert message in said
    assert "Traceback" not in said
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_an_output_folder_that_cannot_be_made_is_the_environments_fault(ftkit: Ftkit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, said = ftkit("fit", folder=tmp_path / "file" / "run")
    assert code == ExitCode.ENVIRONMENT, said
    assert str(tmp_path / "file") in said


def test_a_training_that_breaks_ends_with_4_and_keeps_the_last_checkpoint(ftkit: Ftkit, tmp_path: Path) -> None:
    code, said = ftkit("fit", "--model.optimizer.lr", "1e30", "--trainer.max_epochs", "3")
    assert code == ExitCode.TRAINING, said
    assert "is not finite at step 1, epoch 0, rate 1e+30" in said
    assert "Traceback" not in said


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


@pytest.fixture(scope="module")
def ablation(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ablation folder of two rows over the tiny config."""
    folder = tmp_path_factory.mktemp("ablation") / "tiny"
    (folder / "rows").mkdir(parents=True)
    shutil.copy(tiny_config, folder / "base.yaml")
    (folder / "rows" / "01_mean.yaml").write_text("# Mean?\nmodel:\n  init_args:\n    pooling: mean\n")
    lora = "# LoRA?\nmodel:\n  init_args:\n    trainable: lora\n    lora_rank: 2\n"
    (folder / "rows" / "02_lora.yaml").write_text(lora)
    return folder


def test_a_row_of_a_sweep_gives_what_it_gives_alone(ablation: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["ablation", "run", str(ablation), "--out", str(out), "--seeds", "123,7"]) == 0
    configs = ["--config", str(ablation / "base.yaml"), "--config", str(ablation / "rows" / "02_lora.yaml")]
    for seed in ("123", "7"):  # the second cell of a process, and the last
        cell, alone = out / "02_lora" / f"seed-{seed}", tmp_path / f"alone-{seed}"
        assert files_in(cell) == FILES
        for command in ("fit", "test"):
            options = ["--trainer.default_root_dir", str(alone), "--seed_everything", seed]
            assert main([command, *configs, *options]) == 0
        for split in ("train", "val", "test"):
            name = f"predictions-{split}.tsv"
            assert (cell / name).read_bytes() == (alone / name).read_bytes()
        results = [json.loads((folder / "result.json").read_text()) for folder in (cell, alone)]
        assert results[0]["splits"] == results[1]["splits"]
        assert results[0]["seed"] == int(seed)
    assert (out / "02_lora/seed-7/predictions-test.tsv").read_bytes() != (
        out / "02_lora/seed-123/predictions-test.tsv"
    ).read_bytes()
    before = contents(out / "02_lora")
    assert main(["ablation", "run", str(ablation), "--out", str(out), "--seeds", "123,7"]) == 0
    assert contents(out / "02_lora") == before  # it was done


def test_what_identifies_a_cell(ablation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, configs = CellEngine(lambda step, total: None), [ablation / "base.yaml", ablation / "rows" / "01_mean.yaml"]
    first = engine.identity(configs, 123)
    assert key_of(engine.identity(configs, 123)) == key_of(first)
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(engine.identity(configs, 123)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cells, "DEFAULT_FOLDER", "elsewhere")
    assert engine.identity(configs, 123) == first
    assert "elsewhere" not in json.dumps(first)
    assert str(first["config"]["model"]["init_args"]["pooling"]) == "mean"

    other = tmp_path / "row.yaml"
    other.write_text("model:\n  init_args:\n    pooling: first\n")
    changed = [engine.identity([configs[0], other], 123), engine.identity(configs, 124)]
    messages = Path(first["config"]["data"]["init_args"]["source"])
    copy = Path(shutil.copy(messages, tmp_path / "messages.tsv"))
    other.write_text(f"model:\n  init_args:\n    pooling: mean\ndata:\n  init_args:\n    source: {copy}\n")
    assert engine.identity([configs[0], other], 123)["data"] == first["data"]
    copy.write_text(messages.read_text() + "ham\tone more\n")
    changed.append(engine.identity([configs[0], other], 123))
    assert changed[-1]["data"] != first["data"]
    monkeypatch.setattr(cells, "code_sha256", lambda: "other code")
    changed.append(engine.identity(configs, 123))
    assert len({key_of(identity) for identity in [first, *changed]}) == 5
    assert list(tmp_path.glob("elsewhere*")) == []  # nothing is written


def test_a_cell_that_would_not_be_tested_is_refused_before_it_is_trained(ablation: Path, tmp_path: Path) -> None:
    (overlay := tmp_path / "val.yaml").write_text("data:\n  init_args:\n    evaluate_splits: [val]\n")
    with pytest.raises(InputError, match=r"data.evaluate_splits: the rows .* \(got \['val'\]\); fix: add test$"):
        CellEngine(lambda step, total: None).identity([ablation / "base.yaml", overlay], 123)


def test_a_cell_reports_its_steps(ablation: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    engine = CellEngine(lambda step, total: steps.append((step, total)))
    engine.run([ablation / "base.yaml", ablation / "rows" / "01_mean.yaml"], 5, tmp_path)
    assert steps == [(step, 8) for step in range(1, 9)]
    assert files_in(tmp_path) == FILES


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
    assert "--allow_changed true" in said
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
    assert f"nothing to go on from in {tmp_path / 'run'}; training starts at the beginning" in said
    assert "resume" not in (tmp_path / "run" / "config.yaml").read_text()
    code, said = ftkit("fit", "--resume", "true", "--ckpt_path", str(run_folder))
    assert (code, "choose one of --resume and --ckpt_path" in said) == (2, True)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.optimizer.lr", "0"], "model.optimizer.lr: the learning rate must be positive (got 0.0)"),
        (["--model.optimizer.lr", "-1"], "model.optimizer: Invalid learning rate: -1.0"),
        (["--model.optimizer.weight_decay", "-1"], "model.optimizer: Invalid weight_decay value: -1.0"),
    ],
)
def test_optimizer_options_out_of_range_are_refused_before_anything_is_written(
    options: list[str], message: str, ftkit: Ftkit, tmp_path: Path
) -> None:
    code, said = ftkit("fit", *options)
    assert code == ExitCode.INPUT, said
    assert message in said
    assert not (tmp_path / "run").exists()


def test_a_second_training_in_the_folder_is_turned_away(ftkit: Ftkit, tmp_path: Path) -> None:
    with exclusive(tmp_path / "run"):
        code, said = ftkit("fit")
    assert code == ExitCode.ENVIRONMENT, said
    assert f"{tmp_path / 'run'}: process {os.getpid()} on" in said
    assert files_in(tmp_path / "run") == {".lock"}


PLAIN = """
import lightning as L, torch
from torch.utils.data import DataLoader, TensorDataset

class PlainModule(L.LightningModule):
    '''A module without ftkit's checks.'''
    def __init__(self, width: int = 3):
        super().__init__()
        self.net = torch.nn.Linear(2, width)
    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).square().mean()
    def validation_step(self, batch, batch_idx):
        return self.training_step(batch, batch_idx)
    def predict_step(self, batch, batch_idx):
        return self.net(batch[0])
    test_step = validation_step
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

class PlainData(L.LightningDataModule):
    '''Rows of zeros.'''
    def __init__(self, rows: int = 4):
        super().__init__()
        self.rows = rows
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(self.rows, 2)), batch_size=2, drop_last=True)
    val_dataloader = predict_dataloader = train_dataloader
    def test_dataloader(self):
        return [self.train_dataloader(), self.train_dataloader()]
"""


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Ftkit:
    """Runs `fit` on somebody's own module and data: (exit code, what was said)."""
    (tmp_path / "plain_wing.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(tmp_path)

    def run(command: str, *options: str, folder: Path = tmp_path / "run") -> tuple[int, str]:
        base = ["--model", "plain_wing.PlainModule", "--data", "plain_wing.PlainData"]
        quiet = ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
        capfd.readouterr()
        code = main([command, *base, *quiet, "--trainer.default_root_dir", str(folder), *options])
        said = capfd.readouterr()
        return code, said.out + said.err

    return run


def test_a_module_of_ones_own_gets_the_same_care(plain: Ftkit, tmp_path: Path) -> None:
    assert plain("fit")[0] == 0
    code, said = plain("fit", "--ckpt_path", str(tmp_path / "run"), "--model.width", "5", folder=tmp_path / "other")
    assert code == ExitCode.INPUT, said
    assert "the checkpoint does not fit the model: size mismatch for net.weight" in said
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


@pytest.mark.parametrize("raised", ["raise ValueError('my own')", "self.log('a/dataloader_idx_0', 1.0)"])
def test_an_error_of_ones_own_module_keeps_its_traceback(raised: str, plain: Ftkit, tmp_path: Path) -> None:
    step = "def validation_step(self, batch, batch_idx):"
    (tmp_path / "faulty_wing.py").write_text(PLAIN.replace(step, f"{step}\n        {raised}"))
    with pytest.raises(Exception, match=r"my own|dataloader_idx") as caught:
        plain("fit", "--model", "faulty_wing.PlainModule")
    assert not isinstance(caught.value, FtkitError)


def test_a_cell_over_data_of_ones_own_is_known_without_a_hash(plain: Ftkit, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("model: plain_wing.PlainModule\ndata: plain_wing.PlainData\n")
    identity = CellEngine(lambda step, total: None).identity([tmp_path / "own.yaml"], 1)
    assert identity["data"] is None
    assert identity["config"]["data"]["class_path"] == "plain_wing.PlainData"


@pytest.mark.parametrize("rows", [1, 4])
def test_the_doctor_says_what_it_cannot_examine(
    rows: int, plain: Ftkit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text(
        "model: plain_wing.PlainModule\ndata:\n  class_path: plain_wing.PlainData\n"
        f"  init_args: {{rows: {rows}}}\ntrainer: {{accelerator: cpu}}\n"
    )
    assert main(["doctor", str(tmp_path / "own.yaml")]) == ExitCode.INPUT
    expected = {1: "data: 0 batches: nothing was trained", 4: "model: only generative modules"}
    assert expected[rows] in capfd.readouterr().err


def test_the_precision_of_matrix_products_is_this_runs_own_and_recorded(plain: Ftkit, tmp_path: Path) -> None:
    try:
        assert plain("fit", "--matmul_precision", "high")[0] == 0
        assert torch.get_float32_matmul_precision() == "high"
        assert plain("fit", folder=tmp_path / "exact")[0] == 0
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision("highest")
    for folder, precision in (("run", "high"), ("exact", "highest")):
        result = json.loads((tmp_path / folder / "result.json").read_text())
        assert result["numerics"] == {"precision": "32-true", "matmul_precision": precision}
        assert yaml.safe_load((tmp_path / folder / "config.yaml").read_text())["matmul_precision"] == precision
    code, said = plain("fit", "--matmul_precision", "low", folder=tmp_path / "none")
    assert code == ExitCode.INPUT, said
    assert "matmul_precision: expected one of highest, high, medium (got 'low')" in said


def test_the_guard_against_divergence_can_be_set_up_and_switched_off(
    ftkit: Ftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Climb, "add", lambda self, loss: (self.window, self.patience) == (2, 7))
    chosen = ["--divergence.window", "2", "--divergence.patience", "7"]
    code, said = ftkit("fit", *chosen)
    assert code == ExitCode.TRAINING, said
    assert "the loss has climbed" in said
    assert ftkit("fit", *chosen, "--divergence.enabled", "false")[0] == 0
    assert ftkit("fit")[0] == 0
