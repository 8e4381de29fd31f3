"""What a run folder is called and what lies in it: the names that writers and readers share."""

from __future__ import annotations

from typing import Literal, get_args

DEFAULT_FOLDER = "runs/single"
RESULT_FILE = "result.json"
CONFIG_FILE = "config.yaml"
CURVES_FILE = "metrics.csv"

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)


def predictions_file(split: str) -> str:
    """The name of the file with the predictions of a split.

    Example:
        >>> predictions_file("test")
        'predictions-test.tsv'
    """
    return f"predictions-{split}.tsv"
