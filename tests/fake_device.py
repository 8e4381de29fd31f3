"""A device that is not there: a training step runs on it without numbers, and what would hold it up is found.

PyTorch knows of each tensor its shape, type and device (``FakeTensorMode``), and refuses an operation on tensors of two
devices. The device is called "lazy": a fake "cuda:0" runs forward passes too, but without a driver autograd does not go
back through it.
"""

import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map
from torchmetrics import Metric

import ftkit
from ftkit.plan.torch_internals import fake_tensors

aten = torch.ops.aten
LAZY, CUDA = torch.device("lazy:0"), torch.device("cuda:0")
ROOTS = tuple(str(Path(file).parent) for file in (ftkit.__file__, __file__))
TORCH = str(Path(torch.__file__).parent)
# Their result, or its size, is known to the host only once the device has computed it.
READS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default, aten.bincount.default,
         aten._unique2.default, aten.masked_select.default}  # fmt: skip


TOLIST = Tensor.tolist  # which reads the memory of the CPU without an operation


Found = dict[tuple[str, ...], deque[Any]]  # what reads found, by where they were


def is_read(function: Any, args: Any) -> bool:
    masks = function is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
    return masks or function in READS


class Recording(TorchDispatchMode):
    """Note what each read of a step finds, on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Found = defaultdict(deque)

    @property
    def tolist_of(self) -> Callable[[Tensor], Any]:
        return lambda tensor: self.noted(TOLIST(tensor))

    def noted(self, result: Any) -> Any:
        self.found[place()].append(result)
        return result

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        return self.noted(result) if is_read(function, args) else result


class Watching(TorchDispatchMode):
    """Name the lines that read from the device, copy to it, or compute in float64; reads find what was recorded.

    Args:
        device: The fake device.
        found: Of :class:`Recording`, by the same step.
    """

    def __init__(self, device: torch.device, found: Found) -> None:
        super().__init__()
        self.device, self.found, self.faults = device, found, list[str]()

    @property
    def tolist_of(self) -> Callable[[Tensor], Any]:
        return lambda tensor: self.read(TOLIST, tensor)

    def read(self, function: Any, tensor: Tensor) -> Any:
        """What the same read found on the CPU."""
        name = getattr(function, "overloadpacket", function).__name__
        assert self.found[place()], f"{line()}: {name}, but not on the CPU"
        result = self.found[place()].popleft()
        if tensor.device == self.device:
            self.faults.append(f"{line()}: {name} waits for the device")
        return tree_map(lambda one: torch.empty_like(one, device=tensor.device) if is_tensor(one) else one, result)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [one for one in tree_iter((args, kwargs)) if isinstance(one, Tensor)]
        if is_read(function, args):
            return self.read(function, given[0])
        try:
            result = function(*args, **kwargs)
        except RuntimeError as error:
            raise AssertionError(f"{line()}: {error}") from error
        for one in filter(is_tensor, tree_iter(result)):
            if one.device == self.device and one.dtype == torch.float64:
                self.faults.append(f"{line()}: {function.overloadpacket.__name__} in float64")
            if function is aten._to_copy.default and one.device != given[0].device:
                way = "to" if one.device == self.device else "from"
                self.faults.append(f"{line()}: a copy {way} the device")
        return result


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def place() -> tuple[str, ...]:
    """The lines that are running, the innermost first, without those of PyTorch and of this file."""
    frames = ((frame.f_code, number) for frame, number in traceback.walk_stack(None))
    return tuple(
        f"{code.co_filename}:{number} in {code.co_name}"
        for code, number in frames
        if not code.co_filename.startswith((TORCH, __file__))
    )


def line() -> str:
    """The innermost line of ftkit, or of a test's module, that is running."""
    return next(one.rpartition("/")[2] for one in place() if one.startswith(ROOTS))


@contextmanager
def on_fake_device(module: Any, device: torch.device, found: Found) -> Iterator[Watching]:
    """Put a module and its trainer on a fake device, for good."""
    # What is made within the mode stays fake; the parameters of tied layers stay the same.
    with fake_tensors():
        memo: dict[int, Tensor] = {}

        def moved(tensor: Tensor) -> Tensor:
            if id(tensor) not in memo:
                there = torch.empty_like(tensor, device=device)
                parameter = isinstance(tensor, nn.Parameter)
                memo[id(tensor)] = nn.Parameter(there, tensor.requires_grad) if parameter else there
            return memo[id(tensor)]

        for part in module.modules():
            for tensors in (part._parameters, part._buffers):
                tensors.update({name: one if one is None else moved(one) for name, one in tensors.items()})
            if hasattr(part, "_device"):
                part._device = device
            if isinstance(part, Metric):
                part._apply(moved)
        module.trainer.strategy._root_device = device
        with Watching(device, found) as watching:
            yield watching


@contextmanager
def patched(mode: Recording | Watching) -> Iterator[None]:
    """Let a mode see ``tolist``, and the checkpoints of a fake device find their module of torch."""
    with (
        patch.object(torch, "lazy", ModuleType("lazy"), create=True),
        patch.object(Tensor, "tolist", mode.tolist_of),
        patch.object(FakeTensor, "tolist", mode.tolist_of),
    ):
        yield


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch as fake tensors on a device."""
    return tree_map(lambda one: torch.empty_like(one, device=device) if is_tensor(one) else one, batch)


class Over(Exception):
    """The step was watched."""


class WatchedStep(L.Callback):
    """Take the first step of a training twice, on the CPU and on a fake device, and end the training.

    Args:
        step: What is watched: called with the module and a batch; None goes forwards and back.
        device: The fake device.
    """

    def __init__(self, step: Callable[[Any, Any], Any] | None = None, device: torch.device = LAZY) -> None:
        self.step, self.device = step or forwards_and_back, device
        self.faults: list[str] = []

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        logged: dict[str, Any] = {}
        module.log = lambda name, value, **_: logged.__setitem__(name, value)
        module.log_dict = lambda values, **_: logged.update(values)
        with Recording() as recording, patched(recording):
            self.step(module, batch)
        module.zero_grad(set_to_none=True)
        if hasattr(module, "restart_window"):
            module.restart_window()
        module.cpu = lambda: module  # Lightning's end of a training, for which there are no numbers
        with on_fake_device(module, self.device, recording.found) as watching, patched(watching):
            self.step(module, to_device(batch, self.device))
        elsewhere = [name for name, value in logged.items() if is_tensor(value) and value.device != self.device]
        self.faults = [*watching.faults, *(f"{name} is logged from the CPU" for name in elsewhere)]
        raise Over


def forwards_and_back(module: Any, batch: Any) -> None:
    loss = module.training_step(batch, 0)
    (loss["loss"] if isinstance(loss, dict) else loss).backward()


def faults_of(module: Any, data: Any, step: Callable[[Any, Any], Any] | None = None, device: Any = LAZY) -> list[str]:
    """The faults of a step: lines and what they do; of a module that is trained on a data module or loader."""
    watched = WatchedStep(step, device)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        accelerator="cpu", logger=False, max_steps=1, num_sanity_val_steps=0, log_every_n_steps=1, callbacks=[watched],
        **quiet,  # type: ignore[arg-type]
    )  # fmt: skip
    with suppress(Over):
        trainer.fit(module, data)
    return watched.faults
