"""Estimate how much memory a model needs: to answer, and for each way of training it."""

from typing import NamedTuple

from ftkit.models.facts import ModelFacts

NF4_BYTES = 0.5 + (1 / 64) + 4 / (64 * 256)  # 4 bits, an 8-bit scale for 64 of them, a float32 for 256 scales
_QUANTIZED = (("8-bit", 1.0), ("nf4", NF4_BYTES))  # bytes for one weight


class Need(NamedTuple):
    """Hold the memory, in bytes, for one way of using a model, and how it comes about, in words."""

    way: str
    size: int
    formula: str


def inference_needs(facts: ModelFacts) -> list[Need]:
    """Return the bytes to hold the weights, by precision, and the keys and values of a full context."""
    total, width = facts.total, facts.dtype.itemsize
    name = str(facts.dtype).removeprefix("torch.")
    needs = [Need(f"weights in {name}", total * width, f"{total:,} parameters x {width} bytes")]
    if width != 4:
        needs.append(Need("weights in float32", total * 4, f"{total:,} parameters x 4 bytes"))
    for way, per_weight in _quantizations(facts):
        size = _quantized(facts, per_weight)
        needs.append(
            Need(f"weights in {way}", size, f"{per_weight:.3g} bytes per weight of linear layers, the rest in {name}")
        )
    if facts.context:
        per_token = facts.cache_bytes_per_token
        formula = f"2 x layers x key-value heads x head size x {width} bytes = {per_token:,} per token, "
        formula += f"x {facts.context:,} tokens"
        needs.append(Need("keys and values, 1 text", per_token * facts.context, formula))
    return needs


def training_needs(facts: ModelFacts, rank: int) -> list[Need]:
    """Return the bytes for weights, gradients and AdamW's two moments, for each way of training.

    Adapters of ``rank`` are trained in float32. Activations come on top: they grow with batch size times length, and
    gradient checkpointing keeps one hidden state a layer instead.
    """
    total, width = facts.total, facts.dtype.itemsize
    adapter = facts.lora_targets[1] * rank
    trained = f"4 x 4 bytes x {adapter:,} adapter parameters (rank {rank})"
    needs = [Need("full, float32", total * 16, f"(weight + gradient + 2 moments) x 4 bytes x {total:,}")]
    if width != 4:
        name = str(facts.dtype).removeprefix("torch.")
        needs.append(Need(f"full, {name}", total * 4 * width, f"the same x {width} bytes"))
    if adapter:
        needs.append(Need("LoRA", total * width + 16 * adapter, f"weights x {width} bytes + {trained}"))
        for way, per_weight in _quantizations(facts):
            size = _quantized(facts, per_weight) + 16 * adapter
            needs.append(
                Need(
                    f"{way} + LoRA",
                    size,
                    f"{per_weight:.3g} bytes per weight of linear layers, {width} for the rest, + the same",
                )
            )
    return needs


def _quantizations(facts: ModelFacts) -> tuple[tuple[str, float], ...]:
    return () if facts.packed else _QUANTIZED  # a GGUF file is unpacked, never quantized again


def _quantized(facts: ModelFacts, per_weight: float) -> int:
    return round(facts.linear * per_weight + (facts.total - facts.linear) * facts.dtype.itemsize)
