"""An engine that trains nothing: the cell's config says what to score and how to misbehave.

Run as a program (``python fake_engine.py FOLDER OUT``) it is a sweep that can be killed.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.ledger import Ledger
from ftkit.ablation.optuna_study import Pruning
from ftkit.ablation.runner import run
from ftkit.errors import InputError, Pruned, UnavailableError
from ftkit.run_folder import FORMAT


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_before(line: int) -> Iterator[None]:
    """Kill what is run before it writes so many lines to its ledger and one more; it has to come to that."""
    append, written = Ledger.append, 0

    def kill(self: Ledger, entry: Any) -> None:
        nonlocal written
        if written == line:
            raise Killed
        written += 1
        append(self, entry)

    with patch.object(Ledger, "append", kill), pytest.raises(Killed):
        yield


def merge(base: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """Lay ``delta`` over ``base``, key by key."""
    merged = dict(base)
    for key, value in delta.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


class FakeEngine:
    def __init__(self, code: str = "v1", data: str = "d1", base: dict[str, Any] | None = None) -> None:
        self.code, self.data, self.base = code, data, base
        self.ran: list[tuple[str, int]] = []
        self.fitted: list[tuple[str, int]] = []  # by the folder of the row or the setting
        self.tested: list[tuple[str, int]] = []

    def identity(self, configs: Sequence[Path], seed: int) -> dict[str, Any]:
        config: dict[str, Any] = {}
        for path in configs:
            config = merge(config, yaml.safe_load(path.read_text()))
        if "misspelt" in config:
            raise InputError("unknown key", field="misspelt")
        if config.get("offline"):
            raise UnavailableError("the data are not on this machine")
        return {"config": config, "base": self.base, "code": self.code, "data": self.data, "seed": seed}

    def fit(self, configs: Sequence[Path], seed: int, directory: Path, pruning: Pruning | None = None) -> None:
        """Train and validate; ``by_lr`` says how many of 1000 val and of 300 test examples a rate gets right.

        ``curves`` has the validations of a rate, which a pruner sees.
        """
        config = self.identity(configs, seed)["config"]
        self.fitted.append((place_of(directory), seed))
        if config.get("do") == "diverge":
            raise ValueError("the loss went away")
        (directory / "config.yaml").write_text(yaml.safe_dump(config))
        (directory / "checkpoints").mkdir()
        right, correct = config.get("by_lr", {}).get(config["model"].get("lr"), (900, config["correct"]))
        right += config.get("luck", {}).get(seed, 0)
        curve = config.get("curves", {}).get(config["model"].get("lr"), [])
        for number, stops in enumerate(pruned(pruning, curve), start=1):
            if stops:
                left = {"format": FORMAT, "status": "pruned", "validations": {pruning.monitor: curve[:number]}}
                (directory / "result.json").write_text(json.dumps(left))
                raise Pruned(f"stopped at step {10 * number} (validation {number})")
        found = result(correct, seed)
        if pruning is not None:
            found["validations"] = {pruning.monitor: curve}
        found["splits"] = {"val": {"n": 1000, "correct": right, "accuracy": right / 1000}}
        found["metrics"] = {"val": {"val/loss": 1 - right / 1000}}
        (directory / "result.json").write_text(json.dumps(found))
        (directory / "checkpoints/last.ckpt").write_text(str(correct))

    def test(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        """Test the checkpoint."""
        self.tested.append((place_of(directory), seed))
        correct = int((directory / "checkpoints/last.ckpt").read_text())
        kept = json.loads((directory / "result.json").read_text())
        splits = result(correct, seed)["splits"] | kept["splits"]
        (directory / "result.json").write_text(json.dumps(kept | {"splits": splits}))
        config = self.identity(configs, seed)["config"]
        predict(directory / "predictions-test.tsv", correct + seed - 123, config.get("first_wrong", 0))

    def run(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        config = self.identity(configs, seed)["config"]
        self.ran.append((configs[-1].stem, seed))
        (directory / "metrics.csv").write_text("step,loss\n1,0.7\n")
        do = config.get("do")
        if do == "raise":
            raise ValueError("the loss went away")
        if do == "unavailable":
            raise UnavailableError("gpt2-xl is not on this machine")
        if do == "interrupt":
            raise KeyboardInterrupt
        if do == "exit":
            raise SystemExit(143)
        if do == "hang":
            (directory.parents[1] / "hanging").write_text(str(os.getpid()))
            time.sleep(60)
        if do == "die" or (do == "die_once" and not (directory.parents[1] / "died").exists()):
            (directory.parents[1] / "died").touch()
            os._exit(9)
        if do == "dawdle":
            time.sleep(0.03)
        if do == "nothing":
            return
        (directory / "config.yaml").write_text(yaml.safe_dump(config))
        (directory / "result.json").write_text(json.dumps(result(config["correct"], seed) | config.get("result", {})))
        predict(directory / "predictions-test.tsv", config["correct"] + seed - 123, config.get("first_wrong", 0))


def pruned(pruning: Pruning | None, curve: Sequence[float]) -> Iterator[bool]:
    """After each validation but the last, whether a pruner stops."""
    trial = pruning and pruning.trial()
    for number, value in enumerate(curve, start=1) if trial else ():
        trial.report(value, number)
        yield number < len(curve) and trial.should_prune()


def place_of(directory: Path) -> str:
    """The row of a run's folder, or row and setting."""
    of_row = directory.parent.name[:2].isdigit()
    return "/".join(directory.parent.parts[-1 if of_row else -2 :])


def result(correct: int, seed: int, n: int = 300) -> dict[str, Any]:
    """A plausible ``result.json``; a seed above 123 gets that many more test messages right."""
    right = correct + seed - 123
    splits = {"train": (1045, 1000), "val": (149, 147), "test": (n, right)}
    return {
        "format": FORMAT,
        "splits": {name: {"n": n, "correct": k, "accuracy": k / n} for name, (n, k) in splits.items()},
        "seconds": {"fit": time.perf_counter() % 100, "test": 0.5},
        "peak_memory_mb": 500.0 + time.perf_counter() % 100,
        "device": "cpu",
        "parameters": {"trainable": 7089410, "total": 124441346, "names": []},
        "checkpoint_mb": 28.1,
        "seed": seed,
        "data": {"sha256": "d1" * 32, "source": "made-up messages"},
        "base": {"source": "hub", "size": "small"},
    }


def predict(path: Path, correct: int, first_wrong: int, n: int = 300) -> None:
    """Write predictions that are wrong from the example ``first_wrong`` on, as often as it takes."""
    wrong = range(first_wrong, first_wrong + n - correct)
    rows = [f"sms-{index}\tham\t{'spam' if index in wrong else 'ham'}\n" for index in range(n)]
    path.write_text("".join(["id\tlabel\tprediction\n", *rows]))


def make_folder(folder: Path, rows: dict[str, dict[str, Any]], published: str | None = None) -> Path:
    """Write an ablation folder whose base scores 285 of 300."""
    (folder / "rows").mkdir(parents=True)
    (folder / "base.yaml").write_text("correct: 285\nmodel:\n  pooling: last\n")
    for label, delta in rows.items():
        text = f"# What does {label} do?\n{yaml.safe_dump(delta or {'model': {'pooling': 'last'}})}"
        (folder / "rows" / f"{label}.yaml").write_text(text)
    if published is not None:
        (folder / "published.csv").write_text(published)
    return folder


if __name__ == "__main__":
    run(AblationFolder.load(sys.argv[1]), FakeEngine(), Path(sys.argv[2]))
