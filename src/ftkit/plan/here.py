"""Measure the CPU at hand: products, memory, simple operators, and what an operator and a step cost besides."""

import os
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ftkit.errors import InputError
from ftkit.plan.device import Device
from ftkit.plan.torch_internals import OperatorCosts, Work
from ftkit.training.peak_memory import peak_memory_mb, reset_peak_memory

_ROWS, _WIDTH, _INNER, _LAYERS = 960, 768, 3072, 2  # of GPT-2 small: 8 messages of 120 tokens through two MLPs
_COPIED = 1 << 24  # float32 numbers, 64 MB: more than caches hold
_REPEATS, _STEPS = 7, 50


def measured() -> Device:
    """Return the CPU at hand as a device, measured in seconds.

    The fastest of a few repetitions counts, so that other processes disturb little.

    Raises:
        InputError: There is a GPU, which nothing here measures.
    """
    if torch.cuda.is_available():
        fix = "name the device, or a file like those of the known ones"
        raise InputError("only a CPU is measured", field="device", got="here", fix=fix)
    threads = torch.get_num_threads()
    tflops = {name: _products(getattr(torch, name)) for name in ("float32", "bfloat16")}
    dispatch = _dispatch()
    reset_peak_memory()
    bandwidth = _bandwidth()
    return Device(
        name=f"this CPU, {threads} thread{'s' * (threads > 1)}",
        memory_gb=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9,
        bandwidth_gb_s=bandwidth,
        tflops=tflops,
        matmul_share=1.0,
        bandwidth_share=min(1.0, _simple_operators(dispatch) / bandwidth),
        gap_us=0.0,
        dispatch_us=1e6 * dispatch,
        step_us=1e6 * _loop(dispatch),
        asynchronous=False,
        reserved_gb=peak_memory_mb() / 1e3,
        sources=["measured here"],
    )


def _fastest(run: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of some repetitions."""
    run()
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _products(dtype: torch.dtype) -> float:
    """Return how many 10^12 operations a second matrix products reach, among weights that caches do not hold."""
    mlp = [nn.Sequential(nn.Linear(_WIDTH, _INNER), nn.Linear(_INNER, _WIDTH)) for _ in range(_LAYERS)]
    run, work = _counted(nn.Sequential(*mlp).to(dtype), torch.ones(_ROWS, _WIDTH, dtype=dtype))
    return sum(one.operations * times for one, times in work.items()) / _fastest(run) / 1e12


def _bandwidth() -> float:
    source, target = torch.ones(_COPIED), torch.ones(_COPIED)
    return 8 * _COPIED / _fastest(lambda: target.copy_(source)) / 1e9


def _dispatch() -> float:
    """Return the seconds of an operator on next to nothing, forwards and back."""
    layers = [nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU()) for _ in range(20)]
    run, work = _counted(nn.Sequential(*layers), torch.ones(1, 8))
    return _fastest(run) / work.total()


def _simple_operators(dispatch: float) -> float:
    """Return how many 10^9 bytes a second are read and written where a little is computed with each number."""
    layers = [nn.Sequential(nn.LayerNorm(_WIDTH), nn.GELU()) for _ in range(_LAYERS)]
    run, work = _counted(nn.Sequential(*layers), torch.ones(_ROWS, _WIDTH))
    return sum(one.size * times for one, times in work.items()) / (_fastest(run) - work.total() * dispatch) / 1e9


def _counted(net: nn.Module, hidden: Tensor) -> tuple[Callable[[], Any], Work]:
    """Return a run of a network, forwards and back, and its operators."""

    def run() -> None:
        net(hidden).sum().backward()
        net.zero_grad()

    with OperatorCosts() as costs:
        run()
    return run, costs.work


class _Nothing(L.LightningModule):
    """Train one number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.marks: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.marks.append(time.perf_counter())
        loss = self.weight.sum()
        self.log("train/loss", loss, batch_size=1)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), fused=True)


def _loop(dispatch: float) -> float:
    """Return the median seconds of a step of Lightning's loop, without its few operators."""
    module = _Nothing()
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = L.Trainer(accelerator="cpu", devices=1, max_steps=_STEPS, **quiet)
    trainer.fit(module, DataLoader(torch.zeros(_STEPS, 8).unbind()))  # type: ignore[arg-type]
    taken = sorted(later - earlier for earlier, later in zip(module.marks, module.marks[1:], strict=False))
    return max(0.0, taken[len(taken) // 4] - 5 * dispatch)
