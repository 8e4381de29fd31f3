"""Try the same settings for every row, choose on validation, and test what was chosen.

First every try is trained and validated, without a look at test. Then each row gets the setting with the best mean
over the seeds; the choice is written to the ledger, the runs of the chosen setting alone are tested, from their
checkpoints, and the checkpoints of the others are removed. Killed at any time, the next call goes on and chooses the
same. A seed or a setting that is added later may change the choice: the test was looked at once more then, and ledger
and table say so.

A pruner stops a training whose validation promises too little beside that of the settings tried before, with the same
seed. The settings of a row are then tried one after the other, so that what each is compared with does not depend on
what happens to end first. A setting that was stopped with some seed is a try, and is not chosen.

A try that is the row as its file says is the row's own run, which is tested anyway, to stand beside the chosen one. A
row that has nothing to try, such as a baseline, is run as its file says.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any

from ftkit.ablation.description import write_description
from ftkit.ablation.folder import Row, Run
from ftkit.ablation.identity import flatten
from ftkit.ablation.ledger import Entry, Ledger
from ftkit.ablation.optuna_study import Pruning, new_pruner
from ftkit.ablation.progress import Summary
from ftkit.ablation.result import Result
from ftkit.ablation.runner import SweepRunner
from ftkit.ablation.search import Search
from ftkit.ablation.setting import Setting, short_setting
from ftkit.ablation.sweep import choices
from ftkit.errors import InputError
from ftkit.run_folder import RESULT_FILE, read_result
from ftkit.storage import key_of

Plans = dict[Run, dict[str, Any] | str]


def tune(search: Search, sweep: SweepRunner, rows: Sequence[Row], seeds: Sequence[int], force: bool) -> Summary:
    """Search, choose and test; see :func:`ftkit.ablation.runner.run`."""
    if search.pruner is not None:
        new_pruner(search.pruner, search.file)
    sweep.begin()
    tuned = [_TunedRow(sweep, search, row, seeds) for row in rows]
    of_row = {row.row: row for row in tuned}
    plain = [run for row in tuned for run in row.plain()]
    proposed = {row: row.propose() for row in tuned}
    known: Plans = {}
    while any(proposed.values()):
        plans = _planned(sweep, search, [run for row in tuned for run in row.runs(proposed[row])])
        if not known:  # every config of a grid is checked before the first run
            write_description(sweep.out, sweep.ablation)
        known |= plans
        for runs in _rounds(search, proposed):
            stale = {run: plans[run] for run in runs if _lacks_metric(sweep.ledger, search, run)}
            fresh = {run: plans[run] for run in runs if run not in stale}
            for some, again in ((stale, True), (fresh, force)):
                sweep.make(some, again, ("fit",), search.value, lambda run: of_row[run.row].pruning(run))
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
    for run in [run for row in tuned for run in row.stopped_in_vain()]:
        sweep.summary.fail(run, "stopped early, as was or failed some seed of every setting: none could be chosen")
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
        space = self.search.space(self.row.number)
        for path in space:
            self._check(path, space)
        return runs

    def _check(self, path: str, space: Mapping[str, Any]) -> None:
        level, _, option = path.rpartition(".")
        trainable = self.written.get(f"{level}.trainable")
        if option.startswith("lora_") and trainable is not None and trainable != "lora":
            raise self._refusal(path, f"it has no LoRA (trainable: {trainable})")
        owner, _, inside = level.rpartition(".")
        if inside == "init_args" and owner.endswith(".adapter") and f"{owner}.class_path" not in self.written:
            raise self._refusal(path, "it has no adapter")
        outer, _, part = owner.rpartition(".")
        own, name = f"{outer}.search", f"{part}__{option}"
        if own not in space and any(known.startswith(f"{own}.{name}.") for known in self.written):
            otherwise = f", or switch that off: {own}: [null]"
            raise self._refusal(path, f"its own `search` chooses {name} on validation", otherwise)

    def propose(self) -> list[Setting]:
        """Return what to try next, and note it; the row as its file says is the empty setting."""
        values = [_mean(self._values(setting, stopped=True)) for setting in self.settings]
        found = [self._known(setting) for setting in self.search.propose(self.row.number, values)]
        self.settings += found
        return found

    def _known(self, setting: Setting) -> Setting:
        nowhere = object()
        return () if all(self.written.get(path, nowhere) == value for path, value in setting) else setting

    def runs(self, settings: Iterable[Setting]) -> list[Run]:
        """Return the runs of settings."""
        return [Run(self.row, seed, setting) for setting in dict.fromkeys(settings) for seed in self.seeds]

    def _values(self, setting: Setting, stopped: bool = False) -> list[float | None]:
        """Return what decides, by seed; None where one failed or is not finite.

        Of a run that was stopped early it is the last validation, if that is asked for, or else None.
        """
        return [self._value(run, stopped) for run in self.runs([setting])]

    def _value(self, run: Run, stopped: bool) -> float | None:
        file = self.sweep.out / run.id / RESULT_FILE
        if self.sweep.ledger.is_done(run.id, "fitted", "done"):
            return self.search.value(Result.read(file, tested=False))
        return self._validations(run)[-1] if stopped and self._is_pruned(run) else None

    def _validations(self, run: Run) -> list[float | None]:
        """Return what the validations of a run came to; none where no pruner watched that metric."""
        result = read_result(self.sweep.out / run.id / RESULT_FILE)
        return result.get("validations", {}).get(self.search.monitor, [])

    def _is_pruned(self, run: Run) -> bool:
        return self.sweep.ledger.is_done(run.id, "pruned")

    def pruning(self, run: Run) -> Pruning | None:
        """Return what may stop a run early; None if nothing may, as where the row as its file says is shown beside."""
        if self.search.pruner is None or (self.search.untuned and not run.setting):
            return None
        before = [Run(self.row, run.seed, setting) for setting in self.settings[: self.settings.index(run.setting)]]
        ledger = self.sweep.ledger
        values = [
            (ledger.is_done(one.id, "fitted", "done"), self._validations(one))
            for one in dict.fromkeys(before)
            if ledger.is_done(one.id, "fitted", "done", "pruned")
        ]
        return Pruning(self.search.pruner, self.search.monitor, self.search.mode, values)

    def stopped_in_vain(self) -> list[Run]:
        """Return the runs that were stopped early if nothing was left to choose."""
        return [run for run in self.runs(self.settings) if self.chosen is None and self._is_pruned(run)]

    def choose(self) -> list[Run]:
        """Choose, write it down, remove the checkpoints of the others, and return the runs that are to be tested."""
        values = {setting: _mean(self._values(setting)) for setting in self.settings}
        self.chosen = self.search.best(values)
        if self.chosen is None:
            return []
        self._record(self.chosen, values)
        also = [()] if self.search.untuned and () in values else []
        tests = self.runs([self.chosen, *also])
        kept = {run.id for run in tests}
        entries = self.sweep.ledger.entries
        own = [entries[run.id] for run in self.runs([()]) if run.id in entries]
        for entry in [*_tries(self.sweep.ledger, self.row), *own]:
            if entry.status == "fitted" and entry.cell not in kept:
                with suppress(FileNotFoundError):
                    shutil.rmtree(self.sweep.out / entry.cell / "checkpoints")
        return tests

    def _record(self, chosen: Setting, values: Mapping[Setting, float | None]) -> None:
        """Write the choice to the ledger, unless its last word on the row is the same."""
        ledger, place = self.sweep.ledger, Run(self.row, 0, chosen).place
        stopped = [setting for setting in values if any(map(self._is_pruned, self.runs([setting])))]
        made_of = {
            "monitor": self.search.monitor,
            "mode": self.search.mode,
            "setting": self._spelled_out(chosen),
            "value": values[chosen],
            "seeds": self.seeds,
            "tries": [[self._spelled_out(setting), self._values(setting)] for setting in values],
            **({"pruned": list(map(self._spelled_out, stopped))} if stopped else {}),
        }
        before = choices(ledger, self.row.label)
        if before and (before[-1].cell, before[-1].key) == (place, key_of(made_of)):
            return
        looks = len({place, *(entry.cell for entry in before)})
        reason = f"{self.search.monitor} {values[chosen]:.6g} on validation, best of {len(values)} settings"
        if stopped:
            reason += f", of which {len(stopped)} were stopped early"
        if looks > 1:
            reason += f"; tests looked at: {looks}, for another setting was chosen before"
        ledger.append(Entry(place, self.row.number, self.search.seed, "chosen", key_of(made_of), made_of, "", reason))
        said = short_setting(self._spelled_out(chosen)) or "the row as it is"
        self.sweep.tell("notice", message=f"{self.row.label}: {said} is chosen: {reason}")

    def _spelled_out(self, setting: Setting) -> dict[str, Any]:
        """Return a setting by option; that of the row as its file says with its values."""
        return dict(setting) or {path: self.written.get(path) for path in self.search.space(self.row.number)}

    def _refusal(self, path: str, why: str, otherwise: str = "") -> InputError:
        fix = f"leave it out of this row: rows: {{{self.row.number}: {{{path}: null}}}}{otherwise}"
        return InputError(f"row {self.row.label} does not take it: {why}", file=self.search.file, field=path, fix=fix)


def _rounds(search: Search, proposed: Mapping[_TunedRow, Sequence[Setting]]) -> list[list[Run]]:
    """Return the runs of what rows try, in rounds of runs that do not depend on each other."""
    if search.pruner is None:
        return [[run for row, settings in proposed.items() for run in row.runs(settings)]]
    most = max(map(len, proposed.values()))
    return [[run for row, some in proposed.items() for run in row.runs(some[at : at + 1])] for at in range(most)]


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None where a value is missing."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _tries(ledger: Ledger, row: Row) -> list[Entry]:
    """Return what the ledger says of the tries of a row, besides the row as its file says."""
    parts = ((entry.cell.split("/"), entry) for entry in ledger.entries.values())
    return [entry for cell, entry in parts if len(cell) == 3 and cell[0] == row.label]
