"""How the cost of a frozen row grows with messages and with epochs, and what a row costs beyond its arithmetic.

    python benchmarks/bench_growth.py                                  # 500 to 50,000 messages, 1 to 8 epochs
    python benchmarks/bench_growth.py --messages 500,1000 --epochs 1,2 --epochs-at 500

Row 1 (the last block learns) at demo size on made-up messages, each run with an empty cache. The frozen part is paid
once a message; the rest once a message and an epoch. Writes the figures and two plots: seconds against messages on
logarithmic axes, where a straight line at 45 degrees is linear growth and the slopes are printed; and seconds against
epochs, with the straight line through those of the training, which has an intercept: the frozen part and setting up.

Then row 1 as `make demo` has it, several times over in this process with its features in the cache: the seconds that a
sweep spends on it, less those within training, validation and test batches, are what starting and ending it cost.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import altair as alt
import lightning as L
import yaml  # type: ignore[import-untyped]

from contest import write_record
from demo_corpus import as_tsv, demo_messages
from ftkit.library_output import quiet_libraries
from ftkit.lightning_cli import FtkitCLI
from ftkit.lightning_engine import LightningEngine
from ftkit.report.charts import data
from ftkit.report.theme import image

HERE = Path(__file__).parent
ROW_1 = [HERE.parent / "configs" / "ch06" / name for name in ("base.yaml", "demo.yaml", "rows/01_last_token.yaml")]
SEED = 123
KINDS = {"frozen_s": "frozen part", "learning_s": "what learns", "test_s": "evaluation"}
Series = tuple[list[float], list[float]]


class Arithmetic(L.Callback):
    """Adds up the seconds within the batches of training, validation and test.

    Attributes:
        seconds: So far.
    """

    def __init__(self) -> None:
        self.seconds = self._started = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, *args: Any) -> None:
        """Add what has passed."""
        self.seconds += time.perf_counter() - self._started

    on_validation_batch_start = on_test_batch_start = on_train_batch_start
    on_validation_batch_end = on_test_batch_end = on_train_batch_end


class TimedEngine(LightningEngine):
    """Runs cells as a sweep does, and knows how many seconds of the last one were arithmetic."""

    def __init__(self) -> None:
        super().__init__(lambda done, total: None)
        self.arithmetic = Arithmetic()

    def _build(self, configs: Sequence[Path], seed: int, directory: Path) -> FtkitCLI:
        cli = super()._build(configs, seed, directory)
        self.arithmetic = Arithmetic()
        cli.trainer.callbacks.insert(0, self.arithmetic)  # type: ignore[attr-defined]  # the others' ends are no arithmetic
        return cli


def measure(folder: Path, messages: int, epochs: int) -> dict[str, float]:
    """Seconds of one run: of its training, the frozen part in it and the rest, and of the final evaluation."""
    source = folder / f"messages-{messages}.tsv"
    if not source.exists():
        source.write_text(as_tsv(demo_messages(messages)), encoding="utf-8")
    overlay = folder / "overlay.yaml"
    settings = {
        "data": {"init_args": {"source": str(source), "split": "all"}},
        "trainer": {"max_epochs": epochs, "num_sanity_val_steps": 0},
    }
    overlay.write_text(yaml.safe_dump(settings))
    with tempfile.TemporaryDirectory(dir=folder) as cache, tempfile.TemporaryDirectory(dir=folder) as out:
        os.environ["FTKIT_CACHE"] = cache
        TimedEngine().run([*ROW_1, overlay], SEED, Path(out))
        found = json.loads((Path(out) / "result.json").read_text())
    fit, frozen = found["seconds"]["fit"], found["seconds_frozen"]["fit"]
    return {
        "messages": messages,
        "epochs": epochs,
        "fit_s": fit,
        "frozen_s": frozen,
        "learning_s": fit - frozen,
        "test_s": found["seconds"]["test"],
    }


def start_up(folder: Path, repeats: int) -> list[float]:
    """Seconds beyond the arithmetic of row 1 at its demo size, with its features in the cache.

    Args:
        folder: For the cells and the cache.
        repeats: How often, after a first run that stores the features.
    """
    os.environ["FTKIT_CACHE"] = str(folder / "cache")
    engine, seconds = TimedEngine(), []
    for repeat in range(repeats + 1):
        started = time.perf_counter()
        engine.identity(ROW_1, SEED)  # a sweep asks first whether the cell is done
        engine.run(ROW_1, SEED, folder / f"start-{repeat}")
        seconds.append(time.perf_counter() - started - engine.arithmetic.seconds)
    return seconds[1:]


def power(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The exponent of a power law through the points, by least squares on logarithms."""
    return statistics.linear_regression([math.log(x) for x in xs], [math.log(y) for y in ys]).slope


def straight_line(xs: Sequence[float], ys: Sequence[float]) -> dict[str, float]:
    """The straight line through the points by least squares, and how far one of them is off at most, in % of the line.

    Example:
        >>> straight_line([1, 2, 4], [3, 5, 9])
        {'intercept': 1.0, 'slope': 2.0, 'largest_deviation_percent': 0.0}
    """
    slope, intercept = statistics.linear_regression(xs, ys)
    off = [abs(y / (intercept + slope * x) - 1) for x, y in zip(xs, ys, strict=True)]
    return {"intercept": intercept, "slope": slope, "largest_deviation_percent": 100 * max(off)}


def draw_messages(series: dict[str, Series]) -> str:
    """Seconds against messages on logarithmic axes, as a standalone SVG."""
    return _draw(series, "One epoch of row 1, demo size", "messages", alt.Scale(type="log"))


def draw_epochs(series: dict[str, Series], fitted: dict[str, float], messages: int) -> str:
    """Seconds against epochs, with the straight line through those of the training, as a standalone SVG."""
    ends = [0, max(x for xs, _ in series.values() for x in xs)]
    through = [{"x": x, "y": fitted["intercept"] + fitted["slope"] * x} for x in ends]
    line = alt.Chart(data(through)).mark_line(strokeDash=[5, 4], color="var(--soft)").encode(x="x:Q", y="y:Q")
    return _draw(series, f"Row 1, demo size, {messages:,} messages", "epochs", alt.Scale(zero=True), line)


def _draw(series: dict[str, Series], title: str, x: str, scale: alt.Scale, *through: alt.Chart) -> str:
    points = [{"kind": kind, "x": x, "y": y} for kind, pair in series.items() for x, y in zip(*pair, strict=True)]
    base = alt.Chart(data(points)).encode(
        x=alt.X("x:Q", title=x, scale=scale), y=alt.Y("y:Q", title="seconds", scale=scale), color="kind:N"
    )
    layers = (*through, base.mark_line(), base.mark_circle(size=50, opacity=1))
    return image(alt.layer(*layers).properties(title=title, height=300), "svg").decode()


def columns(runs: list[dict[str, float]], x: str, kinds: dict[str, str]) -> dict[str, Series]:
    """What is drawn of some runs: for each kind of seconds its name, and the points."""
    return {name: ([run[x] for run in runs], [run[kind] for run in runs]) for kind, name in kinds.items()}


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description="How the cost of a frozen row grows.")
    parser.add_argument("--messages", type=numbers, default="500,1500,5000,15000,50000", help="for one epoch")
    parser.add_argument("--epochs", type=numbers, default="1,2,4,8", help="two or more numbers of them")
    parser.add_argument("--epochs-at", type=int, default=5_000, help="messages, while the epochs vary")
    parser.add_argument("--repeats", type=int, default=5, help="of the demo row whose start-up is measured")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), 500, 1)  # what only the first run of a process pays
        by_messages = [measure(Path(name), size, 1) for size in arguments.messages]
        by_epochs = [measure(Path(name), arguments.epochs_at, count) for count in arguments.epochs]
        started = start_up(Path(name), arguments.repeats)
    growing = columns(by_messages, "messages", KINDS)
    repeated = columns(
        by_epochs, "epochs", {"fit_s": "training", "frozen_s": "frozen part in it", "test_s": "evaluation"}
    )
    powers = {words: power(*seconds) for words, seconds in growing.items()}
    fitted = straight_line(*repeated["training"])
    now = datetime.now(UTC)
    record = {
        "date": now.isoformat(timespec="seconds"),
        "load": os.getloadavg(),
        "powers_of_messages": powers,
        "training_by_epochs": fitted,
        "startup_s": {"median": statistics.median(started), "all": started},
        "by_messages": by_messages,
        "by_epochs": by_epochs,
    }
    target = arguments.results / f"{now:%Y-%m-%d}-growth.json"
    write_record(target, record)
    target.with_suffix(".svg").write_text(draw_messages(growing), encoding="utf-8")
    epochs = draw_epochs(repeated, fitted, arguments.epochs_at)
    target.with_name(f"{target.stem}-epochs.svg").write_text(epochs, encoding="utf-8")
    for run in (*by_messages, *by_epochs):
        print(", ".join(f"{name} {value:.4g}" for name, value in run.items()))
    for words, value in powers.items():
        print(f"{words}: seconds grow with the power {value:.2f} of the messages")
    print(
        f"training on {arguments.epochs_at:,} messages: {fitted['intercept']:.2f} s and {fitted['slope']:.2f} s "
        f"an epoch, off by {fitted['largest_deviation_percent']:.1f}% at most"
    )
    print(
        f"a demo row beyond its arithmetic: {statistics.median(started):.2f} s, "
        f"the median of {', '.join(f'{seconds:.2f}' for seconds in started)}"
    )


if __name__ == "__main__":
    main()
