"""Where a decoder comes from: a folder, a GGUF file, a hub or chance, and what is said when it cannot be had."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, LlamaModel

from ftkit.errors import ExitCode, InputError, UnavailableError
from ftkit.models.loading import context_length, load_body, load_config, load_tokenizer


def load(source: Any, weights: Any = "pretrained", dropout: float = 0.0) -> Any:
    return load_body(str(source), load_config(str(source)), weights, None, dropout)


def assert_same_weights(got: nn.Module, wanted: nn.Module) -> None:
    names = wanted.state_dict()
    assert got.state_dict().keys() == names.keys()
    for name, value in got.state_dict().items():
        assert torch.equal(value, names[name].float()), name


def test_a_folder_is_loaded_in_float32_and_training_mode(llama_folder: Path, tmp_path: Path) -> None:
    wanted = LlamaModel.from_pretrained(llama_folder).to(torch.bfloat16)
    wanted.save_pretrained(tmp_path)
    model = load(tmp_path)
    assert model.dtype == torch.float32
    assert all(module.training for module in model.modules())
    assert_same_weights(model, wanted)


def test_a_language_models_folder_loads_as_its_body(llama_folder: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(llama_folder))
    model.save_pretrained(tmp_path)
    assert_same_weights(load(tmp_path), model.model)


def test_the_padding_token_learns_like_any_other(llama_folder: Path) -> None:
    """transformers would leave its embedding out of the gradient, though every row of the table reads it."""
    assert LlamaConfig.from_pretrained(llama_folder).pad_token_id == 257
    model = load(llama_folder)
    model(torch.tensor([[1, 257]])).last_hidden_state.sum().backward()
    assert model.embed_tokens.weight.grad[257].abs().max() > 0


def test_dropout_reaches_the_model(llama_folder: Path) -> None:
    model = load(llama_folder, dropout=0.3)
    assert {layer.self_attn.attention_dropout for layer in model.layers} == {0.3}


# Random weights


def test_random_weights_are_torchs_defaults_in_the_models_order(llama_folder: Path, tmp_path: Path) -> None:
    shutil.copy(llama_folder / "config.json", tmp_path)  # they need no more of the folder
    torch.manual_seed(7)
    model = load(tmp_path, "random")
    torch.manual_seed(7)
    assert torch.equal(model.embed_tokens.weight, nn.Embedding(258, 32).weight)
    for layer in model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
                       mlp.gate_proj, mlp.up_proj, mlp.down_proj):  # fmt: skip
            assert torch.equal(linear.weight, nn.Linear(linear.in_features, linear.out_features, bias=False).weight)
        assert torch.equal(layer.input_layernorm.weight, torch.ones(32))


def test_transformers_random_weights_are_small(llama_folder: Path) -> None:
    torch.manual_seed(7)
    model = load(llama_folder, "random_transformers")
    assert model.embed_tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.layers[0].mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)


# GGUF


def test_a_gguf_file_is_the_same_model(gguf_file: Path, llama_folder: Path) -> None:
    model, wanted = load(gguf_file), load(llama_folder)
    assert_same_weights(model, wanted)
    ids = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        got, other = (net(ids, use_cache=False).last_hidden_state for net in (model, wanted))
    torch.testing.assert_close(got, other, atol=1e-5, rtol=0)
    assert context_length(load_config(str(gguf_file))) == 64
    random = load(gguf_file, "random_transformers")
    assert random.embed_tokens.weight.shape == (258, 32)


def test_a_gguf_file_brings_its_tokenizer(gguf_file: Path, llama_folder: Path) -> None:
    tokenizer, wanted = load_tokenizer(str(gguf_file)), load_tokenizer(str(llama_folder))
    assert tokenizer.eos_token_id == wanted.eos_token_id == 257
    got, expected = (kind("winner! call 0901 now", add_special_tokens=False).input_ids for kind in (tokenizer, wanted))
    assert got == expected
    assert len(got) == len("winner! call 0901 now") - 1


# What is refused


@pytest.mark.parametrize("kind", ["t5", "idefics3"])
def test_another_kind_of_model_is_refused(kind: str, tmp_path: Path) -> None:
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=rf"model_type: is neither a text decoder nor a text encoder \(got '{kind}'\)"):
        load_config(str(tmp_path))


def test_a_hub_id_that_is_not_cached_says_what_to_do() -> None:
    with pytest.raises(UnavailableError, match="`hf download HuggingFaceTB/SmolLM2-135M`") as caught:
        load("HuggingFaceTB/SmolLM2-135M")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_a_folder_without_weights_is_named(llama_folder: Path, tmp_path: Path) -> None:
    shutil.copy(llama_folder / "config.json", tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be loaded"):
        load(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(llama_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(llama_folder, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["eos_token"] = None
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="eos_token: the tokenizer has no end-of-text token"):
        load_tokenizer(str(tmp_path))
