"""What is left out changes nothing: the last block at one position, trimmed columns, and one batch for a window."""

import itertools
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2Model
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from ftkit.models import one_position
from ftkit.models.backbone import Backbone
from ftkit.models.network import SequenceClassifier
from ftkit.models.pooling import Pooling, needed_positions, pool, real_tokens
from ftkit.models.trainable import add_published_lora

LENGTH = torch.tensor([7, 3, 1, 9])
POSITIONS = 12
POOLINGS: tuple[Pooling, ...] = ("first", "last", "last_real", "mean", "mean_real")
LAST, MASKED_LAST_REAL = ("last", True, False), ("last_real", True, True)
Settings = tuple[Pooling, bool, bool]  # pooling, causal mask, padding masked
EVERY: list[Settings] = list(itertools.product(POOLINGS, (True, False), (True, False)))


def network(settings: Settings, lora: Any = None, attention: str = "sdpa", dropout: float = 0.0) -> SequenceClassifier:
    pooling, causal, mask = settings
    drop = {"resid_pdrop": dropout, "attn_pdrop": dropout, "embd_pdrop": dropout}
    config = GPT2Config(n_layer=3, n_embd=32, n_head=4, vocab_size=50, n_positions=16, **drop)
    torch.manual_seed(1)
    model = GPT2Model._from_config(config, attn_implementation=attention)
    net = SequenceClassifier(Backbone(model, causal), pooling, mask)
    if lora == "published":
        add_published_lora(net, rank=2, alpha=2)
    elif lora:
        net.backbone.add_adapter(LoraConfig(r=2, lora_alpha=2))
    generator = torch.Generator().manual_seed(2)
    for name, parameter in net.named_parameters():
        norm = "ln_" in name and name.endswith("weight")
        nn.init.normal_(parameter, mean=float(norm), std=0.3, generator=generator)
    return net.train()


def texts() -> Tensor:
    return torch.randint(0, 50, (4, POSITIONS), generator=torch.Generator().manual_seed(3))


def whole(net: SequenceClassifier, input_ids: Tensor, length: Tensor) -> Tensor:
    """Logits with every position of every block computed and nothing assumed about masks."""
    mask = real_tokens(length, input_ids.shape[1]) if net.mask_padding else None
    return net.head(pool(net.backbone(input_ids, mask), length, net.pooling))


def both(net: SequenceClassifier) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Logits and gradients of all parameters, computed sparingly and whole."""
    trimmed = net.trim({"input_ids": texts(), "length": LENGTH})["input_ids"]
    results = []
    for logits in (net(trimmed, LENGTH), whole(net, texts(), LENGTH)):
        net.zero_grad()
        (logits @ logits.new_tensor([1.0, -2.0])).square().mean().backward()
        gradients = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
        results.append((logits.detach(), gradients))
    return results


def assert_same_function(net: SequenceClassifier) -> None:
    """Logits to 2e-6 in float32; logits and every gradient to 1e-9 in float64, where only the mathematics is left."""
    (sparing, _), (wanted, _) = both(net)
    torch.testing.assert_close(sparing, wanted, atol=2e-6, rtol=1e-6)
    assert wanted.std(0).min() > 0.05
    (sparing, gradients), (wanted, all_gradients) = both(net.double())
    torch.testing.assert_close(sparing, wanted, atol=1e-9, rtol=0)
    assert gradients.keys() == all_gradients.keys()
    for name, gradient in all_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-9, rtol=1e-9, msg=name)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_what_nothing_reads_is_left_out(settings: Settings, attention: str) -> None:
    assert_same_function(network(settings, attention=attention))


@pytest.mark.parametrize("lora", ["published", "peft"])
@pytest.mark.parametrize("settings", [LAST, MASKED_LAST_REAL, ("first", False, True)], ids=str)
def test_with_adapters(settings: Settings, lora: str) -> None:
    assert_same_function(network(settings, lora=lora))


def test_published_adapters_project_one_query(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(LAST, lora="published")
    projection = net.backbone.blocks[-1].attn.c_attn
    shapes: dict[str, list[int]] = {}
    for name in ("query", "key", "value"):
        getattr(projection, name).register_forward_hook(
            lambda module, given, out, name=name: shapes.setdefault(name, []).append(out.shape[1])
        )
    net(texts(), LENGTH)
    assert max(shapes["query"]) == 1
    assert max(shapes["key"]) == max(shapes["value"]) == POSITIONS


def mlp_positions(net: SequenceClassifier) -> list[int]:
    """How many positions the MLP of each block works on."""
    seen: list[int] = []
    for module in net.modules():
        if isinstance(module, GPT2MLP):
            module.register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
    net(texts(), LENGTH)
    return seen


@pytest.mark.parametrize(
    ("pooling", "positions"),
    [("first", 1), ("last", 1), ("last_real", 1), ("mean", POSITIONS), ("mean_real", POSITIONS)],
)
def test_the_last_block_works_on_one_position(pooling: Pooling, positions: int) -> None:
    assert mlp_positions(network((pooling, True, False))) == [POSITIONS, POSITIONS, positions]


def test_one_query_needs_no_keys_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(LAST)
    made: list[torch.Size] = []
    net.backbone.blocks[-1].attn.c_attn.register_forward_hook(lambda module, given, out: made.append(out.shape))
    monkeypatch.delattr(one_position, "_keys_and_values")
    assert_same_function(net)
    assert [shape[1] for shape in made] == [POSITIONS, POSITIONS]  # by `whole`, for each of the two precisions


def test_dropout_checkpointing_and_other_attentions_take_the_whole_block() -> None:
    net = network(LAST, dropout=0.1)
    assert mlp_positions(net)[-1] == POSITIONS
    assert mlp_positions(network(LAST, dropout=0.1).eval())[-1] == 1
    net = network(LAST)
    net.backbone.model.activation_checkpointing_enable()
    assert_same_function(net)
    net = network(LAST)
    net.backbone.config._attn_implementation = "another"
    assert not one_position.runs_at_one_position(net.backbone.model, net.backbone.blocks[-1])


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_needed_positions_are_those_that_change_the_logits(settings: Settings) -> None:
    """Each position's embedding is changed in turn; the last one that shows, and no later one, is needed."""
    net = network(settings).eval()
    ids = texts()
    with torch.no_grad():
        hidden = net.backbone.embed(ids)
        logits = net(ids, LENGTH, hidden)
        shows = []
        for position in range(POSITIONS):
            changed = hidden.clone()
            changed[:, position, 0] += 1  # a shift of all elements would be lost in the norm
            shows.append((net(ids, LENGTH, changed) - logits).abs().amax(1) > 1e-5)
    last = [max(p for p in range(POSITIONS) if shows[p][row]) + 1 for row in range(4)]
    assert needed_positions(LENGTH, POSITIONS, *settings).tolist() == last


def test_a_window_without_padding_is_one_padded_batch() -> None:
    """The gradients of 4 unpadded texts, a quarter each, are those of one batch read at the last real token."""
    one_by_one, together = network(("last", True, False)), network(("last_real", True, False))
    label = torch.tensor([0, 1, 1, 0])
    for ids, length, wanted in zip(texts(), LENGTH, label, strict=True):
        logits = one_by_one(ids[None, :length], length[None])
        (F.cross_entropy(logits, wanted[None]) / len(label)).backward()
    F.cross_entropy(together(texts(), LENGTH), label).backward()
    for (name, one), other in zip(one_by_one.named_parameters(), together.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        error = (one.grad - other.grad).norm() / other.grad.norm().clamp(min=1e-6)
        assert error < 1e-5, name
