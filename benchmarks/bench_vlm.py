"""Step time and memory of tuning a vision-language model, ftkit against TRL: same model, rows, order, batch and LoRA.

Each contestant trains in a process of its own, in turn, in float32 on the CPU; imports, loading and set-up are not
timed. An epoch's time runs from the start of training, or of the epoch, to the end of its last step: reading and
processing images, ftkit's fingerprint of the frozen weights and writing its caches, which start empty, are in it. The
script refuses to report times for losses that differ::

    python benchmarks/bench_vlm.py              # SmolVLM-256M made small, all four trainings
    python benchmarks/bench_vlm.py --shape 256m --batch 2 --steps 2 --epochs 3 --repeats 1
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from contest import run_child, write_record
from vlm_contestants import CONTESTANTS, Task, prepare
from vlm_shapes import SHAPES

TOLERANCE = 1e-4
# name: (learns from preferences, by LoRA and not in full, vision tower included)
TRAININGS = {"dpo": (True, True), "sft": (False, True), "dpo-all": (True, False), "sft-all": (False, False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="eighth")
    parser.add_argument("--trainings", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--batch", type=int, default=4, help="rows, or pairs, a step")
    parser.add_argument("--steps", type=int, default=8, help="steps of an epoch")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_measure(options)))
        return
    record: dict[str, Any] = {
        "date": str(datetime.date.today()),
        **{name: getattr(options, name) for name in ("shape", "batch", "steps", "epochs", "repeats", "threads")},
        "trainings": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), options.shape, options.batch * options.steps)
        for training in options.trainings:
            runs: dict[str, list[dict]] = {name: [] for name in CONTESTANTS}
            for repeat in range(options.repeats):
                for name in list(CONTESTANTS)[:: 1 if repeat % 2 else -1]:
                    runs[name].append(_run(options, name, training, Path(folder)))
            record["trainings"][training] = _summary(runs, training)
            _print(training, record["trainings"][training])
    write_record(options.results / f"{record['date']}-vlm-{options.shape}.json", record)


def _run(options: argparse.Namespace, name: str, training: str, folder: Path) -> dict:
    given = {option: str(getattr(options, option)) for option in ("shape", "batch", "steps", "epochs", "threads")}
    words = ["--child", name, "--folder", str(folder), "--trainings", training]
    words += [part for option, value in given.items() for part in (f"--{option}", value)]
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            "OMP_NUM_THREADS": str(options.threads),
            "HF_HUB_OFFLINE": "1",
            "FTKIT_CACHE": cache,
            "HF_DATASETS_CACHE": cache,
        }
        return run_child(__file__, words, **environment)


def _measure(options: argparse.Namespace) -> dict:
    import torch

    from ftkit.training.peak_memory import peak_memory_mb, reset_peak_memory

    torch.set_num_threads(options.threads)
    preference, lora = TRAININGS[options.trainings[0]]
    task = Task(options.folder, preference, lora, options.batch, options.epochs)
    clock, train = CONTESTANTS[options.child](task)
    reset_peak_memory()
    before = peak_memory_mb()
    train()
    return {
        "seconds": _differences(clock.ends),
        "processor_seconds": _differences(clock.processor),
        "losses": clock.losses,
        "parts": clock.parts,
        "peak_mb": peak_memory_mb(),
        "before_mb": before,
        "steps": options.steps,
    }


def _differences(times: list[float]) -> list[float]:
    return [end - start for start, end in itertools.pairwise(times)]


def _summary(runs: dict[str, list[dict]], training: str) -> dict[str, Any]:
    ours, theirs = (runs[name][0]["losses"] for name in CONTESTANTS)
    worst = max(abs(mine - other) for mine, other in zip(ours, theirs, strict=True))
    if worst > TOLERANCE:
        raise SystemExit(f"{training}: the losses differ by {worst:.2g}: {ours} and {theirs}")
    found: dict[str, Any] = {name: _figures(of_one) for name, of_one in runs.items()}
    first, second = (found[name] for name in CONTESTANTS)
    for key, seconds in first["seconds_of_a_step"].items():
        found[f"times_faster_{key}"] = second["seconds_of_a_step"][key] / seconds
    found["memory_ratio"] = first["peak_mb"] / second["peak_mb"]
    return {**found, "largest_difference_of_losses": worst, "losses": [round(loss, 6) for loss in ours]}


def _figures(runs: list[dict]) -> dict[str, Any]:
    """Medians over the runs of what a step takes, on average over an epoch, and where it goes; the largest peak."""
    steps = runs[0]["steps"]
    epochs = {"first_epoch": slice(steps), "later": slice(steps, None)}
    seconds = {
        f"{epoch}{suffix}": [statistics.fmean(run[key][rows]) for run in runs]
        for suffix, key in (("", "seconds"), ("_processor", "processor_seconds"))
        for epoch, rows in epochs.items()
    }
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    profile = {}
    for epoch, rows in epochs.items():
        parts = {
            f"{part} forward": statistics.median(
                statistics.fmean(row[part] for row in run["parts"][rows]) for run in runs
            )
            for part in ("vision", "text")
        }
        profile[epoch] = {**parts, "rest: backward, head, optimizer, data": medians[epoch] - sum(parts.values())}
    return {
        "seconds_of_a_step": medians,
        "all": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
        "where_they_go": profile,
        "peak_mb": max(run["peak_mb"] for run in runs),
        "before_training_mb": max(run["before_mb"] for run in runs),
    }


def _print(training: str, found: dict[str, Any]) -> None:
    for name in CONTESTANTS:
        seconds = found[name]["seconds_of_a_step"]
        print(
            f"{training:>8} {name:>6}: first epoch {seconds['first_epoch']:.3f} s a step, later {seconds['later']:.3f} "
            f"({seconds['first_epoch_processor']:.3f} and {seconds['later_processor']:.3f} of the processor), peak "
            f"{found[name]['peak_mb']:.0f} MB ({found[name]['before_training_mb']:.0f} before)"
        )
    print(
        f"{training:>8}  ftkit is {found['times_faster_first_epoch']:.2f} times as fast in the first epoch, "
        f"{found['times_faster_later']:.2f} times later ({found['times_faster_first_epoch_processor']:.2f} and "
        f"{found['times_faster_later_processor']:.2f} by the processor), with {found['memory_ratio']:.2f} of the "
        f"memory; losses differ by at most {found['largest_difference_of_losses']:.1g}",
        flush=True,
    )


if __name__ == "__main__":
    main()
