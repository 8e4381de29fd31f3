"""Texts of many requests are classified together."""

import logging
from typing import Any

import pytest

from ftkit.errors import InputError
from ftkit.serving.classifier import BatchClassifier
from ftkit.serving.jobs import Classification
from ftkit.serving.replies import ApiError


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


def test_inputs_are_encoded_when_their_batch_runs_and_a_bad_one_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    encoded: list[str] = []

    def encode(text: str, image: str) -> str:
        encoded.append(image)
        if image == "bad":
            raise InputError("is no image", field="image")
        if image == "worse":
            raise ZeroDivisionError("secret")
        return text + image

    engine = BatchClassifier(Counting(), 8, encode=encode)
    answers: list[list[Any]] = [[] for _ in range(5)]
    images = ["one", "bad", "left", "worse", "three"]
    jobs = [Classification(got.append, item=("a", image)) for got, image in zip(answers, images, strict=True)]
    engine.admit(jobs)
    assert encoded == []
    jobs[2].cancelled = True
    with caplog.at_level(logging.ERROR):
        engine.step()
    assert encoded == ["one", "bad", "worse", "three"]
    (one,), (bad,), left, (worse,), (three,) = answers
    assert (one["label"], left, three["label"]) == ("4", [], "6")
    assert isinstance(bad, ApiError)
    assert (bad.status, str(bad)) == (400, "image: is no image")
    assert (worse.status, "secret" in str(worse) + caplog.text) == (500, False)
    assert "ZeroDivisionError" in caplog.text
