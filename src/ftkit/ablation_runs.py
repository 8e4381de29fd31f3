"""Run an ablation from Python or the command line; what is wrong with it is said before Lightning is imported."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from ftkit.ablation.description import refuse_other_ablation
from ftkit.ablation.executor import Engine, Executor, Job, Outcome, one_by_one, remove_unsaved
from ftkit.ablation.folder import AblationFolder, Run
from ftkit.ablation.ledger import Ledger
from ftkit.ablation.planned import write_plan
from ftkit.ablation.progress import Event, Summary
from ftkit.ablation.ray_executor import on_ray
from ftkit.ablation.runner import ERROR_FILE, run
from ftkit.ablation.search import Search
from ftkit.ablation.setting import Setting
from ftkit.ablation.tuning import tune
from ftkit.config_files import read_config
from ftkit.errors import EnvironmentFault, ExitCode, TrainingFailed
from ftkit.library_output import check_before_imports
from ftkit.plan.sweep import SweepPlanner
from ftkit.report.sweep_progress import SweepProgress
from ftkit.run_folder import RUNS


class Ablation:
    """An ablation folder that is run from Python, as ``ftkit ablation run`` does.

    Args:
        folder: A folder with ``base.yaml`` and ``rows/``.
        overlays: Config files applied between the base and each row, such as ``demo.yaml``.
        rows: The rows to run, such as ``1-5,10``; all of them if not given.
        out: Where the results go, for :func:`ftkit.read_results`; ``runs/FOLDER`` if not given.

    Raises:
        InputError: A file is missing, misnamed or not YAML, there is no such row, or ``out`` holds another ablation.

    Example:
        >>> study = Ablation("configs/ch06", overlays=["configs/ch06/demo.yaml"], rows="1-3")  # doctest: +SKIP
        >>> study.run(seeds=[123, 124]).done  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | Path,
        overlays: Sequence[str | Path] = (),
        rows: str | None = None,
        out: str | Path | None = None,
    ) -> None:
        self.folder, self.overlays, self.rows = AblationFolder.load(folder), [Path(path) for path in overlays], rows
        self.folder.select(rows)
        for path in self.overlays:
            read_config(path)
        self.out = RUNS / Path(folder).resolve().name if out is None else Path(out)
        refuse_other_ablation(self.out, self.folder)

    def run(
        self,
        seeds: Sequence[int] | None = None,
        force: bool = False,
        executor: Literal["here", "ray"] = "here",
        engine: Engine | None = None,
        progress: SweepProgress | None = None,
        search: str | Path | Mapping[str, Any] | None = None,
        settings: Sequence[str] = (),
        plan: str | None = None,
    ) -> Summary:
        """Make the runs that are not done yet; the next call continues where this one was interrupted.

        Args:
            seeds: The seeds to run each row with; if not given, the ``seed_everything`` of base and overlays, or 123.
            force: Run the rows again even if they are done.
            executor: Make the runs one after the other in this process, or distribute them with Ray.
            engine: Trains and tests a run; LightningCLI if not given.
            progress: Shows the progress; a new one on standard error if not given.
            search: Settings to try for each row, of which the best is chosen on validation: a file, or its contents. By
                default ``search.yaml`` in the folder, if it exists.
            settings: More of them, such as ``trainer.max_epochs=3,5``.
            plan: The device that the sweep is planned for first, as of ``ftkit plan``.

        Returns:
            What became of each run.

        Raises:
            InputError: A config is wrong; nothing was run.
            TrainingFailed: A row failed; the others were run. The message names the failed ones.
            EnvironmentFault: The output folder is taken or cannot be written, or no row could be run at all.
        """
        sought = Search.find(self.folder, search, settings)
        planner = None if plan is None else SweepPlanner(plan, sought)
        rows = self.folder.select(self.rows)
        check_before_imports(dict.fromkeys(file for row in rows for file in self.folder.configs(row, self.overlays)))
        from ftkit.lightning_engine import LightningEngine

        with progress or SweepProgress() as shown, _Interruption(shown) as watched:
            summary = run(
                self.folder,
                engine or LightningEngine(watched.step),
                self.out,
                self.rows,
                self.overlays,
                seeds,
                force,
                watched,
                watched.around(one_by_one if executor == "here" else on_ray),
                None if sought is None else partial(tune, sought),
                None if planner is None else partial(self._plan, planner, force),
            )
        _refuse_failures(summary)
        return summary

    def _plan(self, planner: SweepPlanner, force: bool, ledger: Ledger, seeds: Sequence[int]) -> str:
        """Plan the sweep, keep the plan in the output folder, and return it in a line."""
        from ftkit.plan.plan import summary, verdict

        rows = {row.label: row for row in self.folder.select(self.rows)}

        def done(label: str, setting: Setting) -> int:
            runs = [] if force else [Run(rows[label], seed, setting) for seed in seeds]
            return sum(ledger.is_done(run.id, "done", "fitted", "pruned") for run in runs)

        configs = {label: self.folder.configs(row, self.overlays) for label, row in rows.items()}
        found, device = planner.plan(configs, len(seeds), done)
        write_plan(self.out, device.name, found)
        return verdict(summary(found, device))


def _refuse_failures(summary: Summary) -> None:
    if summary.exit_code == ExitCode.DONE:
        return
    bad = summary.failed or summary.skipped
    reasons = "".join(f"\n  {one}: {reason}" for one, reason in bad.items())
    runs = f"{summary.total} run{'s' if summary.total > 1 else ''}"
    if summary.failed:
        where = f"{ERROR_FILE} in the folder of each in {summary.directory} says where"
        raise TrainingFailed(f"{len(bad)} of {runs} failed; {where}:{reasons}")
    raise EnvironmentFault(f"nothing could be run of {runs}:{reasons}")


class _Interruption:
    """Stop a sweep at once on Ctrl-C or SIGTERM, also where Python drops the exception, as it does in destructors.

    While a run trains, :class:`ftkit.training.safe_stop.SafeStop` takes the signal: it saves the run first, and the
    next call goes on there.

    Args:
        progress: Takes events and steps; a signal whose exception was dropped is raised at the next step or run.
    """

    def __init__(self, progress: SweepProgress) -> None:
        self._progress = progress
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self, event: Event) -> None:
        if event.kind == "start":
            self._check()
        self._progress(event)

    def step(self, completed: int, total: int) -> None:
        self._check()
        self._progress.step(completed, total)

    def around(self, executor: Executor) -> Executor:
        """Return an executor that does not take a signal for a failure of the run, whatever a library made of it."""

        def execute(
            engine: Engine, jobs: Sequence[Job], on_start: Callable[[Job], None]
        ) -> Iterator[tuple[Job, Outcome]]:
            for job, outcome in executor(engine, jobs, on_start):
                if outcome.status == "failed" and self._received is not None:
                    remove_unsaved(job)
                    self._check()
                yield job, outcome

        return execute

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._check()

    def _check(self) -> None:
        if self._received == signal.SIGTERM:
            raise SystemExit(ExitCode.TERMINATED)
        if self._received is not None:
            raise KeyboardInterrupt
