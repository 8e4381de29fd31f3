"""Commands on a tiny model and on somebody's own, and the folder of a finished run."""

import logging
from pathlib import Path

import pytest
from run_files import Ftkit

from ftkit.cli import main


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("lightning"), "level", logging.WARNING)


def runs(base: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Ftkit:
    def run(command: str, *options: str, folder: Path = tmp_path / "run") -> tuple[int, str]:
        capfd.readouterr()
        code = main([command, *base, "--trainer.default_root_dir", str(folder), *options])
        said = capfd.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def ftkit(tiny_config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Ftkit:
    """Runs a command on the tiny config: (exit code, what was said)."""
    return runs(["--config", str(tiny_config)], tmp_path, capfd)


@pytest.fixture
def plain(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Ftkit:
    """Runs a command on somebody's own module and data: (exit code, what was said)."""
    base = ["--model", "plain_task.PlainModule", "--data", "plain_task.PlainData"]
    quiet = ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    return runs([*base, *quiet], tmp_path, capfd)


@pytest.fixture(scope="session")
def run_folder(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ftkit fit` and `ftkit test` leave."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    for command in ("fit", "test"):
        assert main([command, "--config", str(tiny_config), "--trainer.default_root_dir", str(folder)]) == 0
    return folder
