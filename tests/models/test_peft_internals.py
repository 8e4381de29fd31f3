"""What ftkit assumes of how peft holds its adapters, one assumption a test."""

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model, inject_adapter_in_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from ftkit.models.peft_internals import adapter_modules, default_lora_targets, lora_inputs


@pytest.fixture
def model() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=50, bos_token_id=1, eos_token_id=2))


def test_families_have_default_targets() -> None:
    assert default_lora_targets("gpt2") == ["c_attn"]
    assert default_lora_targets("llama") == ["q_proj", "v_proj"]
    assert default_lora_targets("no such family") is None


def test_each_adapter_begins_with_a_matrix_of_rank_by_inputs(model: GPT2LMHeadModel) -> None:
    inject_adapter_in_model(LoraConfig(r=3, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True), model)
    matrices = list(lora_inputs(model))
    assert [matrix.weight.shape for matrix in matrices] == [(3, 32)] * 4
    assert all(type(matrix) is nn.Linear for matrix in matrices)
    assert (matrices[0].in_features, matrices[0].out_features) == (32, 3)


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_what_holds_adapters_is_all_that_learns(kind: str, model: GPT2LMHeadModel) -> None:
    config = (
        LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)
        if kind == "lora"
        else IA3Config(target_modules=["c_attn"], feedforward_modules=[], fan_in_fan_out=True)
    )
    wrapped = get_peft_model(model, config)
    held = {id(parameter) for part in adapter_modules(wrapped) for parameter in part.parameters()}
    assert held == {id(parameter) for parameter in wrapped.parameters() if parameter.requires_grad}
    assert held


def test_adapters_of_a_wrapped_model_can_be_switched_off(model: GPT2LMHeadModel) -> None:
    wrapped = get_peft_model(model.eval(), LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        plain = wrapped(ids).logits
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.add_(1.0)
        assert not torch.equal(wrapped(ids).logits, plain)
        wrapped.base_model.disable_adapter_layers()
        assert torch.equal(wrapped(ids).logits, plain)
        wrapped.base_model.enable_adapter_layers()
        assert not torch.equal(wrapped(ids).logits, plain)
