"""Describe a device by what bounds a training on it; files of known ones are in ``devices``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from ftkit.config_files import read_config
from ftkit.errors import InputError

if TYPE_CHECKING:
    from ftkit.plan.torch_internals import Operator, Work

_KNOWN = Path(str(files("ftkit"))) / "plan" / "devices"


@dataclass(frozen=True)
class Device:
    """A device.

    Args:
        name: Its name.
        memory_gb: Its memory in 10^9 bytes.
        bandwidth_gb_s: Peak bandwidth of its memory in 10^9 bytes a second.
        tflops: Peak speed of matrix products by type (``float32``, ``tf32``, ``float16``, ``bfloat16``), in 10^12
            operations a second.
        matmul_share: Share of the peak that matrix products of some size reach.
        bandwidth_share: Share of the bandwidth that simple operators reach.
        gap_us: Time between two kernels on the device, in microseconds.
        dispatch_us: Time that the host takes for each operator, in microseconds.
        step_us: Time that the host takes for each batch of a training or evaluation besides its operators: loop, batch,
            logging, in microseconds.
        update_us: Time that the host takes for each step of the optimizer besides: hooks, guards, gradients, in
            microseconds.
        run_s: Time that the host takes for each run besides its steps: checkpoint, predictions, figures, in seconds.
        asynchronous: Whether the host goes ahead of the device, so that the slower of the two decides: a GPU.
        reserved_gb: Memory that a process takes besides its tensors, in 10^9 bytes.
        sources: Where the figures come from.
    """

    name: str
    memory_gb: float
    bandwidth_gb_s: float
    tflops: dict[str, float]
    matmul_share: float
    bandwidth_share: float
    gap_us: float
    dispatch_us: float
    step_us: float
    update_us: float
    run_s: float
    asynchronous: bool
    reserved_gb: float
    sources: list[str]

    @classmethod
    def load(cls, name: str) -> Device:
        """Read a device.

        Args:
            name: That of a known device, such as ``a100``, or a file like theirs.

        Raises:
            InputError: There is no such device, or its file lacks a figure or has one of another type.

        Example:
            >>> Device.load("a100").memory_gb
            40
        """
        path = _KNOWN / f"{name}.yaml"
        if not path.is_file() and not (path := Path(name)).is_file():
            fix = f"use here, {', '.join(known())}, or a file like theirs"
            raise InputError("no such device", field="device", got=name, fix=fix)
        given = read_config(path)
        hints = get_type_hints(cls)
        for field in fields(cls):
            value = given.get(field.name)
            kinds: Any = {float: (int, float), bool: bool, str: str}.get(hints[field.name], (dict, list))
            if not isinstance(value, kinds) or (hints[field.name] is float and not value >= 0):
                raise InputError("is missing, or is not a figure of a device", file=path, field=field.name, got=value)
        if unknown := given.keys() - {field.name for field in fields(cls)}:
            raise InputError("is not a figure of a device", file=path, field=sorted(unknown)[0])
        return cls(**given)

    def seconds(self, work: Work) -> float:
        """Return the time of some operators."""
        computed, kernels = sum(times * self._operator(one) for one, times in work.items()), sum(work.values())
        there, host = computed + kernels * self.gap_us / 1e6, kernels * self.dispatch_us / 1e6
        return max(there, host) if self.asynchronous else there + host

    def _operator(self, one: Operator) -> float:
        """Return the seconds of an operator.

        A GPU reads and writes while it computes: the slower of both decides. A CPU does one after the other.
        """
        bandwidth = 1e9 * self.bandwidth_gb_s
        moved = one.size / (bandwidth * self.bandwidth_share)
        if not one.operations:
            return moved
        computed = one.operations / (self.peak(one.dtype) * self.matmul_share)
        return max(computed, moved) if self.asynchronous else computed + one.size / bandwidth

    def peak(self, dtype: str) -> float:
        """Return the peak speed of matrix products of a type, in operations a second."""
        return 1e12 * self.tflops.get(dtype, self.tflops["float32"])


def known() -> list[str]:
    """Return the names of the devices that have a file here.

    Example:
        >>> known()
        ['a100', 'cpu', 'h100', 'h200', 'l4', 'rtx4090', 't4']
    """
    return sorted(path.stem for path in _KNOWN.glob("*.yaml"))
