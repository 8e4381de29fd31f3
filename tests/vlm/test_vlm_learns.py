"""A small vision-language model learns, from nothing, to answer questions about pictures that it has never seen."""

import json
import random
from collections import Counter
from pathlib import Path

import lightning as L
import pytest
import torch
from PIL import Image, ImageDraw

from ftkit.results.predictions import read_predictions
from ftkit.training.recorder import RunRecorder
from ftkit.vlm.data import VLMDataModule
from ftkit.vlm.sft import VLMSFT
from vlm_folders import build_idefics3

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220)}
SHAPES = ("ring", "square", "cross")
SIDE = 32


def draw_shape(draw: ImageDraw.ImageDraw, rng: random.Random) -> dict[str, str]:
    """One shape somewhere, and what can be asked about it."""
    shape, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
    radius = rng.randint(8, 12)
    x, y = rng.randint(radius, SIDE - 1 - radius), rng.randint(radius, SIDE - 1 - radius)
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "ring":
        draw.ellipse(box, outline=COLOURS[colour], width=3)
    elif shape == "square":
        draw.rectangle(box, COLOURS[colour])
    else:
        draw.line(box, COLOURS[colour], 3)
        draw.line((x - radius, y + radius, x + radius, y - radius), COLOURS[colour], 3)
    return {"What shape?": shape, "What colour?": colour}


def draw_bars(draw: ImageDraw.ImageDraw, rng: random.Random) -> dict[str, str]:
    """One to four bars of random heights."""
    count, colour = rng.randint(1, 4), rng.choice(list(COLOURS))
    for bar in range(count):
        draw.rectangle((8 * bar + 1, SIDE - rng.randint(8, 28), 8 * bar + 5, SIDE - 1), COLOURS[colour])
    return {"How many bars?": str(count), "What colour?": colour}


def draw_examples(folder: Path, count: int, seed: int) -> Path:
    """``count`` questions, each on a picture of its own, as JSON lines."""
    rng = random.Random(seed)
    folder.mkdir()
    examples = []
    for number in range(count):
        light = rng.randint(215, 255)
        image = Image.new("RGB", (SIDE, SIDE), (light, light, light))
        asked = (draw_shape, draw_bars)[number % 2](ImageDraw.Draw(image), rng)
        image.save(folder / f"{number}.png")
        question = rng.choice(list(asked))
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": asked[question]}]
        examples.append({"id": f"q{number}", "messages": messages, "images": [f"{number}.png"], "question": question})
    path = folder / "examples.jsonl"
    path.write_text("".join(f"{json.dumps(example)}\n" for example in examples))
    return path


def run(folder: Path, train: int = 3200, epochs: int = 6, lr: float = 3e-3) -> tuple[float, float]:
    """Accuracy on unseen pictures before and after training."""
    sources = {name: str(draw_examples(folder / name, size, seed)) for seed, (name, size) in
               enumerate((("train", train), ("val", 40), ("test", 240)))}  # fmt: skip
    data = VLMDataModule(**sources, batch_size=32, evaluation_batch_size=60, seed=1)
    model = build_idefics3(folder / "model", tiles=1, spread=False)
    steps = epochs * -(-train // 32)
    module = VLMSFT(
        base_model=str(model), freeze_vision=False, max_new_tokens=8, seed=1,
        optimizer=lambda params: torch.optim.AdamW(params, lr=lr, weight_decay=0.01),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps),
    )  # fmt: skip
    trainer = L.Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[RunRecorder()],
        gradient_clip_val=1.0,
    )  # fmt: skip

    def accuracy() -> float:
        trainer.test(module, datamodule=data, verbose=False)
        found = read_predictions(folder / "predictions-test.tsv")
        return float(found.correct.mean())

    before = accuracy()
    trainer.fit(module, datamodule=data)
    return before, accuracy()


@pytest.mark.slow
def test_unseen_pictures_are_answered(tmp_path: Path) -> None:
    before, after = run(tmp_path)
    examples = [json.loads(line) for line in (tmp_path / "test" / "examples.jsonl").read_text().splitlines()]
    by_question: dict[str, Counter[str]] = {}
    for example in examples:
        by_question.setdefault(example["question"], Counter())[example["messages"][1]["content"]] += 1
    # The best that can be said without looking at the pictures.
    chance = sum(max(answers.values()) for answers in by_question.values()) / len(examples)
    assert before <= chance < 0.45
    assert after > 0.9
