"""Ctrl-C in a sweep at many moments, also where Python drops the exception."""

import io
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from fake_engine import FakeEngine, make_folder
from ftkit.ablation_runs import Ablation
from ftkit.report.sweep_progress import SweepProgress

ROWS = 30


class Dropping:
    """An object that is long in its destructor, where a KeyboardInterrupt is printed and dropped."""

    def __del__(self) -> None:
        end = time.monotonic() + 0.004
        while time.monotonic() < end:
            pass


class DroppingEngine(FakeEngine):
    """Spends most of its time in destructors, or none."""

    def __init__(self, drops: bool) -> None:
        super().__init__()
        self.drops = drops

    def run(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        for _ in range(5):
            _ = Dropping() if self.drops else time.sleep(0.004)
        super().run(configs, seed, directory)


def done(out: Path) -> int:
    return len(list(out.glob("*/seed-123/result.json")))


def interrupt(out: Path, runs: int, delay: float) -> None:
    while done(out) < runs:
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(8))
def test_it_stops_and_says_how_to_go_on(seed: int, tmp_path: Path) -> None:
    ablation = Ablation(make_folder(tmp_path / "abl", {f"{n:02}_row": {} for n in range(1, ROWS + 1)}), out=tmp_path)
    progress = SweepProgress(Console(file=io.StringIO()))
    moment, handler = random.Random(seed), signal.getsignal(signal.SIGINT)
    waiting = Thread(target=interrupt, args=(tmp_path, moment.randint(1, 9), moment.uniform(0, 0.02)))
    waiting.start()
    with pytest.raises(KeyboardInterrupt):
        ablation.run(engine=DroppingEngine(drops=seed % 4 != 0), progress=progress)
    waiting.join()
    assert signal.getsignal(signal.SIGINT) is handler
    made = done(tmp_path)
    assert 1 <= made < ROWS
    assert isinstance(progress.console.file, io.StringIO)
    counted = progress.console.file.getvalue().count("\ndone ")
    last = progress.console.file.getvalue().splitlines()[-1]
    assert last == f"stopped  {counted} of {ROWS} runs are done; run the same command to go on"
    assert made - counted in (0, 1)  # one that was in place and perhaps recorded, but not told
    engine = FakeEngine()
    ablation.run(engine=engine, progress=SweepProgress(Console(file=io.StringIO())))
    assert (ROWS - len(engine.ran), done(tmp_path)) in ((counted, ROWS), (made, ROWS))
    assert not list(tmp_path.glob("*/.seed-*"))


class Translating(FakeEngine):
    """Has trained, and is told to end in a library that makes an error of its own of it."""

    def run(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        (directory / "checkpoints").mkdir()
        (directory / "checkpoints/last.ckpt").touch()
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            raise RuntimeError("failed to write") from None


def test_what_was_saved_is_kept_where_a_library_makes_an_error_of_the_signal(tmp_path: Path) -> None:
    ablation = Ablation(make_folder(tmp_path / "abl", {"01_row": {}}), out=tmp_path / "out")
    with pytest.raises(SystemExit, match="143"):
        ablation.run(engine=Translating(), progress=SweepProgress(Console(file=io.StringIO())))
    assert [file.name for file in tmp_path.glob("out/01_row/.seed-*/checkpoints/*")] == ["last.ckpt"]
