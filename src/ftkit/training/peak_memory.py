"""Measure the peak memory of a part of a run."""

import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peak_memory() -> None:
    """Start measuring anew, where the system can: on CUDA and on Linux. Elsewhere the peak is the whole process's.

    What an earlier run in this process left behind is given back to the system first, so that it does not count:
    modules in reference cycles, and free memory that the C library keeps. Imported libraries stay.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
    if _CLEAR.exists():
        try:
            _CLEAR.write_text("5")  # resets VmHWM, see proc(5)
        except PermissionError:  # some containers: the peak is then that of the whole process
            return


def resident_memory_mb() -> float:
    """Return what this process holds in memory now, in MB (10^6 bytes), or its peak where the system tells no more."""
    return _status_mb("VmRSS") if _STATUS.exists() else peak_memory_mb()


def peak_memory_mb() -> float:
    """Return the peak since the last reset in MB (10^6 bytes): allocated on a GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    if _STATUS.exists():
        return _status_mb("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS and in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _status_mb(name: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6
