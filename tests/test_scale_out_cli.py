"""Several processes from the command line, with nothing but Lightning's own options."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def ftkit(
    command: str, config: Path, folder: Path, batch_size: int, *, devices: str = "1", strategy: str = "auto"
) -> None:
    arguments = [command, "--config", str(config), "--trainer.default_root_dir", str(folder)]
    arguments += ["--trainer.devices", devices, "--trainer.strategy", strategy, "--data.batch_size", str(batch_size)]
    done = subprocess.run(
        [sys.executable, "-m", "ftkit", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def figures(folder: Path) -> tuple[Any, list[str]]:
    splits = json.loads((folder / "result.json").read_text(encoding="utf-8"))["splits"]
    rows = (folder / "predictions-train.tsv").read_text(encoding="utf-8").split("\n")
    return splits, [row.rsplit("\t", 1)[0] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_devices_and_strategy_are_all_that_is_said(
    strategy: str, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    one, two = tmp_path / "one", tmp_path / "two"
    ftkit("fit", tiny_config, one, 8)
    ftkit("test", tiny_config, one, 8)
    ftkit("fit", tiny_config, two, 4, devices="2", strategy=strategy)
    ftkit("test", tiny_config, two, 4, devices="2", strategy=strategy)
    assert figures(two) == figures(one)
    assert sorted(file.name for file in (two / "checkpoints").iterdir()) == ["last.ckpt", "last.ckpt.sha256"]
    ftkit("test", tiny_config, two, 8)  # what several processes left is read by one
    assert figures(two) == figures(one)
