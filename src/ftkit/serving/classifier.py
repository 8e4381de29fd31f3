"""Classify the inputs of many requests at once, and decide by a frozen threshold."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.threshold import Threshold
from ftkit.serving.jobs import Classification


class Classifies(Protocol):
    """Describe what a model needs to be served as a classifier."""

    class_names: tuple[str, ...]

    def classify(self, items: Any, batch_size: int = 8) -> list[dict[str, Any]]:
        """Return for each of a list of inputs a dict with ``label`` and ``probability``."""


class BatchClassifier:
    """Classify the waiting inputs in batches of at most ``batch_size``.

    With a ``threshold`` results also hold ``decision``, the class that it decides for, whatever the label.

    Raises:
        InputError: The threshold is for other classes or another kind of score.
    """

    def __init__(self, model: Classifies, batch_size: int, threshold: Threshold | None = None) -> None:
        self.model, self.batch_size, self.threshold = model, batch_size, threshold
        if threshold is not None:
            _refuse_other_classes(threshold, model.class_names)
        self.jobs: list[Classification] = []

    @property
    def room(self) -> int:
        """Return the number of inputs that may join now."""
        return self.batch_size - len(self.jobs)

    def admit(self, jobs: Sequence[Classification]) -> None:
        """Take inputs for the next step."""
        self.jobs += jobs

    def step(self) -> None:
        """Classify the inputs that are still wanted."""
        wanted = [job for job in self.jobs if not job.cancelled]
        if wanted:
            results = self.model.classify([job.item for job in wanted], self.batch_size)
            for job, result in zip(wanted, results, strict=True):
                job.deliver(result if self.threshold is None else {**result, **_decision(self.threshold, result)})
        self.jobs = []


def _refuse_other_classes(threshold: Threshold, class_names: Sequence[str]) -> None:
    wanted = [threshold.negative, threshold.positive]
    if list(map(normalize, class_names)) != list(map(normalize, wanted)):
        problem = f"is for {threshold.positive} as the positive class and {threshold.negative} as the other"
        raise InputError(problem, field="threshold", got=", ".join(class_names))
    if threshold.kind not in ("probability", "log_odds"):
        raise InputError("is of scores that the server does not have", field="threshold", got=threshold.kind)


def _decision(threshold: Threshold, result: dict[str, Any]) -> dict[str, str]:
    score = result["log_odds"]
    if threshold.kind == "probability":
        score = 1 / (1 + math.exp(-score)) if score > -700 else 0.0
    return {"decision": threshold.positive if score >= threshold.value else threshold.negative}
