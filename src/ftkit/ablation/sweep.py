"""Read an output folder back: its rows, runs and figures. Tables and reports start here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.ablation.claims import Claim
from ftkit.ablation.description import DESCRIPTION_FILE
from ftkit.ablation.identity import EXTERNAL
from ftkit.ablation.ledger import Entry, Ledger
from ftkit.ablation.published import Published, PublishedTable
from ftkit.ablation.result import Result
from ftkit.errors import FormatError, InputError
from ftkit.lock import holder_mark
from ftkit.results.metrics import Mode
from ftkit.run_folder import RESULT_FILE, losses_file, predictions_file, refuse_other_format

if TYPE_CHECKING:
    import numpy as np

    from ftkit.ablation.run_answers import RunAnswers


@dataclass(frozen=True)
class RunState:
    """One run as it lies on the disk."""

    seed: int
    directory: Path  # the run's folder
    status: str  # done, fitted, pruned, skipped, failed, running or unfinished
    reason: str = ""  # why, unless it is done
    result: Result | None = None  # the figures, if it is done
    identity: Mapping[str, Any] = field(default_factory=dict)  # what was run, if it is done
    time: str = ""  # when the ledger last spoke of it, in UTC
    setting: str = ""  # the folder of its setting, if it has one of its own

    @property
    def external(self) -> bool:
        """Return whether the run was made elsewhere."""
        return EXTERNAL in self.identity

    @property
    def test_predictions(self) -> Path:
        """Return where its prediction file is, if it left one."""
        return self.directory / predictions_file("test")

    @cached_property
    def answers(self) -> RunAnswers | None:
        """Return the answers to the test examples; None if the run left no prediction file.

        Raises:
            InputError: The prediction file is damaged or does not fit ``result.json``.
        """
        path = self.test_predictions
        from ftkit.ablation.run_answers import read_run_answers  # with scipy, which running a sweep does not need

        counted = None if self.result is None else self.result.splits.get("test")
        return read_run_answers(path, counted) if path.exists() else None

    @cached_property
    def losses(self) -> dict[str, np.ndarray]:
        """Return the losses of held-out texts by their name, see :func:`ftkit.results.forgetting.read_losses`.

        Raises:
            InputError: A file is damaged.
        """
        from ftkit.results.forgetting import read_losses  # with scipy

        before, _, after = losses_file("*").partition("*")
        files = sorted(self.directory.glob(losses_file("*")))
        return {file.name.removeprefix(before).removesuffix(after): read_losses(file) for file in files}


@dataclass(frozen=True)
class Choice:
    """The setting that a search chose for a row, on validation."""

    setting: Mapping[str, Any]  # the chosen values by option
    monitor: str  # the metric that decided
    mode: Mode  # whether its lowest (min) or highest value is the best
    value: float  # its mean over the seeds
    seeds: Sequence[int]
    # Each setting that was tried and its values by seed, None where there is none.
    tries: Sequence[tuple[Mapping[str, Any], Sequence[float | None]]]
    pruned: Sequence[Mapping[str, Any]] = ()  # those that were stopped early with some seed
    looks: int = 1  # for how many settings the test was looked at: more than one if a later search chose another one

    @property
    def results(self) -> list[tuple[Mapping[str, Any], list[float]]]:
        """Return the settings that have a value for every seed, with these values."""
        known = [(setting, [value for value in values if value is not None]) for setting, values in self.tries]
        return [(setting, values) for setting, values in known if len(values) == len(self.seeds)]

    @property
    def edges(self) -> dict[str, str]:
        """Return the options whose chosen number is the ``smallest`` or ``largest`` that was tried."""
        tried = {path: [setting.get(path) for setting, _ in self.tries] for path in self.setting}
        numeric = {path: numbers for path, values in tried.items() if len(set(numbers := only_numbers(values))) > 1}
        ends = {path: (min(numbers), max(numbers)) for path, numbers in numeric.items()}
        found = {path: "smallest" for path, (low, _) in ends.items() if self.setting[path] == low}
        return found | {path: "largest" for path, (_, high) in ends.items() if self.setting[path] == high}


def only_numbers(values: Iterable[Any]) -> list[float]:
    """Return the values that are numbers."""
    return [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


@dataclass(frozen=True)
class SweepRow:
    """One row of the ablation with its runs, by seed; a row without runs was not run."""

    number: int
    name: str
    question: str  # what the row asks
    runs: Sequence[RunState]  # its runs; of a row that was tuned, those of the chosen setting
    published: Published | None
    choice: Choice | None = None  # what a search chose
    untuned: Sequence[RunState] = ()  # of a row that was tuned, the runs as its file says
    tries: Sequence[RunState] = ()  # the runs of settings that were tried and are not, or not yet, chosen

    @property
    def done(self) -> list[RunState]:
        """Return the runs that have figures."""
        return [run for run in self.runs if run.result is not None]

    @property
    def results(self) -> list[Result]:
        """Return these figures."""
        return [run.result for run in self.runs if run.result is not None]


@dataclass(frozen=True)
class Sweep:
    """An output folder that was read."""

    name: str  # the name of the ablation folder
    rows: Sequence[SweepRow]  # all rows of the ablation, run or not
    published: PublishedTable
    ledger: Ledger
    claim: Claim | None = None  # what is claimed about the rows, if anything is

    @property
    def done(self) -> list[RunState]:
        """Return the runs of all rows that have figures."""
        return [run for row in self.rows for run in row.done]

    @property
    def results(self) -> list[Result]:
        """Return these figures."""
        return [result for row in self.rows for result in row.results]


def read_sweep(directory: str | Path) -> Sweep:
    """Read the output folder of ``ftkit ablation run``.

    Raises:
        InputError: It is not such a folder, or a file in it is damaged or of another format.
    """
    directory = Path(directory)
    path = directory / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_bytes())
        refuse_other_format(description.get("format"), path)
        name, published, rows = _parse_description(description)
        claim = Claim(**description["claim"]) if "claim" in description else None
    except OSError:
        fix = "run `ftkit ablation run FOLDER --out DIR` first"
        raise InputError("not the output of an ablation", file=directory, fix=fix) from None
    except FormatError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # no JSON, or of another shape
        raise InputError("damaged", file=path, fix="run the same `ftkit ablation run` again") from None
    ledger = Ledger(directory)
    runs = _run_states(directory, ledger)
    found = [
        _with_runs(row, runs.get(label, []), choices(ledger, label), directory / label) for label, row in rows.items()
    ]
    return Sweep(name, found, published, ledger, claim)


def choices(ledger: Ledger, label: str) -> list[Entry]:
    """Return the choices of a row that the ledger knows, one for each chosen setting, the latest last."""
    return [one for one in ledger.entries.values() if one.status == "chosen" and one.cell.split("/")[0] == label]


def _with_runs(row: SweepRow, runs: Sequence[RunState], chosen: Sequence[Entry], folder: Path) -> SweepRow:
    """Tell the runs of a row from those of settings that were tried for it."""
    own = [run for run in runs if run.directory.parent == folder]
    if not chosen:
        return replace(row, runs=own, tries=[run for run in runs if run not in own])
    place = folder.parent / chosen[-1].cell
    tested = {run.directory.parent for run in runs if run.result is not None}
    looks = len(tested & {folder.parent / entry.cell for entry in chosen})
    return replace(
        row,
        runs=[run for run in runs if run.directory.parent == place],
        choice=Choice(**chosen[-1].identity, looks=looks),
        untuned=own,
        tries=[run for run in runs if run.directory.parent not in (place, folder)],
    )


def _parse_description(description: Mapping[str, Any]) -> tuple[str, PublishedTable, dict[str, SweepRow]]:
    """Return the ablation's name, the published figures, and the rows by label, without runs yet."""
    figures = {int(number): Published(**row) for number, row in description["published"]["rows"].items()}
    rows = {
        row["label"]: SweepRow(row["number"], row["name"], row["question"], [], figures.get(row["number"]))
        for row in description["rows"]
    }
    return description["name"], PublishedTable(**{**description["published"], "rows": figures}), rows


def _run_states(directory: Path, ledger: Ledger) -> Mapping[str, list[RunState]]:
    """Return the runs by the label of their row, sorted by seed."""
    holder = holder_mark(directory)
    states: dict[str, list[RunState]] = {}
    for entry in sorted(ledger.entries.values(), key=lambda entry: entry.seed):
        folder = directory / entry.cell
        status, reason, result = str(entry.status), entry.reason, None
        if status == "started":
            at_work = holder and entry.holder == holder  # any other was killed, whatever the clock says
            status, reason = ("running", "") if at_work else ("unfinished", "it was interrupted")
        elif status == "chosen":  # which is of no run
            continue
        elif status in ("done", "fitted") and not ledger.is_done(entry.cell, entry.status):
            status, reason = "unfinished", f"its {RESULT_FILE} is missing or was changed"
        elif status == "done":
            result = Result.read(folder / RESULT_FILE)
        label, *setting, _ = entry.cell.split("/")
        states.setdefault(label, []).append(
            RunState(entry.seed, folder, status, reason, result, entry.identity, entry.time, "".join(setting))
        )
    return states
