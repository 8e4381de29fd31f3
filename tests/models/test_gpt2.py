"""Where GPT-2 comes from: a hub, a folder or chance, and what is said when it cannot be had."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ftkit.errors import ExitCode, InputError, UnavailableError
from ftkit.models import gpt2
from ftkit.models.base_model import locate_processor
from ftkit.models.gpt2 import SIZES, locate
from ftkit.models.loading import load_body, load_config, load_tokenizer

PARAMETERS = {"small": 124_439_808, "medium": 354_823_168, "large": 774_030_080, "xl": 1_557_611_200}


def load(folder: str, weights: Any = "pretrained", dropout: float = 0.0) -> Any:
    return load_body(folder, load_config(folder), weights, None, dropout)


@pytest.mark.parametrize("size", SIZES)
def test_the_sizes_are_openais(size) -> None:
    config = gpt2.published_config(size)
    with torch.device("meta"):
        model = gpt2.GPT2Model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[size]
    assert config.n_embd // config.n_head == 64
    assert locate("hub", size) == SIZES[size].hub_id


def test_a_folder_holds_one_model_or_one_folder_a_size(gpt2_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(gpt2_folder, tmp_path / "medium")
    assert locate(str(tmp_path), "medium") == str(tmp_path / "medium")
    assert locate("demo", "medium") == str(Path(locate("demo", "small")).with_name("medium"))
    assert locate_processor(locate("demo", "medium")) == str(Path(locate("demo", "medium")).with_name("tokenizer"))


@pytest.mark.parametrize(
    ("source", "size", "message"),
    [
        ("/nowhere", "small", r"base_model: no such folder \(got '/nowhere'\)"),
        ("EMPTY", "small", r"contains no config.json, and neither does a folder small in it"),
        ("FOLDER", "small", r"size: has 3 layers x 32, but size small is 12 x 768 .*size: null"),
    ],
)
def test_what_cannot_be_located_is_refused(source, size, message, gpt2_folder: Path, tmp_path: Path) -> None:
    place = {"EMPTY": str(tmp_path), "FOLDER": str(gpt2_folder)}.get(source, source)
    with pytest.raises(InputError, match=message):
        locate(place, size)


def test_a_hub_id_that_is_not_cached_says_what_to_do_at_once() -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    began = time.perf_counter()
    with pytest.raises(UnavailableError) as caught:
        load_body(locate("hub", "small"), gpt2.published_config("small"))
    assert time.perf_counter() - began < 5
    message = str(caught.value)
    assert "openai-community/gpt2 " in message
    assert HF_HUB_CACHE in message
    assert "`hf download openai-community/gpt2`" in message
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    with pytest.raises(UnavailableError, match="openai-community/gpt2-xl"):
        load_tokenizer("openai-community/gpt2-xl")


def damaged(folder: Path, into: Path, how: str) -> Path:
    copy = Path(shutil.copytree(folder, into / how))
    weights = copy / "model.safetensors"
    if how == "no weights":
        weights.unlink()
    elif how == "half the weights":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif how == "one layer too few":
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | {"n_layer": 4}))
    elif how == "another width":
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | {"n_embd": 64}))
    elif how == "config cut off":
        (copy / "config.json").write_text((copy / "config.json").read_text()[:40])
    return copy


@pytest.mark.parametrize(
    "how", ["no weights", "half the weights", "one layer too few", "another width", "config cut off"]
)
def test_a_damaged_folder_is_the_users_input_and_named(how: str, gpt2_folder: Path, tmp_path: Path) -> None:
    folder = damaged(gpt2_folder, tmp_path, how)
    with pytest.raises(InputError) as caught:
        load(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    if how == "one layer too few":
        assert "lacks 12 of the model's weights" in str(caught.value)
        assert "h.3.attn.c_attn.bias" in str(caught.value)


def test_a_folder_without_a_tokenizer_is_refused(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(gpt2_folder, tmp_path / "model"))
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match=r"model: contains no tokenizer"):
        load_tokenizer(str(folder))


def test_a_language_models_folder_loads_as_its_body(gpt2_folder: Path, tmp_path: Path) -> None:
    """The hub's GPT-2 files carry a language-model head; their names have a prefix or not."""
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel(gpt2.GPT2Config.from_pretrained(gpt2_folder))
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    loaded = load(str(tmp_path))
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.h[2].mlp.c_fc.weight, model.transformer.h[2].mlp.c_fc.weight.float())


def test_random_weights_are_torchs_defaults_in_the_published_order(gpt2_folder: Path) -> None:
    torch.manual_seed(7)
    model = load(str(gpt2_folder), "random")
    torch.manual_seed(7)
    assert torch.equal(model.wte.weight, nn.Embedding(257, 32).weight)
    assert torch.equal(model.wpe.weight, nn.Embedding(64, 32).weight)
    for block in model.h:
        query, key, value, out, up, down = (
            *(nn.Linear(32, 32) for _ in range(4)),
            nn.Linear(32, 128),
            nn.Linear(128, 32),
        )
        assert torch.equal(block.attn.c_attn.weight, torch.cat([query.weight.T, key.weight.T, value.weight.T], 1))
        assert torch.equal(block.attn.c_attn.bias, torch.cat([query.bias, key.bias, value.bias]))
        for layer, linear in ((block.attn.c_proj, out), (block.mlp.c_fc, up), (block.mlp.c_proj, down)):
            assert torch.equal(layer.weight, linear.weight.T)
            assert torch.equal(layer.bias, linear.bias)
    for norm in [model.ln_f, *(norm for block in model.h for norm in (block.ln_1, block.ln_2))]:
        assert torch.equal(norm.weight, torch.ones(32))
        assert torch.equal(norm.bias, torch.zeros(32))


def test_transformers_random_weights_are_small(gpt2_folder: Path) -> None:
    torch.manual_seed(7)
    model = load(str(gpt2_folder), "random_transformers")
    assert model.wte.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.h[0].mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.h[0].mlp.c_fc.bias.count_nonzero() == 0
    published = load(str(gpt2_folder), "random")
    assert published.wte.weight.std().item() == pytest.approx(1, rel=0.05)


def test_random_weights_need_no_pretrained_ones(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = damaged(gpt2_folder, tmp_path, "no weights")
    assert len(load(str(folder), "random").h) == 3


def test_options_reach_the_model(gpt2_folder: Path) -> None:
    model = load(str(gpt2_folder), dropout=0.3)
    rates = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    assert rates == {0.3}
    assert model.config.attn_pdrop == 0.3
    assert all(module.training for module in model.modules())
