"""Run the cells of an ablation that are not done: one after the other, in one process, killed at any time.

A cell runs in a hidden folder beside its own and is renamed into place when it is complete, so a finished
cell is never touched again and a half one never looks finished.
"""

from __future__ import annotations

import json
import shutil
import textwrap
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ftkit.ablation.folder import Ablation, Cell, Row
from ftkit.ablation.identity import changes
from ftkit.ablation.ledger import RESULT_FILE, Entry, Ledger, key_of
from ftkit.ablation.lock import exclusive
from ftkit.ablation.result import Result
from ftkit.ablation.sweep import write_description
from ftkit.errors import EnvironmentFault, ExitCode, FtkitError, InputError, UnavailableError
from ftkit.storage import sha256_of

ERROR_FILE = "error.txt"
_PARTIAL = ".partial"


class Engine(Protocol):
    """What the runner needs to know about training; the command line supplies it."""

    def identity(self, configs: Sequence[Path], seed: int) -> dict[str, Any]:
        """What would be run, as JSON: resolved config without output paths, code, data and seed."""

    def run(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        """Run one cell; leave ``result.json`` and the prediction files in ``directory``."""


@dataclass(frozen=True)
class Event:
    """What happens during a sweep, for those who show it.

    Args:
        kind: ``plan`` and ``end`` frame the sweep; ``reused``, ``start``, ``done``, ``skipped`` and
            ``failed`` tell of a cell; ``notice`` is a remark.
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
    """What became of the cells that were asked for; skipped and failed ones with their reasons."""

    directory: Path
    done: list[Cell] = field(default_factory=list)
    reused: list[Cell] = field(default_factory=list)
    skipped: dict[Cell, str] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """4 if a cell failed, 3 if there was nothing but skipped cells, else 0."""
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
    seeds: Sequence[int] = (123,),
    force: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Summary:
    """Run what is not done yet.

    A cell is done when the ledger says so, its ``result.json`` is unchanged, and what would be run now is
    what was run then. Skipped, failed and unfinished cells are tried again.

    Args:
        ablation: The folder that was loaded.
        engine: Trains and tests one cell.
        out: The output folder. It is created.
        rows: A selection such as ``"1-5,10"``; None means all.
        overlays: Config files between the base and the row.
        seeds: One cell per row and seed.
        force: Run the cells again even if they are done.
        on_event: Called at each step.

    Returns:
        What became of each cell.

    Raises:
        InputError: The selection or a config is wrong; nothing was run.
        EnvironmentFault: ``out`` cannot be written, its disk is full, or another process is at work in it.
    """
    cells = [Cell(row, seed) for row in ablation.select(rows) for seed in dict.fromkeys(seeds)]
    with exclusive(out) as notice:
        if notice:
            on_event(Event("notice", notice))
        return _Sweep(ablation, engine, out, overlays, on_event).run(cells, force)


class _Sweep:
    """The state of one call of :func:`run` while it holds the lock."""

    def __init__(
        self,
        ablation: Ablation,
        engine: Engine,
        out: Path,
        overlays: Sequence[Path],
        on_event: Callable[[Event], None],
    ) -> None:
        self.ablation, self.engine, self.out, self.overlays = ablation, engine, out, overlays
        self.on_event = on_event
        self.ledger = Ledger(out)
        self.summary = Summary(out)

    def run(self, cells: Sequence[Cell], force: bool) -> Summary:
        for notice in self.ledger.notices:
            self.on_event(Event("notice", notice))
        self._remove_leftovers()
        total = len(cells)
        self.on_event(Event("plan", total=total))
        plans = {cell: self._identity(cell) for cell in cells}  # every config is checked before the first cell runs
        write_description(self.out, self.ablation)
        for index, (cell, identity) in enumerate(plans.items()):
            if isinstance(identity, str):
                self._skip(cell, identity, index, total)
            elif not force and self._is_reusable(cell, identity):
                self.summary.reused.append(cell)
                self.on_event(Event("reused", cell=cell, index=index + 1, total=total))
            else:
                self._run_cell(cell, identity, index, total)
        self.on_event(Event("end", index=total, total=total))
        return self.summary

    def _identity(self, cell: Cell) -> dict[str, Any] | str:
        """What would be run, or why it cannot be."""
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

    def _run_cell(self, cell: Cell, identity: Mapping[str, Any], index: int, total: int) -> None:
        self.on_event(Event("start", cell=cell, index=index, total=total))
        self._record(cell, "started", key=key_of(identity))
        final = self.out / cell.id
        directory = final.with_name(f".{final.name}{_PARTIAL}")
        began = time.monotonic()
        try:
            _make_folder(directory)
            self.engine.run(self._configs(cell.row), cell.seed, directory)
            result = Result.read(directory / RESULT_FILE)
        except UnavailableError as error:
            shutil.rmtree(directory)
            self._skip(cell, str(error), index, total)
            return
        except Exception as error:  # whatever it is, the other rows go on
            self._fail(cell, error, directory, index, total)
            return
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        self._move_into_place(cell, directory)
        done = sha256_of(final / RESULT_FILE)
        self._record(cell, "done", key=key_of(identity), identity=identity, result=done)
        self.summary.done.append(cell)
        score = f"test accuracy {result.splits['test'].accuracy:.2%}"
        self.on_event(Event("done", score, cell, index + 1, total, time.monotonic() - began))

    def _skip(self, cell: Cell, reason: str, index: int, total: int) -> None:
        if not self.ledger.is_done(cell.id):  # an older result stays valid when data or weights are out of reach today
            self._record(cell, "skipped", reason=reason)
        self.summary.skipped[cell] = reason
        self.on_event(Event("skipped", reason, cell, index + 1, total))

    def _fail(self, cell: Cell, error: Exception, directory: Path, index: int, total: int) -> None:
        """Keep what the cell left, and the traceback, where a finished cell would be."""
        reason = str(error) if isinstance(error, FtkitError) else f"{type(error).__name__}: {error}"
        reason = textwrap.shorten(reason, 300, placeholder=" …")  # error.txt has all of it
        try:
            (directory / ERROR_FILE).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        except OSError as fault:
            raise EnvironmentFault(f"cannot be written: {fault.strerror}", file=directory / ERROR_FILE) from error
        self._move_into_place(cell, directory)
        self._record(cell, "failed", reason=reason)
        self.summary.failed[cell] = reason
        self.on_event(Event("failed", reason, cell, index + 1, total))

    def _record(self, cell: Cell, status: Any, **more: Any) -> None:
        self.ledger.append(Entry(cell=cell.id, row=cell.row.number, seed=cell.seed, status=status, **more))

    def _notice(self, cell: Cell, message: str) -> None:
        self.on_event(Event("notice", f"{cell} {message}", cell))

    def _move_into_place(self, cell: Cell, directory: Path) -> None:
        """Replace the cell's folder; killed in between, the cell is unfinished, for so says the ledger."""
        final = self.out / cell.id
        try:
            if final.exists():
                shutil.rmtree(final)
            directory.rename(final)
        except OSError as error:
            raise EnvironmentFault(f"cannot be renamed: {error.strerror}", file=directory) from error

    def _remove_leftovers(self) -> None:
        """What a killed run left; the lock is ours, so nobody works in it."""
        for leftover in self.out.glob(f"*/.seed-*{_PARTIAL}"):
            shutil.rmtree(leftover)


def _make_folder(directory: Path) -> None:
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise EnvironmentFault(f"cannot be created: {error.strerror}", file=directory) from error
