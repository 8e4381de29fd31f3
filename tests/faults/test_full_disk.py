"""A disk that is full, really: the old checkpoint survives, and the run goes on when there is room again."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ftkit.cli import main
from ftkit.storage import sha256_of
from ftkit.training.checkpoint import read_checkpoint


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fit(folder: Path, epochs: int, *more: str) -> int:
        options = ["--trainer.default_root_dir", str(folder), "--trainer.max_epochs", str(epochs), *more]
        return main(["fit", "--config", str(tiny_config), *options])

    run = small_disk / "run"
    assert fit(run, 1) == 0
    checkpoint, filler = run / "checkpoints" / "last.ckpt", small_disk / "filler"
    before = sha256_of(checkpoint)
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 40 * 1024))  # room for curves, not for a checkpoint
    capsys.readouterr()
    assert fit(run, 3, "--resume", "true") == 3
    said = capsys.readouterr().err
    assert f"error: {checkpoint}: the disk is full: " in said
    assert "are free; fix: free some space" in said
    assert "Traceback" not in said
    assert sha256_of(checkpoint) == before
    read_checkpoint(checkpoint)
    assert not list(run.rglob("*.partial"))
    filler.unlink()
    assert fit(run, 3, "--resume", "true") == 0
    assert fit(tmp_path / "whole", 3) == 0
    weights, whole = (read_checkpoint(folder)["state_dict"] for folder in (run, tmp_path / "whole"))
    assert all(torch.equal(weights[name], whole[name]) for name in whole)
    assert (run / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()
    assert json.loads((run / "result.json").read_text())["steps"] == 12
