"""Record versions and hardware of a run, so that figures can be compared and repeated."""

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("ftkit", "torch", "lightning", "transformers", "peft", "torchmetrics", "bitsandbytes", "scikit-learn")


def versions(*others: str) -> dict[str, str]:
    """Return versions of Python, of packages that decide a result, and of others; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in (*_PACKAGES, *others):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_sha256() -> str:
    """Hash ftkit's source as far as it can change the result of a run: all but the parts that only read results."""
    package = Path(str(files("ftkit")))
    readers = {package / name for name in ("ablation", "commands", "report", "results")}
    sources = [file for file in sorted(package.rglob("*.py")) if not readers.intersection(file.parents)]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.relative_to(package)}\0".encode() + source.read_bytes() + b"\0")
    return digest.hexdigest()


def data_sha256(owner: Any) -> str | None:
    """Return the hash of the data, if the data module, or the callback that has some, knows one."""
    return getattr(owner, "data_sha256", None)


def hardware() -> dict[str, Any]:
    """Return processor, number of cores, threads of PyTorch, and GPU."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
