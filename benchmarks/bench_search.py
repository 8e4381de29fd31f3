r"""What a search over settings costs: five rates and three seeds for each row, against runs that share nothing.

    python benchmarks/bench_search.py --size small --messages SMSSpamCollection --variants float32 bf16-mixed

Weights, messages, steps and evaluations are those of bench_ablation.py, and so is the plain loop. Every way makes the
same table: each row is trained with each rate and seed and predicts validation; of the chosen rate every split.

- ftkit: `ftkit ablation run --search` in one process, with an empty cache. Of every row two tries of one epoch are run,
  and the rest is calculated: the first try pays for what frozen layers compute, the second costs what each further one
  does, and a training grows with its epochs. With `--whole` the first row is run whole beside.
- The plain loop, in float32, for each run: calculated from a part of the messages.
- A process for each run of the first row, as a sweep agent starts them: each from nothing, or all but the first with
  what is cached. The latter is measured once, with all epochs and from its start; it predicts every split.

`profile` has the seconds of a further try. Processor seconds stand beside the clock's. With `--parts FOLDER` a measured
part is kept there, and not measured again.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import plain_loop
from ablation_contestants import (
    CONFIGS,
    CONTESTANTS,
    SEED,
    SIZES,
    Task,
    clock,
    encoded_splits,
    evaluated_batches,
    overlays,
    prepare,
    since,
    sizes_of,
    validation_of,
    work_of,
)
from bench_ablation import HERE, add_common_options, against, numbers
from contest import run_child, write_record
from ftkit.storage import key_of

LR = "model.init_args.optimizer.init_args.lr"
RATES, SEEDS = [5e-5, 1e-4, 2e-4, 4e-4, 8e-4], [SEED, SEED + 1, SEED + 2]  # the first rate is that of the rows
TRIES = len(RATES) * len(SEEDS)
UNITS = ("seconds", "cpu_seconds")
READS_ALL = {19}  # positions, so that its last block runs whole


def search(task: Task, rates: Sequence[float], seeds: Sequence[int]) -> dict[str, Any]:
    """Search the rows of a task by ftkit.

    Returns:
        Seconds, and those of each stage of each run in order: `frozen` is what frozen layers took of them, and of a fit
        `training` the rest of its training.
    """
    from ftkit.ablation_runs import Ablation
    from ftkit.library_output import quiet_libraries
    from ftkit.lightning_engine import LightningEngine

    quiet_libraries()
    rows = [row for row, _ in task.runs]
    work = work_of(task.row, sizes_of(encoded_splits(task.folder)[0]), task.epochs)
    validation, out = validation_of(task.row, work), Path(tempfile.mkdtemp(dir=task.folder))
    engine, stages = LightningEngine(lambda done, total: None), []

    def timed(stage: str) -> Any:
        method = getattr(engine, stage)

        def call(configs: Sequence[Path], seed: int, *folder: Path) -> Any:
            began = clock()
            found = method(configs, seed, *folder)
            took = since(began)
            (row,) = (int(config.name[:2]) for config in configs if config.parent.name == "rows")
            for run in folder:
                evaluated_batches(run, row, validation, work)
                took |= _parts_of(run, stage)
            stages.append({"stage": stage, "row": row, **took})
            return found

        return call

    for stage in ("identity", "fit", "test"):
        setattr(engine, stage, timed(stage))
    started = clock()
    ablation = Ablation(CONFIGS, overlays(task, validation), ",".join(map(str, rows)), out)
    ablation.run(seeds, engine=engine, search={"settings": {LR: list(rates)}, "untuned": False})
    return {**since(started), "stages": stages}


def _parts_of(run: Path, stage: str) -> dict[str, float]:
    result = json.loads((run / "result.json").read_text())
    frozen = result["seconds_frozen"][stage]
    return {"frozen": frozen} | ({"training": result["seconds"]["fit"] - frozen} if stage == "fit" else {})


def of_row(found: Mapping[str, Any], row: int) -> dict[str, list[dict[str, float]]]:
    """The stages of a row by name."""
    own = [stage for stage in found["stages"] if stage["row"] == row]
    return {name: [one for one in own if one["stage"] == name] for name in ("identity", "fit", "test")}


def calculated(stages: Mapping[str, Sequence[Mapping[str, float]]], times: float, unit: str = "seconds") -> float:
    """The seconds of all tries of a row, from those of the first two, with so many times their epochs."""
    first, second = (longer(fit, times, unit) for fit in stages["fit"][:2])
    identity, test = fmean(one[unit] for one in stages["identity"]), stages["test"][0]
    testing = len(SEEDS) * test["seconds"] - (len(SEEDS) - 1) * test["frozen"]
    return (TRIES + 1) * identity + first + (TRIES - 1) * second + testing * test[unit] / test["seconds"]


def longer(fit: Mapping[str, float], times: float, unit: str = "seconds") -> float:
    """The seconds of a fit with so many times its epochs."""
    return (fit["seconds"] + (times - 1) * fit["training"]) * fit[unit] / fit["seconds"]


def plain_seconds(sample: Mapping[str, float], batches: int, unit: str = "seconds") -> float:
    """The seconds of all tries by the plain loop, which predicts so many batches besides validation's of the chosen."""
    predicting = sample["evaluated_batch_s"] * batches * sample[unit] / sample["seconds"]
    return TRIES * (sample[unit] - predicting) + len(SEEDS) * predicting


def profile(stages: Mapping[str, Sequence[Mapping[str, float]]], times: float) -> dict[str, float]:
    """The seconds of a further try: its check, the training, opening what is cached, the rest of a fit, and a test."""
    second, test = stages["fit"][1], stages["test"][0]
    return {
        "identity": fmean(one["seconds"] for one in stages["identity"]),
        "training": times * second["training"],
        "opening": second["frozen"],
        "around": second["seconds"] - second["training"] - second["frozen"],
        "test": test["seconds"] - test["frozen"],
    }


def launch(kind: str, folder: Path, arguments: argparse.Namespace, **said: Any) -> Any:
    """Run this file as a child process; `process_s` is its time with its start."""
    kept = arguments.parts / f"{kind}-{key_of({**said, 'size': arguments.size})[:12]}.json"
    if not kept.exists():
        options = ["--child", json.dumps({"kind": kind, "folder": str(folder), **said}), "--size", arguments.size]
        started = time.perf_counter()
        found = run_child(__file__, options, cwd=folder, FTKIT_CACHE=str(folder / "cache" / said["variant"]))
        kept.write_text(json.dumps({"found": found, "process_s": time.perf_counter() - started}))
        print(f"measured: {kept.name} {json.dumps(said)}", flush=True)
    return json.loads(kept.read_text())


def child(arguments: argparse.Namespace) -> None:
    """Run one contestant and print the result as the last line."""
    said = json.loads(arguments.child)
    runs = [(row, SEED) for row in said["rows"]]
    task = Task(Path(said["folder"]), runs, said["epochs"], SIZES[arguments.size], said["variant"])
    found = search(task, said["rates"], said["seeds"]) if said["kind"] == "search" else CONTESTANTS[said["kind"]](task)
    print("\n" + json.dumps(found))


def measured(variant: str, rows: Sequence[int], folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What ftkit takes for all tries of each row, and a process for a run of the first one."""
    said = {"folder": folder, "arguments": arguments, "variant": variant}
    found = launch("search", rows=rows, rates=RATES[:2], seeds=SEEDS[:1], epochs=1, **said)["found"]
    times, stages = arguments.epochs, {row: of_row(found, row) for row in rows}
    figures = {
        row: {unit: calculated(own, times, unit) for unit in UNITS} | {"profile": profile(own, times)}
        for row, own in stages.items()
    }
    process = launch("ours", rows=rows[:1], epochs=times, **said)["process_s"]
    first, test = stages[rows[0]]["fit"][0], stages[rows[0]]["test"][0]
    single = {unit: longer(first, times, unit) + test[unit] for unit in UNITS}
    return {"rows": figures, "stages": found["stages"], "process_s": process, "single": single}


def whole(row: int, variant: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """What ftkit takes for all tries of a row, run whole with an empty cache."""
    shutil.rmtree(folder / "cache")
    said = {"rows": [row], "rates": RATES, "seeds": SEEDS, "epochs": arguments.epochs, "variant": variant}
    found = launch("search", folder, arguments, **said)["found"]
    return {"whole_s": found["seconds"], "whole_cpu_s": found["cpu_seconds"]}


def summary(plain: Mapping[int, Mapping[str, float]], found: Mapping[str, Any]) -> dict[str, float]:
    """How many times as fast the first row is, the rows that read one position, and all, by clock and processor."""
    figures, every = found["rows"], list(found["rows"])
    one = [row for row in every if row not in READS_ALL]
    ratios: dict[str, float] = {}
    for unit in UNITS:
        for name, rows in (("first_row", every[:1]), ("one_position", one), ("all_rows", every)):
            ours, theirs = (sum(part[row][unit] for row in rows) for part in (figures, plain))
            ratios[f"{name}_{unit}"] = theirs / ours
            print(f"rows {','.join(map(str, rows))} x {TRIES}, {unit}: {against(ours, theirs)}")
        ratios[f"single_runs_{unit}"] = figures[every[0]][unit] / found["single"][unit]
        print(f"row {every[0]}: as long as {ratios[f'single_runs_{unit}']:.2f} runs of it from nothing")
    ours, single, again = figures[every[0]]["seconds"], found["single"]["seconds"], found["process_s"]
    ratios |= {"processes": TRIES * single / ours, "processes_with_cache": (single + (TRIES - 1) * again) / ours}
    print(f"row {every[0]}, a process for each try: {ratios['processes']:.2f} times as long", end="; ")
    print(f"with a common cache {ratios['processes_with_cache']:.2f} times")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a search over rates and seeds: ftkit, a plain loop, processes.")
    parser.add_argument("--rows", default="1-3,16,18,19", help="with batches alike")
    add_common_options(parser)
    parser.add_argument("--whole", action="store_true", help="run the first row whole, too, in the first variant")
    parser.add_argument("--parts", type=Path, help="folder that keeps what was measured; otherwise one that is removed")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    with tempfile.TemporaryDirectory() as name:
        arguments.parts = arguments.parts or Path(name)
        arguments.parts.mkdir(parents=True, exist_ok=True)
        report(Path(name), arguments)


def report(folder: Path, arguments: argparse.Namespace) -> None:
    """Measure, print, and write the result file."""
    rows, load = numbers(arguments.rows), os.getloadavg()
    prepare(folder, SIZES[arguments.size], arguments.messages, arguments.tokenizer)
    sizes = sizes_of(encoded_splits(folder)[0])
    batches = sum(-(-sizes[name] // plain_loop.ROW_1["batch_size"]) for name in ("train", "test"))
    variants, plain = {}, {}
    for variant in arguments.variants:
        variants[variant] = measured(variant, rows, folder, arguments)
        for row in rows if not plain else ():  # next to the first variant
            sample = launch("sample", folder, arguments, rows=[row], epochs=arguments.epochs, variant="float32")[
                "found"
            ]
            plain[row] = {
                "sample": sample,
                **{unit: plain_seconds(sample, batches, unit) for unit in UNITS},
            }
    for variant, found in variants.items():
        print(f"-- {variant}")
        found["times_as_fast"] = summary(plain, found)
    if arguments.whole:
        first, variant = rows[0], arguments.variants[0]
        variants[variant]["rows"][first] |= whole(first, variant, folder, arguments)
        print(f"row {first}, run whole:", json.dumps(variants[variant]["rows"][first]))
    now = datetime.now(UTC)
    result = {
        "date": now.isoformat(timespec="seconds"),
        "size": arguments.size,
        "epochs": arguments.epochs,
        "rates": RATES,
        "seeds": SEEDS,
        "messages": {"from": "real" if arguments.messages else "demo"} | sizes,
        "load_before": load,
        "plain": plain,
        "variants": variants,
    }
    write_record(arguments.out or HERE / "results" / f"{now:%Y-%m-%d}-search-{arguments.size}.json", result)


if __name__ == "__main__":
    main()
