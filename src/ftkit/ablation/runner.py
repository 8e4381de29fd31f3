"""Make the runs of an ablation that are not finished; killed at any time, the next call continues.

A run works in a hidden folder beside its own, which is renamed into place when it is complete, so a finished
run is never touched again and an unfinished one never looks finished. The next call goes on from the checkpoints of an
unfinished run if what would be run is unchanged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from ftkit.ablation.description import write_description
from ftkit.ablation.executor import Engine, Executor, Job, Outcome, Stage, one_by_one
from ftkit.ablation.folder import AblationFolder, Row, Run
from ftkit.ablation.identity import PRUNER, changes, in_words
from ftkit.ablation.ledger import Entry, Ledger, Status
from ftkit.ablation.optuna_study import Pruning
from ftkit.ablation.progress import Event, Summary
from ftkit.ablation.result import Result
from ftkit.ablation.setting import nested
from ftkit.errors import EnvironmentFault, InputError, UnavailableError
from ftkit.lock import exclusive
from ftkit.run_folder import RESULT_FILE, has_checkpoint
from ftkit.storage import atomic_write, key_of, sha256_of

ERROR_FILE = "error.txt"
SETTING_FILE = "setting.yaml"  # in the folder of a setting: what is laid over the row's file
_PARTIAL = ".partial"


def run(
    ablation: AblationFolder,
    engine: Engine,
    out: Path,
    rows: str | None = None,
    overlays: Sequence[Path] = (),
    seeds: Sequence[int] | None = None,
    force: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
    executor: Executor = one_by_one,
    tune: Tune | None = None,
    plan: Callable[[Ledger, Sequence[int]], str] | None = None,
) -> Summary:
    """Make the runs that are not finished, as :class:`ftkit.ablation_runs.Ablation` describes.

    A run is done when the ledger says so, its ``result.json`` is unchanged, and what would be run now is
    what was run then. Skipped, failed and unfinished runs are tried again. What ``plan`` says of ledger and seeds is
    told first.

    Raises:
        InputError: The selection or a config is wrong; nothing was run.
        EnvironmentFault: ``out`` cannot be written, its disk is full, or another process is at work in it.
    """
    chosen = ablation.select(rows)
    seeds = list(dict.fromkeys([ablation.seed(chosen, overlays)] if seeds is None else seeds))
    with exclusive(out) as notice:
        if notice:
            on_event(Event("notice", notice))
        sweep = SweepRunner(ablation, engine, executor, out, overlays, on_event)
        if plan is not None:
            on_event(Event("notice", plan(sweep.ledger, seeds)))
        if tune is not None:
            return tune(sweep, chosen, seeds, force)
        return sweep.run([Run(row, seed) for row in chosen for seed in seeds], force)


@dataclass(eq=False)
class SweepRunner:
    """The state of one call of :func:`run` while it holds the lock."""

    ablation: AblationFolder
    engine: Engine
    executor: Executor
    out: Path
    overlays: Sequence[Path]
    on_event: Callable[[Event], None]
    total: int = 0  # runs of the sweep

    def __post_init__(self) -> None:
        self.ledger, self.summary = Ledger(self.out), Summary(self.out)

    def run(self, runs: Sequence[Run], force: bool) -> Summary:
        """Make the runs."""
        self.begin()
        plans = self.plan(runs)  # every config is checked before the first run
        write_description(self.out, self.ablation)
        self.make(plans, force)
        self.tell("end")
        return self.summary

    def begin(self) -> None:
        """Say what is wrong with the ledger, and remove what a killed sweep left, but for runs to go on from."""
        for notice in self.ledger.notices:
            self.on_event(Event("notice", notice))
        self._remove_leftovers()

    def expect(self, runs: int) -> None:
        """Tell how many more runs there are."""
        self.total += runs
        self.tell("plan")

    def plan(self, runs: Sequence[Run]) -> dict[Run, dict[str, Any] | str]:
        """Return what would be run, or why it cannot be, by run.

        Raises:
            InputError: A config is wrong; what was written for settings is removed again.
        """
        self.expect(len(runs))
        written: list[Path] = []
        try:
            for run in runs:
                if run.setting and not (file := self.out / run.place / SETTING_FILE).exists():
                    written.append(file.parent)
                    with atomic_write(file) as stream:
                        yaml.safe_dump(nested(run.setting), stream)
            return {run: self.identity(run) for run in runs}
        except InputError:
            for folder in written:
                shutil.rmtree(folder)
            raise

    def make(
        self,
        plans: Mapping[Run, dict[str, Any] | str],
        force: bool,
        stages: tuple[Stage, ...] = ("run",),
        check: Callable[[Result], object] = lambda result: None,
        pruning: Callable[[Run], Pruning | None] = lambda run: None,
    ) -> None:
        """Make the runs of :meth:`plan` that are not finished, or all of them.

        ``check`` is called with the result of each that is made, and what it raises ends the sweep; ``pruning`` tells
        what may stop the training of a run early.
        """
        waiting: list[Job] = []
        for run, identity in plans.items():
            job = self._job(run, stages, pruning(run))
            if isinstance(identity, str):
                self._skip(run, identity)
            elif not force and self._is_reusable(job, identity):
                self.summary.reused.append(run)
                self.tell("reused", run)
            else:
                waiting.append(job)
        if waiting:
            self._execute(waiting, plans, check, force)

    def identity(self, run: Run) -> dict[str, Any] | str:
        """Return what would be run, or why it cannot be.

        Raises:
            InputError: A config is wrong; the row is named.
        """
        try:
            identity = self.engine.identity(self._configs(run), run.seed)
        except UnavailableError as error:
            return str(error)
        except InputError as error:
            problem = str(error).replace(f"{self._configs(run)[-1]}: ", "") if run.setting else str(error)
            raise InputError(f"row {run.row.label}: {problem}") from error
        return json.loads(json.dumps(identity))  # as it will be read back, so that tuples equal lists

    def _configs(self, run: Run) -> list[Path]:
        setting = [self.out / run.place / SETTING_FILE] if run.setting else []
        return [*self.ablation.configs(run.row, self.overlays), *setting]

    def _is_reusable(self, job: Job, identity: Mapping[str, Any]) -> bool:
        run, entry = job.run, self.ledger.entries.get(job.run.id)
        enough: tuple[Status, ...] = ("done", "fitted", "pruned") if job.stages[-1] == "fit" else ("done",)
        if entry is None or entry.status not in enough:
            return False
        if entry.status == "pruned":
            identity = _with_pruner(job, identity)
        if entry.key != key_of(identity):
            why = f"it changed: {in_words(changes(entry.identity, identity))}"
        elif not self.ledger.is_done(run.id, *enough):
            why = f"its {RESULT_FILE} is missing or was changed"
        else:
            return True
        self.on_event(Event("notice", f"{run} is run again because {why}", run))
        return False

    def _execute(
        self, jobs: Sequence[Job], plans: Mapping[Run, Any], check: Callable[[Result], object], force: bool
    ) -> None:
        def started(job: Job) -> None:
            self.tell("start", job.run)
            key, before = key_of(_with_pruner(job, plans[job.run])), self._begun(job.run.id)
            if force or before is None or before.key != key:
                shutil.rmtree(job.directory, ignore_errors=True)
            if job.source is None:  # else what was fitted stays so until the test is done
                self._record(job.run, "started", key=key)

        for job, outcome in self.executor(self.engine, jobs, started):
            if outcome.status == "done":
                self._keep(job, "fitted" if job.stages[-1] == "fit" else "done", plans[job.run])
                self.summary.done.append(job.run)
                self.tell("done", job.run, outcome.message, outcome.seconds)
                check(Result.read(self.out / job.run.id / RESULT_FILE, tested=False))
            elif outcome.status == "pruned":
                self._keep(job, "pruned", _with_pruner(job, plans[job.run]), reason=outcome.message)
                self.summary.pruned[job.run] = outcome.message
                self.tell("pruned", job.run, outcome.message, outcome.seconds)
            elif outcome.status == "skipped":
                self._skip(job.run, outcome.message)
            else:
                self._fail(job, outcome)

    def _job(self, run: Run, stages: tuple[Stage, ...], pruning: Pruning | None) -> Job:
        """Return what is done for a run; a test whose checkpoint is not there any more begins with the training."""
        final, source = self.out / run.id, None
        if stages == ("test",):
            stages, source = (stages, final) if has_checkpoint(final) else (("fit", "test"), None)
        return Job(run, tuple(self._configs(run)), _partial(final), stages, source, pruning)

    def _keep(self, job: Job, status: Status, identity: Mapping[str, Any], **more: str) -> None:
        """Put what a run left into its place, and write it to the ledger."""
        self._move_into_place(job)
        result = sha256_of(self.out / job.run.id / RESULT_FILE)
        self._record(job.run, status, key=key_of(identity), identity=identity, result=result, **more)

    def _skip(self, run: Run, reason: str) -> None:
        # An older result stays valid when data or weights are out of reach today, and so does what a run saved.
        saved = self._begun(run.id) is not None and has_checkpoint(_partial(self.out / run.id))
        if not saved and not self.ledger.is_done(run.id, "done", "fitted", "pruned"):
            self._record(run, "skipped", reason=reason)
        self.summary.skipped[run] = reason
        self.tell("skipped", run, reason)

    def _fail(self, job: Job, outcome: Outcome) -> None:
        """Keep what the run left, and the traceback, where a finished run would be."""
        with atomic_write(job.directory / ERROR_FILE) as file:
            file.write(outcome.details)
        self._move_into_place(job)
        reason = outcome.message.replace(str(job.directory), str(self.out / job.run.id))  # where the files are now
        self._record(job.run, "failed", reason=reason)
        self.summary.failed[job.run] = reason
        self.tell("failed", job.run, reason)

    def tell(self, kind: Any, run: Run | None = None, message: str = "", seconds: float = 0.0) -> None:
        """Tell of an event."""
        self.on_event(Event(kind, message, run, self.summary.total, self.total, seconds))

    def _record(self, run: Run, status: Any, **more: Any) -> None:
        self.ledger.append(Entry(cell=run.id, row=run.row.number, seed=run.seed, status=status, **more))

    def _move_into_place(self, job: Job) -> None:
        """Replace the run's folder; killed in between, the run is unfinished according to the ledger."""
        final = self.out / job.run.id
        try:
            if final.exists():
                shutil.rmtree(final)
            job.directory.rename(final)
        except OSError as error:
            raise EnvironmentFault(f"cannot be renamed: {error.strerror}", file=job.directory) from error

    def _remove_leftovers(self) -> None:
        """Remove what a killed sweep left and cannot go on from; the lock is ours, so nobody works in it."""
        labels = {row.label for row in self.ablation.rows}
        for leftover in (*self.out.glob(f"*/.seed-*{_PARTIAL}"), *self.out.glob(f"*/*/.seed-*{_PARTIAL}")):
            place = leftover.parent.relative_to(self.out)
            begun = self._begun(f"{place}/{leftover.name[1 : -len(_PARTIAL)]}") is not None
            if leftover.is_symlink():
                leftover.unlink()
            elif not (begun and place.parts[0] in labels and has_checkpoint(leftover)):
                shutil.rmtree(leftover)

    def _begun(self, run_id: str) -> Entry | None:
        """Return the last entry of a run that was begun and has not ended; None of any other."""
        entry = self.ledger.entries.get(run_id)
        return entry if entry is not None and entry.status == "started" else None


def _partial(final: Path) -> Path:
    """Return where a run works until it is finished."""
    return final.with_name(f".{final.name}{_PARTIAL}")


def _with_pruner(job: Job, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a run that a pruner watches, which another pruner or metric might stop elsewhere."""
    pruning = job.pruning
    watched = {PRUNER: {**pruning.pruner, "monitor": pruning.monitor, "mode": pruning.mode}} if pruning else {}
    return {**identity, **watched}


Tune = Callable[[SweepRunner, Sequence[Row], Sequence[int], bool], Summary]
"""Makes the runs of rows and seeds in a way of its own; the last argument is ``force``."""
