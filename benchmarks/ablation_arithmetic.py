"""How much arithmetic a row of bench_ablation.py needs, and how fast this machine multiplies."""

from __future__ import annotations

import time

import torch

import plain_loop
from ablation_contestants import Work


def block_flops(width: int, positions: float, outputs: float) -> float:
    """Operations of a block: keys and values at all positions, the rest at those whose output is read."""
    return 4 * width**2 * positions + 20 * width**2 * outputs + 4 * width * positions * outputs


def one_position_flops(size: plain_loop.Size, positions: float) -> float:
    """Operations of a block of which one position is read: its query meets the inputs, no key or value is made."""
    return 24 * size.width**2 + 4 * size.width * size.heads * positions


def row_tflops(number: int, size: plain_loop.Size, lengths: list[int], epochs: int, work: Work) -> dict[str, float]:
    """10^12 operations: of the plain loop, and of ftkit's frozen blocks (each message once) and of what learns."""
    row = plain_loop.ROWS[number]
    padded = {"longest": max(lengths), "model": size.context, "none": 0}[row["context"]] or sum(lengths) / len(lengths)
    learning = {"last_layer": 0, "last_block": 1, "last_two_blocks": 2}.get(row["trainable"], size.layers)
    backward = 1 if row["trainable"] == "lora" else 2  # forward passes' worth; the adapters' base needs no gradients
    trained, watched = work.steps * row["batch_size"] * epochs, work.eval_batches * row["batch_size"] + len(lengths)
    block = block_flops(size.width, padded, padded)
    plain = trained * (size.layers + backward * learning) * block + watched * size.layers * block
    if row["position"] == "flexible":
        padded = sum(lengths) / len(lengths)
    if row["position"] == "first":
        padded = 1
    block = block_flops(size.width, padded, padded)
    last = block if row["mean"] and row["position"] != "flexible" else one_position_flops(size, padded)
    behind = max(learning, 1) - 1  # blocks that learn before the last one
    frozen = len(lengths) * (size.layers - max(learning, 1)) * block
    times = (1 + backward) * trained + watched if learning else len(lengths)  # behind a frozen block all is kept
    return {"plain": plain / 1e12, "frozen": frozen / 1e12, "learning": times * (behind * block + last) / 1e12}


class Matmul:
    """The best rate of a bare matrix product, tried again between the rows: other work may be under way at any time."""

    def __init__(self, size: int = 2048) -> None:
        self._factors = {dtype: torch.randn(2, size, size).to(dtype) for dtype in (torch.float32, torch.bfloat16)}
        self.gflops = {str(dtype): 0.0 for dtype in self._factors}

    def try_again(self) -> None:
        """Measure once more."""
        for dtype, (one, other) in self._factors.items():
            for _ in range(5):
                started = time.perf_counter()
                one @ other
                rate = 2 * len(one) ** 3 / (time.perf_counter() - started) / 1e9
                self.gflops[str(dtype)] = max(self.gflops[str(dtype)], rate)
