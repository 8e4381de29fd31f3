"""Execute the runs of a sweep in this process, one after the other."""

import shutil
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ftkit.ablation.folder import Run
from ftkit.ablation.optuna_study import Pruning
from ftkit.ablation.result import Result
from ftkit.errors import FtkitError, Pruned, UnavailableError
from ftkit.run_folder import RESULT_FILE, has_checkpoint


class Engine(Protocol):
    """Training as the runner calls it; the command line supplies an implementation."""

    def identity(self, configs: Sequence[Path], seed: int) -> dict[str, Any]:
        """Return what would be run, as JSON: resolved config without output paths, code, data and seed."""

    def run(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        """Make one run; leave ``result.json`` and the prediction files in ``directory``.

        It goes on from what an interrupted attempt at the same run left there.
        """

    def fit(self, configs: Sequence[Path], seed: int, directory: Path, pruning: Pruning | None = None) -> None:
        """Train and validate alone, without a look at test; leave ``result.json`` and a checkpoint.

        Raises:
            Pruned: ``pruning`` stopped it early.
        """

    def test(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        """Test the checkpoint that ``fit`` left in ``directory``, and add to its ``result.json``."""


Stage = Literal["run", "fit", "test"]


@dataclass(frozen=True)
class Job:
    """A run that is to be made."""

    run: Run
    configs: tuple[Path, ...]  # its config files
    directory: Path  # where it runs; empty, or what an interrupted attempt at the same run left
    stages: tuple[Stage, ...] = ("run",)  # what is done: methods of the engine
    source: Path | None = None  # the finished folder that is copied first, if there is one
    pruning: Pruning | None = None  # what may stop its training early


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job."""

    # skipped if something that the run needs cannot be had; pruned if it was stopped early
    status: Literal["done", "skipped", "failed", "pruned"]
    message: str  # the test accuracy, or why it was skipped, failed or stopped, in a line
    details: str = ""
    seconds: float = 0.0  # how long it took


Executor = Callable[[Engine, Sequence[Job], Callable[[Job], None]], Iterator[tuple[Job, Outcome]]]
"""Runs jobs and yields each when it has ended; calls the third argument when it hands one out."""


def one_by_one(engine: Engine, jobs: Sequence[Job], on_start: Callable[[Job], None]) -> Iterator[tuple[Job, Outcome]]:
    """Run the jobs in this process, in their order."""
    for job in jobs:
        on_start(job)
        yield job, run_job(engine, job)


def run_job(engine: Engine, job: Job) -> Outcome:
    """Run one job; one that is interrupted leaves its checkpoints, if it has any, and the interruption goes on."""
    began = time.monotonic()
    try:
        if job.source is None:
            job.directory.mkdir(parents=True, exist_ok=True)
        else:
            shutil.rmtree(job.directory, ignore_errors=True)
            shutil.copytree(job.source, job.directory)
        for stage in job.stages:
            pruning = {"pruning": job.pruning} if job.pruning and stage == "fit" else {}
            getattr(engine, stage)(job.configs, job.run.seed, job.directory, **pruning)
        result = Result.read(job.directory / RESULT_FILE, tested=job.stages[-1] != "fit")
    except Pruned as stopped:
        shutil.rmtree(job.directory / "checkpoints", ignore_errors=True)
        return Outcome("pruned", str(stopped), seconds=time.monotonic() - began)
    except UnavailableError as error:
        remove_unsaved(job)
        return Outcome("skipped", str(error))
    except Exception as error:  # whatever it is, the other runs continue
        reason = str(error) if isinstance(error, FtkitError) else f"{type(error).__name__}: {error}"
        short = textwrap.shorten(reason, 300, placeholder=" …")
        return Outcome("failed", short, "".join(traceback.format_exception(error)))
    except BaseException:
        remove_unsaved(job)
        raise
    return Outcome("done", _score(result), seconds=time.monotonic() - began)


def remove_unsaved(job: Job) -> None:
    """Remove what a job left, unless the next attempt can go on from a checkpoint in it."""
    if job.source is not None or not has_checkpoint(job.directory):
        shutil.rmtree(job.directory, ignore_errors=True)


def _score(result: Result) -> str:
    """Return the test accuracy, or what a test without predictions has logged; that of validation before a test."""
    if "test" in result.splits:
        return f"test accuracy {result.splits['test'].accuracy:.2%}"
    if not result.metrics and "val" in result.splits:
        return f"validation accuracy {result.splits['val'].accuracy:.2%}"
    return ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
