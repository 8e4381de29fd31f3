"""A classifier of either decoder family, told by the folder of its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ftkit.classifier.gpt2_classifier import GPT2Classifier
from ftkit.classifier.text_classifier import TextClassifier

FAMILIES = ("gpt2_folder", pytest.param("llama_folder", marks=pytest.mark.slow))  # fixtures
CLASSIFIERS: dict[str, type[TextClassifier]] = {"gpt2": GPT2Classifier, "llama": TextClassifier}


def classifier(folder: Path, kinds: Mapping[str, type[Any]] = CLASSIFIERS, **arguments: Any) -> Any:
    """The classifier, or that of ``kinds``, of the family that lies in a folder."""
    family = json.loads((folder / "config.json").read_text())["model_type"]
    own = {"size": None} if family == "gpt2" else {}
    return kinds[family](base_model=str(folder), **own, **arguments)
