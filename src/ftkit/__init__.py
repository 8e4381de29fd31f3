"""ftkit: which way of fine-tuning is worth it, and can the answer be trusted?

The names below are imported when they are first used, so that ``import ftkit`` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftkit.classifier.gpt2_classifier import GPT2Classifier
    from ftkit.classifier.spam import SpamDataModule
    from ftkit.classifier.text_classifier import TextClassifier
    from ftkit.language.arithmetic import ArithmeticDataModule
    from ftkit.language.data import TextDataModule
    from ftkit.language.sft import CausalLMSFT
    from ftkit.results.binary import BinaryEvaluator
    from ftkit.training.wandb_run import WandbRun
    from ftkit.vlm.data import VLMDataModule
    from ftkit.vlm.dpo import VLMDPO
    from ftkit.vlm.sft import VLMSFT
    from ftkit.vlm.yes_no import VLMYesNo

_HOMES = {
    "ArithmeticDataModule": "ftkit.language.arithmetic",
    "BinaryEvaluator": "ftkit.results.binary",
    "CausalLMSFT": "ftkit.language.sft",
    "GPT2Classifier": "ftkit.classifier.gpt2_classifier",
    "SpamDataModule": "ftkit.classifier.spam",
    "TextClassifier": "ftkit.classifier.text_classifier",
    "TextDataModule": "ftkit.language.data",
    "VLMDPO": "ftkit.vlm.dpo",
    "VLMSFT": "ftkit.vlm.sft",
    "VLMDataModule": "ftkit.vlm.data",
    "VLMYesNo": "ftkit.vlm.yes_no",
    "WandbRun": "ftkit.training.wandb_run",
}

__all__ = [
    "VLMDPO",
    "VLMSFT",
    "ArithmeticDataModule",
    "BinaryEvaluator",
    "CausalLMSFT",
    "GPT2Classifier",
    "SpamDataModule",
    "TextClassifier",
    "TextDataModule",
    "VLMDataModule",
    "VLMYesNo",
    "WandbRun",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ftkit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
