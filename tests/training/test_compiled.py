"""Compiled training learns what training learns, leaves the same files, and never falls back in silence."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch._dynamo.utils import counters

from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.cli import main
from ftkit.errors import EnvironmentFault, ExitCode, InputError
from ftkit.training import compiled
from ftkit.training.checkpoint import read_checkpoint
from ftkit.training.compiled import CompiledTraining, trainable_parts

CALLBACK = ["--trainer.callbacks+", "ftkit.training.compiled.CompiledTraining"]


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks are captured as graphs, which run as they are: the kernels are the usual ones, and so are the numbers."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(compiled, "need_compiler", lambda device: None)
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def fit(config: Path, folder: Path, *options: str) -> dict[str, Any]:
    base = ["--config", str(config), "--trainer.default_root_dir", str(folder)]
    assert main(["fit", *base, *options]) == ExitCode.DONE
    return json.loads((folder / "result.json").read_text())


def losses(folder: Path) -> list[float]:
    rows = (folder / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train/loss")
    return [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]


def assert_same_weights(folder: Path, other: Path) -> None:
    one, two = (read_checkpoint(run)["state_dict"] for run in (folder, other))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert torch.equal(weight, two[name]), name


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ([], 1),  # one position, by a method that does not call the block
        pytest.param(
            ["--model.trainable", "last_two_blocks", "--model.pooling", "mean_real", "--data.padding", "none"],
            2,
            marks=pytest.mark.slow,
        ),
        pytest.param(["--model.trainable", "lora", "--trainer.precision", "bf16-mixed"], 3, marks=pytest.mark.slow),
    ],
)
def test_what_is_left_is_the_same(
    options: list[str], parts: int, captured: None, cache: Path, tiny_config: Path, tmp_path: Path
) -> None:
    assert "compiled" not in fit(tiny_config, tmp_path / "plain", *options)
    assert graphs() == 0
    assert fit(tiny_config, tmp_path / "compiled", *options, *CALLBACK)["compiled"] == parts
    assert graphs() >= 1
    assert_same_weights(tmp_path / "plain", tmp_path / "compiled")
    first = graphs()
    fit(tiny_config, tmp_path / "again", *options, *CALLBACK)  # in the same process, as the rows of an ablation
    assert graphs() == 2 * first


@pytest.mark.filterwarnings("error:Dynamo detected")
def test_blocks_of_another_family_too(
    captured: None, cache: Path, tiny_config: Path, llama_folder: Path, tmp_path: Path
) -> None:
    """Nearly the same numbers: for one position with grouped keys, transformers arranges them otherwise if captured."""
    tree = yaml.safe_load(tiny_config.read_text())
    del tree["model"]["init_args"]["size"]
    tree["model"]["class_path"] = "ftkit.TextClassifier"
    tree["model"]["init_args"] |= {"base_model": str(llama_folder), "trainable": "last_two_blocks"}
    (config := tmp_path / "llama.yaml").write_text(yaml.safe_dump(tree))
    fit(config, tmp_path / "plain")
    assert fit(config, tmp_path / "compiled", *CALLBACK)["compiled"] == 2
    assert graphs() >= 2
    plain, captured_losses = losses(tmp_path / "plain"), losses(tmp_path / "compiled")
    assert plain[0] - plain[-1] > 0.1
    torch.testing.assert_close(captured_losses, plain, atol=1e-5, rtol=0)


def test_where_no_block_learns_nothing_is_compiled(
    captured: None, cache: Path, tiny_config: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="no block is trainable, so nothing was compiled"):
        found = fit(tiny_config, tmp_path / "run", "--model.trainable", "last_layer", *CALLBACK)
    assert found["compiled"] == graphs() == 0


def language_config(folder: Path, **options: Any) -> Path:
    options |= {"base_model": "demo", "max_new_tokens": 2, "adapter": {"class_path": "peft.LoraConfig"}}
    tree = {
        "seed_everything": 1,
        "model": {
            "class_path": "ftkit.CausalLMSFT",
            "init_args": options,
        },
        "data": {
            "class_path": "ftkit.ArithmeticDataModule",
            "init_args": {"train_size": 16, "val_size": 2, "test_size": 2, "bucket": True, "batch_size": 4},
        },
        "trainer": {
            "max_epochs": 1, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1,
            "enable_progress_bar": False, "enable_model_summary": False,
        },
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return folder / "config.yaml"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"gradient_checkpointing": True}, marks=pytest.mark.slow),
        {"quantization": "nf4"},
        pytest.param({"quantization": "8bit"}, marks=pytest.mark.slow),
    ],
    ids=["checkpointing", "nf4", "8bit"],
)
def test_adapters_on_any_base(options: dict[str, Any], captured: None, cache: Path, tmp_path: Path) -> None:
    config = language_config(tmp_path / "config", **options)
    fit(config, tmp_path / "plain")
    found = fit(config, tmp_path / "compiled", *CALLBACK)
    assert found["compiled"] >= 2
    assert graphs() >= 1
    assert losses(tmp_path / "compiled") == losses(tmp_path / "plain")


# Without files


class Net(L.LightningModule):
    """Two parts that are alike, of which one or both learn."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Sequential(nn.Linear(3, 3), nn.Tanh()) for _ in range(2))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs))


@pytest.fixture
def trained() -> Iterator[tuple[Net, CompiledTraining]]:
    """A module while it is trained."""
    net, callback = Net(), CompiledTraining()
    callback.on_fit_start(L.Trainer(logger=False, accelerator="cpu"), net)
    yield net, callback
    callback.teardown(L.Trainer(logger=False, accelerator="cpu"), net, "test")


def test_batches_of_any_size_share_one_graph_of_each_block(captured: None, trained: tuple[Net, Any]) -> None:
    net, _ = trained
    net(torch.randn(4, 7, 3)).sum().backward()
    before = graphs()
    for rows, positions in ((4, 8), (2, 5), (9, 31), (3, 2)):
        net(torch.randn(rows, positions, 3)).sum().backward()
    assert graphs() == before
    assert 1 <= before <= 2  # the second one has a gradient to pass on


def test_only_what_wants_a_gradient_runs_compiled(captured: None, trained: tuple[Net, CompiledTraining]) -> None:
    net, callback = trained
    with torch.no_grad():
        net(torch.randn(4, 3))
    with torch.inference_mode():
        net(torch.randn(4, 3))
    assert graphs() == 0
    net(torch.randn(4, 3))
    assert graphs() > 0
    callback.on_exception(L.Trainer(logger=False, accelerator="cpu"), net, KeyboardInterrupt())
    before = graphs()
    net(torch.randn(4, 4, 3))
    assert graphs() == before


def test_the_parts_that_learn_are_compiled_and_no_others() -> None:
    net = Net()
    net.first.requires_grad_(False)
    assert trainable_parts(net) == [net.second]


class Branching(nn.Module):
    """Its graph depends on values, or on a number that changes with every call."""

    def __init__(self, counts: bool) -> None:
        super().__init__()
        self.weight, self.calls, self.counts = nn.Parameter(torch.ones(1)), 0, counts

    def forward(self, inputs: Tensor) -> Tensor:
        if self.counts:
            return inputs * self.weight * len(str(self.calls) * self.calls)
        return inputs * self.weight if inputs.sum() > 0 else inputs - self.weight


@pytest.mark.parametrize("counts", [False, True])
def test_what_cannot_be_compiled_is_refused(counts: bool, captured: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "VARIANTS_OF_A_BLOCK", 3)
    net, callback = L.LightningModule(), CompiledTraining()
    net.part = Branching(counts)
    trainer = L.Trainer(logger=False, accelerator="cpu")
    callback.on_fit_start(trainer, net)

    def run() -> None:
        for number in range(6):
            net.part.calls = number
            net.part(torch.ones(2))

    with pytest.raises(InputError, match=r"trainer\.callbacks: Branching cannot be compiled: .*; fix: leave"):
        run()
    callback.on_exception(trainer, net, InputError(""))
    assert net.part(torch.ones(2)).shape == (2,)


def test_weights_in_parts_are_refused_before_a_training_and_nothing_after_it() -> None:
    sharded: Any = SimpleNamespace(strategy=object())
    with pytest.raises(InputError, match=r"trainer\.strategy: compiling needs whole weights; fix: use ddp, or leave"):
        CompiledTraining().setup(sharded, Net(), "fit")
    CompiledTraining().setup(sharded, Net(), "test")


def test_without_a_compiler_nothing_is_loaded(
    cache: Path, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr(GPT2Classifier, "build_backbone", lambda self: pytest.fail("the weights were loaded"))
    compiled.need_compiler.cache_clear()
    arguments = ["fit", "--config", str(tiny_config), "--trainer.default_root_dir", str(tmp_path), *CALLBACK]
    assert main(arguments) == ExitCode.ENVIRONMENT
    said = capfd.readouterr().err
    assert "trainer.callbacks: torch.compile does not work here" in said
    assert "fix: install g++" in said
    with pytest.raises(EnvironmentFault):  # and is asked again
        compiled.need_compiler("cpu")


@pytest.mark.slow
def test_the_real_compiler_learns_the_same(cache: Path, tiny_config: Path, tmp_path: Path) -> None:
    counters.clear()
    options = ["--model.trainable", "all"]
    fit(tiny_config, tmp_path / "plain", *options)
    assert fit(tiny_config, tmp_path / "compiled", *options, *CALLBACK)["compiled"] == 3
    assert counters["inductor"], "nothing reached the compiler"
    torch.testing.assert_close(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), atol=1e-5, rtol=0)
    fit(tiny_config, tmp_path / "stopped", *options, *CALLBACK, "--trainer.max_epochs", "1")
    resumed = ["--ckpt_path", str(tmp_path / "stopped" / "checkpoints" / "last.ckpt")]
    fit(tiny_config, tmp_path / "resumed", *options, *CALLBACK, *resumed)
    assert_same_weights(tmp_path / "compiled", tmp_path / "resumed")
