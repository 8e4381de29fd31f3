"""The model, the rows and the contestants of bench_vlm.py: the same training by ftkit and by TRL."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from vlm_shapes import SHAPES

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA, BETA, RATE = 8, 16, 0.1, {True: 1e-3, False: 1e-5}  # rates of LoRA and of full fine-tuning
PARTS = {"vision_model": "vision", "visual": "vision", "vision_tower": "vision"}
PARTS |= {"text_model": "text", "language_model": "text"}


def prepare(folder: Path, shape: str, rows: int) -> None:
    """Write model, processor and rows for all contestants: random weights, random pictures, one tile each."""
    from transformers import AutoModelForImageTextToText

    side, make = SHAPES[shape]
    config, processor = make(side)
    processor.save_pretrained(folder / "model")
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder / "model")
    _write_rows(folder, side, rows)


def _write_rows(folder: Path, side: int, rows: int) -> None:
    drawn = np.random.default_rng(0)
    with (folder / "rows.jsonl").open("w") as file:
        for number in range(rows):
            picture = drawn.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
            Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST).save(folder / f"{number}.png")
            years, share = drawn.integers(1950, 2025, 2), drawn.integers(10, 99, 2)
            question = f"How many per cent of the people said yes in {years[0]}, and how many in {years[1]}?"
            answers = [f"{share[0]} and {share[1]}", f"{share[1]} and {share[0]}."]
            row = {"prompt": question, "chosen": answers[0], "rejected": answers[1], "images": [f"{number}.png"]}
            file.write(json.dumps(row) + "\n")


def now() -> float:
    """The seconds of the clock once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock:
    """When each step ended and what its loss was, with the seconds spent in the parts of the model's forward pass."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.losses: list[float] = []
        self.ends: list[float] = []
        self.processor: list[float] = []  # the same in seconds of the processor
        self.parts: list[dict[str, float]] = []
        self._spent = {"vision": 0.0, "text": 0.0}
        self.watch(model)

    def watch(self, model: torch.nn.Module) -> None:
        """Time the parts of a model."""
        for name, module in model.named_modules():
            part = PARTS.get(name.rpartition(".")[2])
            if part:
                self._time(module, part)

    def start(self) -> None:
        """Training begins."""
        self.ends.append(now())
        self.processor.append(time.process_time())

    def step(self, loss: float) -> None:
        """A step ends."""
        self.losses.append(loss)
        self.start()
        self.parts.append(dict(self._spent))
        self._spent.update(vision=0.0, text=0.0)

    def _time(self, module: torch.nn.Module, part: str) -> None:
        forward = module.forward

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = now()
            out = forward(*args, **kwargs)
            self._spent[part] += now() - started
            return out

        module.forward = timed


class Task(NamedTuple):
    """What is trained."""

    folder: Path
    preference: bool
    lora: bool
    batch_size: int
    epochs: int


def same_adapters(model: Any) -> None:
    """Draw the adapters' matrices A from a seed of their own, so that everybody starts from the same."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    generator = torch.Generator().manual_seed(1)
    state = get_peft_model_state_dict(model)
    drawn = {
        name: 0.05 * torch.randn(value.shape, generator=generator) if "lora_A" in name else value
        for name, value in sorted(state.items())
    }
    set_peft_model_state_dict(model, drawn)


def ftkit(task: Task) -> tuple[Clock, Callable[[], Any]]:
    """Ftkit's module, and what trains it."""
    import lightning as L
    from peft import LoraConfig
    from torch.utils.data import DataLoader

    from ftkit.examples.reader import read_examples
    from ftkit.vlm.dataset import ExampleDataset
    from ftkit.vlm.dpo import VLMDPO
    from ftkit.vlm.encoder import ChatEncoder
    from ftkit.vlm.sft import VLMSFT

    lora = LoraConfig(r=RANK, lora_alpha=ALPHA)
    options: dict[str, Any] = {"adapter": lora} if task.lora else {"freeze_vision": False}
    options |= {"beta": BETA} if task.preference else {}
    module = (VLMDPO if task.preference else VLMSFT)(
        base_model=str(task.folder / "model"),
        seed=0,
        optimizer=lambda params: torch.optim.AdamW(params, lr=RATE[task.lora], weight_decay=0.0, fused=True),
        **options,
    )
    module.configure_model()
    if task.lora:
        same_adapters(module.net)
    encoder = ChatEncoder(module.processor, preference=task.preference)
    dataset = ExampleDataset(read_examples(task.folder / "rows.jsonl"), encoder)
    loader = DataLoader(dataset, batch_size=task.batch_size, collate_fn=dataset.batch)
    clock = Clock(module.net)
    if task.preference and not task.lora:
        clock.watch(module.reference_net)  # loaded now, as TRL's

    class Watch(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            clock.start()

        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            clock.step(trainer.callback_metrics["train/loss"].item())

    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        **quiet,
        accelerator="auto",
        devices=1,
        max_epochs=task.epochs,
        logger=False,
        callbacks=[Watch()],
        default_root_dir=task.folder,
    )
    return clock, lambda: trainer.fit(module, loader)


def trl(task: Task) -> tuple[Clock, Callable[[], Any]]:
    """TRL's trainer, and what starts it."""
    import trl as peer
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback

    model = AutoModelForImageTextToText.from_pretrained(task.folder / "model")
    config = {True: peer.DPOConfig, False: peer.SFTConfig}[task.preference](
        output_dir=str(task.folder / "trl"),
        per_device_train_batch_size=task.batch_size,
        num_train_epochs=task.epochs,
        learning_rate=RATE[task.lora],
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=0.0,
        max_length=None,
        activation_checkpointing=False,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        **({"beta": BETA} if task.preference else {}),
    )
    made = {True: peer.DPOTrainer, False: peer.SFTTrainer}[task.preference]
    clocks: list[Clock] = []
    latest: list[float] = []

    class Watched(made):  # type: ignore[misc, valid-type]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            latest[:] = [(loss[0] if isinstance(loss, tuple) else loss).item()]
            return loss

    class Watch(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            clocks[0].start()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clocks[0].step(latest[0])

    lora = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=rf".*(text_model|language_model).*({'|'.join(PROJECTIONS)})",
    )
    trainer = Watched(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(_peer_rows(task)),
        processing_class=AutoProcessor.from_pretrained(task.folder / "model"),
        peft_config=lora if task.lora else None,
        callbacks=[Watch()],
    )
    if task.lora:
        same_adapters(trainer.model)
    clocks.append(Clock(trainer.model))
    if task.preference and not task.lora:
        clocks[0].watch(trainer.ref_model)
    return clocks[0], trainer.train


def _peer_rows(task: Task) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (task.folder / "rows.jsonl").read_text().splitlines()]

    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    return [
        {
            "images": [Image.open(task.folder / row["images"][0])],
            "prompt": said("user", row["prompt"]),
            **(
                {name: said("assistant", row[name]) for name in ("chosen", "rejected")}
                if task.preference
                else {"completion": said("assistant", row["chosen"])}
            ),
        }
        for row in rows
    ]


CONTESTANTS = {"ftkit": ftkit, "trl": trl}
