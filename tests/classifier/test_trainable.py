"""Which parameters learn, and that the others do not."""

import math
import re
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor

from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.errors import InputError
from ftkit.training.checkpoint import trainable_parameters

HEAD = ["net.head.weight", "net.head.bias"]
NORM = ["net.backbone.model.ln_f.weight", "net.backbone.model.ln_f.bias"]
EMBEDDINGS = ["net.backbone.model.wte.weight", "net.backbone.model.wpe.weight"]
LAYERS = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
PROJECTIONS = ("attn.c_attn.query", "attn.c_attn.key", "attn.c_attn.value", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def blocks(*indices: int) -> list[str]:
    return [
        f"net.backbone.model.h.{index}.{layer}.{kind}"
        for index in indices
        for layer in LAYERS
        for kind in ("weight", "bias")
    ]


def adapters(*layers: str) -> list[str]:
    return [f"{layer}.lora_{matrix}.default.weight" for layer in layers for matrix in "AB"]


LEARNING = {
    "last_layer": HEAD,
    "last_block": [*blocks(2), *NORM, *HEAD],
    "last_two_blocks": [*blocks(1, 2), *NORM, *HEAD],
    1: [*blocks(2), *NORM, *HEAD],
    3: [*blocks(0, 1, 2), *NORM, *HEAD],
    "all": [*EMBEDDINGS, *blocks(0, 1, 2), *NORM, *HEAD],
}
LORA_LEARNING = {
    "published": [
        *adapters(*(f"net.backbone.model.h.{index}.{layer}" for index in range(3) for layer in PROJECTIONS)),
        *adapters("net.head"),
        "net.head.base_layer.weight",
        "net.head.base_layer.bias",
    ],
    "peft": [
        *adapters(*(f"net.backbone.model.base_model.model.h.{index}.attn.c_attn" for index in range(3))),
        *HEAD,
    ],
}
LORAS: dict[str, dict[str, Any]] = {
    "published": {"trainable": "lora"},
    "peft": {"adapter": LoraConfig(r=4, lora_alpha=3)},
}
CHOICES: list[tuple[dict[str, Any], list[str]]] = [
    *(({"trainable": choice}, names) for choice, names in LEARNING.items()),
    *((LORAS[flavour], names) for flavour, names in LORA_LEARNING.items()),
]


def classifier(folder: Path, **arguments: Any) -> GPT2Classifier:
    model = families.classifier(
        folder,
        seed=5,
        lora_rank=4,
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-2, weight_decay=0.5),
        **{"lora_alpha": 3.0, **arguments},
    )
    model.configure_model()
    return model


def batch(length: int = 6) -> dict[str, Any]:
    ids = torch.randint(0, 256, (4, length), generator=torch.Generator().manual_seed(2))
    return {"input_ids": ids, "length": torch.tensor([length, 3, 1, 2]), "label": torch.tensor([0, 1, 0, 1])}


def take_steps(model: GPT2Classifier, steps: int) -> None:
    optimizer = model.configure_optimizers()
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch()), batch()["label"]).backward()
        optimizer.step()


@pytest.mark.parametrize(("arguments", "expected"), CHOICES)
def test_exactly_the_chosen_parameters_learn(arguments: dict[str, Any], expected: list[str], gpt2_folder: Path) -> None:
    """Weight decay moves a parameter without a gradient, too, if the optimizer holds it."""
    model = classifier(gpt2_folder, **arguments)
    assert sorted(trainable_parameters(model)) == sorted(expected)
    held = [id(parameter) for group in model.configure_optimizers().param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(map(id, trainable_parameters(model).values()))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    take_steps(model, 4)  # an adapter's B is zero at first, so that its A has no gradient in the first step
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == set(expected)


@pytest.mark.parametrize("choice", [0, 4, -1])
def test_blocks_that_are_not_there_are_refused(choice: int, gpt2_folder: Path) -> None:
    with pytest.raises(InputError, match=rf"trainable: the backbone has 3 blocks \(got {choice}\); fix: use 1 to 3"):
        classifier(gpt2_folder, trainable=choice)


@pytest.mark.parametrize("flavour", ["published", "peft"])
def test_adapters_start_without_effect_and_then_have_one(flavour: str, gpt2_folder: Path) -> None:
    base = classifier(gpt2_folder, trainable="last_layer").eval()
    lora = classifier(gpt2_folder, **LORAS[flavour]).eval()
    with torch.no_grad():
        # Not to the bit: without adapters the last block makes no keys and values.
        torch.testing.assert_close(lora(batch()), base(batch()), atol=1e-6, rtol=0)
        take_steps_before = lora(batch())
    take_steps(lora, 2)
    assert (lora(batch()) - take_steps_before).abs().max() > 1e-2


def lora_layers(model: GPT2Classifier) -> dict[str, LoraLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@pytest.mark.parametrize(("flavour", "scale"), [("published", 3.0), ("peft", 3.0 / 4)])
def test_the_output_is_wx_plus_scale_times_x_a_b(flavour: str, scale: float, gpt2_folder: Path) -> None:
    layers = lora_layers(classifier(gpt2_folder, **LORAS[flavour]))
    assert len(layers) == (3 * 6 + 1 if flavour == "published" else 3)
    for layer in layers.values():
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        torch.nn.init.normal_(b, generator=torch.Generator().manual_seed(3))
        x = torch.randn(5, a.shape[1], generator=torch.Generator().manual_seed(4))
        expected: Tensor = layer.base_layer(x) + scale * (x @ a.T) @ b.T  # type: ignore[operator]
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_published_adapters_are_uniform_within_one_over_root_rank(gpt2_folder: Path) -> None:
    layers = lora_layers(classifier(gpt2_folder, trainable="lora"))
    drawn = torch.cat([layer.lora_A["default"].weight.flatten() for layer in layers.values()])
    bound = 1 / math.sqrt(4)
    assert drawn.abs().max() <= bound
    assert drawn.abs().max() > 0.99 * bound
    assert drawn.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert all(layer.lora_B["default"].weight.count_nonzero() == 0 for layer in layers.values())


def test_pefts_adapters_are_uniform_within_one_over_root_inputs(gpt2_folder: Path) -> None:
    for layer in lora_layers(classifier(gpt2_folder, **LORAS["peft"])).values():
        drawn = layer.lora_A["default"].weight
        assert 0.8 / math.sqrt(32) < drawn.abs().max() <= 1 / math.sqrt(32)


@pytest.mark.parametrize("flavour", ["published", "peft"])
def test_adapters_depend_on_the_seed_alone(flavour: str, gpt2_folder: Path) -> None:
    torch.manual_seed(1)
    one = trainable_parameters(classifier(gpt2_folder, **LORAS[flavour]))
    torch.manual_seed(2)
    other = trainable_parameters(classifier(gpt2_folder, **LORAS[flavour]))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_head_is_the_same_for_every_choice(gpt2_folder: Path) -> None:
    """Rows are comparable: what else is drawn does not move the head."""
    heads = [
        next(value for name, value in classifier(gpt2_folder, **arguments).state_dict().items() if is_head(name))
        for arguments, _ in CHOICES
    ]
    assert all(torch.equal(head, heads[0]) for head in heads)


def is_head(name: str) -> bool:
    return bool(re.fullmatch(r"net\.head\.(base_layer\.)?weight", name))


def test_dropout_of_an_adapter_acts_in_training_only(folder: Path) -> None:
    model = classifier(folder, adapter=LoraConfig(lora_dropout=0.5))
    take_steps(model, 1)
    with torch.no_grad():
        assert not torch.equal(model.train()(batch()), model(batch()))
        assert torch.equal(model.eval()(batch()), model(batch()))
