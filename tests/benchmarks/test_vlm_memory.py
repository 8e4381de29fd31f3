"""The memory that benchmarks/vlm_memory.py counts on shapes alone is what real tensors take."""

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, PreTrainedConfig

import activation_memory as activations
import vlm_memory as memory
from ftkit.models.adapters import add_adapter, linear_layers
from ftkit.models.base_model import enable_checkpointing
from ftkit.models.vision_families import family_of


def small(name: str) -> PreTrainedConfig:
    config = memory.models()[name]
    text = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "vocab_size": 300}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    for field, value in text.items():
        setattr(config.text_config, field, value)
    for field, value in {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}.items():
        setattr(config.vision_config, field, value)
    config.vision_config.num_attention_heads, config.vision_config.image_size = 4, config.vision_config.patch_size * 4
    return config


@pytest.mark.parametrize("name", ["SmolVLM-256M", "PaliGemma-3B"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_shapes_alone_take_what_real_tensors_take(name: str, checkpointing: bool) -> None:
    config = small(name)
    base = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    lora = LoraConfig(r=4, target_modules=linear_layers(base))
    net = add_adapter(base, lora, "CAUSAL_LM", family_of(base.config).parts).to(torch.bfloat16)
    if checkpointing:
        enable_checkpointing(net)
    shapes = activations.shapes_only(config, 4, checkpointing)
    activations.step_bytes(net.train(), 1, 8, 2)
    net.zero_grad()
    counted = activations.step_bytes(shapes, 2, 200, 16)
    assert counted == pytest.approx(activations.step_bytes(net, 2, 200, 16), rel=0.02)
    assert activations.tower_bytes(shapes, 3) == pytest.approx(activations.tower_bytes(net, 3), rel=0.02)


def test_rows_add_up_and_checkpointing_keeps_less() -> None:
    config = small("SmolVLM-256M")
    kept, again = (activations.shapes_only(config, 4, checkpointing) for checkpointing in (False, True))
    one, two = (activations.step_bytes(kept, batch, 200, 16) for batch in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.05)
    assert activations.step_bytes(again, 1, 200, 16) < one / 1.5


def test_a_storage_counts_once_and_while_it_lives() -> None:
    held = torch.zeros(1000)
    with activations.PeakBytes([held]) as counted:
        first = held + 1
        second = first[:10].view(2, 5)
        del first, second
        held * 2  # dropped at once
    assert (counted.now, counted.peak) == (0, 4000)
