"""Try the same settings for every row, choose on validation, and test what was chosen.

First every try is trained and validated, without a look at test. Then each row gets the setting with the best mean
over the seeds; the choice is written to the ledger, the runs of the chosen setting alone are tested, from their
checkpoints, and the checkpoints of the others are removed. Killed at any time, the next call goes on and chooses the
same. A seed or a setting that is added later may change the choice: the test was looked at once more then, and ledger
and table say so.

A try that is the row as its file says is the row's own run, which is tested anyway, to stand beside the chosen one. A
row that has nothing to try, such as a baseline, is run as its file says.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any

from ftkit.ablation.folder import Row, Run
from ftkit.ablation.identity import flatten
from ftkit.ablation.ledger import Entry, Ledger
from ftkit.ablation.result import Result
from ftkit.ablation.runner import Summary, SweepRunner
from ftkit.ablation.search import Search
from ftkit.ablation.setting import Setting, short_setting
from ftkit.ablation.sweep import choices, write_description
from ftkit.errors import InputError
from ftkit.run_folder import RESULT_FILE
from ftkit.storage import key_of

Plans = dict[Run, dict[str, Any] | str]


def tune(search: Search, sweep: SweepRunner, rows: Sequence[Row], seeds: Sequence[int], force: bool) -> Summary:
    """Search, choose and test; see :func:`ftkit.ablation.runner.run`."""
    there = {row.number for row in sweep.ablation.rows}
    if unknown := [number for number in search.rows if number not in there]:
        raise InputError("there is no such row", file=search.file, field="rows", got=unknown[0])
    sweep.begin()
    tuned = [_TunedRow(sweep, search, row, seeds) for row in rows]
    plain = [run for row in tuned for run in row.plain()]
    proposed = {row: row.propose() for row in tuned}
    known: Plans = {}
    while any(proposed.values()):
        plans = _planned(sweep, search, [run for row in tuned for run in row.runs(proposed[row])])
        if not known:  # every config of a grid is checked before the first run
            write_description(sweep.out, sweep.ablation)
        known |= plans
        stale = {run: plan for run, plan in plans.items() if _lacks_metric(sweep.ledger, search, run)}
        sweep.make(stale, True, ("fit",), search.value)
        fresh = {run: plan for run, plan in plans.items() if run not in stale}
        sweep.make(fresh, force, ("fit",), search.value)
        proposed = {row: row.propose() for row in tuned}
    tests = [run for row in tuned for run in row.choose()]
    untested = {run: known[run] for run in tests if not sweep.ledger.is_done(run.id)}
    sweep.expect(len(untested))
    sweep.make(untested, False, ("test",))
    tried = {row.row for row in tuned if row.settings}
    plans = sweep.plan([run for run in plain if run not in known and (search.untuned or run.row not in tried)])
    write_description(sweep.out, sweep.ablation)
    sweep.make(plans, force)
    chosen = {row.row for row in tuned if row.chosen is not None}
    for run in [run for run in sweep.summary.failed if run in known and run.row in chosen and run not in tests]:
        del sweep.summary.failed[run]  # a try that failed is one that was not chosen
    sweep.tell("end")
    return sweep.summary


def _planned(sweep: SweepRunner, search: Search, runs: Sequence[Run]) -> Plans:
    try:
        return sweep.plan(runs)
    except InputError as error:
        fix = "an option that a row does not have is left out of it with `rows: {NUMBER: {OPTION: null}}`"
        raise InputError(f"{error}; {fix}", file=search.file) from error


def _lacks_metric(ledger: Ledger, search: Search, run: Run) -> bool:
    """Return whether a row's own run was made without a search, so that its test alone is known."""
    if run.setting or not ledger.is_done(run.id):
        return False
    try:
        search.value(Result.read(ledger.directory / run.id / RESULT_FILE))
    except InputError:
        return True
    return False


class _TunedRow:
    """One row while it is tuned."""

    def __init__(self, sweep: SweepRunner, search: Search, row: Row, seeds: Sequence[int]) -> None:
        self.sweep, self.search, self.row = sweep, search, row
        earlier = (entry.seed for entry in _tries(sweep.ledger, row) if entry.status in ("fitted", "done"))
        self.seeds = sorted({*seeds, *earlier})
        self.settings: list[Setting] = []
        self.chosen: Setting | None = None
        self.written: Mapping[str, Any] = {}
        search.space(row.number)

    def plain(self) -> list[Run]:
        """Return the runs of the row as its file says, and note what that is.

        Raises:
            InputError: The row has no use for an option that is tried.
        """
        runs = [Run(self.row, seed) for seed in self.seeds]
        identity = self.sweep.identity(runs[0])
        if not isinstance(identity, str):
            self.written = flatten(identity.get("config") or {})
        for path in self.search.space(self.row.number):
            level, _, option = path.rpartition(".")
            trainable = self.written.get(f"{level}.trainable")
            if option.startswith("lora_") and trainable is not None and trainable != "lora":
                raise self._refusal(path, f"it has no LoRA (trainable: {trainable})")
            adapter, _, inside = level.rpartition(".")
            if inside == "init_args" and adapter.endswith(".adapter") and f"{adapter}.class_path" not in self.written:
                raise self._refusal(path, "it has no adapter")
        return runs

    def propose(self) -> list[Setting]:
        """Return what to try next, and note it; the row as its file says is the empty setting."""
        values = [self.value(setting) for setting in self.settings]
        found = [self._known(setting) for setting in self.search.propose(self.row.number, values)]
        self.settings += found
        return found

    def _known(self, setting: Setting) -> Setting:
        nowhere = object()
        return () if all(self.written.get(path, nowhere) == value for path, value in setting) else setting

    def runs(self, settings: Iterable[Setting]) -> list[Run]:
        """Return the runs of settings."""
        return [Run(self.row, seed, setting) for setting in dict.fromkeys(settings) for seed in self.seeds]

    def value(self, setting: Setting) -> float | None:
        """Return the mean over the seeds of what decides; None where a seed failed or has no finite value."""
        known = [value for value in self._values(setting) if value is not None]
        return fmean(known) if len(known) == len(self.seeds) else None

    def _values(self, setting: Setting) -> list[float | None]:
        """Return what decides, by seed."""
        files = {run.id: self.sweep.out / run.id / RESULT_FILE for run in self.runs([setting])}
        return [
            self.search.value(Result.read(file, tested=False))
            if self.sweep.ledger.is_done(run, "fitted", "done")
            else None
            for run, file in files.items()
        ]

    def choose(self) -> list[Run]:
        """Choose, write it down, remove the checkpoints of the others, and return the runs that are to be tested."""
        values = {setting: self.value(setting) for setting in self.settings}
        self.chosen = self.search.best(values)
        if self.chosen is None:
            return []
        self._record(self.chosen, values)
        also = [()] if self.search.untuned and () in values else []
        tests = self.runs([self.chosen, *also])
        kept = {run.id for run in tests}
        for entry in [*_tries(self.sweep.ledger, self.row), *self._own()]:
            if entry.status == "fitted" and entry.cell not in kept:
                with suppress(FileNotFoundError):
                    shutil.rmtree(self.sweep.out / entry.cell / "checkpoints")
        return tests

    def _own(self) -> list[Entry]:
        entries = self.sweep.ledger.entries
        return [entries[run.id] for run in self.runs([()]) if run.id in entries]

    def _record(self, chosen: Setting, values: Mapping[Setting, float | None]) -> None:
        """Write the choice to the ledger, unless its last word on the row is the same."""
        ledger, place = self.sweep.ledger, Run(self.row, 0, chosen).place
        made_of = {
            "monitor": self.search.monitor,
            "mode": self.search.mode,
            "setting": self._spelled_out(chosen),
            "value": values[chosen],
            "seeds": self.seeds,
            "tries": [[self._spelled_out(setting), self._values(setting)] for setting in values],
        }
        before = choices(ledger, self.row.label)
        if before and (before[-1].cell, before[-1].key) == (place, key_of(made_of)):
            return
        looks = len({place, *(entry.cell for entry in before)})
        reason = f"{self.search.monitor} {values[chosen]:.6g} on validation, best of {len(values)} settings"
        if looks > 1:
            reason += f"; tests looked at: {looks}, for another setting was chosen before"
        ledger.append(Entry(place, self.row.number, self.search.seed, "chosen", key_of(made_of), made_of, "", reason))
        said = short_setting(self._spelled_out(chosen)) or "the row as it is"
        self.sweep.tell("notice", message=f"{self.row.label}: {said} is chosen: {reason}")

    def _spelled_out(self, setting: Setting) -> dict[str, Any]:
        """Return a setting by option; that of the row as its file says with its values."""
        return dict(setting) or {path: self.written.get(path) for path in self.search.space(self.row.number)}

    def _refusal(self, path: str, why: str) -> InputError:
        fix = f"leave it out of this row: rows: {{{self.row.number}: {{{path}: null}}}}"
        return InputError(f"row {self.row.label} does not take it: {why}", file=self.search.file, field=path, fix=fix)


def _tries(ledger: Ledger, row: Row) -> list[Entry]:
    """Return what the ledger says of the tries of a row, besides the row as its file says."""
    parts = ((entry.cell.split("/"), entry) for entry in ledger.entries.values())
    return [entry for cell, entry in parts if len(cell) == 3 and cell[0] == row.label]
