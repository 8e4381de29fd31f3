"""What vision-language models need to answer and to be tuned, as Markdown tables, computed without weights.

Usage: python benchmarks/vlm_memory.py [--rank 8]

Nothing is measured: the networks are built on the meta device from published shapes. The first table's figures are
`ftkit model show`'s: weights, gradients and AdamW's moments. The second has what comes on top for each row of a
micro-batch: the tensors alive at the peak of a step in bfloat16 with LoRA, and the peak of the frozen vision tower,
which runs once for a picture.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

from transformers import Idefics3Config, PaliGemmaConfig, PreTrainedConfig

from activation_memory import shapes_only, step_bytes, tower_bytes
from ftkit.models.facts import ModelFacts, model_facts
from ftkit.models.memory import inference_needs, training_needs

WAYS = {
    "answer, bfloat16": "weights in bfloat16",
    "full, float32": "full, float32",
    "full, bfloat16": "full, bfloat16",
    "LoRA": "LoRA",
    "8-bit + LoRA": "8-bit + LoRA",
    "nf4 + LoRA": "nf4 + LoRA",
}
SUPERVISED = 32  # tokens of an answer


def smolvlm(text: dict[str, Any], vision: dict[str, Any], scale_factor: int) -> PreTrainedConfig:
    """A SmolVLM's configuration; its checkpoints say idefics3, and keep an output head of its own."""
    text_config = {"model_type": "llama", "tie_word_embeddings": False, **text}
    options = {"scale_factor": scale_factor, "tie_word_embeddings": False}
    config = Idefics3Config(text_config=text_config, vision_config=vision, **options)
    config.architectures = ["Idefics3ForConditionalGeneration"]
    return config


def paligemma(text: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of a PaliGemma for pictures of 224 x 224 pixels."""
    vision: dict[str, Any] = {"model_type": "siglip_vision_model", "patch_size": 14, "image_size": 224}
    vision |= {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    vision["vision_use_head"] = False
    text = {"num_attention_heads": 8, "head_dim": 256, "vocab_size": 257216, **text}
    config = PaliGemmaConfig(text_config=text, vision_config=vision, projection_dim=text["hidden_size"])
    config.architectures = ["PaliGemmaForConditionalGeneration"]
    return config


def models() -> dict[str, PreTrainedConfig]:
    """The models' configurations by name."""
    # Text and scale_factor: config.json of HuggingFaceTB/SmolVLM-256M-Instruct, as fine-tuned copies on the hub repeat
    # it (the text part is SmolLM2-135M's); vision: google/siglip-base-patch16-512, which its card names. The vocabulary
    # of 49,280 and the untied head make the sum 256 million, as the name says. The text part of SmolVLM-500M is
    # SmolLM2-360M's; its sum is 507 million.
    small_text = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49280}
    small_text |= {"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192}
    middle_text = small_text | {"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32}
    middle_text |= {"num_attention_heads": 15, "num_key_value_heads": 5}
    small_vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    small_vision |= {"patch_size": 16, "image_size": 512}
    # Text and scale_factor: config.json of HuggingFaceTB/SmolVLM-Base, which SmolVLM-Instruct shares; it leaves the
    # heads at Llama's 32. Vision: google/siglip-so400m-patch14-384. The sum is 2.25 billion, as published.
    text = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "vocab_size": 49155}
    text |= {"num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 16384}
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    vision |= {"patch_size": 14, "image_size": 384}
    # config.json of google/paligemma-3b-pt-224, as its fine-tuned copies on the hub repeat it; PaliGemma 2's text part
    # is Gemma 2 2B. keras-hub counts 2,923,335,408 and 3,032,094,960 parameters, with 64 embeddings fewer.
    gemma: dict[str, Any] = {"model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384}
    gemma |= {"num_hidden_layers": 18, "num_key_value_heads": 1}
    gemma2: dict[str, Any] = {"model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216}
    gemma2 |= {"num_hidden_layers": 26, "num_key_value_heads": 4}
    return {
        "SmolVLM-256M": smolvlm(small_text, small_vision, 4),
        "SmolVLM-500M": smolvlm(middle_text, small_vision, 4),
        "SmolVLM-2.2B": smolvlm(text, vision, 3),
        "PaliGemma-3B": paligemma(gemma),
        "PaliGemma 2-3B": paligemma(gemma2),
    }


def facts_of(config: PreTrainedConfig) -> ModelFacts:
    """What `ftkit model show` knows of a checkpoint in bfloat16 with this configuration."""
    config.dtype = "bfloat16"
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return model_facts(folder)


def row(name: str, facts: ModelFacts, rank: int) -> str:
    """A model's line of the table, in gigabytes of 10^9 bytes."""
    needs = {need.way: need.size for need in (*inference_needs(facts), *training_needs(facts, rank))}
    cells = [f"{facts.total / 1e6:,.0f} M", *(f"{needs[way] / 1e9:.1f}" for way in WAYS.values())]
    return f"| {name} | {' | '.join(cells)} |"


def activations_row(name: str, config: PreTrainedConfig, rank: int) -> str:
    """A model's line of the second table: a picture of 17 tiles for SmolVLM, one of 224 x 224 pixels for PaliGemma."""
    tiles, length = (17, 1500) if config.model_type == "idefics3" else (1, 300)
    kept, again = (shapes_only(config, rank, checkpointing) for checkpointing in (False, True))
    sizes = [step_bytes(net, 1, length, SUPERVISED) for net in (kept, again)] + [tower_bytes(kept, tiles)]
    return f"| {name} | {length:,} | {' | '.join(f'{size / 1e9:.2f}' for size in sizes)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=8, help="of the adapters, on all projections of the text model")
    rank = parser.parse_args().rank
    print(f"| GB | parameters | {' | '.join(WAYS)} |")
    print("|---|" + "---:|" * (1 + len(WAYS)))
    for name, config in models().items():
        print(row(name, facts_of(config), rank))
    print("\n| GB | tokens of a row | activations | with gradient checkpointing | vision tower |")
    print("|---|" + "---:|" * 4)
    for name, config in models().items():
        print(activations_row(name, config, rank))


if __name__ == "__main__":
    main()
