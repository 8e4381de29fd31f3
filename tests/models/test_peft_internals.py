"""What ftkit assumes of how peft holds its adapters, one assumption a test."""

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PolyConfig,
    PrefixTuningConfig,
    VeraConfig,
    XLoraConfig,
    get_peft_model,
    inject_adapter_in_model,
)
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from ftkit.models.peft_internals import adapter_modules, adapts, has_default_layers, lora_inputs, runs_by_layer


@pytest.fixture
def model() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=50, bos_token_id=1, eos_token_id=2))


def test_a_method_has_default_layers_in_some_families() -> None:
    assert has_default_layers(LoraConfig(), "llama")
    assert has_default_layers(LNTuningConfig(), "gpt2")
    assert not has_default_layers(LoraConfig(), "no such family")


def test_layers_are_named_as_peft_names_them() -> None:
    config = LoraConfig(target_modules=["c_attn", "lm_head"], exclude_modules=["h.0.attn.c_attn"])
    assert adapts(config, "lm_head")
    assert adapts(config, "transformer.h.1.attn.c_attn")
    assert not adapts(config, "transformer.h.0.attn.c_attn")


def test_methods_that_run_the_model_in_a_way_of_their_own_are_known() -> None:
    ours = (LoraConfig(), IA3Config(), OFTConfig(), AdaLoraConfig(total_step=9), PrefixTuningConfig())
    assert all(map(runs_by_layer, ours))
    assert not any(map(runs_by_layer, (PolyConfig(), XLoraConfig(hidden_size=8, adapters={}))))


def test_each_adapter_begins_with_a_matrix_of_rank_by_inputs(model: GPT2LMHeadModel) -> None:
    inject_adapter_in_model(LoraConfig(r=3, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True), model)
    matrices = list(lora_inputs(model))
    assert [matrix.weight.shape for matrix in matrices] == [(3, 32)] * 4
    assert all(type(matrix) is nn.Linear for matrix in matrices)
    assert (matrices[0].in_features, matrices[0].out_features) == (32, 3)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(use_dora=True, modules_to_save=["ln_f"], trainable_token_indices=[3]),
        IA3Config(),
        VeraConfig(r=2),
        LNTuningConfig(),
        AdaLoraConfig(total_step=9),
    ],
)
def test_what_holds_adapters_is_all_that_learns(config: PeftConfig, model: GPT2LMHeadModel) -> None:
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
