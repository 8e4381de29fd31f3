"""The shipped configs parse, are what a 12 GB GPU needs, and run without a network on tiny models and made rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from ftkit.cli import main
from ftkit.lightning_cli import FtkitCLI
from ftkit.results.predictions import read_predictions
from ftkit.training.checkpoint import read_checkpoint

CONFIGS = Path(__file__).parents[2] / "configs" / "vlm"
SHAPE_OF = {
    "smolvlm_sft": ("smolvlm_folder", "messages"),
    "smolvlm_dpo": ("smolvlm_folder", "preference"),
    "moderation": ("paligemma_folder", "prefix"),
}


def parsed(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The config as `ftkit fit` resolves it; nothing is built."""
    monkeypatch.setattr(FtkitCLI, "instantiate_classes", lambda self: None)
    return FtkitCLI(["--config", str(path)], run=False).config


@pytest.mark.parametrize("name", SHAPE_OF)
def test_a_config_is_qlora_on_a_small_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = CONFIGS / f"{name}.yaml"
    config = parsed(path, monkeypatch)
    model, written = config.model.init_args, yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (model.quantization, model.gradient_checkpointing) == ("nf4", True)
    assert (model.adapter.class_path, model.adapter.init_args.r) == ("peft.LoraConfig", 8)
    assert model.optimizer.class_path.endswith("PagedAdamW8bit")
    assert config.trainer.precision == "bf16-mixed"
    for part in ("model", "data"):
        for key, value in written[part]["init_args"].items():
            found = config[part].init_args[key]
            if key in ("optimizer", "adapter"):
                assert value["init_args"].items() <= dict(found.init_args).items()
            else:
                assert found == value or list(found) == value, key
    for key, value in written["trainer"].items():
        assert key == "callbacks" or config.trainer[key] == value, key


def test_every_config_is_tested() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(SHAPE_OF)


@pytest.fixture
def run_offline(
    request: pytest.FixtureRequest, vlm_examples: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Runs fit and test of a shipped config on a tiny model; only names of folders and the device are other ones."""

    def run(name: str) -> Path:
        family, shape = SHAPE_OF[name]
        examples = vlm_examples(shape)
        if name == "moderation":
            lines = examples.read_text().replace('"red"', '"yes"').replace('"green"', '"no"').replace('"blue"', '"no"')
            examples = examples.with_name("moderation.jsonl")
            examples.write_text(lines)
        splits = dict.fromkeys(("train", "val", "test"), str(examples))
        overlay = {
            "model": {"init_args": {"base_model": str(request.getfixturevalue(family))}},
            "data": {"init_args": {**splits, "images": None, "num_workers": 0}},
            "trainer": {"accelerator": "cpu", "max_epochs": 1, "limit_val_batches": 1},
        }
        if "sample" in yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["data"]["init_args"]:
            overlay["data"]["init_args"]["sample"] = 8
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(overlay))
        monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
        options = ["--config", str(CONFIGS / f"{name}.yaml"), "--config", str(tmp_path / "tiny.yaml")]
        options += ["--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.enable_progress_bar", "false"]
        assert main(["fit", *options]) == 0
        assert main(["test", *options]) == 0
        return tmp_path / "run"

    return run


@pytest.mark.parametrize(
    "name", ["smolvlm_sft", *(pytest.param(name, marks=pytest.mark.slow) for name in ("smolvlm_dpo", "moderation"))]
)
def test_a_config_runs_without_a_network(name: str, run_offline: Callable[[str], Path]) -> None:
    run = run_offline(name)
    for split in ("val", "test"):
        assert len(read_predictions(run / f"predictions-{split}.tsv")) == 12
    kept = read_checkpoint(run)["state_dict"]
    assert kept
    assert all("lora" in parameter for parameter in kept)  # adapters only
