"""The Llama classifier as a Lightning module: what learns, checkpoints, and the command line."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from peft import LoraConfig

from ftkit.classifier.spam import SpamDataModule
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.errors import InputError
from ftkit.lightning_cli import FtkitCLI
from ftkit.training.checkpoint import trainable_parameters

HEAD = ["net.head.weight", "net.head.bias"]
NORM, EMBEDDING = "net.backbone.model.norm.weight", "net.backbone.model.embed_tokens.weight"
ATTENTION = tuple(f"self_attn.{letter}_proj" for letter in "qkvo")
LINEAR = (*ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
TEXTS = ["win cash now! free", "ok see you at five", "x"]


def blocks(*indices: int, layers: tuple[str, ...] = (*LINEAR, "input_layernorm", "post_attention_layernorm")) -> Any:
    return [f"net.backbone.model.layers.{index}.{layer}" for index in indices for layer in layers]


def weights(*layers: str) -> list[str]:
    return [f"{layer}.weight" for layer in layers]


def adapters(*layers: str) -> list[str]:
    return [f"{layer}.lora_{matrix}.default.weight" for layer in layers for matrix in "AB"]


def in_peft(*layers: str) -> list[str]:
    return [layer.replace("backbone.model", "backbone.model.base_model.model") for layer in layers]


CHOICES: list[tuple[dict[str, Any], list[str]]] = [
    ({"trainable": "last_layer"}, HEAD),
    ({"trainable": "last_block"}, [*weights(*blocks(3)), NORM, *HEAD]),
    ({"trainable": 3}, [*weights(*blocks(1, 2, 3)), NORM, *HEAD]),
    ({"trainable": "all"}, [EMBEDDING, *weights(*blocks(0, 1, 2, 3)), NORM, *HEAD]),
    (
        {"trainable": "lora"},
        [
            *adapters(*blocks(*range(4), layers=LINEAR), "net.head"),
            "net.head.base_layer.weight",
            "net.head.base_layer.bias",
        ],
    ),
    (
        {"adapter": LoraConfig()},
        [*adapters(*in_peft(*blocks(*range(4), layers=("self_attn.q_proj", "self_attn.v_proj")))), *HEAD],
    ),
]  # fmt: skip


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-2)


def classifier(folder: Path, **arguments: Any) -> TextClassifier:
    return TextClassifier(str(folder), **{"seed": 5, "optimizer": adamw, **arguments})


@pytest.fixture
def trained(llama_folder: Path, messages_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trains a classifier for two epochs and keeps its checkpoint."""
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))

    def train(**arguments: Any) -> tuple[TextClassifier, Path]:
        model = classifier(llama_folder, **arguments)
        model.configure_model()
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = L.Trainer(accelerator="cpu", max_epochs=2, **quiet)
        trainer.fit(model, datamodule=SpamDataModule(source=messages_file, split="balanced"))
        trainer.save_checkpoint(tmp_path / "model.ckpt")
        return model, tmp_path / "model.ckpt"

    return train


@pytest.mark.parametrize(
    ("arguments", "names"), CHOICES, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_what_learns_learns_and_nothing_else(arguments: Any, names: list[str], trained: Any) -> None:
    model, _ = trained(**arguments)
    assert set(trainable_parameters(model)) == set(names)
    before = classifier(Path(model.base_model), **arguments)
    before.configure_model()
    start = dict(before.named_parameters())
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, start[name])}
    assert changed == set(names)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"trainable": "lora"}, {"trainable": "last_layer", "pooling": "mean_real", "causal_mask": False},
     {"weights": "random"}, {"frozen_dtype": "bfloat16"}],
    ids=str,
)  # fmt: skip
def test_a_checkpoint_gives_the_same_classifier(arguments: Any, trained: Any) -> None:
    model, checkpoint = trained(**arguments)
    stored = torch.load(checkpoint, weights_only=True)
    assert stored["state_dict"].keys() == trainable_parameters(model).keys()
    loaded = TextClassifier.load(checkpoint)
    assert loaded.classify(TEXTS) == model.classify(TEXTS)
    untrained = classifier(Path(model.base_model), **arguments)
    untrained.encoding = model.encoding
    assert untrained.classify(TEXTS) != model.classify(TEXTS)
    assert dict(loaded.hparams) == dict(model.hparams)


def test_to_classify_leaves_the_mode_of_each_part(trained: Any) -> None:
    model, _ = trained()
    model.train()
    model.net.head.eval()
    model.classify(TEXTS)
    assert (model.training, model.net.backbone.training, model.net.head.training) == (True, True, False)


def test_a_checkpoint_of_another_base_is_refused(trained: Any) -> None:
    _, checkpoint = trained(weights="random")
    stored = torch.load(checkpoint, weights_only=True)
    stored["hyper_parameters"]["weights"] = "random_transformers"
    torch.save(stored, checkpoint)
    checkpoint.with_name("model.ckpt.sha256").unlink(missing_ok=True)
    with pytest.raises(InputError, match="base: the checkpoint was trained on another base"):
        TextClassifier.load(checkpoint)


def test_the_context_is_the_models(llama_folder: Path, messages_file: Path) -> None:
    model = classifier(llama_folder)
    assert model.context_length == 64
    data = SpamDataModule(source=messages_file, split="balanced", padding="context")
    data.prepare(model.load_tokenizer(), model.context_length)
    assert data.datasets["train"].input_ids.shape[1] <= 64
    assert data.encoding is not None
    assert (data.encoding.pad_id, data.encoding.max_length) == (257, 64)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"dropout: is a probability below 1 \(got 1.5\)"):
        TextClassifier("demo", dropout=1.5)
    with pytest.raises(TypeError, match="size"):
        TextClassifier("demo", size="small")


def test_the_command_line_knows_its_options_and_those_of_every_decoder(llama_folder: Path, tmp_path: Path) -> None:
    options = {"base_model": str(llama_folder), "pooling": "mean", "lora_rank": 3, "frozen_dtype": "bfloat16"}
    arguments = [part for name, value in options.items() for part in (f"--model.{name}", str(value))]
    cli = FtkitCLI(
        ["--model", "TextClassifier", *arguments, "--data", "SpamDataModule", "--trainer.accelerator", "cpu",
         "--trainer.default_root_dir", str(tmp_path)], run=False,
    )  # fmt: skip
    assert type(cli.model) is TextClassifier
    assert {name: cli.model.hparams[name] for name in options} == options
    assert cli.model.lora_alpha == 16
