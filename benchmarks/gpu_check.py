"""Check a GPU in less than ten minutes: numbers beside the CPU's, then times and memory of rows and tasks, in one file.

Each part runs in a process of its own under a time limit, and what fails does not stop the next part::

    python benchmarks/gpu_check.py --out gpu.json              # on the GPU, or on a CPU if there is none
    ftkit plan configs/ch06 --device h100 --against gpu.json   # the measured rows beside the plan

The network is not used. Weights are random; without --messages the built-in ones stand in for the real messages.
``--small`` makes everything small: models of the demo, two rows, and the parts that time large shapes are left out.
The exit code is 1 if a part failed or took too long.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gpu_check_parts as parts
from contest import write_record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"))
    parser.add_argument("--parts", nargs="+", choices=parts.PARTS, default=list(parts.PARTS))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--messages", type=Path, help="label TAB text, as SMSSpamCollection")
    parser.add_argument("--tokenizer", type=Path, help="folder of GPT-2's tokenizer (default: the one of the tests)")
    parser.add_argument("--seconds", type=float, default=585, help="limit of all parts together")
    parser.add_argument("--patience", type=float, default=1, help="factor on all limits, for a slow machine")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + given.seconds * given.patience
    record: dict[str, Any] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "small": given.small, "parts": {}}
    with tempfile.TemporaryDirectory() as folder:
        given.folder = Path(folder)
        for name in dict.fromkeys(["prepare", *given.parts]):
            found = record["parts"][name] = run_part(name, given, ends - time.monotonic())
            print(f"{name:<12} {found['seconds']:>6.1f} s  {found['status']}", flush=True)
            given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write_record(given.out, record)
    if any(part["status"].startswith(("failed", "over")) for part in record["parts"].values()):
        raise SystemExit(1)


def run_part(name: str, given: argparse.Namespace, left: float) -> dict[str, Any]:
    """Run a part in a process of its own.

    Returns:
        ``status`` (``ok``, or ``skipped``, ``failed`` or ``over its time limit`` with the reason), ``seconds``, and
        ``figures``, also those of a part that did not come to its end.
    """
    limit = min(parts.PARTS[name].limit * given.patience, left)
    if limit < 1:
        return {"status": "skipped: no time is left", "seconds": 0.0, "figures": {}}
    started, kept = time.monotonic(), given.folder / f"{name}.json"
    # Forked: what is imported here is not imported again. CUDA starts in the child.
    process = multiprocessing.get_context("fork").Process(target=run_here, args=(name, given, kept))
    process.start()
    process.join(limit)
    over = {"status": f"over its time limit of {limit:.0f} s"} if process.is_alive() else {}
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # with all that it started
    process.join()
    found = json.loads(kept.read_text()) if kept.is_file() else {}
    ended = f"failed: exit code {process.exitcode}"
    return {"status": ended, "figures": {}, **found, **over, "seconds": time.monotonic() - started}


def run_here(name: str, given: argparse.Namespace, kept: Path) -> None:
    """Run a part in this process; its file has the figures so far and, once it ended, its status."""
    os.setsid()
    for variable in ("FTKIT_CACHE", "TORCHINDUCTOR_CACHE_DIR"):  # what a stopped part leaves damaged stays its own
        os.environ[variable] = str(given.folder / variable / name)
    with (given.folder / f"{name}.log").open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    parts.allow_tf32(False)
    check = parts.Check(given.folder, given.small, given.messages, given.tokenizer, kept)
    try:
        parts.PARTS[name].run(check)
        check.end("ok")
    except parts.Skipped as reason:
        check.end(f"skipped: {reason}")
    except (Exception, SystemExit) as error:
        check.end(f"failed: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
