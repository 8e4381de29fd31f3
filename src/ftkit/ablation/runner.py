"""Make the runs of an ablation that are not finished; killed at any time, the next call continues.

A run works in a hidden folder beside its own, which is renamed into place when it is complete, so a finished
run is never touched again and an unfinished one never looks finished.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ftkit.ablation.executor import Engine, Executor, Job, Outcome, one_by_one
from ftkit.ablation.folder import Ablation, Cell, Row
from ftkit.ablation.identity import changes
from ftkit.ablation.ledger import Entry, Ledger, key_of
from ftkit.ablation.sweep import write_description
from ftkit.errors import EnvironmentFault, ExitCode, InputError, UnavailableError
from ftkit.lock import exclusive
from ftkit.run_folder import RESULT_FILE
from ftkit.storage import sha256_of

ERROR_FILE = "error.txt"
_PARTIAL = ".partial"


@dataclass(frozen=True)
class Event:
    """What happens during a sweep, for those who show it.

    Args:
        kind: ``plan`` and ``end`` frame the sweep; ``reused``, ``start``, ``done``, ``skipped`` and
            ``failed`` are about a run; ``notice`` is a remark.
        message: The remark, the reason, or the figure.
        cell: The cell, if the event is about one.
        index: The cells that are behind us.
        total: The cells of the sweep.
        seconds: How long the cell took.
    """

    kind: Literal["plan", "reused", "start", "done", "skipped", "failed", "notice", "end"]
    message: str = ""
    cell: Cell | None = None
    index: int = 0
    total: int = 0
    seconds: float = 0.0


@dataclass
class Summary:
    """The status of the runs that were asked for; of skipped and failed ones with reasons."""

    directory: Path
    done: list[Cell] = field(default_factory=list)
    reused: list[Cell] = field(default_factory=list)
    skipped: dict[Cell, str] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """Return 4 if a run failed, 3 if all runs were skipped, else 0."""
        if self.failed:
            return ExitCode.TRAINING
        if self.skipped and not self.done and not self.reused:
            return ExitCode.ENVIRONMENT
        return ExitCode.DONE


def run(
    ablation: Ablation,
    engine: Engine,
    out: Path,
    rows: str | None = None,
    overlays: Sequence[Path] = (),
    seeds: Sequence[int] | None = None,
    force: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
    executor: Executor = one_by_one,
) -> Summary:
    """Make the runs that are not finished.

    A run is done when the ledger says so, its ``result.json`` is unchanged, and what would be run now is
    what was run then. Skipped, failed and unfinished runs are tried again.

    Args:
        ablation: The folder that was loaded.
        engine: Trains and tests.
        out: The output folder. It is created.
        rows: A selection such as ``"1-5,10"``; None means all.
        overlays: Config files between the base and the row.
        seeds: One run per row and seed; if not given, the seed that base and overlays say.
        force: Repeat runs even if they are done.
        on_event: Called at each step.
        executor: Executes the runs; here, one after the other, if not given.

    Returns:
        The status of each run.

    Raises:
        InputError: The selection or a config is wrong; nothing was run.
        EnvironmentFault: ``out`` cannot be written, its disk is full, or another process is at work in it.
    """
    chosen = ablation.select(rows)
    seeds = [ablation.seed(chosen, overlays)] if seeds is None else seeds
    cells = [Cell(row, seed) for row in chosen for seed in dict.fromkeys(seeds)]
    with exclusive(out) as notice:
        if notice:
            on_event(Event("notice", notice))
        return _Sweep(ablation, engine, executor, out, overlays, on_event).run(cells, force)


class _Sweep:
    """The state of one call of :func:`run` while it holds the lock."""

    def __init__(
        self,
        ablation: Ablation,
        engine: Engine,
        executor: Executor,
        out: Path,
        overlays: Sequence[Path],
        on_event: Callable[[Event], None],
    ) -> None:
        self.ablation, self.engine, self.executor, self.out, self.overlays = ablation, engine, executor, out, overlays
        self.on_event = on_event
        self.ledger = Ledger(out)
        self.summary = Summary(out)

    def run(self, cells: Sequence[Cell], force: bool) -> Summary:
        for notice in self.ledger.notices:
            self.on_event(Event("notice", notice))
        self._remove_leftovers()
        self.total = len(cells)
        self._tell("plan")
        plans = {cell: self._identity(cell) for cell in cells}  # every config is checked before the first run
        write_description(self.out, self.ablation)
        waiting: dict[Cell, dict[str, Any]] = {}
        for cell, identity in plans.items():
            if isinstance(identity, str):
                self._skip(cell, identity)
            elif not force and self._is_reusable(cell, identity):
                self.summary.reused.append(cell)
                self._tell("reused", cell)
            else:
                waiting[cell] = identity
        self._run_cells(waiting)
        self._tell("end")
        return self.summary

    def _identity(self, cell: Cell) -> dict[str, Any] | str:
        """Return what would be run, or why it cannot be."""
        try:
            identity = self.engine.identity(self._configs(cell.row), cell.seed)
        except UnavailableError as error:
            return str(error)
        except InputError as error:
            raise InputError(f"row {cell.row.label}: {error}") from error
        return json.loads(json.dumps(identity))  # as it will be read back, so that tuples equal lists

    def _configs(self, row: Row) -> list[Path]:
        return self.ablation.configs(row, self.overlays)

    def _is_reusable(self, cell: Cell, identity: Mapping[str, Any]) -> bool:
        entry = self.ledger.entries.get(cell.id)
        if entry is None or entry.status != "done":
            return False
        if entry.key != key_of(identity):
            different = "; ".join(f"{name}: {words}" for name, words in changes(entry.identity, identity).items())
            self._notice(cell, f"is run again because it changed: {different}")
            return False
        if not self.ledger.is_done(cell.id):
            self._notice(cell, f"is run again because its {RESULT_FILE} is missing or was changed")
            return False
        return True

    def _run_cells(self, waiting: Mapping[Cell, dict[str, Any]]) -> None:
        def started(job: Job) -> None:
            self._tell("start", job.cell)
            self._record(job.cell, "started", key=key_of(waiting[job.cell]))

        jobs = [Job(cell, tuple(self._configs(cell.row)), self._workplace(cell)) for cell in waiting]
        for job, outcome in self.executor(self.engine, jobs, started):
            if outcome.status == "done":
                self._finish(job, outcome, waiting[job.cell])
            elif outcome.status == "skipped":
                self._skip(job.cell, outcome.message)
            else:
                self._fail(job, outcome)

    def _workplace(self, cell: Cell) -> Path:
        final = self.out / cell.id
        return final.with_name(f".{final.name}{_PARTIAL}")

    def _finish(self, job: Job, outcome: Outcome, identity: Mapping[str, Any]) -> None:
        self._move_into_place(job)
        done = sha256_of(self.out / job.cell.id / RESULT_FILE)
        self._record(job.cell, "done", key=key_of(identity), identity=identity, result=done)
        self.summary.done.append(job.cell)
        self._tell("done", job.cell, outcome.message, outcome.seconds)

    def _skip(self, cell: Cell, reason: str) -> None:
        if not self.ledger.is_done(cell.id):  # an older result stays valid when data or weights are out of reach today
            self._record(cell, "skipped", reason=reason)
        self.summary.skipped[cell] = reason
        self._tell("skipped", cell, reason)

    def _fail(self, job: Job, outcome: Outcome) -> None:
        """Keep what the run left, and the traceback, where a finished run would be."""
        try:
            job.directory.mkdir(parents=True, exist_ok=True)
            (job.directory / ERROR_FILE).write_text(outcome.details, encoding="utf-8")
        except OSError as fault:
            raise EnvironmentFault(f"cannot be written: {fault.strerror}", file=job.directory / ERROR_FILE) from fault
        self._move_into_place(job)
        reason = outcome.message.replace(str(job.directory), str(self.out / job.cell.id))  # where the files are now
        self._record(job.cell, "failed", reason=reason)
        self.summary.failed[job.cell] = reason
        self._tell("failed", job.cell, reason)

    def _tell(self, kind: Any, cell: Cell | None = None, message: str = "", seconds: float = 0.0) -> None:
        summary = self.summary
        behind = len(summary.done) + len(summary.reused) + len(summary.skipped) + len(summary.failed)
        self.on_event(Event(kind, message, cell, behind, self.total, seconds))

    def _record(self, cell: Cell, status: Any, **more: Any) -> None:
        self.ledger.append(Entry(cell=cell.id, row=cell.row.number, seed=cell.seed, status=status, **more))

    def _notice(self, cell: Cell, message: str) -> None:
        self.on_event(Event("notice", f"{cell} {message}", cell))

    def _move_into_place(self, job: Job) -> None:
        """Replace the run's folder; killed in between, the run is unfinished according to the ledger."""
        final = self.out / job.cell.id
        try:
            if final.exists():
                shutil.rmtree(final)
            job.directory.rename(final)
        except OSError as error:
            raise EnvironmentFault(f"cannot be renamed: {error.strerror}", file=job.directory) from error

    def _remove_leftovers(self) -> None:
        """Remove what a killed sweep left; the lock is ours, so nobody works in it."""
        for leftover in self.out.glob(f"*/.seed-*{_PARTIAL}"):
            shutil.rmtree(leftover)
