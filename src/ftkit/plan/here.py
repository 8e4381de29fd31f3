"""Measure the CPU at hand: products, memory, simple operators, and what operators, steps and runs cost besides."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from scipy.optimize import nnls
from torch import Tensor, nn

from ftkit.classifier.data import TextClassificationDataModule
from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.errors import InputError
from ftkit.plan.classifier import plan_classifier
from ftkit.plan.device import Device
from ftkit.plan.torch_internals import OperatorCosts
from ftkit.run_folder import RESULT_FILE, read_result
from ftkit.training.checkpoint import AtomicCheckpointIO
from ftkit.training.guards import FiniteGuard
from ftkit.training.peak_memory import peak_memory_mb, reset_peak_memory
from ftkit.training.recorder import RunRecorder

_ROWS, _WIDTH, _INNER, _LAYERS = 960, 768, 3072, 2  # of GPT-2 small: 8 messages of 120 tokens through two MLPs
_COPIED = 1 << 24  # float32 numbers, 64 MB: more than caches hold
_REPEATS = 7
_TEXTS, _BATCH = 240, 2  # of a small training


def measured() -> Device:
    """Return the CPU at hand as a device, measured in seconds.

    The median of a few repetitions counts: a run shares the CPU with the same other processes.

    Raises:
        InputError: There is a GPU, which nothing here measures.
    """
    if torch.cuda.is_available():
        fix = "name the device, or a file like those of the known ones"
        raise InputError("only a CPU is measured", field="device", got="here", fix=fix)
    threads = torch.get_num_threads()
    bandwidth = _bandwidth()
    tflops = {name: _products(getattr(torch, name), bandwidth) / 1e12 for name in ("float32", "bfloat16")}
    device = Device(
        name=f"this CPU, {threads} thread{'s' * (threads > 1)}",
        memory_gb=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9,
        bandwidth_gb_s=bandwidth / 1e9,
        tflops=tflops,
        matmul_share=1.0,
        bandwidth_share=min(1.0, _simple_operators() / bandwidth),
        gap_us=0.0,
        dispatch_us=0.0,
        step_us=0.0,
        update_us=0.0,
        run_s=0.0,
        asynchronous=False,
        reserved_gb=0.0,
        sources=["measured here"],
    )
    reset_peak_memory()
    dispatch, step, update, run = _besides(device)
    return replace(
        device,
        dispatch_us=1e6 * dispatch,
        step_us=1e6 * step,
        update_us=1e6 * update,
        run_s=run,
        reserved_gb=peak_memory_mb() / 1e3,
    )


class _Timed(NamedTuple):
    """Hold the seconds of a forward and backward pass, and the operations and bytes of its operators."""

    seconds: float
    operations: float
    size: float


def _bandwidth() -> float:
    """Return how many bytes a second a copy reads and writes."""
    source, target = torch.ones(_COPIED), torch.ones(_COPIED)
    return 8 * _COPIED / _median(lambda: target.copy_(source))


def _products(dtype: torch.dtype, bandwidth: float) -> float:
    """Return how many operations a second matrix products reach, among weights that caches do not hold."""
    mlp = [nn.Sequential(nn.Linear(_WIDTH, _INNER), nn.Linear(_INNER, _WIDTH)) for _ in range(_LAYERS)]
    found = _timed(nn.Sequential(*mlp).to(dtype), torch.ones(_ROWS, _WIDTH, dtype=dtype))
    return found.operations / (found.seconds - found.size / bandwidth)


def _simple_operators() -> float:
    """Return how many bytes a second are read and written where a little is computed with each number."""
    layers = [nn.Sequential(nn.LayerNorm(_WIDTH), nn.GELU(approximate="tanh")) for _ in range(_LAYERS)]
    found = _timed(nn.Sequential(*layers), torch.ones(_ROWS, _WIDTH))
    return found.size / found.seconds


def _timed(net: nn.Module, hidden: Tensor) -> _Timed:
    def run() -> None:
        net(hidden).sum().backward()
        net.zero_grad()

    with OperatorCosts() as costs:
        run()
    work = costs.work
    operations = sum(times * one.operations for one, times in work.items())
    return _Timed(_median(run), operations, sum(times * one.size for one, times in work.items()))


def _median(run: Callable[[], Any]) -> float:
    """Return the median seconds of some repetitions."""
    run()
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _besides(device: Device) -> list[float]:
    """Return the seconds of an operator, a batch, an update and a run besides what is computed and moved.

    They are solved for from small trainings that differ in how many of these they have.
    """
    trained = [
        _training(device, batch_size=_TEXTS),
        _training(device, batch_size=_BATCH),
        _training(device, batch_size=_BATCH, evaluate_splits=("train", "val", "test")),
        _training(device, batch_size=_BATCH, trainable="lora"),
    ]
    found, _ = nnls([counts for counts, _ in trained], [seconds for _, seconds in trained])
    return found.tolist()


def _training(
    device: Device, batch_size: int, trainable: Any = "last_block", **options: Any
) -> tuple[tuple[float, float, int, int], float]:
    """Return a small training's operators, batches, updates and runs, and its seconds besides computing and moving."""
    texts = [{"text": f"message {number}", "label": number % 2} for number in range(_TEXTS)]

    def parts() -> tuple[GPT2Classifier, TextClassificationDataModule]:
        adam = partial(torch.optim.AdamW, fused=True)
        model = GPT2Classifier(base_model="demo", trainable=trainable, cache_frozen=False, optimizer=adam)
        return model, TextClassificationDataModule(train=texts, batch_size=batch_size, drop_last=False, **options)

    with TemporaryDirectory() as folder:
        saving = ModelCheckpoint(folder, save_weights_only=True, enable_version_counter=False)
        quiet: Any = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        trainer = L.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, default_root_dir=folder, **quiet,
            callbacks=[RunRecorder(), FiniteGuard(), saving], plugins=[AtomicCheckpointIO()],
        )  # fmt: skip
        model, data = parts()
        trainer.fit(model, datamodule=data)
        trainer.test(model, datamodule=data, verbose=False)
        seconds = sum(read_result(Path(folder) / RESULT_FILE)["seconds"].values())
    costs = plan_classifier(*parts(), trainer)
    batches = sum(times for times, _ in costs.steps)
    operators = costs.updates * costs.update.total() + sum(times * step.work.total() for times, step in costs.steps)
    return (operators, batches, costs.updates, 1), seconds - costs.seconds(device)
