"""Classify the texts of many requests at once."""

from collections.abc import Sequence
from typing import Any, Protocol

from ftkit.serving.jobs import Classification


class Classifies(Protocol):
    """Describe what a model needs to be served as a classifier."""

    def classify(self, texts: list[str], batch_size: int = 8) -> list[dict[str, Any]]:
        """Return for each text a dict with ``label`` and ``probability``."""


class BatchClassifier:
    """Classify the waiting texts in batches of at most ``batch_size``."""

    def __init__(self, model: Classifies, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self.jobs: list[Classification] = []

    @property
    def room(self) -> int:
        """Return the number of texts that may join now."""
        return self.batch_size - len(self.jobs)

    def admit(self, jobs: Sequence[Classification]) -> None:
        """Take texts for the next step."""
        self.jobs += jobs

    def step(self) -> None:
        """Classify the texts that are still wanted."""
        wanted = [job for job in self.jobs if not job.cancelled]
        if wanted:
            results = self.model.classify([job.text for job in wanted], self.batch_size)
            for job, result in zip(wanted, results, strict=True):
                job.deliver(result)
        self.jobs = []
