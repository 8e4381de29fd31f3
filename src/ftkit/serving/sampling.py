"""Choose the next token of each sequence of a batch, each by its own rules."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ftkit.serving.jobs import Sampling


def choose(logits: Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator]) -> list[int]:
    """Choose a token for each sequence, by its own rules: B ids; -1 for a sequence whose logits are not finite.

    Args:
        logits: Float (B, V).
        samplings: The rules of the B sequences.
        generators: B generators on the CPU; only sequences that draw use theirs.
    """
    best, tokens = (column.tolist() for column in logits.max(-1))
    for sequence, (sampling, generator) in enumerate(zip(samplings, generators, strict=True)):
        if not abs(best[sequence]) < float("inf"):  # NaN, too: max returns it
            tokens[sequence] = -1
        elif sampling.temperature > 0:
            tokens[sequence] = _draw(logits[sequence].float().cpu(), sampling, generator)
    return tokens


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Draw a token from ``logits`` (V,) float32; never one outside top-k or top-p."""
    ordered, indices = logits.sort(descending=True, stable=True)
    if sampling.top_k:
        ordered = ordered[: sampling.top_k]
    # The difference first: dividing large logits by a small temperature would overflow. In float64, because in float32
    # the smallest temperatures are 0.
    probabilities = ((ordered - ordered[0]).double() / sampling.temperature).softmax(-1).float()
    if sampling.top_p < 1:
        before = probabilities.cumsum(-1) - probabilities
        probabilities[before >= sampling.top_p] = 0  # the most likely one always stays
        if not probabilities[0] > 0:
            return int(indices[0])
    return int(indices[torch.multinomial(probabilities, 1, generator=generator)])
