"""What the comparisons share: a process for each contestant, and a result file that says what it was made with."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run_child(script: str, options: Sequence[str], cwd: Path | None = None, **environment: str) -> Any:
    """Run a contestant in a process of its own.

    Args:
        script: The script that has it.
        options: Of the script's command line.
        cwd: The folder that it runs in; otherwise this one.
        **environment: Variables that are set in it.

    Returns:
        What the script prints as its last line, in JSON.
    """
    command = [sys.executable, "-W", "ignore", script, *options]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, cwd=cwd)
    if done.returncode:
        raise SystemExit(f"{' '.join(options)}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def write_record(target: Path, record: dict[str, Any]) -> None:
    """Write a result file, with versions and hardware, and say where it is."""
    from ftkit.training.environment import hardware, versions

    record = {**record, "versions": versions("trl", "scikit-learn"), "hardware": hardware()}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"written: {target}")
