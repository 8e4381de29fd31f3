from pathlib import Path

import pytest

from ftkit.results.predictions import write_predictions


@pytest.fixture
def count_file(tmp_path):
    """Write a prediction file that has the given counts, positives first."""

    def write(name: str, tp: int, tn: int, fp: int, fn: int) -> Path:
        labels = ["yes"] * (tp + fn) + ["no"] * (tn + fp)
        predictions = ["yes"] * tp + ["no"] * fn + ["no"] * tn + ["yes"] * fp
        write_predictions(tmp_path / name, [f"images/{k}.jpg" for k in range(len(labels))], labels, predictions)
        return tmp_path / name

    return write


@pytest.fixture
def text_file(tmp_path):
    """Write text or bytes as they are."""

    def write(content: str | bytes, name: str = "a.tsv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write
