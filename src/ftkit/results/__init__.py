"""Read prediction files, and compute metrics, statistics and comparisons from them.

The metric for a LightningModule, ``BinaryEvaluator``, is in :mod:`ftkit.results.binary`; it alone imports torch.
The names below are imported when they are first used: the statistics load scipy, which reading a file does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftkit.results.paired import paired_interval
    from ftkit.results.predictions import read_predictions, write_predictions
    from ftkit.results.statistics import mcnemar_exact, wilson_interval

__all__ = ["mcnemar_exact", "paired_interval", "read_predictions", "wilson_interval", "write_predictions"]

_HOMES = {
    "mcnemar_exact": "statistics",
    "paired_interval": "paired",
    "read_predictions": "predictions",
    "wilson_interval": "statistics",
    "write_predictions": "predictions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
