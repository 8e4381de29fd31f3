"""Binary evaluation over prediction files: the ground that everything else stands on.

The metric for a LightningModule, ``BinaryEvaluator``, is in :mod:`ftkit.evaluation.binary`; it alone imports torch.
"""

from ftkit.evaluation.command import evaluate
from ftkit.evaluation.predictions import read_predictions, write_predictions
from ftkit.evaluation.statistics import mcnemar_exact, wilson_interval

__all__ = ["evaluate", "mcnemar_exact", "read_predictions", "wilson_interval", "write_predictions"]
