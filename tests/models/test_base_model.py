"""Loading, quantizing, checkpointing, taking apart and adapting of generative models."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from tiny_vlms import tiny_idefics3, tiny_paligemma
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
)
from transformers.activations import NewGELUActivation

from ftkit.errors import InputError
from ftkit.models.adapters import add_adapter, linear_layers, merged
from ftkit.models.base_model import (
    enable_checkpointing,
    hidden_states_and_head,
    load_base,
    load_processor,
    locate,
    prepare_layers,
    token_logits,
)
from ftkit.training.checkpoint import trainable_parameters

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 100,
}
TEXT_INPUTS = {
    "input_ids": torch.arange(20).view(2, 10),
    "attention_mask": torch.tensor([[1] * 10, [1] * 6 + [0] * 4]),
}


def of_config(config: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    return AutoModelForCausalLM.from_config(config), TEXT_INPUTS


MODELS: dict[str, Callable[[], tuple[PreTrainedModel, dict[str, Any]]]] = {
    "gpt2": lambda: of_config(
        GPT2Config(n_layer=2, n_embd=64, n_head=2, vocab_size=100, bos_token_id=1, eos_token_id=2)
    ),
    "llama": lambda: of_config(LlamaConfig(**SMALL, tie_word_embeddings=True)),
    "gemma2": lambda: of_config(Gemma2Config(**SMALL, num_key_value_heads=1, head_dim=32, final_logit_softcapping=3.0)),
    "idefics3": tiny_idefics3,
    "paligemma2": tiny_paligemma,
}
TOWERS = ("vision_model", "connector", "vision_tower", "multi_modal_projector")


@pytest.fixture(params=MODELS)
def model_and_inputs(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, dict[str, Any]]:
    torch.manual_seed(0)
    model, inputs = MODELS[request.param]()
    return model.eval(), inputs


def shaken(model: nn.Module) -> nn.Module:
    """Adapters that do something: as they are made, B is zero."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


def lora(model: Any, rank: int = 2, targets: Any = None, exclude: Any = ()) -> Any:
    """The model with LoRA on all projections of the text model, or on some layers."""
    layers = linear_layers(model) if targets is None else targets
    beside = () if targets or model.get_decoder() is model.base_model else TOWERS
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers)
    return add_adapter(model, config, "CAUSAL_LM", exclude or beside)


def composed(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    hidden_states, head = hidden_states_and_head(model)
    return head(hidden_states(**inputs))


@torch.no_grad()
def test_body_and_head_make_the_models_own_logits(model_and_inputs: tuple[PreTrainedModel, dict[str, Any]]) -> None:
    model, inputs = model_and_inputs
    plain = model(**inputs).logits
    torch.testing.assert_close(composed(model, inputs), plain)
    adapted = shaken(lora(model, exclude=TOWERS)).eval()
    torch.testing.assert_close(composed(adapted, inputs), adapted(**inputs).logits)
    assert (adapted(**inputs).logits - plain).abs().max() > 1e-3
    with adapted.disable_adapter():
        assert torch.equal(composed(adapted, inputs), plain)


@torch.no_grad()
def test_logits_of_a_few_tokens_are_those_of_the_whole_head(
    model_and_inputs: tuple[PreTrainedModel, dict[str, Any]],
) -> None:
    model, inputs = model_and_inputs
    targets = ["lm_head", linear_layers(model)[0]]
    for net in (model, shaken(lora(copy.deepcopy(model), targets=targets)).eval()):
        hidden_states, head = hidden_states_and_head(net)
        states = hidden_states(**inputs)[:, -1]
        torch.testing.assert_close(token_logits(net, states, [7, 3]), head(states)[:, [7, 3]])


def test_logits_of_a_few_tokens_are_not_rounded() -> None:
    model = of_config(LlamaConfig(**SMALL))[0].to(torch.bfloat16)
    states = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    exact = states.double() @ model.lm_head.weight[[7, 3]].double().T
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(token_logits(model, states, [7, 3]), exact.float(), rtol=1e-5, atol=1e-6)


def test_adapters_are_on_all_projections_of_the_text_model(
    model_and_inputs: tuple[PreTrainedModel, dict[str, Any]],
) -> None:
    model, _ = model_and_inputs
    names = linear_layers(model)
    expected = ["c_attn", "c_proj", "c_fc"] if model.config.model_type == "gpt2" else [
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    ]  # fmt: skip
    assert names == expected
    learning = list(trainable_parameters(lora(model, exclude=TOWERS)))
    layers = {name.split(".lora_")[0] for name in learning}
    assert all("lora_" in name and not any(tower in name for tower in TOWERS) for name in learning)
    assert len(layers) == 2 * (4 if model.config.model_type == "gpt2" else 7)  # in GPT-2 c_proj is two layers


def test_layers_that_nobody_names_are_those_of_the_text_model_where_peft_knows_none() -> None:
    model, _ = MODELS["paligemma2"]()
    wanted = set(linear_layers(model)) - {"o_proj"}
    adapted = add_adapter(model, LoraConfig(exclude_modules=["o_proj"]), "CAUSAL_LM")
    layers = {name.split(".lora_")[0] for name in trainable_parameters(adapted)}
    assert {name.rpartition(".")[2] for name in layers} == wanted
    assert len(layers) == 2 * 6
    assert all("language_model" in name for name in layers)


@torch.no_grad()
def test_merged_is_adapted_also_with_an_adapter_on_a_tied_head(
    model_and_inputs: tuple[PreTrainedModel, dict[str, Any]],
) -> None:
    model, inputs = model_and_inputs
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    base = copy.deepcopy(model)
    base.tie_weights()
    adapted = lora(model, targets=[*linear_layers(model), "lm_head"], exclude=TOWERS)
    shaken(adapted).eval()
    before = adapted(**inputs).logits
    result = merged(adapted, base)
    assert isinstance(result, type(base))
    torch.testing.assert_close(result(**inputs).logits, before, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(adapted(**inputs).logits, before)  # the tuned model is as it was
    assert not result.config.tie_word_embeddings


@pytest.mark.parametrize("setting", ["logit_scale", "lm_head_multiplier", "output_multiplier"])
def test_a_family_with_a_scaled_head_is_refused(setting: str) -> None:
    model = CohereForCausalLM(CohereConfig(**SMALL, logit_scale=1.0))
    hidden_states_and_head(model)
    setattr(model.config, setting, 0.5)
    with pytest.raises(InputError, match="scales its logits"):
        hidden_states_and_head(model)


def test_a_model_without_a_head_is_refused() -> None:
    model, _ = MODELS["llama"]()
    with pytest.raises(InputError, match="no language head"):
        hidden_states_and_head(model.model)


def test_loaded_for_training_in_the_type_asked_for() -> None:
    model = load_base(AutoModelForCausalLM, "demo")
    assert model.training
    assert model.dtype == torch.bfloat16  # the checkpoint's own
    assert load_base(AutoModelForCausalLM, "demo", dtype="float32").dtype == torch.float32


def test_names(tmp_path: Path) -> None:
    assert Path(locate("demo-xl")).name == "xl"
    assert locate(str(tmp_path)) == str(tmp_path)
    for missing in (str(tmp_path / "no"), "./no", "a/b/c"):
        with pytest.raises(InputError, match="no such folder"):
            locate(missing)


def test_a_tokenizer_beside_its_models_is_found_and_gets_a_padding_token() -> None:
    tokenizer = load_processor(AutoTokenizer, "demo")
    assert (len(tokenizer), tokenizer.pad_token_id) == (2048, tokenizer.eos_token_id)


def test_checkpointing_changes_no_gradient_and_reaches_the_adapters() -> None:
    model, inputs = MODELS["llama"]()
    adapted = shaken(lora(model.train()))
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            enable_checkpointing(adapted)
            assert model.is_activation_checkpointing
        adapted.zero_grad()
        composed(adapted, inputs).square().mean().backward()
        found.append({name: parameter.grad for name, parameter in trainable_parameters(adapted).items()})
    for name, gradient in found[0].items():
        assert gradient is not None
        torch.testing.assert_close(found[1][name], gradient)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize(("quantization", "error"), [("8bit", 0.1), ("nf4", 0.4)])
def test_a_quantized_base_is_near_and_can_be_trained_before_and_after_evaluation(
    quantization: Any, error: float
) -> None:
    """On some CPUs bitsandbytes rearranges a 4-bit weight in evaluation, and no gradient passes it from then on."""
    inputs = {"input_ids": torch.arange(100, 112).view(1, 12)}
    full = load_base(AutoModelForCausalLM, "demo", dtype="float32").eval()
    model = load_base(AutoModelForCausalLM, "demo", None, quantization, "float32")
    kinds = {type(layer).__name__ for layer in model.transformer.h.modules()}
    assert kinds & {"Linear8bitLt", "Linear4bit"}
    assert "Conv1D" not in kinds
    assert type(model.lm_head) is nn.Linear
    adapted = lora(model, 4)

    def gradients() -> dict[str, Tensor]:
        adapted.train().zero_grad()
        composed(adapted, inputs).square().mean().backward()
        return {name: parameter.grad.clone() for name, parameter in trainable_parameters(adapted).items()}  # type: ignore[union-attr]

    before = gradients()
    with torch.no_grad():
        wanted, found = full(**inputs).logits, composed(adapted.eval(), inputs)
    assert (found - wanted).norm() / wanted.norm() < error
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, before[name], rtol=1e-3, atol=1e-6)
    assert all(gradient.abs().max() > 0 for name, gradient in before.items() if "lora_B" in name)


def test_an_adapter_of_a_quantized_base_is_merged_into_the_full_one() -> None:
    inputs = {"input_ids": torch.arange(100, 112).view(1, 12)}
    torch.manual_seed(0)
    adapted = shaken(lora(load_base(AutoModelForCausalLM, "demo", None, "nf4", "float32"), 4)).eval()
    full = shaken(lora(load_base(AutoModelForCausalLM, "demo", dtype="float32"), 4)).eval()
    full.load_state_dict({k: v for k, v in adapted.state_dict().items() if "lora_" in k}, strict=False)
    with torch.no_grad():
        result = merged(adapted, load_base(AutoModelForCausalLM, "demo", dtype="float32"))
        torch.testing.assert_close(result(**inputs).logits, full(**inputs).logits, atol=1e-4, rtol=1e-4)


def test_one_kernel_computes_the_same_activation() -> None:
    model, inputs = MODELS["gpt2"]()
    model.eval()
    wanted = model(**inputs).logits
    assert sum(isinstance(module, NewGELUActivation) for module in model.modules()) == 2
    prepare_layers(model)
    assert not any(isinstance(module, NewGELUActivation) for module in model.modules())
    assert [type(block.mlp.act) for block in model.transformer.h] == [nn.GELU, nn.GELU]
    torch.testing.assert_close(model(**inputs).logits, wanted, atol=1e-6, rtol=1e-6)


def test_a_loaded_model_has_fused_activations() -> None:
    assert not any(
        isinstance(module, NewGELUActivation) for module in load_base(AutoModelForCausalLM, "demo").modules()
    )
