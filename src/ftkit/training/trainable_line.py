"""Describe the trainable parameters in one line, which a training says before it starts."""

from collections import Counter
from collections.abc import Iterable

_PEFT = ("base_model", "base_layer", "default")  # modules that it puts around others


def trainable_line(names: Iterable[str], trainable: int, total: int) -> str:
    """Say how many parameters are trainable and where: by numbered block, or else by module, with the tensors in each.

    Example:
        >>> names = [f"net.h.{block}.mlp.{part}" for block in (10, 11) for part in ("weight", "bias")]
        >>> trainable_line([*names, "net.head.lora_A.default.weight"], 50, 1000)
        'Trainable: 50 of 1,000 parameters (5.00%): h.10-11 (2 each), head (1)'
    """
    runs: list[tuple[str, int, int, int]] = []  # where, first and last block (-1: none), tensors in each
    for (where, block), tensors in Counter(map(_place, names)).items():
        if block > 0 and runs and runs[-1][::2] == (where, block - 1) and runs[-1][3] == tensors:
            runs[-1] = (where, runs[-1][1], block, tensors)
        else:
            runs.append((where, block, block, tensors))
    shared = Counter(_last(where) for where in {run[0] for run in runs})
    parts = []
    for where, first, last, tensors in runs:
        name = _last(where) if shared[_last(where)] == 1 else where
        blocks = "" if first < 0 else f".{first}" if first == last else f".{first}-{last}"
        parts.append(f"{name}{blocks} ({tensors}{' each' if first < last else ''})")
    share = f"{trainable / max(total, 1):.2%}"
    return f"Trainable: {trainable:,} of {total:,} parameters ({share}): {', '.join(parts) or 'none'}"


def _place(name: str) -> tuple[str, int]:
    """Return a parameter's stack with its block's number, or its module with -1; adapters belong to a layer."""
    parts = name.split(".")
    modules = [part for part in parts[:-1] if not part.startswith("lora_") and part not in _PEFT]
    number = next((place for place, part in enumerate(modules) if part.isdigit()), None)
    if number is None:
        return ".".join(modules) or name, -1
    return ".".join(modules[:number]), int(modules[number])


def _last(where: str) -> str:
    return where.rpartition(".")[2]
