"""Tune a tiny vision-language model on silhouettes of animals, and ask whether it looks at them.

Two questions about pictures of animal-mnist (PyPI, MIT licence): whether one shows a given animal, and which it shows.
Half of the answers are yes, for each picture and each animal, so half are right without looking. Beside the model stand
logistic regression on the pixels, blank and swapped test pictures, and the same model trained on pictures that were
dealt out anew among the questions. The pictures are on disk; nothing is downloaded here::

    pip download --no-deps animal-mnist==0.4
    python benchmarks/animal_questions.py --wheel animal_mnist-0.4-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pickle
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression

from contest import write_record

ANIMALS = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
INSIDE = "animal_mnist/data/Animal_MNIST/animal_{}_version_3.gz"
BASE = Path(__file__).parents[1] / "src/ftkit/configs/init/vlm/base"
SIDE, PATCH, SEED = 32, 4, 123
KINDS = {"yes_no": "ftkit.VLMYesNo", "which": "ftkit.VLMSFT"}


class Question(NamedTuple):
    """Hold a question about a picture, by the picture's number."""

    picture: int
    text: str
    answer: str


class _Arrays(pickle.Unpickler):
    """Read arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module.split(".")[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"no part of an array: {module}.{name}")
        return allowed[name]


def read(wheel: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return different pictures, uint8 (N, 28, 28), and the number of each one's animal, (N,)."""
    with zipfile.ZipFile(wheel) as files:
        pictures, labels = (
            _Arrays(io.BytesIO(gzip.decompress(files.read(INSIDE.format(name))))).load() for name in ("data", "label")
        )
    _, first = np.unique(pictures.reshape(len(pictures), -1), axis=0, return_index=True)
    kept = np.sort(first)
    return pictures[kept], labels[kept]


def split(labels: np.ndarray, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Return the numbers of as many pictures of each animal for each split."""
    drawn, found = np.random.default_rng(SEED), {name: [] for name in sizes}
    for animal in range(len(ANIMALS)):
        numbers = drawn.permutation(np.flatnonzero(labels == animal))
        if len(numbers) < sum(sizes.values()):
            raise SystemExit(
                f"{ANIMALS[animal]}: {len(numbers)} different pictures, but {sum(sizes.values())} are asked for"
            )
        for name, part in zip(sizes, np.split(numbers, np.cumsum([*sizes.values()])), strict=False):
            found[name].extend(part)
    return {name: np.array(numbers) for name, numbers in found.items()}


def questions(kind: str, numbers: np.ndarray, labels: np.ndarray) -> list[Question]:
    """Return the questions about some pictures; of yes and no, two for each: one of its own animal and of another."""
    asked = []
    for place, number in enumerate(numbers):
        own = int(labels[number])
        if kind == "which":
            asked.append(Question(number, "Which animal?", ANIMALS[own]))
            continue
        other = (own + 1 + place % (len(ANIMALS) - 1)) % len(ANIMALS)  # each of the others as often
        asked += [Question(number, f"{ANIMALS[own]}?", "yes"), Question(number, f"{ANIMALS[other]}?", "no")]
    return asked


def write(path: Path, asked: list[Question], shuffled: bool) -> None:
    """Write questions as JSON lines; shuffled, the pictures are dealt out anew."""
    order = np.random.default_rng(SEED).permutation(len(asked)) if shuffled else range(len(asked))
    rows = [
        {"prefix": one.text, "suffix": one.answer, "image": f"images/{asked[place].picture}.png"}
        for one, place in zip(asked, order, strict=True)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def write_model(folder: Path) -> None:
    """Write the tiny model of ``ftkit init --from vlm`` with smaller patches, a wider tower and new weights."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    config, processor = AutoConfig.from_pretrained(BASE), AutoProcessor.from_pretrained(BASE)
    config.vision_config.patch_size, config.vision_config.hidden_size = PATCH, 64
    config.vision_config.intermediate_size = 128
    processor.image_seq_len = (SIDE // PATCH // config.scale_factor) ** 2
    processor.save_pretrained(folder)
    torch.manual_seed(SEED)
    model = AutoModelForImageTextToText.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.08)
    model.save_pretrained(folder)


def tune(folder: Path, kind: str, shuffled: bool, epochs: int) -> dict[str, Any]:
    """Train all weights and test with the controls; return accuracy, controls and seconds of training."""
    out = folder / "runs" / f"{kind}{'-shuffled' * shuffled}"
    train = f"train-{kind}{'-shuffled' * shuffled}.jsonl"
    config = {
        "seed_everything": SEED,
        "model": {
            "class_path": KINDS[kind],
            "init_args": {
                "base_model": str(folder / "base"), "dtype": "float32", "freeze_vision": False, "max_new_tokens": 10,
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 2e-3, "weight_decay": 0.05}},
                "scheduler": "cosine", "warmup": 0.1,
            },
        },
        "data": {
            "class_path": "ftkit.VLMDataModule",
            "init_args": {
                "train": str(folder / train), "val": str(folder / f"val-{kind}.jsonl"),
                "test": str(folder / f"test-{kind}.jsonl"), "batch_size": 32, "evaluation_batch_size": 90,
                "evaluate_splits": ["test"],
            },
        },
        "trainer": {
            "max_epochs": epochs, "accelerator": "cpu", "devices": 1, "gradient_clip_val": 1.0, "logger": False,
            "default_root_dir": str(out), "enable_progress_bar": False, "limit_val_batches": 0,
            "callbacks": [{
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"filename": "last", "save_on_train_epoch_end": True, "save_weights_only": True},
            }],
        },
    }  # fmt: skip
    path = folder / f"{out.name}.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    started = time.perf_counter()
    _run("fit", "--config", str(path))
    seconds = time.perf_counter() - started
    _run("test", "--config", str(out / "config.yaml"), "--controls")
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return {"accuracy": result["splits"]["test"]["accuracy"], "controls": result["image_controls"], "seconds": seconds}


def _run(*command: str) -> None:
    from ftkit.cli import main

    if code := main(list(command)):
        raise SystemExit(f"ftkit {' '.join(command)} ended with {code}")


def logistic(pictures: np.ndarray, parts: dict[str, list[Question]]) -> float:
    """Return the accuracy of logistic regression on the pixels; of yes and no, one for each animal's questions."""
    right = 0
    for text in sorted({one.text for one in parts["train"]}):
        known, asked = ([one for one in parts[name] if one.text == text] for name in ("train", "test"))
        pixels, tested = (
            pictures[[one.picture for one in ones]].reshape(len(ones), -1) / 255 for ones in (known, asked)
        )
        fitted = LogisticRegression(C=0.05, max_iter=2000).fit(pixels, [one.answer for one in known])
        right += int((fitted.predict(tested) == np.array([one.answer for one in asked])).sum())
    return right / len(parts["test"])


def main() -> None:
    """Run it all and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--train", type=int, default=540, help="pictures of each animal to train on; a multiple of 9")
    parser.add_argument("--test", type=int, default=72, help="to test on; a multiple of 9")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    pictures, labels = read(options.wheel)
    sizes = {"train": options.train, "val": 9, "test": options.test}
    numbers = split(labels, sizes)
    record: dict[str, Any] = {"pictures": len(pictures), "of_each_animal": sizes, "epochs": options.epochs}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "images").mkdir()
        for number in np.concatenate([*numbers.values()]):
            Image.fromarray(pictures[number]).resize((SIDE, SIDE)).save(folder / f"images/{number}.png")
        write_model(folder / "base")
        for kind in KINDS:
            parts = {name: questions(kind, part, labels) for name, part in numbers.items()}
            for name, asked in parts.items():
                write(folder / f"{name}-{kind}.jsonl", asked, shuffled=False)
            write(folder / f"train-{kind}-shuffled.jsonl", parts["train"], shuffled=True)
            record[kind] = {
                "questions": {name: len(asked) for name, asked in parts.items()},
                "logistic_regression": logistic(pictures, parts),
                "model": tune(folder, kind, False, options.epochs),
                "trained_on_shuffled_pictures": tune(folder, kind, True, options.epochs),
            }
    write_record(options.results / f"{time.strftime('%Y-%m-%d')}-animal-questions.json", record)


if __name__ == "__main__":
    main()
