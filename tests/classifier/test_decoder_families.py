"""Any decoder of transformers as a classifier: its pieces against its own forward pass, and each option."""

import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from ftkit.classifier.text_classifier import TextClassifier
from ftkit.errors import InputError
from ftkit.models import one_position
from ftkit.models import transformers_internals as internals
from ftkit.models.backbone import Backbone
from ftkit.models.loading import block_names, load_config
from ftkit.models.network import SequenceClassifier
from ftkit.models.pooling import Pooling, pool, real_tokens

LENGTH, POSITIONS, LAYERS = torch.tensor([7, 3, 1, 9]), 12, 3
SHAPE = {
    "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "vocab_size": 260, "max_position_embeddings": 64, "sliding_window": 5, "head_dim": 8,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
ONE_POSITION = ("gemma2", "gpt2", "granite", "llama", "mistral", "qwen2", "smollm3", "starcoder2")
WHOLE_LAST_BLOCK = ("cohere", "gpt_neox", "olmo2", "phi3", "qwen3", "stablelm")
FAMILIES = sorted(ONE_POSITION + WHOLE_LAST_BLOCK)
THREE = ("gpt2", "mistral", "gpt_neox")  # fused and transposed; grouped keys and a sliding window; parallel and fused
POOLINGS: tuple[Pooling, ...] = ("first", "last", "last_real", "mean", "mean_real")


def tiny(kind: str, **options: Any) -> Any:
    """A decoder of 3 layers x 32 with every parameter random, norms too, so that leaving one out shows."""
    known = set(AutoConfig.for_model(kind).to_dict()) | {"hidden_size", "num_hidden_layers", "num_attention_heads",
                                                         "max_position_embeddings"}  # fmt: skip
    config = AutoConfig.for_model(kind, **{key: value for key, value in (SHAPE | options).items() if key in known})
    torch.manual_seed(5)
    model = AutoModel.from_config(config)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def texts() -> Tensor:
    return torch.randint(3, 256, (4, POSITIONS), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory, gpt2_folder: Path) -> Any:
    """``folder_of(kind)`` is a folder of tiny random weights with a tokenizer of single bytes."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("decoders") / kind
            tiny(kind).save_pretrained(made[kind])
            for file in gpt2_folder.glob("tokenizer*"):
                (made[kind] / file.name).write_bytes(file.read_bytes())
        return made[kind]

    return make


def classifier(folder: Path, **options: Any) -> TextClassifier:
    model = TextClassifier(str(folder), **{"seed": 5, "cache_frozen": False, **options})
    model.configure_model()
    assert model.net is not None
    for name, parameter in model.net.named_parameters():
        if "lora_B" in name:  # zero at first, so that adapters would have no effect
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    return model.eval()


def whole(net: SequenceClassifier) -> Tensor:
    """Logits of all positions of the model's own forward pass."""
    mask = real_tokens(LENGTH, POSITIONS) if net.mask_padding else None
    return net.head(pool(net.backbone(texts(), mask), LENGTH, net.pooling))


def gradients(net: nn.Module, logits: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    (logits @ torch.tensor([1.0, -2.0])).square().mean().backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", FAMILIES)
def test_the_pieces_give_the_hidden_states_of_the_whole(kind: str, causal: bool) -> None:
    model = tiny(kind)
    backbone, mask = Backbone(model, causal), None
    if not causal:
        visible = torch.ones(1, 1, POSITIONS, POSITIONS, dtype=torch.bool)
        mask = visible if model.config._attn_implementation == "sdpa" else torch.zeros(1, 1, POSITIONS, POSITIONS)
    with torch.no_grad():
        wanted = model(texts(), attention_mask=mask, use_cache=False).last_hidden_state
        hidden = backbone.embed(texts())
        got = backbone.norm(backbone.run_blocks(hidden, backbone.block_arguments(hidden, None)))
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)
        torch.testing.assert_close(backbone(texts()), wanted, atol=1e-6, rtol=0)
        masked = real_tokens(LENGTH, POSITIONS)
        got = backbone.norm(backbone.run_blocks(hidden, backbone.block_arguments(hidden, masked)))
        torch.testing.assert_close(got, backbone(texts(), masked), atol=1e-6, rtol=0)
    assert wanted.std() > 0.1
    assert (backbone.splits, backbone.one_position) == (True, kind in ONE_POSITION)


@pytest.mark.parametrize("kind", FAMILIES)
def test_without_the_causal_mask_the_first_token_sees_the_last(kind: str) -> None:
    changed = texts()
    changed[:, -1] = 7
    for causal in (True, False):
        backbone = Backbone(tiny(kind), causal)
        with torch.no_grad():
            same = torch.equal(backbone(texts())[:, 0], backbone(changed)[:, 0])
        assert same is causal


@pytest.mark.parametrize("pooling", ["first", "last", "last_real"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_position_alone_gives_the_logits_and_gradients_of_the_whole(kind: str, pooling: Any, folder_of: Any) -> None:
    net = classifier(folder_of(kind), trainable="all", pooling=pooling).net
    assert net is not None
    got, wanted = net(texts(), LENGTH), whole(net)
    torch.testing.assert_close(got, wanted, atol=5e-6, rtol=1e-5)
    assert wanted.std(0).min() > 0.02
    found, expected = gradients(net, net(texts(), LENGTH)), gradients(net, whole(net))
    assert found.keys() == expected.keys()
    # A first token attends to itself alone, so queries and keys get the rounding errors of gradients of that size.
    rounding = 1e-6 * max(1.0, *(gradient.norm().item() for gradient in expected.values()))
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm() + rounding, name


@pytest.mark.parametrize("flavour", ["published", "peft"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_adapters_learn_and_give_the_whole_models_logits(kind: str, flavour: Any, folder_of: Any) -> None:
    peft = {"adapter": LoraConfig(r=2, lora_alpha=2)}
    published = {"trainable": "lora", "lora_rank": 2, "lora_alpha": 2.0}
    net = classifier(folder_of(kind), **(peft if flavour == "peft" else published)).net
    assert net is not None
    torch.testing.assert_close(net(texts(), LENGTH), whole(net), atol=5e-6, rtol=1e-5)
    found = gradients(net, net(texts(), LENGTH))
    adapters = [name for name in found if "lora_" in name]
    assert found.keys() == {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert len({name.split(".blocks.")[-1] for name in adapters}) >= 2 * LAYERS
    assert all(found[name].abs().max() > 0 for name in adapters)


PAIRS = [
    dict(zip(("pooling", "causal_mask", "mask_padding", "trainable"), values, strict=True))
    for values in itertools.product(POOLINGS, (True, False), (True, False), ("last_layer", "last_block", 2, "lora"))
]


@pytest.mark.parametrize("kind", THREE)
def test_options_together_give_the_whole_models_logits(kind: str, folder_of: Any) -> None:
    """Every combination, and so every pair, of pooling, causal mask, masked padding and what learns."""
    for options in PAIRS:
        model = classifier(folder_of(kind), **options)
        net = model.net
        assert net is not None
        batch = net.trim({"input_ids": texts(), "length": LENGTH})
        with torch.no_grad():
            torch.testing.assert_close(
                net(batch["input_ids"], LENGTH), whole(net), atol=5e-6, rtol=1e-5, msg=lambda m, o=options: f"{o}: {m}"
            )


@pytest.mark.parametrize("kind", THREE)
@pytest.mark.parametrize("weights", ["random", "random_transformers"])
def test_weights_are_drawn_in_every_family(kind: str, weights: Any, folder_of: Any) -> None:
    one, same = (classifier(folder_of(kind), weights=weights) for _ in range(2))
    other = classifier(folder_of(kind), weights=weights, seed=6)
    with torch.no_grad():
        logits = [model.net(texts(), LENGTH) for model in (one, same, other)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    spread = one.net.backbone.model.get_input_embeddings().weight.std().item()
    assert spread == pytest.approx(1 if weights == "random" else 0.02, rel=0.1)


# What cannot be split into blocks


NAMED_OTHERWISE = {"pad_token_id": None, "word_embed_proj_dim": 32, "ffn_dim": 48, "n_head": 4, "n_layer": 3}


@pytest.mark.parametrize("kind", ["opt", "bloom"])
def test_a_family_that_cannot_be_taken_apart_runs_whole_and_says_so(
    kind: str, caplog: pytest.LogCaptureFixture, tmp_path: Path, gpt2_folder: Path
) -> None:
    """OPT keeps its blocks one module deeper; BLOOM's blocks return tuples."""
    tiny(kind, **NAMED_OTHERWISE).save_pretrained(tmp_path)
    for file in gpt2_folder.glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with caplog.at_level(logging.WARNING, "ftkit"):
        model = classifier(tmp_path, trainable="last_layer")
    assert "cannot be split into blocks" in caplog.text
    assert "runs as a whole" in caplog.text
    assert model.net is not None
    assert not model.net.backbone.splits
    torch.testing.assert_close(model.net(texts(), LENGTH), whole(model.net), atol=0, rtol=0)
    with pytest.raises(InputError, match="frozen_dtype: needs a model that can be split into blocks"):
        classifier(tmp_path, trainable="last_layer", frozen_dtype="bfloat16")
    learning = classifier(tmp_path, adapter=LoraConfig())
    assert gradients(learning.net, learning.net(texts(), LENGTH))  # type: ignore[arg-type,misc]


def test_blocks_that_come_to_something_else_by_themselves_are_not_used(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a release of transformers called its blocks in a way that is not seen."""
    run = internals.run_block
    monkeypatch.setattr(internals, "run_block", lambda block, hidden, given: run(block, hidden, given) * 1.01)
    with caplog.at_level(logging.WARNING, "ftkit"):
        backbone = Backbone(tiny("llama"))
    assert not backbone.splits
    assert "its blocks called one by one give another result" in caplog.text


def test_blocks_that_share_something_that_learns_stay_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their arguments are made without gradients, which would be lost."""
    record = internals.block_arguments

    def with_bias(model: Any, *rest: Any) -> Any:
        return [given | {"position_bias": model.embed_tokens.weight[:1]} for given in record(model, *rest)]

    monkeypatch.setattr(internals, "block_arguments", with_bias)
    assert not Backbone(tiny("llama")).splits


def test_arguments_are_made_once_for_each_shape_of_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, record, shapes = Backbone(tiny("mistral")), internals.block_arguments, []

    def recorded(model: Any, parts: Any, hidden: Tensor, mask: Any) -> Any:
        shapes.append(tuple(hidden.shape))
        return record(model, parts, hidden, mask)

    monkeypatch.setattr(internals, "block_arguments", recorded)
    for batch, width in ((4, 12), (4, 9), (4, 12), (3, 12), (4, 12)):
        hidden = backbone.embed(texts()[:batch, :width])
        got = backbone.norm(backbone.run_blocks(hidden, backbone.block_arguments(hidden, None)))
        torch.testing.assert_close(got, backbone(texts()[:batch, :width]), atol=1e-6, rtol=0)
    assert shapes == [(4, 12, 32), (4, 9, 32), (3, 12, 32)]
    for real in (real_tokens(LENGTH, POSITIONS), real_tokens(LENGTH - 1, POSITIONS)):
        backbone.block_arguments(backbone.embed(texts()), real)
    assert len(shapes) == 5  # masks of padding are the batch's own
    for width in range(1, 80):
        backbone.block_arguments(torch.zeros(1, width, 32), None)
    assert len(backbone._known) == 64


def test_another_last_block_is_not_used_at_one_position(monkeypatch: pytest.MonkeyPatch) -> None:
    run = one_position.run_block_at
    monkeypatch.setattr(one_position, "run_block_at", lambda *given: run(*given) * 1.01)
    backbone = Backbone(tiny("llama"))
    assert backbone.splits
    assert not backbone.one_position


def test_a_family_that_is_always_causal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("gpt_neox")
    forward = type(model).forward

    def deaf(self: Any, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", deaf)
    with pytest.raises(InputError, match=r"causal_mask: GPTNeoXModel accepts no .* it ignores one"):
        Backbone(model, causal=False)
    assert Backbone(model).splits


def test_bloom_refuses_a_mask_of_four_dimensions() -> None:
    with pytest.raises(InputError, match=r"causal_mask: BloomModel accepts no .*fix: use causal_mask: true"):
        Backbone(tiny("bloom", **NAMED_OTHERWISE), causal=False)


def test_block_names_are_those_of_the_loaded_model(folder_of: Any) -> None:
    for kind, name in (("gpt2", "h"), ("mistral", "layers")):
        assert block_names(load_config(str(folder_of(kind)))) == [f"{name}.{index}" for index in range(LAYERS)]
