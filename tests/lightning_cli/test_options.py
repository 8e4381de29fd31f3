"""Options and config files: which one wins, and which are refused."""

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from run_files import Ftkit

from ftkit import lightning_cli
from ftkit.cli import main
from ftkit.errors import ExitCode
from ftkit.training.guards import Climb


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


def test_a_method_of_peft_starts_from_its_own_defaults_and_an_optimizer_keeps_what_fits(
    tiny_config: Path, tmp_path: Path
) -> None:
    layers = {"lora": "peft.LoraConfig, init_args: {r: 3, target_modules: [c_attn]}", "ia3": "peft.IA3Config"}
    for name, adapter in layers.items():
        optimizer = "torch.optim.SGD" if name == "ia3" else "torch.optim.AdamW, init_args: {weight_decay: 0.5}"
        parts = f"adapter: {{class_path: {adapter}}}, optimizer: {{class_path: {optimizer}}}"
        (tmp_path / f"{name}.yaml").write_text(f"model: {{init_args: {{{parts}}}}}\n")
    files = [tiny_config, tmp_path / "lora.yaml", tmp_path / "ia3.yaml"]
    arguments = [word for file in files for word in ("--config", str(file))]
    with patch.object(lightning_cli.FtkitCLI, "instantiate_classes"):
        model = lightning_cli.FtkitCLI(arguments, run=False).config.model.init_args
        again = lightning_cli.FtkitCLI([*arguments, "--model.optimizer", "SGD"], run=False).config.model.init_args
    assert model.adapter.class_path == "peft.IA3Config"
    assert model.adapter.init_args.target_modules is None
    assert (model.optimizer.class_path, model.optimizer.init_args.weight_decay) == ("torch.optim.SGD", 0.5)
    assert again.optimizer == model.optimizer


def test_another_class_of_model_keeps_the_options_that_both_have(tiny_config: Path) -> None:
    arguments = ["--config", str(tiny_config), "--model", "ftkit.CausalLMSFT"]
    with patch.object(lightning_cli.FtkitCLI, "instantiate_classes"):
        cli = lightning_cli.FtkitCLI(arguments, run=False)
    written = yaml.safe_load(tiny_config.read_text(encoding="utf-8"))
    assert cli.config.model.init_args.base_model == written["model"]["init_args"]["base_model"]


def test_one_batch_is_not_all_of_them_whatever_was_imported_before(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries of charts write `Union[float, int]`, and `typing` then has no other union of the two."""
    build = lightning_cli.Parser.add_lightning_class_args

    def add(self: lightning_cli.Parser, *args: Any, **options: Any) -> Any:
        added = build(self, *args, **options)
        for action in self._actions:
            if action.dest == "trainer.limit_train_batches":
                action._typehint = float | int | None
        return added

    monkeypatch.setattr(lightning_cli.Parser, "add_lightning_class_args", add)
    arguments = ["--config", str(tiny_config), "--trainer.limit_train_batches", "1"]
    trainer = lightning_cli.FtkitCLI(arguments, run=False).trainer
    assert isinstance(trainer.limit_train_batches, int)


def test_a_share_of_an_epoch_stays_a_number_where_a_text_will_do_too(tiny_config: Path) -> None:
    arguments = ["--config", str(tiny_config), "--trainer.val_check_interval", "0.5"]
    assert lightning_cli.FtkitCLI(arguments, run=False).trainer.val_check_interval == 0.5


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


def test_the_short_name_of_an_optimizer_is_torchs(tiny_config: Path) -> None:
    class AdamW(torch.optim.Adam):
        """Another library's."""

    AdamW.__qualname__, AdamW.__module__ = "AdamW", __name__
    with patch.object(sys.modules[__name__], "AdamW", AdamW, create=True):
        arguments = ["--config", str(tiny_config), "--model.optimizer", "AdamW", "--model.optimizer.lr", "0.5"]
        chosen = lightning_cli.FtkitCLI(arguments, run=False).config.model.init_args.optimizer
    assert (chosen.class_path, chosen.init_args.lr) == ("torch.optim.AdamW", 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.init_args.poling", "first"], "model.poling: no such option; fix: did you mean pooling?"),
        (["--data.paddng", "longest"], "data.paddng: no such option; fix: did you mean padding?"),
        (["--trainer.max_epoch", "3"], "trainer.max_epoch: no such option; fix: did you mean trainer.max_epochs?"),
        (["--model.optimizer.lrr", "1"], "model.optimizer.lrr: no such option; fix: did you mean lr?"),
        (
            ["--model.pooling", "frist"],
            "model.pooling: Expected a typing.Literal['first', 'last', 'last_real', 'mean', 'mean_real']",
        ),
        (["--model.dropout", "high"], "model.dropout: Expected a <class 'float'>. Got value: high"),
        (["--data.batch_size", "8.5"], "data.batch_size: Expected a <class 'int'>. Got value: 8.5"),
        (["--data.padding", "longst"], "data.padding: Expected a typing.Literal['longest', 'context', 'none'] - Exp"),
        (["--trainer.max_epochs", "many"], "trainer.max_epochs: Expected a <class 'int'> - Expected a <class 'N"),
        (["--model.optimizer.lr", "nan"], "model.optimizer.lr: "),
        (["--model", "ftkit.GPT3Classifier"], "did you mean ftkit.GPT2Classifier?"),
        (["--model", "GPT3Classifier"], "model: no such class (got 'GPT3Classifier'); fix: did you mean ftkit.GPT2"),
        (["--data", "SpamDatModule"], "data: no such class (got 'SpamDatModule'); fix: did you mean ftkit.SpamDataM"),
        (["--data", "nowhere.Data"], "data: there is no module nowhere (got 'nowhere.Data')"),
        (["--model", "ftkit.SpamDataModule"], "model: is not a LightningModule (got 'ftkit.SpamDataModule'); fix: n"),
        (["--trainer.logger", "CSVLoger"], "logger: no such class (got 'CSVLoger'); fix: did you mean lightning."),
        (["--model.optimizer", "SDG"], "optimizer: no such class (got 'SDG'); fix: did you mean torch.optim.SGD?"),
        (
            ["--model.scheduler", "ReduceLROnPlateau"],
            "model.scheduler: needs a metric to monitor (got 'torch.optim.lr_scheduler.ReduceLROnPlateau'); fix: ",
        ),
        (["--model.optimizer", "torch.optim.SDG"], "did you mean torch.optim.SGD?"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: there is no such file"),
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
        ("model:\n  init_args:\n    pooling: frist\n", "model.pooling: Expected a typing.Literal['first', 'last'"),
        (
            "trainer:\n  callbacks:\n    - class_path: ModelCheckpoint\n      init_args: {filenam: x}\n",
            "filenam: no such option; fix: did you mean filename?",
        ),
        ("model: [1\n", "layer.yaml:2: not valid YAML: "),
        ("model: GPT2Clasifier\n", "layer.yaml: model: no such class (got 'GPT2Clasifier'); fix: did you mean ftkit."),
        (
            "data:\n  init_args:\n    labels: [no, yes]\n",
            "labels: the option names 'no' or 'yes', and the data have 'spam' or 'ham' (got 'spam'); fix: name the",
        ),
        ("foo: {}\n", "layer.yaml: foo: no such option"),
        ("foo: {bar: {}}\n", "layer.yaml: foo.bar: no such option"),
        ("trainer:\n  foo: {}\n", "layer.yaml: trainer.foo: no such option"),
        ("model:\n  init_args:\n    foo: {}\n", "layer.yaml: model.foo: no such option"),
        ("model:\n  init_args:\n    optimizer:\n      foo: {}\n", "layer.yaml: model.optimizer.foo: no such option"),
        (
            "trainer:\n  callbacks:\n    - class_path: ModelCheckpoint\n      init_args: {foo: {}}\n",
            "layer.yaml: trainer.callbacks.foo: no such option",
        ),
    ],
)  # fmt: skip
def test_mistakes_in_a_config_file_are_named(text: str, message: str, ftkit: Ftkit, tmp_path: Path) -> None:
    (tmp_path / "layer.yaml").write_text(text)
    code, said = ftkit("fit", "--config", str(tmp_path / "layer.yaml"))
    assert code == ExitCode.INPUT
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "option", ["foo", "trainer.foo", "model.foo", "model.init_args.foo", "model.optimizer.foo", "data.foo", "foo.bar"]
)
def test_an_unknown_option_is_refused_though_its_value_is_empty(option: str, ftkit: Ftkit, tmp_path: Path) -> None:
    code, said = ftkit("fit", f"--{option}", "{}")
    assert code == ExitCode.INPUT, said
    assert f"error: {option.replace('init_args.', '')}: no such option" in said
    assert not (tmp_path / "run").exists()


def test_options_of_a_class_that_is_not_named_say_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {init_args: {base_model: demo}}\ndata: SpamDataModule\n")
    for arguments in (
        ["--model.base_model", "demo", "--data", "SpamDataModule"],
        ["--config", str(tmp_path / "a.yaml")],
    ):
        assert main(["fit", *arguments]) == ExitCode.INPUT
        said = capsys.readouterr().err
        assert "model.base_model: is an option of a class that is not given; fix: name the class before it" in said


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
        (["--model.size", "small"], 2, "size: has 3 layers x 32, but size small is 12 x 768"),
        (["--model.base_model", "hub", "--model.size", "small"], 3, "`hf download openai-community/gpt2`"),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.optimizer.lr", "0"], "model.optimizer.lr: the learning rate must be positive (got 0.0)"),
        (
            ["--model.optimizer.lr", "-1"],
            "model.optimizer: AdamW: Invalid learning rate: -1.0; fix: correct its init_args",
        ),
        (["--model.optimizer.weight_decay", "-1"], "model.optimizer: AdamW: Invalid weight_decay value: -1.0"),
    ],
)
def test_optimizer_options_out_of_range_are_refused_before_anything_is_written(
    options: list[str], message: str, ftkit: Ftkit, tmp_path: Path
) -> None:
    code, said = ftkit("fit", *options)
    assert code == ExitCode.INPUT, said
    assert message in said
    assert not (tmp_path / "run").exists()


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
    assert "matmul_precision: Expected a typing.Literal['highest', 'high', 'medium']. Got value: low" in said


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


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ([], 5),
        (["--trainer.max_epochs", "2"], 2),
        (["--trainer.max_steps", "7"], None),
        (["--trainer.max_time", "00:01:00:00"], None),
    ],
)
def test_without_a_number_of_epochs_a_classifier_is_trained_for_five(
    options: list[str], epochs: int | None, tiny_config: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load(tiny_config.read_text())
    del config["trainer"]["max_epochs"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    cli = lightning_cli.FtkitCLI(["--config", str(tmp_path / "config.yaml"), *options], run=False)
    assert cli.config.trainer.max_epochs == epochs  # config.yaml and the identity of a run say it too
    assert cli.trainer.max_epochs == epochs
    assert cli.trainer.max_steps == (7 if "7" in options else -1)


def test_other_tasks_are_trained_for_three_epochs() -> None:
    for model, data in (
        ("ftkit.CausalLMSFT", "ftkit.ArithmeticDataModule"),
        ("plain_task.PlainModule", "plain_task.PlainData"),
    ):
        assert lightning_cli.FtkitCLI(["--model", model, "--data", data], run=False).trainer.max_epochs == 3


def test_a_training_of_so_many_steps_ends_after_them(tmp_path: Path) -> None:
    base = ["--model", "plain_task.PlainModule", "--data", "plain_task.PlainData", "--trainer.accelerator", "cpu"]
    folder = ["--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(["fit", *base, *folder, "--trainer.max_steps", "5", "--trainer.enable_progress_bar", "false"]) == 0
    assert json.loads((tmp_path / "run/result.json").read_text())["steps"] == 5
