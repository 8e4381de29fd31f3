"""An option of another kind inside an otherwise whole checkpoint or export: read, or refused by the file's name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]

from ftkit.cli import main
from ftkit.commands.runs import load_run
from ftkit.errors import EnvironmentFault, InputError
from ftkit.training.export import export_trained
from mutations import other_values

COUNT = 40  # damaged copies of each kind; the slow run reads ten times as many, damaged otherwise
OPTIONS = ("hyper_parameters", "base", "encoding", "adapter", "class_weights", "prompt", "format", "class_path", "lr")


@pytest.fixture(scope="module")
def runs(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a classifier a run and what was exported of it, and a run of a language model with LoRA."""
    folder = tmp_path_factory.mktemp("runs")
    config = yaml.safe_load(tiny_config.read_text())
    config["trainer"]["max_epochs"] = 1
    (folder / "classifier.yaml").write_text(yaml.safe_dump(config))
    base, optimizer = (config["model"]["init_args"][name] for name in ("base_model", "optimizer"))
    adapter = {"class_path": "peft.LoraConfig", "init_args": {"lora_dropout": 0.1}}
    tuned = {"base_model": base, "optimizer": optimizer, "adapter": adapter}
    config["model"] = {"class_path": "ftkit.CausalLMSFT", "init_args": tuned}
    examples = [{"id": str(number), "prompt": f"{number} +", "completion": " x"} for number in range(4)]
    (folder / "examples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in examples))
    splits = dict.fromkeys(("train", "val", "test"), str(folder / "examples.jsonl"))
    config["data"] = {"class_path": "ftkit.TextDataModule", "init_args": splits}
    (folder / "language.yaml").write_text(yaml.safe_dump(config))
    for name in ("classifier", "language"):
        command = ["fit", "--config", str(folder / f"{name}.yaml"), "--trainer.default_root_dir", str(folder / name)]
        assert main(command) == 0
    export_trained(folder / "classifier", folder / "export", "ftkit.GPT2Classifier")
    return folder


@pytest.fixture
def stored(runs: Path, tmp_path: Path) -> Callable[[str], tuple[dict[str, Any], Callable[[dict[str, Any]], Path]]]:
    """By kind: what is stored, and what writes it anew, with another content, into a folder of its own."""

    def copied(kind: str) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Path]]:
        folder = Path(shutil.copytree(runs / kind, tmp_path / kind))
        if kind == "export":
            file = folder / "ftkit.json"
            whole = json.loads(file.read_text())
            return whole, lambda content: [file.write_text(json.dumps(content)), file][-1]
        file = folder / "checkpoints" / "last.ckpt"
        whole = torch.load(file, weights_only=True)
        file.with_name("last.ckpt.sha256").unlink()
        return whole, lambda content: [torch.save(content, file), file][-1]

    return copied


def options_of(whole: dict[str, Any]) -> dict[str, Any]:
    """What is damaged; of an adapter, which stands there twice, only what is read."""
    options = {name: whole[name] for name in OPTIONS if name in whole}
    return options | {"hyper_parameters": {**options["hyper_parameters"], "adapter": None}}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["fast", "many"])
@pytest.mark.parametrize("kind", ["classifier", "language", "export"])
def test_options_of_another_kind_are_read_or_refused_by_name(kind: str, seed: int, stored: Any) -> None:
    whole, write = stored(kind)
    options, counts = options_of(whole), {"read": 0, "refused": 0}
    load_run(write(whole).parents[kind != "export"])
    for place, changed in other_values(options, COUNT * (10 if seed else 1), seed):
        file = write({name: value for name, value in whole.items() if name not in options} | changed)
        try:
            load_run(file.parents[kind != "export"])
            counts["read"] += 1
        except (InputError, EnvironmentFault) as error:
            counts["refused"] += 1
            if not any(named in str(error) for named in (file.name, "hf download bogus", "hf download 7")):
                raise AssertionError(f"{place}: does not name the file: {error}") from error
        except Exception as error:
            raise AssertionError(f"{place}: {type(error).__name__}: {error}") from error
    assert counts["refused"] > COUNT / 5, counts


def with_value(whole: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    name, _, rest = field.partition(".")
    return {**whole, name: with_value(whole[name], rest, value) if rest else value}


WRONG: list[tuple[str, str, Any, str]] = [
    ("classifier", "hyper_parameters.size", [], "hyper_parameters.size: Expected a "),
    ("classifier", "hyper_parameters.dropout", {}, "hyper_parameters.dropout: Expected a <class 'float'>"),
    ("classifier", "hyper_parameters.trainable", "7", "trainable: the backbone has 3 blocks"),
    ("classifier", "hyper_parameters.bogus", 1, "hyper_parameters: do not fit GPT2Classifier"),
    ("classifier", "hyper_parameters", None, "hyper_parameters: is missing"),
    ("classifier", "hyper_parameters._class_path", "ftkit.read_predictions", "class_path: was made by a class"),
    ("classifier", "encoding.max_length", "long", "encoding.max_length: Expected a <class 'int'>"),
    ("classifier", "encoding.bogus", 1, "encoding.bogus: no such option"),
    ("classifier", "encoding", [1], "encoding: must be dict"),
    ("classifier", "base.fingerprint", 5, "base.fingerprint: must be dict"),
    ("classifier", "state_dict.bogus", 5, "state_dict.bogus: must be Tensor"),
    ("classifier", "lr", "fast", "lr: must be float"),
    ("language", "hyper_parameters.seed", 10**30, "hyper_parameters: do not fit CausalLMSFT"),
    ("language", "adapter.init_args.r", "many", "adapter: is no method of peft: "),
    ("language", "adapter.init_args.layers_pattern", "h", "adapter: is no method of peft: "),
    ("language", "adapter.init_args.megatron_config", {"a": 1}, "adapter.megatron_config: Megatron's layers"),
    ("language", "adapter.class_path", "os.system", "adapter"),
    ("export", "hyper_parameters.size", [], "hyper_parameters.size: Expected a "),
    ("export", "encoding", "none", "encoding: must be dict"),
    ("export", "hyper_parameters", [], "hyper_parameters: must be dict"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "field", "value", "said"), WRONG, ids=[f"{one[0]} {one[1]}" for one in WRONG])
def test_file_and_field_are_named(kind: str, field: str, value: Any, said: str, stored: Any) -> None:
    whole, write = stored(kind)
    file = write(with_value(whole, field, value))
    with pytest.raises(InputError, match=f"{file.name}: (?:{said})"):
        load_run(file.parents[kind != "export"])


def test_a_number_as_text_counts_as_the_number(stored: Any) -> None:
    whole, write = stored("classifier")
    assert load_run(write(with_value(whole, "hyper_parameters.lora_alpha", "8")).parents[1]).lora_alpha == 8.0


CANARY = "canary_of_options.run"
NAMING = {
    "adapter": ("adapter", {"class_path": CANARY}),
    "argument of an adapter": ("adapter.init_args.eva_config", CANARY),
    "one of several kinds": ("adapter.init_args.loftq_config", CANARY),
    "class of an argument": ("adapter.init_args.eva_config", {"class_path": CANARY}),
    "module of Megatron": ("adapter.init_args", {"megatron_config": {"a": 1}, "megatron_core": "canary_of_options"}),
    "optimizer": ("hyper_parameters.optimizer", CANARY),
    "metrics": ("hyper_parameters.metrics", {"class_path": CANARY}),
}


@pytest.mark.parametrize("command", ["load", "test"])
@pytest.mark.parametrize("what", NAMING)
def test_nothing_is_imported_because_a_checkpoint_names_it(
    command: str, what: str, stored: Any, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "canary_of_options.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    whole, write = stored("language")
    field, value = NAMING[what]
    if command == "test":  # which takes all options of the module from one place
        field = field.replace("adapter", "hyper_parameters.adapter")
    file = write(with_value(whole, field, value))
    if command == "load":
        with pytest.raises(InputError, match=file.name):
            load_run(file.parents[1])
    else:
        folder = ["--trainer.default_root_dir", str(tmp_path / "evaluated")]
        assert main(["test", "--config", str(runs / "language.yaml"), "--ckpt_path", str(file), *folder]) == 2
