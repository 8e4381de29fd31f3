"""Count what a computation costs from the shapes of its tensors: operations, bytes moved, memory held.

No other file relies on what is internal to PyTorch: how operators are dispatched and named, and fake tensors.
"""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

UNKNOWN = (DataDependentOutputException, DynamicOutputShapeException)  # a number was read that is not known
_aten = torch.ops.aten
# Attention has another name on each device, and costs the same.
_FORMULAS = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[_aten._scaled_dot_product_flash_attention],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
}
_PICKS = {_aten.embedding, _aten.index, _aten.index_select, _aten.gather}  # they read as much as they write
_RANGES = {_aten.arange, _aten.zeros, _aten.ones, _aten.full, _aten.scalar_tensor}  # of what masks are made
_NOTHING = {_aten.detach, _aten._unsafe_view, _aten.empty, _aten.empty_like, _aten.empty_strided, _aten.lift_fresh}


def fake_tensors() -> FakeTensorMode:
    """Return the mode in which tensors have shapes and no values."""
    # Autograd counts the devices in its first backward pass of a process. The mode makes up devices of CUDA, and where
    # they are counted, autograd refuses to run in any process that is forked later.
    torch.zeros((), requires_grad=True).backward()
    return FakeTensorMode(allow_non_fake_inputs=True)


class Operator(NamedTuple):
    """Hold the cost of one operator.

    Args:
        dtype: The type that its products are computed in; ``tf32`` where ``matmul_precision`` allows it.
        operations: Its floating-point operations; only products and convolutions have some.
        size: The bytes that it reads and writes.
    """

    dtype: str
    operations: float
    size: float


Work = Counter[Operator]  # how often each operator runs; a part of a time between two shapes that were traced


class OperatorCosts(TorchDispatchMode):
    """Count the operators that run, and the memory of the tensors that they make.

    Within ``FakeTensorMode`` nothing is computed.

    Attributes:
        work: What ran.
        held: Bytes of the tensors that were made and are still there.
        peak: The most of them at a time.

    Example:
        >>> with OperatorCosts() as costs:
        ...     product = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> sum(one.operations for one in costs.work), costs.held
        (48, 32)
    """

    def __init__(self) -> None:
        super().__init__()
        self.work, self.held, self.peak = Work(), 0, 0
        self._storages = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count it."""
        kwargs = kwargs or {}
        given = _tensors((args, kwargs))
        for tensor in given:  # made before
            self._storages.setdefault(tensor.untyped_storage(), 0)
        result = function(*args, **kwargs)
        made = _tensors(result)
        for one in made:
            self._hold(one)
        if not (function.is_view or function.namespace == "prim" or function.overloadpacket in _NOTHING):
            self.work[_operator(function, args, kwargs, result, given, made)] += 1
        return result

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._storages:
            self._storages[storage] = size = storage.nbytes()
            self.held += size
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.held -= size


class KnownValues(TorchDispatchMode):
    """Compute with numbers what depends on a batch alone, as its masks do, while a network's tensors have none.

    Surrounds :class:`OperatorCosts`, within ``FakeTensorMode``.

    Args:
        fake: The mode of the network's tensors.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self._fake, self._numbers = fake, WeakIdKeyDictionary()

    def __enter__(self) -> Any:
        setattr(FakeTensor, "tolist", lambda tensor: self._numbers[tensor].tolist())  # noqa: B010
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        delattr(FakeTensor, "tolist")
        super().__exit__(*error)

    def known(self, batch: Any) -> Any:
        """Return a batch as fake tensors whose numbers are known."""
        return tree_map(self._taken, batch)

    def _taken(self, real: Any) -> Any:
        if not isinstance(real, Tensor):
            return real
        with _disable_current_modes():
            fake = self._fake.from_tensor(real)
        self._numbers[fake] = real
        return fake

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator with numbers where all that it reads are known."""
        kwargs = kwargs or {}
        given = _tensors((args, kwargs))
        numbers = {id(one): self._numbers.get(one) if isinstance(one, FakeTensor) else one for one in given}
        if any(one is None for one in numbers.values()) or (not given and function.overloadpacket not in _RANGES):
            if function._schema.is_mutable:
                self._numbers.pop(args[0], None)
            return function(*args, **kwargs)
        with _disable_current_modes(), torch.no_grad():
            real_args, real_kwargs = tree_map(lambda one: numbers.get(id(one), one), (args, kwargs))
            result = function(*real_args, **real_kwargs)
        same = {id(numbers[id(one)]): one for one in given}  # of operators in place
        return tree_map(lambda one: same[id(one)] if id(one) in same else self._taken(one), result)


@contextmanager
def adaptable() -> Iterator[None]:
    """Let peft adapt a network of fake tensors: it moves each adapter and copies layers, which needs their numbers."""
    to = nn.Module.to
    setattr(nn.Module, "to", lambda module, *args, **kwargs: module)  # noqa: B010
    setattr(FakeTensor, "__deepcopy__", _copied)  # noqa: B010
    try:
        yield
    finally:
        setattr(nn.Module, "to", to)  # noqa: B010
        delattr(FakeTensor, "__deepcopy__")


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    copy = tensor.detach().clone()
    memo[id(tensor)] = copy = nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy
    return copy


def _operator(function: Any, args: Any, kwargs: Any, result: Any, given: list[Tensor], made: list[Tensor]) -> Operator:
    formula = _FORMULAS.get(function.overloadpacket)
    operations = formula(*args, **kwargs, out_val=result) if formula else 0
    if function.overloadpacket in _PICKS:
        given = made
    size = sum(map(_size, [*given, *made]))
    dtype = str((given or made)[0].dtype).removeprefix("torch.") if operations else ""
    if dtype == "float32" and torch.get_float32_matmul_precision() != "highest":
        dtype = "tf32"
    return Operator(dtype, operations, size)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _size(tensor: Tensor) -> int:
    """Return the bytes of a tensor; those of an expanded one are there once."""
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())
