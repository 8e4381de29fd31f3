"""The file of curves: what is in it when, and how a resumed run goes on with it."""

from pathlib import Path

import pytest
import torch

from ftkit.errors import InputError
from ftkit.training.curves_logger import CurvesLogger


def lines(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_text().splitlines()


def test_a_row_is_on_the_disk_at_once_and_columns_may_come_later(tmp_path: Path) -> None:
    logger = CurvesLogger(tmp_path)
    logger.log_metrics({"loss": torch.tensor(0.5)}, step=3)
    assert lines(tmp_path) == ["loss,step", "0.5,3"]
    logger.log_metrics({"accuracy": 1.0})
    assert lines(tmp_path) == ["accuracy,loss,step", ",0.5,3", "1.0,,1"]
    assert logger.rows == 2


def test_a_training_starts_the_file_anew(tmp_path: Path) -> None:
    CurvesLogger(tmp_path).log_metrics({"loss": 0.5}, step=3)
    again = CurvesLogger(tmp_path)
    assert lines(tmp_path) == ["loss,step", "0.5,3"]  # until there is something to write
    again.log_metrics({"error": 0.25}, step=0)
    assert lines(tmp_path) == ["error,step", "0.25,0"]


@pytest.mark.parametrize("torn", ["", "0.125", "0.125,4"])
def test_a_resumed_training_keeps_the_rows_of_its_checkpoint(torn: str, tmp_path: Path) -> None:
    first = CurvesLogger(tmp_path)
    for step in range(4):
        first.log_metrics({"loss": 1 / 2**step}, step)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(torn)
    logger = CurvesLogger(tmp_path)
    logger.go_on(3, [(3, {"loss": 0.25})])
    assert lines(tmp_path) == ["loss,step", "1.0,0", "0.5,1", "0.25,2", "0.25,3"]
    logger.log_metrics({"loss": 0.0}, 4)
    assert (lines(tmp_path)[-1], logger.rows) == ("0.0,4", 5)


def test_without_the_file_a_resumed_training_begins_one(tmp_path: Path) -> None:
    logger = CurvesLogger(tmp_path)
    logger.go_on(3, [(2, {"loss": 0.5})])
    logger.log_metrics({"loss": 0.25}, 3)
    assert lines(tmp_path) == ["loss,step", "0.5,2", "0.25,3"]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"loss,step\r\n0.5,1\r\n\xff,2\r\n", "metrics.csv: is damaged"),
        (b"loss,step\r\n0.5,1\r\n0.5\r\n", "metrics.csv:3: is damaged"),
        (b"loss,step\r\n0.5,1,7\r\n", "metrics.csv:2: is damaged"),
        (b"loss\r\n0.5\r\n", "metrics.csv:2: is damaged"),
        (b'loss,step\r\n"0.5,1\r\n', "metrics.csv: is damaged"),
    ],
)
def test_a_damaged_file_is_named(content: bytes, place: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"fix: move it away") as caught:
        CurvesLogger(tmp_path).go_on(1, [])
    assert place in str(caught.value)
    assert (tmp_path / "metrics.csv").read_bytes() == content
