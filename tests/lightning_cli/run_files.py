"""How these tests run a command, and the files that a run leaves."""

from collections.abc import Callable
from pathlib import Path

from ftkit.storage import sha256_of

Ftkit = Callable[..., tuple[int, str]]
FILES = {
    "config.yaml", "result.json", "metrics.csv", "hparams.yaml", "predictions-train.tsv", "predictions-val.tsv",
    "predictions-test.tsv", "examples-val.tsv", "examples-test.tsv", "checkpoints/last.ckpt",
    "checkpoints/last.ckpt.sha256",
}  # fmt: skip


def files_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def contents(folder: Path) -> dict[str, str]:
    return {name: sha256_of(folder / name) for name in files_in(folder)}
