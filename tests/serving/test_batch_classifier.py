"""Texts of many requests are classified together."""

from typing import Any

from ftkit.serving.classifier import BatchClassifier
from ftkit.serving.jobs import Classification


class Counting:
    """Says how long a text is, and remembers in what batches it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def classify(self, texts: list[str], batch_size: int = 8) -> list[dict[str, Any]]:
        self.asked.append((len(texts), batch_size))
        return [{"label": str(len(text)), "probability": 1.0} for text in texts]


def test_the_texts_that_wait_are_one_batch_of_the_size_that_was_asked_for() -> None:
    model = Counting()
    engine = BatchClassifier(model, 16)
    delivered: list[Any] = []
    jobs = [Classification(delivered.append, item="a" * length) for length in range(1, 13)]
    engine.admit(jobs)
    assert engine.room == 4
    jobs[3].cancelled = True
    engine.step()
    assert model.asked == [(11, 16)]
    assert [result["label"] for result in delivered] == [str(length) for length in range(1, 13) if length != 4]
    assert engine.room == 16
