"""A Llama's classifier against transformers' own Llama, for every option, and what its logits depend on."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaModel

from ftkit.classifier.text_classifier import TextClassifier
from ftkit.models.network import SequenceClassifier
from ftkit.models.pooling import Pooling, pool, real_tokens

LENGTH, POSITIONS = torch.tensor([7, 3, 1, 9]), 12
POOLINGS: tuple[Pooling, ...] = ("first", "last", "last_real", "mean", "mean_real")
EVERY = list(itertools.product(POOLINGS, (True, False), (True, False)))  # pooling, causal mask, padding masked
LORAS: list[dict[str, Any]] = [  # of scale 1 both
    {"trainable": "lora", "lora_alpha": 1.0},
    {"adapter": LoraConfig(r=16, lora_alpha=16)},
]


def texts() -> Tensor:
    return torch.randint(0, 256, (4, POSITIONS), generator=torch.Generator().manual_seed(3))


def network(folder: Path, settings: Any = ("last", True, False), **options: Any) -> SequenceClassifier:
    pooling, causal, mask = settings
    model = TextClassifier(
        str(folder), pooling=pooling, causal_mask=causal, mask_padding=mask, **{"seed": 5, "trainable": "all"} | options
    )
    model.configure_model()
    assert model.net is not None
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.net.named_parameters():
        if "lora_B" in name:  # zero at first, so that adapters would have no effect
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return model.net


def reference(net: SequenceClassifier, input_ids: Tensor, length: Tensor, model: LlamaModel) -> Tensor:
    """Logits over all positions of transformers' own forward pass."""
    mask = real_tokens(length, input_ids.shape[1]) if net.mask_padding else None
    return net.head(pool(model(input_ids, attention_mask=mask, use_cache=False).last_hidden_state, length, net.pooling))


def whole(net: SequenceClassifier, input_ids: Tensor, length: Tensor) -> Tensor:
    """Logits over all positions of the backbone's own model, which runs whole."""
    mask = real_tokens(length, input_ids.shape[1]) if net.mask_padding else None
    return net.head(pool(net.backbone(input_ids, mask), length, net.pooling))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_logits_are_those_of_transformers(settings: Any, attention: str, llama_folder: Path) -> None:
    """The reference is loaded by transformers alone, with its eager attention: the masks are then explicit."""
    net = network(llama_folder, settings)
    net.backbone.model.set_attn_implementation(attention)
    config = LlamaConfig.from_pretrained(llama_folder, attn_implementation="eager")
    config.is_causal = settings[1]
    theirs = LlamaModel.from_pretrained(llama_folder, config=config)
    got = net(net.trim({"input_ids": texts(), "length": LENGTH})["input_ids"], LENGTH)
    wanted = reference(net, texts(), LENGTH, theirs)
    torch.testing.assert_close(got, wanted, atol=5e-6, rtol=1e-6)
    assert wanted.std(0).min() > 0.05


@pytest.mark.parametrize("options", [{}, *LORAS], ids=str)
@pytest.mark.parametrize(
    "settings", [("last", True, False), ("last_real", True, True), ("first", False, True)], ids=str
)
def test_gradients_and_adapters_are_those_of_transformers(settings: Any, options: Any, llama_folder: Path) -> None:
    net = network(llama_folder, settings, **options)
    found = []
    for forward in (net, lambda ids, length: whole(net, ids, length)):
        net.zero_grad()
        logits = forward(texts(), LENGTH)
        F.cross_entropy(logits, torch.tensor([0, 1, 1, 0])).backward()
        found.append((logits.detach(), {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}))
    (logits, gradients), (wanted, all_gradients) = found
    torch.testing.assert_close(logits, wanted, atol=5e-6, rtol=1e-6)
    assert gradients.keys() == all_gradients.keys()
    learning = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert gradients.keys() == learning
    for name, gradient in all_gradients.items():
        error = (gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < 1e-4, name


@pytest.mark.parametrize("options", LORAS, ids=str)
def test_adapters_have_an_effect(options: Any, llama_folder: Path) -> None:
    with_adapters, without = network(llama_folder, **options), network(llama_folder)
    assert (with_adapters(texts(), LENGTH) - without(texts(), LENGTH)).abs().max() > 0.05


def test_the_last_block_works_on_one_position(llama_folder: Path) -> None:
    net, seen = network(llama_folder), []
    for block in net.backbone.blocks:
        block.mlp.register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
    net(texts(), LENGTH)
    assert seen == [POSITIONS, POSITIONS, POSITIONS, 1]
    seen.clear()
    net = network(llama_folder, dropout=0.1)
    for block in net.backbone.blocks:
        block.mlp.register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
    net.train()(texts(), LENGTH)
    net.eval()(texts(), LENGTH)
    assert seen == [POSITIONS, POSITIONS, POSITIONS, POSITIONS, POSITIONS, POSITIONS, POSITIONS, 1]


# Invariances


def changes(net: SequenceClassifier, position: int) -> Tensor:
    """How far each text's logits move when the token at a position is another one."""
    ids = texts()
    ids[:, position] = (ids[:, position] + 1) % 256
    with torch.no_grad():
        return (net(ids, LENGTH) - net(texts(), LENGTH)).abs().amax(1)


@pytest.mark.parametrize("mask", [True, False])
def test_under_a_causal_mask_nothing_behind_the_position_that_is_read_matters(mask: bool, llama_folder: Path) -> None:
    net = network(llama_folder, ("last_real", True, mask))
    for position in range(POSITIONS):
        moved = changes(net, position)
        assert torch.all((moved > 1e-4) == (position < LENGTH))
        assert torch.all(moved[position >= LENGTH] == 0)


def test_without_it_everything_matters_but_masked_padding(llama_folder: Path) -> None:
    bare, masked = (network(llama_folder, ("last_real", False, mask)) for mask in (False, True))
    for position in range(POSITIONS):
        assert torch.all(changes(bare, position) > 1e-5)
        moved = changes(masked, position)
        assert torch.all((moved > 1e-5) == (position < LENGTH))


@pytest.mark.parametrize(
    "settings", [("last_real", True, False), ("mean_real", True, True), ("mean_real", False, True)]
)
def test_padding_changes_nothing_where_it_is_not_read(settings: Any, llama_folder: Path) -> None:
    net = network(llama_folder, settings)
    with torch.no_grad():
        alone = [net(ids[None, :n], n[None]) for ids, n in zip(texts(), LENGTH, strict=True)]
        longer = F.pad(texts(), (0, 20), value=257)
        for ids in (texts(), longer):
            torch.testing.assert_close(net(ids, LENGTH), torch.cat(alone), atol=5e-6, rtol=0)


def test_order_matters(llama_folder: Path) -> None:
    """Rotations are by place: the same tokens in another order are another text, to the last token as well."""
    net = network(llama_folder)
    swapped = texts()[:, [1, 0, *range(2, POSITIONS)]]
    with torch.no_grad():
        assert (net(swapped, LENGTH) - net(texts(), LENGTH)).abs().amax(1).min() > 1e-3
