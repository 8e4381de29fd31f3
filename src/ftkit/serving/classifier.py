"""Classify the inputs of many requests at once, and decide by a frozen threshold."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from scipy.special import expit

from ftkit.errors import InputError
from ftkit.normalize import normalize
from ftkit.results.threshold import Threshold
from ftkit.serving.jobs import Classification
from ftkit.serving.replies import ApiError
from ftkit.serving.thread import described

log = logging.getLogger("ftkit.serving")


class Classifies(Protocol):
    """Describe what a model needs to be served as a classifier."""

    class_names: tuple[str, ...]

    def classify(self, items: Any, batch_size: int = 8) -> list[dict[str, Any]]:
        """Return for each of a list of inputs a dict with ``label`` and ``probability``."""


class BatchClassifier:
    """Classify the waiting inputs in batches of at most ``batch_size``.

    With a ``threshold`` results also hold ``decision``, the class that it decides for, whatever the label.
    With ``encode`` the model reads what it returns for the parts of an input. It is called only when a batch runs,
    because decoded images take far more memory than the queued requests.

    Raises:
        InputError: The threshold is for other classes or another kind of score.
    """

    def __init__(
        self,
        model: Classifies,
        batch_size: int,
        threshold: Threshold | None = None,
        encode: Callable[..., Any] | None = None,
    ) -> None:
        self.model, self.batch_size, self.threshold, self.encode = model, batch_size, threshold, encode
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
        """Classify the inputs that are still wanted; one that cannot be encoded is answered by an error."""
        wanted = [job for job in self.jobs if not job.cancelled]
        items = [self._encoded(job) for job in wanted]
        wanted = [job for job, item in zip(wanted, items, strict=True) if item is not None]
        if wanted:
            results = self.model.classify([item for item in items if item is not None], self.batch_size)
            for job, result in zip(wanted, results, strict=True):
                job.deliver(result if self.threshold is None else {**result, **_decision(self.threshold, result)})
        self.jobs = []

    def _encoded(self, job: Classification) -> Any:
        """Return what the model reads of an input; None where that is an error, which is delivered."""
        try:
            return job.item if self.encode is None else self.encode(*job.item)
        except InputError as error:
            job.deliver(ApiError(400, str(error)))
        except Exception as error:  # whatever an image makes a library raise, the others are answered
            log.error("unexpected: %s", described(error))
            job.deliver(ApiError(500, "the input cannot be read; the server's log names the place"))
        return None


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
        score = expit(score)
    return {"decision": threshold.positive if score >= threshold.value else threshold.negative}
