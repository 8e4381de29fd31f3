"""What `make demo` runs, with a stand-in for the ftkit command."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def demo(tmp_path: Path, code: int) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """Run `make demo` where `ftkit ablation run` ends with ``code``; return the subcommands run and the outcome."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    command, ready = tmp_path / "ftkit", tmp_path / "ready"
    command.write_text(f'#!/bin/sh\necho "$2" >> calls\n[ "$2" = run ] && exit {code}\nexit 0\n')
    command.chmod(0o755)
    ready.touch()
    ended = subprocess.run(
        ["make", "demo", f"BIN={tmp_path}", f"READY={ready}"], cwd=tmp_path, capture_output=True, text=True
    )
    return (tmp_path / "calls").read_text().split(), ended


@pytest.mark.parametrize(
    ("code", "calls"),
    [
        (0, ["run", "report"]),
        (4, ["run", "report"]),  # rows failed: the report shows them
        (2, ["run"]),
        (3, ["run"]),
        (130, ["run"]),
    ],
)
def test_demo_goes_on_to_the_report_when_rows_failed(tmp_path: Path, code: int, calls: list[str]) -> None:
    ran, ended = demo(tmp_path, code)
    assert ran == calls
    assert bool(ended.returncode) == bool(code)
    assert f"Error {code}" in ended.stderr or not code
