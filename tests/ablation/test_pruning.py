"""Settings that a pruner stops early: tries that the ledger counts and that are never chosen."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fake_engine import FakeEngine, killed_before, make_folder
from ftkit.ablation.analysis import analyse
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.ledger import Ledger
from ftkit.ablation.optuna_study import Pruning
from ftkit.ablation.progress import Event, Summary
from ftkit.ablation.runner import run
from ftkit.ablation.search import Search
from ftkit.ablation.sweep import SweepRow, read_sweep
from ftkit.ablation.tuning import tune
from ftkit.commands.ablation import ablation_status, ablation_table
from ftkit.errors import EnvironmentFault, InputError
from ftkit.report.search_charts import budgets

pytest.importorskip("optuna")
LR = "model.lr"
MEDIAN = {"class_path": "optuna.pruners.MedianPruner", "init_args": {"n_startup_trials": 2}}
SEARCH = {"settings": {LR: [0.1, 0.2, 0.3, 0.4]}, "pruner": MEDIAN}
# By rate, the right ones of 1000 validation and of 300 test examples, and the validations while it trains.
ROW = {
    "by_lr": {0.1: [800, 240], 0.2: [900, 270], 0.3: [990, 299], 0.4: [950, 285]},
    "curves": {0.1: [0.6, 0.7, 0.8], 0.2: [0.7, 0.8, 0.9], 0.3: [0.3, 0.4, 0.99], 0.4: [0.68, 0.9, 0.95]},
}
LINES = 12  # of the ledger: a start and an end for each of four tries and of the row as it is, the choice, its test


class Pruned:
    """An ablation folder with a row, an output folder, and what the last call said."""

    def __init__(self, tmp_path: Path, rows: dict[str, Any]) -> None:
        self.folder, self.out = make_folder(tmp_path / "study", rows), tmp_path / "out"

    def run(self, search: dict[str, Any] = SEARCH, engine: FakeEngine | None = None, seeds=(123,)) -> Summary:
        self.engine, self.events = engine or FakeEngine(), []
        sought = partial(tune, Search.read(search))
        folder = AblationFolder.load(self.folder)
        return run(folder, self.engine, self.out, seeds=seeds, on_event=self.events.append, tune=sought)

    def rows(self) -> list[SweepRow]:
        return list(read_sweep(self.out).rows)

    def notices(self) -> str:
        return "\n".join(event.message for event in self.events if event.kind == "notice")

    events: list[Event]


@pytest.fixture
def pruned(tmp_path: Path) -> Pruned:
    return Pruned(tmp_path, {"01_row": ROW})


def test_a_setting_below_the_median_is_stopped_counted_as_a_try_and_not_chosen(pruned: Pruned) -> None:
    summary = pruned.run()
    assert summary.exit_code == 0
    assert [str(run) for run in summary.pruned] == ["01_row, lr 0.3 (seed 123)"]
    (row,) = pruned.rows()
    assert row.choice.setting == {LR: 0.4}
    assert row.choice.tries[2] == [{LR: 0.3}, [None]]
    assert row.choice.pruned == [{LR: 0.3}]
    entry = Ledger(pruned.out).entries["01_row/lr-0.3/seed-123"]
    assert (entry.status, entry.reason) == ("pruned", "stopped at step 10 (validation 1)")
    assert Ledger(pruned.out).tries("01_row") == 5  # and the row as it is
    assert not (pruned.out / "01_row/lr-0.3/seed-123/checkpoints").exists()
    assert ("01_row/lr-0.3", 123) not in pruned.engine.tested
    assert "seed 123   pruned: stopped at step 10 (validation 1)  lr-0.3" in ablation_status(pruned.out)
    text = ablation_table(pruned.out)
    assert "Tries that were stopped early by their validation, and so were not chosen: 1 of row 1." in text
    assert json.loads(ablation_table(pruned.out, "json"))[0]["tries_stopped_early"] == 1


def test_a_second_call_does_nothing_and_one_without_the_pruner_runs_what_was_stopped(pruned: Pruned) -> None:
    pruned.run()
    ledger = (pruned.out / "ledger.jsonl").read_bytes()
    assert pruned.run().pruned == {}
    assert pruned.engine.fitted == []
    assert (pruned.out / "ledger.jsonl").read_bytes() == ledger
    pruned.run({"settings": SEARCH["settings"]})
    assert pruned.engine.fitted == [("01_row/lr-0.3", 123)]
    assert "lr 0.3 (seed 123) is run again because it changed: pruner: 'optuna.pr" in pruned.notices()
    (row,) = pruned.rows()
    assert (row.choice.setting, row.choice.pruned, row.choice.looks) == ({LR: 0.3}, (), 2)
    pruned.run()
    assert pruned.engine.fitted == []  # what ran to its end stays


@pytest.mark.parametrize("line", range(LINES))
def test_killed_between_any_two_lines_of_the_ledger_it_goes_on_and_chooses_the_same(line: int, pruned: Pruned) -> None:
    with killed_before(line):
        pruned.run()
    pruned.run()
    ledger = Ledger(pruned.out)
    assert [entry.status for entry in ledger.entries.values() if "lr-0.3" in entry.cell] == ["pruned"]
    assert pruned.rows()[0].choice.setting == {LR: 0.4}
    pruned.run()
    assert pruned.engine.fitted == pruned.engine.tested == []


@pytest.mark.parametrize(
    ("search", "goes_on"),
    [(SEARCH, True), ({**SEARCH, "monitor": "val/loss"}, False), ({"settings": SEARCH["settings"]}, False)],
)
def test_an_interrupted_try_goes_on_only_with_the_same_pruner(search: Any, goes_on: bool, pruned: Pruned) -> None:
    found: list[bool] = []

    class Interrupted(FakeEngine):
        def fit(self, configs, seed, directory, pruning=None):
            checkpoint = directory / "checkpoints/interrupted.ckpt"
            found.append(checkpoint.exists())
            checkpoint.parent.mkdir(exist_ok=True)
            checkpoint.touch()
            raise KeyboardInterrupt

    for one in (SEARCH, search):
        with pytest.raises(KeyboardInterrupt):
            pruned.run(one, Interrupted())
    assert found == [False, goes_on]


def test_each_seed_is_compared_with_the_same_seed_and_one_that_was_stopped_is_enough(tmp_path: Path) -> None:
    class Unlucky(FakeEngine):
        def identity(self, configs, seed):
            found = super().identity(configs, seed)
            if seed == 124:
                found["config"]["curves"] = {0.1: [0.1], 0.2: [0.1], 0.3: [0.3, 0.4, 0.99], 0.4: [0.05, 0.9, 0.9]}
            return found

    pruned = Pruned(tmp_path, {"01_row": ROW})
    summary = pruned.run(engine=Unlucky(), seeds=(123, 124))
    assert {str(run) for run in summary.pruned} == {"01_row, lr 0.3 (seed 123)", "01_row, lr 0.4 (seed 124)"}
    (row,) = pruned.rows()
    assert row.choice.setting == {LR: 0.2}
    assert [values for _, values in row.choice.tries[2:]] == [[None, 0.99], [0.95, None]]
    assert row.choice.pruned == [{LR: 0.3}, {LR: 0.4}]


def test_a_setting_that_was_stopped_with_one_seed_alone_is_one_try(pruned: Pruned) -> None:
    class Patient(FakeEngine):
        def fit(self, configs, seed, directory, pruning=None):
            super().fit(configs, seed, directory, pruning if seed == 123 else None)

    summary = pruned.run(engine=Patient(), seeds=(123, 124))
    assert [str(run) for run in summary.pruned] == ["01_row, lr 0.3 (seed 123)"]
    assert Ledger(pruned.out).tries("01_row") == 5


def test_the_row_as_its_file_says_is_stopped_only_where_it_is_not_shown(tmp_path: Path) -> None:
    pruned = Pruned(tmp_path, {"01_row": {**ROW, "model": {"lr": 0.3}}})
    pruned.run()
    assert ("01_row", 123) in pruned.engine.fitted
    assert pruned.rows()[0].choice.setting == {LR: 0.3}
    other = Pruned(tmp_path / "other", {"01_row": {**ROW, "model": {"lr": 0.3}}})
    other.run({**SEARCH, "untuned": False})
    assert other.rows()[0].choice.setting == {LR: 0.4}


def test_what_another_metric_stopped_is_run_again_and_judges_nothing(pruned: Pruned) -> None:
    pruned.run()
    assert pruned.rows()[0].choice.pruned == [{LR: 0.3}]
    seen: list[Any] = []

    class Watching(FakeEngine):
        def fit(self, configs, seed, directory, pruning=None):
            seen.append(pruning and [values for _, values in pruning.earlier])
            super().fit(configs, seed, directory, pruning)

    pruned.run({**SEARCH, "monitor": "val/loss"}, Watching())
    assert seen == [[[], []]]  # the third rate alone, whose forerunners were watched by their accuracy
    assert "pruner.monitor: 'val/accuracy' -> 'val/loss'" in pruned.notices()
    assert not pruned.rows()[0].choice.pruned


def test_a_row_of_which_every_setting_was_stopped_is_an_error_each_time(pruned: Pruned) -> None:
    never = {"class_path": "optuna.pruners.ThresholdPruner", "init_args": {"lower": 0.8}}
    for _ in range(2):
        summary = pruned.run({**SEARCH, "pruner": never})
        assert (summary.exit_code, summary.total) == (4, 5)
        assert [str(run) for run in summary.failed] == [
            f"01_row, lr {rate} (seed 123)" for rate in SEARCH["settings"][LR]
        ]
        assert "none could be chosen" in next(iter(summary.failed.values()))
    assert pruned.rows()[0].choice is None


def test_rows_with_stopped_tries_have_no_curve_against_the_budget(tmp_path: Path) -> None:
    """Their unknown results are the bad ones, so that what is left would promise too much."""
    pruned = Pruned(tmp_path, {"01_row": ROW, "02_row": {**ROW, "curves": {}}})
    pruned.run()
    assert list(budgets(analyse(pruned.out).rows)) == ["2 row"]


def test_replayed_trials_decide_as_they_did(tmp_path: Path) -> None:
    """Successive halving keeps what it was asked in the trial, which a new study has to be told again."""
    halving = {"class_path": "optuna.pruners.SuccessiveHalvingPruner", "init_args": {"min_resource": 1}}
    curves = [(True, [0.5, 0.6, 0.7]), (False, [0.1]), (True, [0.6, 0.7, 0.8]), (False, [None])]
    pruning = Pruning(halving, "val/accuracy", "max", curves)

    def stops(value: float) -> bool:
        trial = pruning.trial()
        trial.report(value, 1)
        return trial.should_prune()

    assert [stops(value) for value in (0.3, 0.55, 0.7)] == [True, True, False]
    assert [stops(0.3), stops(0.7)] == [True, False]


def test_tpe_is_told_the_last_validation_of_what_was_stopped(tmp_path: Path) -> None:
    told: list[list[float | None]] = []

    class Watched(Search):
        def propose(self, row, values):
            told.append(list(values))
            return super().propose(row, values)

    pruned = Pruned(tmp_path, {"01_row": ROW})
    search = Watched.read({**SEARCH, "sampler": "tpe", "tries": 8, "seed": 3})
    run(AblationFolder.load(pruned.folder), FakeEngine(), pruned.out, seeds=(123,), tune=partial(tune, search))
    (row,) = pruned.rows()
    assert row.choice.pruned == [{LR: 0.3}]
    assert told[-1].count(0.3) >= 1
    assert None not in told[-1]


@pytest.mark.parametrize(
    ("pruner", "message"),
    [
        ({"class_path": "optuna.pruners.MedienPruner"}, "pruner: cannot be made: AttributeError"),
        ({"class_path": "optuna.pruners.MedianPruner", "init_args": {"n": 1}}, "pruner: cannot be made: TypeError"),
        ({"class_path": "optuna.pruners.PercentilePruner", "init_args": {"percentile": 300}}, "between 0 and 100"),
        ({"class_path": "optuna.samplers.TPESampler"}, "pruner: is not an Optuna pruner"),
        ({"name": "median"}, "pruner: cannot be used .* fix: write {class_path: optuna.pruners.MedianPruner}"),
        (3, "pruner: cannot be used"),
    ],
)
def test_a_wrong_pruner_is_refused_before_anything_is_run(pruner: Any, message: str, pruned: Pruned) -> None:
    with pytest.raises(InputError, match=message):
        pruned.run({**SEARCH, "pruner": pruner})
    assert pruned.engine.fitted == []


def test_a_pruner_around_another_is_made_and_a_name_alone_is_enough(pruned: Pruned) -> None:
    patient = {"class_path": "optuna.pruners.PatientPruner", "init_args": {"wrapped_pruner": MEDIAN, "patience": 1}}
    assert pruned.run({**SEARCH, "pruner": patient}).pruned == {}
    assert Search.read({**SEARCH, "pruner": "optuna.pruners.MedianPruner"}).pruner == {
        "class_path": "optuna.pruners.MedianPruner"
    }


def test_without_optuna_it_says_what_to_install(pruned: Pruned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(EnvironmentFault, match=r"pruner: Optuna is not installed .*pip install 'ftkit\[search\]'"):
        pruned.run()
    assert pruned.engine.fitted == []
