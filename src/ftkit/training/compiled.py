"""Train through ``torch.compile``, block by block; what is written is as without it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, wraps
from types import MethodType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from ftkit.errors import EnvironmentFault, InputError, first_line
from ftkit.models.transformers_internals import is_block
from ftkit.training.recorder import add_to_result
from ftkit.training.sharding import holds_whole_network

# Of one kind of block: with and without a gradient to pass on, with one row or position or several, a few attentions.
VARIANTS_OF_A_BLOCK = 64
FIX = "leave CompiledTraining out of trainer.callbacks"


class CompiledTraining(L.Callback):
    """Compile the trainable blocks; ``result.json`` says how many of them ran so (``compiled``).

    Only where a gradient is wanted do they run compiled, which is in training steps: evaluations, answers, and what is
    kept on disk for other runs are computed as without it. The losses differ by rounding. Dropout draws other numbers.

    Blocks are compiled one by one and in place: those of one kind share their code, and parameters keep their names.
    Numbers of rows and positions stay open in the code, so batches may be of any size and width, and a run that is
    resumed finds the same kernels in whatever order batches come. A block that cannot be compiled whole is refused;
    nothing falls back in silence.
    """

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._ran: set[nn.Module] = set()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that compiling works, and that each process holds whole weights, before they are loaded."""
        if stage != "fit":
            return
        if not holds_whole_network(trainer):
            raise InputError("compiling needs whole weights", field="trainer.strategy", fix=f"use ddp, or {FIX}")
        need_compiler(trainer.strategy.root_device.type)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Have trainable blocks compiled when they are first called."""
        torch.compiler.reset()  # what an earlier training of the process compiled counts against a limit
        self._ran.clear()
        config: Any = torch._dynamo.config
        self._undo.enter_context(config.patch(recompile_limit=VARIANTS_OF_A_BLOCK))
        for part in trainable_parts(pl_module):
            part._compiled_call_impl = self._compiled(part._call_impl, part)
            self._undo.callback(setattr, part, "_compiled_call_impl", None)
        for owner, name in trainable_methods(pl_module):
            setattr(owner, name, MethodType(self._compiled(getattr(type(owner), name), owner), owner))
            self._undo.callback(delattr, owner, name)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record what was compiled."""
        add_to_result(trainer, compiled=len(self._ran))
        if not self._ran:
            rank_zero_warn("CompiledTraining: no block is trainable, so nothing was compiled")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restore the uncompiled blocks."""
        self._undo.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore the uncompiled blocks."""
        self._undo.close()

    def _compiled(self, run: Callable[..., Any], part: nn.Module) -> Callable[..., Any]:
        compiled = torch.compile(run, dynamic=True, fullgraph=True)

        @wraps(run)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled() or torch.compiler.is_compiling():
                return run(*args, **kwargs)
            self._ran.add(part)
            try:
                return compiled(*args, **kwargs)
            except (TorchDynamoException, FailOnRecompileLimitHit) as error:
                raise InputError(
                    f"{type(part).__name__} cannot be compiled: {first_line(error.__cause__ or error)}",
                    field="trainer.callbacks",
                    fix=FIX,
                ) from error

        return call


def trainable_parts(module: nn.Module) -> list[nn.Module]:
    """Return the blocks with trainable parameters: those of transformers or, without any, the module's own parts."""
    blocks = [part for part in module.modules() if is_block(part)]
    return [part for part in blocks or module.children() if _is_trainable(part)]


def trainable_methods(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield the methods that run trainable blocks without calling them, which their owner lists as ``runs_blocks``."""
    for owner in module.modules():
        for name in getattr(owner, "runs_blocks", ()):
            if _is_trainable(owner):
                yield owner, name


def _is_trainable(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


@cache
def need_compiler(device: str) -> None:
    """Compile something small for a kind of device, once a process.

    Raises:
        EnvironmentFault: A compiler, or what it needs, is missing.
    """
    compiled = torch.compile(torch.neg, options={"fx_graph_cache": False})
    try:
        compiled(torch.zeros(2, device=device))
    except TorchDynamoException as error:
        raise EnvironmentFault(
            f"torch.compile does not work here: {first_line(error.__cause__ or error)}",
            field="trainer.callbacks",
            fix="install g++ and Python's headers (on a GPU Triton too), or name the compiler in CXX, or " + FIX,
        ) from error
