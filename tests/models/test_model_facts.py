"""What is told of a model equals what is found once its weights are loaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig, MptConfig, RobertaConfig

from ftkit.errors import InputError
from ftkit.models.adapters import add_adapter
from ftkit.models.base_model import Quantization, load_base
from ftkit.models.facts import ModelFacts, model_facts, parameters_by_part, read_card_header, tokenizer_of
from ftkit.models.memory import inference_needs, training_needs
from ftkit.models.report import to_text

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture(scope="module")
def demo() -> ModelFacts:
    return model_facts("demo")


def test_the_parts_add_up_to_the_loaded_model(demo: ModelFacts) -> None:
    loaded = load_base(AutoModelForCausalLM, "demo")
    assert demo.total == sum(parameter.numel() for parameter in loaded.parameters()) == 347_520
    assert demo.parameters == parameters_by_part(loaded)
    assert demo.parameters["embeddings"] == 64 * (2048 + 256)
    assert demo.architecture == ("GPT2LMHeadModel", "gpt2")
    assert demo.tied
    assert demo.weight_files.keys() == {"model.safetensors"}
    assert demo.dtype == loaded.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "layers", "size"),
    [
        ("BertModel", ["query", "key", "value", "dense"], 2 * (4 * 64 + 2 * 80) + 64),  # with the pooler's
        ("BertForMaskedLM", ["query", "key", "value", "dense"], 2 * (4 * 64 + 2 * 80)),
        ("ModernBertForMaskedLM", ["Wqkv", "Wo", "Wi"], 2 * (2 * 128 + 64 + 80)),
    ],
)
def test_adapters_fit_into_an_encoder(kind: str, layers: list[str], size: int, tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    family = "modernbert" if kind.startswith("Modern") else "bert"
    config = {"architectures": [kind], "model_type": family, "vocab_size": 99, **shape, **tokens}
    (tmp_path / "config.json").write_text(json.dumps(config))
    facts = model_facts(str(tmp_path))
    assert facts.lora_targets == (layers, size)
    assert f"to adapt: {', '.join(layers)}" in to_text(facts, None, 8)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"model_type": "llama", "num_key_value_heads": 1}, {"embeddings", "attention", "MLP", "norms", "head"}),
        (
            {"model_type": "llama", "num_key_value_heads": 1, "tie_word_embeddings": True},
            {"embeddings", "attention", "MLP", "norms"},
        ),
    ],
)
def test_a_family_of_its_own_parts(tmp_path: Path, options: dict[str, Any], parts: set[str]) -> None:
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 99,
    }
    options = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64, **shape, **options}
    (tmp_path / "config.json").write_text(json.dumps(options))
    facts = model_facts(str(tmp_path))
    assert facts.parameters.keys() == parts
    assert facts.tied == ("head" not in parts)
    assert facts.cache_bytes_per_token == 2 * 2 * 1 * 8 * 4  # keys and values, layers, heads, head size, bytes
    assert facts.lora_targets[0] == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def test_the_context_is_what_a_text_may_have(tmp_path: Path, demo: ModelFacts) -> None:
    """RoBERTa's positions begin behind the id of its padding; MPT calls their number otherwise."""
    assert demo.context == demo.config.n_positions
    config = RobertaConfig(max_position_embeddings=66, pad_token_id=1, num_hidden_layers=1, vocab_size=50)
    config.architectures = ["RobertaForMaskedLM"]
    config.save_pretrained(tmp_path)
    assert model_facts(str(tmp_path)).context == 64
    assert ModelFacts(**{**demo.__dict__, "config": MptConfig(max_seq_len=32)}).context == 32
    assert ModelFacts(**{**demo.__dict__, "config": BloomConfig()}).context is None


def test_the_adapters_are_those_that_would_be_added(demo: ModelFacts) -> None:
    lora = LoraConfig(r=3, target_modules=demo.lora_targets[0])
    model = add_adapter(load_base(AutoModelForCausalLM, "demo"), lora, "CAUSAL_LM")
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert demo.lora_targets[1] * 3 == learning


@pytest.mark.parametrize(("quantization", "way"), [(None, "weights in bfloat16"), ("8bit", "8-bit"), ("nf4", "nf4")])
def test_the_memory_of_the_weights_is_what_they_take(
    demo: ModelFacts, quantization: Quantization | None, way: str
) -> None:
    loaded = load_base(AutoModelForCausalLM, "demo", quantization=quantization)
    taken = sum(parameter.nbytes for parameter in loaded.parameters())
    for module in loaded.modules():  # the scales of quantized weights are no parameters
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            taken += state.absmax.nbytes + state.state2.absmax.nbytes
    predicted = next(need.size for need in inference_needs(demo) if way in need.way)
    assert predicted == pytest.approx(taken, rel=0.01)


def test_full_training_takes_what_adamw_keeps(demo: ModelFacts) -> None:
    model = load_base(AutoModelForCausalLM, "demo", dtype="float32")
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    gradients = [parameter.grad for parameter in model.parameters()]
    taken = sum(tensor.nbytes for tensor in [*model.parameters(), *gradients, *moments])
    assert training_needs(demo, 8)[0].size == taken


def test_the_ways_to_train_are_in_the_order_of_their_cost(demo: ModelFacts) -> None:
    ways = {need.way: need.size for need in training_needs(demo, 1)}
    assert list(ways) == ["full, float32", "full, bfloat16", "LoRA", "8-bit + LoRA", "nf4 + LoRA"]
    assert sorted(ways.values(), reverse=True) == list(ways.values())


def test_the_template_is_shown_with_its_tokens(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(gpt2_folder, tmp_path / "chat"))
    tokenizer = tokenizer_of(str(folder))
    assert tokenizer is not None
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    page = to_text(model_facts(str(folder)), tokenizer_of(str(folder)), 8)
    assert "    [<|im_start|> 257]|u|s|e|r|\\n" in page
    assert "9|[<|im_end|> 258]|\\n" in page
    assert "no language head" in page  # the folder holds a model without one


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ({"tool_use": TEMPLATE}, "Available template names are ['tool_use']"),
    ],
)
def test_a_template_that_refuses_is_told_with_the_rest(template: Any, message: str, demo: ModelFacts) -> None:
    tokenizer = tokenizer_of("demo")
    assert tokenizer is not None
    tokenizer.chat_template = template
    page = to_text(demo, tokenizer, 8)
    assert "  the chat template refuses a question and its answer: " in page
    assert message in page
    assert "to adapt: c_attn, c_proj, c_fc" in page


def test_without_a_template_that_is_said(demo: ModelFacts) -> None:
    page = to_text(demo, tokenizer_of("demo"), 8)
    assert "no chat template" in page
    assert "eos: '<|endoftext|>' = 2047" in page
    assert "347,520" in page
    assert "to adapt: c_attn, c_proj, c_fc" in page


def test_the_page_has_a_section_for_each_question(demo: ModelFacts) -> None:
    page = to_text(demo, None, 8)
    sections = {section.splitlines()[0].partition(":")[0]: section for section in page.split("\n\n")}
    assert list(sections) == [
        demo.name, "Parameters by part", "Memory to answer", "Memory to train", "License and access", "Prompt format",
        "Adapters",
    ]  # fmt: skip
    assert f"weights in float32 {4 * demo.total / 1e6:>13.1f} MB" in sections["Memory to answer"]
    assert page.endswith("\n")


def test_the_card_tells_license_and_gate(tmp_path: Path, demo: ModelFacts) -> None:
    (tmp_path / "README.md").write_text(
        "---\nlicense: gemma\nextra_gated_prompt: agree\nbase_model: a/b\n---\n# Card\n"
    )
    card = read_card_header(tmp_path)
    assert (card["license"], card["base_model"]) == ("gemma", "a/b")
    page = to_text(ModelFacts(**{**demo.__dict__, "card": card}), None, 8)
    assert "license: gemma" in page
    assert "gated: yes" in page
    for damaged in ("# no header", "---\n[broken\n---\n", ""):
        (tmp_path / "README.md").write_text(damaged)
        assert read_card_header(tmp_path) == {}


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    AutoConfig.from_pretrained(Path(__file__).parents[2] / "src/ftkit/assets/gpt2-demo/small").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    with pytest.raises(InputError, match="architectures: names no architecture of transformers"):
        model_facts(str(tmp_path))


def test_a_model_of_another_kind_is_told(tmp_path: Path) -> None:
    config = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"vocab_size: is not a language model .*\(got 'vit'\)"):
        model_facts(str(tmp_path))


def test_a_model_in_the_cache_is_shown_without_a_connection(gpt2_folder: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--tiny"
    shutil.copytree(gpt2_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    script = """
import socket, sys
def refused(*arguments): sys.exit("a connection was tried")
socket.socket.connect = socket.getaddrinfo = refused
from ftkit.cli import main
sys.exit(main(["model", "show", "org/tiny"]) or main(["model", "show", "org/none"]))
"""
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=300)
    assert f"commit {commit}" in ended.stdout, ended.stderr
    assert ended.returncode == 3
    assert ended.stderr.endswith(
        f"error: org/none is not in the cache {tmp_path} and the hub cannot be reached; "
        "fix: run `hf download org/none` where there is a network, or name a local folder\n"
    )
