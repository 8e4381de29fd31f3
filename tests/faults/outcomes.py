"""What two runs leave in their folders, compared."""

import json
from pathlib import Path
from typing import Any

import torch

from ftkit.training.checkpoint import read_checkpoint

TIMING = ("seconds", "seconds_frozen", "peak_memory_mb", "checkpoint_mb")


def outcome(folder: Path) -> dict[str, Any]:
    """Everything of a run folder that must be equal."""
    result = json.loads((folder / "result.json").read_text())
    return {
        "result": {name: value for name, value in result.items() if name not in TIMING},
        "metrics": (folder / "metrics.csv").read_text(),
        **{file.name: file.read_bytes() for file in folder.glob("predictions-*.tsv")},
        "files": {str(file.relative_to(folder)) for file in folder.rglob("*")},
    }


def assert_same(folder: Path, clean: Path) -> None:
    found, expected = outcome(folder), outcome(clean)
    assert found == expected
    weights, wanted = (read_checkpoint(place)["state_dict"] for place in (folder, clean))
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
