"""How the cost of a frozen row grows: with the number of messages, and with the number of epochs.

    python benchmarks/bench_growth.py                                  # 500 to 50,000 messages, 1 to 8 epochs
    python benchmarks/bench_growth.py --messages 500,1000 --epochs 1,2

Row 1 (the last block learns) at demo size on made-up messages, each run with an empty cache. The frozen part is paid
once a message; the rest once a message and an epoch. Writes the figures, and a plot of both on logarithmic axes, where
a straight line at 45 degrees is linear growth; the slopes are printed.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "configs" / "ch06"
EPOCHS_AT = 5_000  # messages, while the epochs vary


def measure(folder: Path, messages: int, epochs: int) -> dict[str, float]:
    """Seconds of one run: for the frozen part, for what learns, and for the final evaluation."""
    from ftkit.cells import CellEngine
    from ftkit.classifier.demo_corpus import demo_messages

    source = folder / f"messages-{messages}.tsv"
    if not source.exists():
        source.write_text("".join(f"{label}\t{text}\n" for label, text in demo_messages(messages)), encoding="utf-8")
    overlay = folder / "overlay.yaml"
    settings = {
        "data": {"init_args": {"source": str(source), "split": "all"}},
        "trainer": {"max_epochs": epochs, "num_sanity_val_steps": 0},
    }
    overlay.write_text(yaml.safe_dump(settings))
    configs = [CONFIGS / name for name in ("base.yaml", "rows/01_last_token.yaml", "demo.yaml")]
    with tempfile.TemporaryDirectory(dir=folder) as cache, tempfile.TemporaryDirectory(dir=folder) as out:
        os.environ["FTKIT_CACHE"] = cache
        CellEngine(lambda done, total: None).run([*configs, overlay], 123, Path(out))
        found = json.loads((Path(out) / "result.json").read_text())
    frozen = found["seconds_frozen"]["fit"]
    return {
        "messages": messages,
        "epochs": epochs,
        "frozen_s": frozen,
        "learning_s": found["seconds"]["fit"] - frozen,
        "test_s": found["seconds"]["test"],
    }


def slope(xs: list[float], ys: list[float]) -> float:
    """The exponent of a power law through the points, by least squares on logarithms."""
    return statistics.linear_regression([math.log(x) for x in xs], [math.log(y) for y in ys]).slope


def draw(series: dict[str, tuple[list[float], list[float]]], x_label: str, title: str) -> str:
    """The series on logarithmic axes as a standalone SVG."""
    from ftkit.evaluation.picture import standalone
    from ftkit.evaluation.plots import Frame, line, plot, points

    def log(values: list[float]) -> list[float]:
        return [math.log10(value) for value in values]

    every_x = [x for xs, _ in series.values() for x in log(xs)]
    every_y = [y for _, ys in series.values() for y in log(ys)]
    frame = Frame(x=(min(every_x), max(every_x)), y=(math.floor(min(every_y)), math.ceil(max(every_y))))
    marks = []
    for color, (xs, ys) in enumerate(series.values()):
        marks += [line(frame, log(xs), log(ys), color), points(frame, log(xs), log(ys), color=color)]
    drawn = plot(frame, *marks, title=title, x_label=f"log10 {x_label}", y_label="log10 seconds", legend=list(series))
    return standalone(drawn)


def main() -> None:
    from ftkit.quiet import quiet_libraries
    from ftkit.training.environment import hardware, versions

    parser = argparse.ArgumentParser(description="How the cost of a frozen row grows.")
    parser.add_argument("--messages", default="500,1500,5000,15000,50000")
    parser.add_argument("--epochs", default="1,2,4,8")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    quiet_libraries()
    sizes, epochs = ([int(word) for word in text.split(",")] for text in (arguments.messages, arguments.epochs))
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), 500, 1)  # what only the first run of a process pays
        by_messages = [measure(Path(name), size, 1) for size in sizes]
        by_epochs = [measure(Path(name), EPOCHS_AT, count) for count in epochs]
    kinds = {"frozen_s": "frozen part", "learning_s": "what learns", "test_s": "evaluation"}
    growing = {words: (column(by_messages, "messages"), column(by_messages, kind)) for kind, words in kinds.items()}
    repeated = {words: (column(by_epochs, "epochs"), column(by_epochs, kind)) for kind, words in kinds.items()}
    slopes = {f"{words} by messages": slope(*series) for words, series in growing.items()}
    slopes["what learns by epochs"] = slope(*repeated["what learns"])
    now = datetime.now(UTC)
    record: dict[str, Any] = {"date": now.isoformat(timespec="seconds"), "load": os.getloadavg(), "slopes": slopes}
    record |= {"by_messages": by_messages, "by_epochs": by_epochs, "versions": versions(), "hardware": hardware()}
    arguments.results.mkdir(parents=True, exist_ok=True)
    target = arguments.results / f"{now:%Y-%m-%d}-growth.json"
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    target.with_suffix(".svg").write_text(draw(growing, "messages", "One epoch of row 1, demo size"), encoding="utf-8")
    for run in (*by_messages, *by_epochs):
        print(", ".join(f"{name} {value:.4g}" for name, value in run.items()))
    for words, value in slopes.items():
        print(f"{words}: seconds grow with the power {value:.2f}")
    print(f"written: {target}")


def column(runs: list[dict[str, float]], name: str) -> list[float]:
    return [run[name] for run in runs]


if __name__ == "__main__":
    main()
