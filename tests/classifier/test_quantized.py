"""A quantized base under the classifier: what is quantized, what learns, and what a checkpoint holds."""

from functools import partial
from pathlib import Path
from typing import Any

import families
import lightning as L
import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import LoraConfig
from transformers import AutoTokenizer, LlamaConfig, LlamaModel

from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.classifier.spam import SpamDataModule
from ftkit.classifier.text_classifier import TextClassifier
from ftkit.errors import InputError
from ftkit.training.checkpoint import read_checkpoint

KINDS = {"nf4": Linear4bit, "8bit": Linear8bitLt}
MATRICES = {
    "demo": ("h", ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")),
    "llama": (
        "layers",
        (*(f"self_attn.{letter}_proj" for letter in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))),
    ),
}


def demo(**options: Any) -> TextClassifier:
    return GPT2Classifier(base_model="demo", seed=1, **options)


@pytest.fixture
def llama(llama_folder: Path, tmp_path: Path) -> Path:
    """A Llama whose matrices have as many blocks of 64 weights as their scales need to be quantized well."""
    config = LlamaConfig.from_pretrained(llama_folder, hidden_size=128, intermediate_size=128)
    torch.manual_seed(1)
    LlamaModel(config).save_pretrained(tmp_path / "llama")
    AutoTokenizer.from_pretrained(llama_folder).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.fixture(params=MATRICES)
def made(request: pytest.FixtureRequest) -> Any:
    """Makes a classifier of either family."""
    if request.param == "demo":
        return demo
    return partial(families.classifier, request.getfixturevalue(request.param), seed=1)


def quantized_layers(model: TextClassifier, kind: str) -> list[str]:
    model.configure_model()
    names = (name for name, layer in model.named_modules() if isinstance(layer, KINDS[kind]))
    return sorted(name.replace(".base_layer", "") for name in names)


def tune(model: TextClassifier, folder: Path, messages: Path) -> L.Trainer:
    trainer = L.Trainer(
        max_epochs=3, accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, datamodule=SpamDataModule(source=messages, split="balanced", seed=1))
    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_every_matrix_of_the_blocks_is_quantized_but_for_the_blocks_that_learn(
    kind: Any, made: Any, request: pytest.FixtureRequest
) -> None:
    count = len(made(trainable="last_layer").build_backbone().blocks)
    blocks, matrices = MATRICES[request.node.callspec.params["made"]]
    for trainable, learning in (("last_layer", 0), ("last_two_blocks", 2)):
        found = quantized_layers(made(quantization=kind, trainable=trainable), kind)
        expected = [f"net.backbone.model.{blocks}.{n}.{name}" for n in range(count - learning) for name in matrices]
        assert found == sorted(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_near_those_of_the_whole_weights(kind: Any, made: Any) -> None:
    batch = {"input_ids": torch.arange(5, 45).view(2, 20), "length": torch.tensor([20, 20])}
    logits = []
    for quantization in (None, kind):
        model = made(quantization=quantization, trainable="last_layer")
        model.configure_model()
        with torch.no_grad():
            logits.append(model.eval()(batch))
    difference = (logits[0] - logits[1]).abs().max()
    assert 0 < difference < {"nf4": 0.5, "8bit": 0.05}[kind] * logits[0].abs().max()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("nf4", {"adapter": LoraConfig()}), ("8bit", {"adapter": LoraConfig()}), ("nf4", {"trainable": "last_block"})],
)
def test_it_learns_and_a_checkpoint_holds_what_was_trained(
    kind: Any, options: dict[str, Any], made: Any, tmp_path: Path, messages_file: Path
) -> None:
    model = made(quantization=kind, **options, optimizer=lambda params: torch.optim.AdamW(params, lr=1e-2))
    model.configure_model()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    trainer = tune(model, tmp_path, messages_file)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    path = Path(trainer.checkpoint_callback.best_model_path)  # type: ignore[union-attr]
    stored = read_checkpoint(path)["state_dict"]
    assert stored.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    texts = ["win cash now", "see you at five"]
    assert type(model).load(path).classify(texts) == model.eval().classify(texts)


def test_it_is_put_together_on_the_device_that_it_is_loaded_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class BuiltError(Exception):
        pass

    def built(kind: str, device: torch.device, unquantized: Any) -> None:
        raise BuiltError(kind, device)

    monkeypatch.setattr("ftkit.training.pretrained.quantization_options", built)
    checkpoint = {"hyper_parameters": {"base_model": "demo", "quantization": "nf4"}, "state_dict": {}}
    with pytest.raises(BuiltError) as found:
        GPT2Classifier.restored(checkpoint, "meta")
    assert found.value.args == ("nf4", torch.device("meta"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": "all"}, "quantized weights cannot be trained"),
        ({"trainable": "lora"}, "fix: use an adapter"),
        ({"trainable": "last_layer", "weights": "random"}, "only pretrained weights can be quantized"),
    ],
)
def test_what_cannot_be_quantized_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        demo(quantization="nf4", **options).configure_model()
