"""ftkit: which way of fine-tuning is worth it, and can the answer be trusted?

The names below are imported when they are first used, so that ``import ftkit`` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftkit.classifier.module import DecoderClassifier, GPT2Classifier
    from ftkit.classifier.spam import SpamDataModule
    from ftkit.training.wandb_run import WandbRun

_HOMES = {
    "DecoderClassifier": "ftkit.classifier.module",
    "GPT2Classifier": "ftkit.classifier.module",
    "SpamDataModule": "ftkit.classifier.spam",
    "WandbRun": "ftkit.training.wandb_run",
}

__all__ = ["DecoderClassifier", "GPT2Classifier", "SpamDataModule", "WandbRun"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ftkit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
