"""Hold `ftkit plan --device here` against measured seconds and memory of rows of the GPT-2 ablation on this CPU.

Each row is run in a process of its own, with a cache of its own, right after the CPU was measured in it::

    python benchmarks/plan_here.py                                      # demo size, made-up messages
    python benchmarks/plan_here.py --size small --messages EIGHTH       # GPT-2 small, an eighth of the real messages
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ablation_contestants as contestants
import plain_loop
from contest import run_child, write_record

ROWS = (1, 3, 5, 11, 13)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=contestants.SIZES, default="demo")
    parser.add_argument("--rows", type=int, nargs="+", choices=plain_loop.ROWS, default=ROWS)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--variant", choices=contestants.VARIANTS, default="float32")
    parser.add_argument("--messages", type=Path, help="label TAB text (default: the made-up messages)")
    parser.add_argument("--tokenizer", type=Path, help="folder of GPT-2's tokenizer (default: the one of the tests)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = contestants.SIZES[given.size]
    if given.child:
        print(json.dumps(both(contestants.Task(given.folder, [(given.child, 123)], given.epochs, size, given.variant))))
        return
    date, found = f"{datetime.now(UTC):%Y-%m-%d}", {}
    with tempfile.TemporaryDirectory() as folder:
        contestants.prepare(Path(folder), size, given.messages, given.tokenizer)
        for row in given.rows:
            words = ["--child", str(row), "--folder", folder, "--size", given.size]
            words += ["--epochs", str(given.epochs), "--variant", given.variant]
            found[row] = run_child(__file__, words, FTKIT_CACHE=f"{folder}/cache-{row}")
            print(f"row {row}: {line(found[row])}", flush=True)
    record = {"date": date, "size": given.size, "epochs": given.epochs, "variant": given.variant, "rows": found}
    write_record(given.results / f"{date}-plan-here-{given.size}.json", record)


def both(task: contestants.Task) -> dict[str, Any]:
    """Measure this CPU, plan a row, and run it."""
    from ftkit.library_output import quiet_libraries
    from ftkit.lightning_engine import LightningEngine
    from ftkit.plan.here import measured
    from ftkit.plan.plan import plan_rows

    quiet_libraries()
    device = measured()
    (row,) = (contestants.CONFIGS / "rows").glob(f"{task.number:02d}_*.yaml")
    configs = [contestants.CONFIGS / "base.yaml", row, *contestants.overlays(task, {})]
    out = task.folder / f"run-{task.number}"
    (planned,) = plan_rows({row.stem: configs}, device)
    started = contestants.clock()
    LightningEngine(lambda done, total: None).run(configs, task.runs[0][1], out)
    took = contestants.since(started)
    result = json.loads((out / "result.json").read_text())
    seconds, peak = sum(result["seconds"].values()), result["peak_memory_mb"]
    processor = seconds * took["cpu_seconds"] / took["seconds"]  # other processes take their share of the clock's
    return {
        "device": asdict(device),
        "seconds": seconds,
        "cpu_seconds": processor,
        "planned_seconds": 60 * planned["minutes"],
        "seconds_ratio": 60 * planned["minutes"] / seconds,
        "cpu_seconds_ratio": 60 * planned["minutes"] / processor,
        "peak_mb": peak,
        "planned_peak_mb": 1e3 * planned["peak_gb"],
        "peak_ratio": 1e3 * planned["peak_gb"] / peak,
    }


def line(found: dict[str, float]) -> str:
    """The figures of a row in words."""
    return (
        f"{found['planned_seconds']:.1f} s planned, {found['seconds']:.1f} measured ({found['seconds_ratio']:.2f}), "
        f"{found['cpu_seconds']:.1f} of the processor ({found['cpu_seconds_ratio']:.2f}); "
        f"{found['planned_peak_mb']:.0f} MB planned, {found['peak_mb']:.0f} measured ({found['peak_ratio']:.2f})"
    )


if __name__ == "__main__":
    main()
