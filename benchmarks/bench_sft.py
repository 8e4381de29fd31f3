"""Time of a step and peak memory, ``CausalLMSFT`` against TRL's ``SFTTrainer``: same weights, rows and precision.

Both take the same rows in the same order through their own data path and training loop, with the same optimizer and
rate; the script refuses to report times where the losses of the steps differ. Each runs in a process of its own, in
turn, several times; a step is timed from one optimizer step to the next, and the first ones are left out::

    python benchmarks/bench_sft.py          # a GPT-2 of 12 layers x 256, LoRA, prompts of 48 to 96 tokens
    python benchmarks/bench_sft.py --layers 12 --width 768 --trainable all
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from contest import run_child, write_record

TOLERANCE = 1e-4  # relative, of each step's loss
WARM_UP = 2
RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=50_257)
    parser.add_argument("--trainable", choices=("lora", "all"), default="lora")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=96, help="tokens")
    parser.add_argument("--answer", type=int, default=32, help="tokens at most; lengths are ragged")
    parser.add_argument("--accumulate", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        _prepare(options)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CHILDREN}
        for _ in range(options.repeats):
            for name in CHILDREN:
                runs[name].append(_run(name, options))
    record = _record(runs, options)
    for name in CHILDREN:
        print(f"{name:>8}: {record[name]['seconds']:.3f} s a step, peak {record[name]['peak_mb']:.0f} MB")
    print(f"ratio: {record['time_ratio']:.2f} of the time, {record['memory_ratio']:.2f} of the memory (ftkit / trl)")
    name = f"{record['date']}-sft-{options.layers}x{options.width}-{options.trainable}.json"
    write_record(options.results / name, record)


def _prepare(options: argparse.Namespace) -> None:
    """Random weights, a tokenizer of single words, and rows of words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = [f"w{number}" for number in range(options.vocabulary - 1)]
    vocabulary = {word: number for number, word in enumerate([*words, "<|endoftext|>"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = options.vocabulary - 1
    config = GPT2Config(
        n_layer=options.layers, n_embd=options.width, n_head=options.width // 64, vocab_size=options.vocabulary,
        n_positions=1024, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=end, eos_token_id=end,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(options.folder)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    ).save_pretrained(options.folder)
    numbers = random.Random(0)
    with (options.folder / "rows.jsonl").open("w") as file:
        for _ in range(options.steps * options.accumulate * options.batch_size):
            prompt, answer = (
                " ".join(numbers.choices(words, k=numbers.randint(longest // 2, longest)))
                for longest in (options.prompt, options.answer)
            )
            file.write(json.dumps({"prompt": prompt, "completion": f" {answer} <|endoftext|>"}) + "\n")


def _with_ftkit(options: argparse.Namespace) -> dict[str, Any]:
    import lightning as L
    import torch
    from peft import LoraConfig
    from torch.utils.data import DataLoader, SequentialSampler

    from ftkit import CausalLMSFT
    from ftkit.language.data import TextDataModule

    torch.set_num_threads(1)
    imported = _peak_mb()

    class Timed(L.Callback):
        times: list[float] = []  # noqa: RUF012
        losses: list[float] = []  # noqa: RUF012

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if (batch_idx + 1) % options.accumulate == 0:
                self.times.append(time.perf_counter())
                self.losses.append(float(trainer.callback_metrics["train/loss"]))  # the mean over the whole step

    class InOrder(TextDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            return self._loader("train", self.batch_size, SequentialSampler(self.datasets["train"]), evaluation=False)

    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn", "c_proj", "c_fc"])
    module = CausalLMSFT(
        base_model=str(options.folder),
        dtype="float32",
        adapter=lora if options.trainable == "lora" else None,
        optimizer=lambda p: torch.optim.SGD(p, lr=RATE),
    )
    timed = Timed()
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, accumulate_grad_batches=options.accumulate, callbacks=[timed],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(
        module, datamodule=InOrder(options.folder / "rows.jsonl", batch_size=options.batch_size, fractions=(1, 0))
    )
    return _measured(timed.times, timed.losses, imported)


def _with_trl(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(1)
    imported = _peak_mb()
    rows = [json.loads(line) for line in (options.folder / "rows.jsonl").open()]

    class Timed(TrainerCallback):
        times: list[float] = []  # noqa: RUF012
        losses: list[float] = []  # noqa: RUF012

        def on_step_end(self, *args: Any, **more: Any) -> None:
            self.times.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            if "loss" in logs:
                self.losses.append(logs["loss"])

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *args: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    lora = LoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True
    )
    model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32)
    timed = Timed()
    trainer = InOrder(
        model=model,
        args=SFTConfig(
            output_dir=str(options.folder / "trl"), use_cpu=True, bf16=False, report_to="none", max_length=None,
            activation_checkpointing=False, per_device_train_batch_size=options.batch_size, num_train_epochs=1,
            gradient_accumulation_steps=options.accumulate, logging_steps=1, save_strategy="no", disable_tqdm=True,
            learning_rate=RATE, lr_scheduler_type="constant", optim="sgd", max_grad_norm=0.0,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(options.folder),
        peft_config=lora if options.trainable == "lora" else None,
        callbacks=[timed],
    )  # fmt: skip
    trainer.train()
    return _measured(timed.times, timed.losses, imported)


CHILDREN = {"ftkit": _with_ftkit, "trl": _with_trl}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _measured(times: list[float], losses: list[float], imported_mb: float) -> dict[str, Any]:
    steps = [end - start for start, end in zip(times[WARM_UP:], times[WARM_UP + 1 :], strict=False)]
    return {"steps": steps, "losses": losses, "peak_mb": _peak_mb(), "imported_mb": imported_mb}


def _run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    given = ["--child", name]
    for field, value in vars(options).items():
        if field not in ("child", "results", "repeats"):
            given += [f"--{field.replace('_', '-')}", str(value)]
    return run_child(__file__, given, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")


def _record(runs: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> dict[str, Any]:
    ours, theirs = (runs[name][0]["losses"] for name in CHILDREN)
    differing = [(a, b) for a, b in zip(ours, theirs, strict=True) if abs(a - b) > TOLERANCE * abs(b)]
    if differing:
        raise SystemExit(f"the losses differ: {differing}")
    summary = {
        name: {
            "seconds": statistics.median(step for run in of_one for step in run["steps"]),
            "fastest": min(step for run in of_one for step in run["steps"]),
            "median_of_each_run": [round(statistics.median(run["steps"]), 4) for run in of_one],
            "peak_mb": max(run["peak_mb"] for run in of_one),
            "imported_mb": max(run["imported_mb"] for run in of_one),
        }
        for name, of_one in runs.items()
    }
    first, second = (summary[name] for name in CHILDREN)
    shown = ("layers", "width", "vocabulary", "trainable", "batch_size", "prompt", "answer", "accumulate", "steps")
    return {
        "date": str(datetime.date.today()),
        **{name: getattr(options, name) for name in shown},
        "time_ratio": first["seconds"] / second["seconds"],
        "memory_ratio": first["peak_mb"] / second["peak_mb"],
        "largest_loss_difference": max(abs(a - b) for a, b in zip(ours, theirs, strict=True)),
        **summary,
        "losses": ours,
    }


if __name__ == "__main__":
    main()
