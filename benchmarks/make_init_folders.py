"""Write the data and the tiny vision-language model of `ftkit init` into configs/init.

Run once, as `python benchmarks/make_init_folders.py`; what it wrote is committed. The model is Idefics3's architecture
with random weights, the pictures are drawn and the sentences are made up.
"""

import csv
import json
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
INIT = HERE.parent / "configs" / "init"
COLORS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220)}
THINGS = ("ball", "car", "door", "cup", "kite", "boat", "hat", "lamp", "box", "chair")
SHADES = ("red", "green", "blue", "white", "black", "brown")
SPLITS = {"train": 96, "val": 24, "test": 48}


def write_lines(path: Path, examples: list[dict[str, object]]) -> None:
    """Write examples as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(example)}\n" for example in examples), encoding="utf-8")


def classifier(folder: Path, count: int = 800) -> None:
    """Write the first demo messages as a CSV file with a header."""
    source = HERE.parent / "src" / "ftkit" / "assets" / "demo-messages.tsv"
    lines = [line.split("\t", 1) for line in source.read_text(encoding="utf-8").splitlines()[:count]]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "messages.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("text", "label"), *((text, label) for label, text in lines)])


def language(folder: Path) -> None:
    """Write questions whose answer stands in them."""
    pairs = [(thing, shade) for thing in THINGS for shade in SHADES]
    random.Random(0).shuffle(pairs)
    for split, part in (("train", pairs[:40] * 4), ("val", pairs[40:48]), ("test", pairs[48:])):
        write_lines(folder / f"{split}.jsonl", [
            {"prompt": f"The {thing} is {shade}. What color is the {thing}?", "completion": f" {shade}"}
            for thing, shade in part
        ])  # fmt: skip


def pictures(folder: Path) -> None:
    """Draw a square of one color somewhere, with a question for SFT and one for yes or no."""
    rng = random.Random(0)
    for split, count in SPLITS.items():
        asked, judged = [], []
        for number in range(count):
            color = rng.choice(list(COLORS))
            image, x, y = Image.new("RGB", (32, 32), (240, 240, 240)), rng.randint(2, 14), rng.randint(2, 14)
            ImageDraw.Draw(image).rectangle((x, y, x + 14, y + 14), COLORS[color])
            name = f"images/{split}-{number:02}.png"
            (folder / "images").mkdir(parents=True, exist_ok=True)
            image.save(folder / name)
            user = {"role": "user", "content": "What color is the square?"}
            answer = {"role": "assistant", "content": color}
            asked.append({"messages": [user, answer], "images": [name]})
            judged.append({"prefix": "Is the square red?", "suffix": "yes" if color == "red" else "no", "image": name})
        write_lines(folder / f"{split}.jsonl", asked)
        write_lines(folder.parent / "moderation" / f"{split}.jsonl", judged)


def model(folder: Path) -> None:
    """Write the tiny model that the tests use, with a processor that takes each picture whole."""
    sys.path.append(str(HERE.parent / "tests"))
    from vlm_folders import build_idefics3

    build_idefics3(folder, tiles=1, spread=False)


if __name__ == "__main__":
    classifier(INIT / "classifier")
    language(INIT / "sft")
    pictures(INIT / "vlm")
    model(INIT / "vlm" / "base")
