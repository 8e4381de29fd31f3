"""The same search for every row: tried on validation, chosen, and tested only then."""

import csv
import io
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from fake_engine import FakeEngine, killed_before, make_folder
from ftkit.ablation.analysis import analyse
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.ledger import Ledger
from ftkit.ablation.progress import Event, Summary
from ftkit.ablation.runner import run
from ftkit.ablation.search import Search
from ftkit.ablation.sides import read_side
from ftkit.ablation.sweep import SweepRow, read_sweep
from ftkit.ablation.tuning import tune
from ftkit.commands.ablation import ablation_status, ablation_table
from ftkit.errors import EnvironmentFault, InputError

LR = "model.lr"
# By learning rate, the right ones of 1000 validation and of 300 test examples: each row has another best rate.
ROWS = {
    "01_low": {"model": {"lr": 0.01}, "by_lr": {0.01: [950, 280], 0.1: [900, 290], 1.0: [700, 200]}},
    "02_high": {"model": {"lr": 0.01}, "by_lr": {0.01: [600, 180], 0.1: [930, 281], 1.0: [940, 282]}},
}
GRID = {"settings": {LR: [0.01, 0.1, 1.0]}}
LINES = 17  # of the ledger: a start and an end for each of six tries, two choices, three tests


class Tuned:
    """An ablation folder, an output folder, and what the last call said."""

    def __init__(self, tmp_path: Path, rows: dict[str, Any]) -> None:
        self.folder, self.out = make_folder(tmp_path / "study", rows), tmp_path / "out"
        self.events: list[Event] = []

    def run(self, search: dict[str, Any] = GRID, engine: FakeEngine | None = None, seeds=(123,), **options) -> Summary:
        self.engine, self.events = engine or FakeEngine(), []
        folder = AblationFolder.load(self.folder)
        sought = partial(tune, Search.read(search))
        return run(folder, self.engine, self.out, seeds=seeds, on_event=self.events.append, tune=sought, **options)

    def rows(self) -> list[SweepRow]:
        return list(read_sweep(self.out).rows)

    def files(self, name: str) -> set[str]:
        return {str(path.parent.relative_to(self.out)) for path in self.out.rglob(name)}


@pytest.fixture
def tuned(tmp_path: Path) -> Tuned:
    return Tuned(tmp_path, ROWS)


def test_each_row_is_tested_with_the_setting_that_is_best_on_validation_and_with_no_other(tuned: Tuned) -> None:
    tuned.run()
    low, high = tuned.rows()
    assert low.choice is not None
    assert high.choice is not None
    assert (low.choice.setting, low.choice.value) == ({LR: 0.01}, 0.95)
    assert (high.choice.setting, high.choice.value) == ({LR: 1.0}, 0.94)
    assert [run.result.splits["test"].correct for run in low.done if run.result] == [280]
    assert [run.result.splits["test"].correct for run in high.done if run.result] == [282]
    # The rate in the files is one of the grid: that try is the row's own run, which is always tested.
    assert tuned.files("predictions-test.tsv") == {
        "01_low/seed-123", "02_high/lr-1.0/seed-123", "02_high/seed-123"
    }  # fmt: skip
    assert sorted(tuned.engine.tested) == [("01_low", 123), ("02_high", 123), ("02_high/lr-1.0", 123)]
    tested = [path for path in tuned.out.rglob("result.json") if "test" in json.loads(path.read_text())["splits"]]
    assert len(tested) == 3
    assert yaml.safe_load((tuned.out / "02_high/lr-1.0/setting.yaml").read_text()) == {"model": {"lr": 1.0}}


def test_checkpoints_of_settings_that_were_not_chosen_are_removed(tuned: Tuned) -> None:
    tuned.run({**GRID, "untuned": False})
    assert tuned.files("last.ckpt") == {"01_low/seed-123/checkpoints", "02_high/lr-1.0/seed-123/checkpoints"}
    assert tuned.files("predictions-test.tsv") == {"01_low/seed-123", "02_high/lr-1.0/seed-123"}


def test_a_rate_that_is_not_in_the_grid_is_run_as_the_row_is_and_never_chosen(tuned: Tuned) -> None:
    tuned.run({"settings": {LR: [0.1, 1.0]}})
    assert tuned.engine.ran == [("01_low", 123), ("02_high", 123)]
    low, _ = tuned.rows()
    assert low.choice is not None
    assert low.choice.setting == {LR: 0.1}
    assert [run.directory.parent.name for run in low.untuned] == ["01_low"]
    tuned.run({"settings": {LR: [0.1, 1.0]}, "untuned": False})
    assert tuned.engine.ran == []


def test_a_second_call_does_nothing(tuned: Tuned) -> None:
    tuned.run(seeds=(124, 123))
    ledger = (tuned.out / "ledger.jsonl").read_bytes()
    files = {path: path.stat().st_mtime_ns for path in tuned.out.rglob("*.*") if path.is_file()}
    leftover = tuned.out / "02_high/lr-1.0/.seed-123.partial"  # of a search that was killed
    leftover.mkdir()
    summary = tuned.run(seeds=(123, 124))
    assert not leftover.exists()
    assert (tuned.engine.fitted, tuned.engine.tested, tuned.engine.ran) == ([], [], [])
    assert len(summary.reused) == 12
    assert (tuned.out / "ledger.jsonl").read_bytes() == ledger
    assert {path: path.stat().st_mtime_ns for path in files} == files


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A search that nobody killed."""
    whole = Tuned(tmp_path_factory.mktemp("whole"), ROWS)
    whole.run()
    assert len((whole.out / "ledger.jsonl").read_text().splitlines()) == LINES
    return whole


@pytest.mark.parametrize("line", range(LINES))
def test_killed_between_any_two_lines_of_the_ledger_it_goes_on_and_chooses_the_same(
    line: int, tuned: Tuned, whole: Tuned
) -> None:
    with killed_before(line):
        tuned.run()
    ledger = Ledger(tuned.out)
    kept = {cell for cell in ledger.entries if ledger.is_done(cell, "fitted", "done")}
    tuned.run()
    assert not kept & {f"{place}/seed-{seed}" for place, seed in tuned.engine.fitted}  # nothing is trained twice
    for one, other in zip(tuned.rows(), whole.rows(), strict=True):
        assert one.choice == other.choice
        assert [run.directory.relative_to(tuned.out) for run in one.done] == [
            run.directory.relative_to(whole.out) for run in other.done
        ]
    assert tuned.files("predictions-test.tsv") == whole.files("predictions-test.tsv")
    assert tuned.files("last.ckpt") == whole.files("last.ckpt")
    assert not list(tuned.out.rglob(".*partial"))


def test_the_choice_is_by_the_mean_over_the_seeds_and_the_first_of_equal_ones(tmp_path: Path) -> None:
    class Lucky(FakeEngine):
        def identity(self, configs, seed):
            found = super().identity(configs, seed)
            if found["config"]["model"].get("lr") == 2.0:
                found["config"]["luck"] = {124: 20}  # its best seed is the best of all, and its mean is not
            return found

    rows = {"01_row": {"by_lr": {0.1: [900, 280], 1.0: [900, 280], 2.0: [890, 290]}}}
    tuned = Tuned(tmp_path, rows)
    tuned.run({"settings": {LR: [0.1, 1.0, 2.0]}}, Lucky(), seeds=(123, 124, 125))
    (row,) = tuned.rows()
    assert row.choice is not None
    assert row.choice.setting == {LR: 0.1}
    assert [run.seed for run in row.done] == [123, 124, 125]
    assert row.choice.tries[2][1] == [0.89, 0.91, 0.89]


def test_a_seed_that_is_added_may_change_the_choice_which_is_said(tmp_path: Path) -> None:
    class Lucky(FakeEngine):
        def identity(self, configs, seed):
            found = super().identity(configs, seed)
            if seed == 124 and found["config"]["model"].get("lr") == 1.0:
                found["config"]["luck"] = {124: 90}
            return found

    tuned = Tuned(tmp_path, {"01_row": {"by_lr": {0.1: [900, 280], 1.0: [890, 285]}}})
    search = {"settings": {LR: [0.1, 1.0]}, "untuned": False}
    tuned.run(search, Lucky())
    assert tuned.rows()[0].choice.setting == {LR: 0.1}
    tuned.run(search, Lucky(), seeds=(124,))  # seed 123 counts on
    (row,) = tuned.rows()
    assert row.choice.setting == {LR: 1.0}
    assert (row.choice.seeds, row.choice.looks) == ([123, 124], 2)
    assert sorted(run.seed for run in row.done) == [123, 124]
    assert "tests looked at: 2" in (tuned.out / "ledger.jsonl").read_text()
    # The checkpoint of seed 123 was removed after the first choice, so that one is trained again.
    assert ("01_row/lr-1.0", 123) in tuned.engine.fitted
    assert ("01_row/lr-0.1", 123) not in tuned.engine.fitted


def test_a_try_that_fails_is_not_chosen_and_fails_nothing(tmp_path: Path) -> None:
    class Diverging(FakeEngine):
        def fit(self, configs, seed, directory):
            if directory.parent.name == "lr-1.0" and seed == 124:
                raise ValueError("the loss is not finite")
            super().fit(configs, seed, directory)

    tuned = Tuned(tmp_path, {"01_row": {"by_lr": {0.1: [900, 280], 1.0: [990, 299]}}})
    summary = tuned.run({"settings": {LR: [0.1, 1.0]}}, Diverging(), seeds=(123, 124))
    assert summary.exit_code == 0
    (row,) = tuned.rows()
    assert row.choice.setting == {LR: 0.1}
    assert row.choice.tries[1] == [{LR: 1.0}, [0.99, None]]
    assert [run.status for run in row.tries] == ["fitted", "failed"]


def test_a_metric_that_validation_does_not_log_ends_the_search_after_one_run_which_is_kept(tuned: Tuned) -> None:
    with pytest.raises(
        InputError, match=r"monitor: validation does not log it \(got 'val/f1'\); fix: it logs val/loss"
    ):
        tuned.run({**GRID, "monitor": "val/f1"})
    assert len(tuned.engine.fitted) == 1
    tuned.run({**GRID, "monitor": "val/loss"})
    assert len(tuned.engine.fitted) == 5
    assert [row.choice.mode for row in tuned.rows()] == ["min", "min"]
    assert [row.choice.setting for row in tuned.rows()] == [{LR: 0.01}, {LR: 1.0}]


def test_runs_that_were_made_without_a_search_count_as_the_row_as_it_is(tuned: Tuned) -> None:
    run(AblationFolder.load(tuned.folder), FakeEngine(), tuned.out, seeds=(123,))
    tuned.run({"settings": {LR: [0.1, 1.0]}})
    assert tuned.engine.ran == []
    assert len(tuned.engine.fitted) == 4


def test_a_row_has_values_of_its_own_or_leaves_an_option_out(tuned: Tuned) -> None:
    own = {1: {LR: [0.1, 0.2]}, 2: {LR: None}}
    tuned.run({**GRID, "rows": own})
    assert tuned.engine.fitted == [("01_low/lr-0.1", 123), ("01_low/lr-0.2", 123)]
    assert tuned.engine.ran == [("01_low", 123), ("02_high", 123)]
    low, high = tuned.rows()
    assert len(low.choice.tries) == 2
    assert high.choice is None
    assert [run.directory.name for run in high.done] == ["seed-123"]
    tuned.run({**GRID, "rows": own, "untuned": False}, seeds=(124,))
    assert ("02_high", 124) in tuned.engine.ran  # there is nothing else of it
    assert ("01_low", 124) not in tuned.engine.ran


def test_a_wrong_option_is_refused_before_anything_is_run_and_leaves_nothing(tuned: Tuned) -> None:
    with pytest.raises(InputError, match=r"row 01_low: misspelt: unknown key; an option that a row does not have is "):
        tuned.run({"settings": {"misspelt": [1, 2]}})
    assert tuned.engine.fitted == []
    assert not list(tuned.out.glob("*/*"))
    assert not (tuned.out / "ablation.json").exists()


def test_the_rank_of_lora_is_refused_for_a_row_without_it(tmp_path: Path) -> None:
    rows = {
        "01_block": {"model": {"trainable": "last_block"}},
        "02_lora": {"model": {"trainable": "lora", "lora_rank": 8}},
    }
    tuned = Tuned(tmp_path, rows)
    search = {"settings": {"model.lora_rank": [4, 8]}}
    with pytest.raises(
        InputError,
        match=r"model.lora_rank: row 01_block does not take it: it has no LoRA .*rows: {1: {model.lora_rank: null}}",
    ):
        tuned.run(search)
    tuned.run({**search, "rows": {1: {"model.lora_rank": None}}})
    assert tuned.engine.fitted == [("02_lora/lora_rank-4", 123), ("02_lora", 123)]
    assert tuned.engine.ran == [("01_block", 123)]


def test_what_a_baseline_chooses_itself_is_refused_unless_that_is_switched_off(tmp_path: Path) -> None:
    """Else every try would be the same."""
    own = {"search": {"estimator__alpha": [1, 0.1], "features__n": [1, 2]}, "estimator": {"init_args": {"alpha": 3}}}
    tuned = Tuned(tmp_path, {"01_bayes": {"model": {"init_args": own}}})
    alpha, switch = "model.init_args.estimator.init_args.alpha", "model.init_args.search"
    with pytest.raises(
        InputError,
        match=rf"{alpha}: row 01_bayes does not take it: its own `search` chooses estimator__alpha on validation; .*"
        rf"rows: {{1: {{{alpha}: null}}}}, or switch that off: {switch}: \[null\]",
    ):
        tuned.run({"settings": {alpha: [1, 2]}})
    tuned.run({"settings": {"model.init_args.estimator.init_args.fit_prior": [True, False]}})
    tuned.run({"settings": {alpha: [1, 2], switch: [None]}, "untuned": False})
    assert [dict(setting)[alpha] for setting, _ in tuned.rows()[0].choice.tries] == [1, 2]


def wrong(text: str, tmp_path: Path) -> str:
    file = tmp_path / "search.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        Search.read(file)
    return str(caught.value).removeprefix(f"{file}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settings: {lr: [1], lr2: 3}", "lr2: no list of values (got 3); fix: write [A, B] or {low: A, high: B}"),
        ("settings: {lr: []}", "lr: no list of values (got [])"),
        ("settings: {lr: [1, 1]}", "lr: a value stands twice (got [1, 1])"),
        ("settings: {lr: [[1, 2]]}", "lr: not a number, text or truth value (got [1, 2])"),
        ("settings: {lr: [.nan]}", "lr: not a number, text or truth value (got nan)"),
        ("settings: {lr: {low: 1}}\ntries: 2", "lr: not a range"),
        ("settings: {lr: {low: 2, high: 1}}\ntries: 2", "lr: not a range of numbers from low to high"),
        ("settings: {lr: {low: 0, high: 1, log: true}}\ntries: 2", "lr: not a range of numbers from low to high"),
        ("settings: {lr: {low: 1, hihg: 2}}\ntries: 2", "lr: not a range"),
        ("settings: {lr: {low: 1, high: 2}}", "tries: random needs a number of tries"),
        ("settings: {lr: [1]}\ntries: 0", "tries: cannot be used (got 0)"),
        ("settings: {lr: [1]}\nsampler: bayes", "sampler: cannot be used (got 'bayes'); fix: use grid, random, tpe"),
        ("settings: {lr: [1]}\nmonitor: test/accuracy", "monitor: cannot be used (got 'test/accuracy')"),
        ("settings: {lr: [1]}\nmode: best", "mode: cannot be used"),
        ("settings: {lr: [1]}\nuntuned: 3", "untuned: cannot be used"),
        ("settings: {seed_everything: [1, 2]}", "seed_everything: is no setting; fix: give --seeds"),
        ("setting: {lr: [1]}", "setting: no such key (got"),
        ("settings: [lr]", "settings: not a mapping (got ['lr'])"),
        ("rows: {one: {lr: [1]}}", "rows: not the number of a row (got 'one')"),
        ("rows: {1: {lr: 3}}", "rows.1.lr: no list of values"),
        ("tries: 3", "settings: there is nothing to try"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_key(text: str, message: str, tmp_path: Path) -> None:
    assert wrong(text, tmp_path).startswith(message.partition(" (got")[0] if message.endswith("(got") else message)


def test_a_range_is_no_grid_and_a_grid_needs_no_tries() -> None:
    with pytest.raises(InputError, match="a range is no grid"):
        Search.read({"settings": {LR: {"low": 1, "high": 2}}, "sampler": "grid"}).space(1)
    with pytest.raises(InputError, match=r"tries: the grid of row 1 has 3 settings \(got 2\)"):
        Search.read({**GRID, "sampler": "grid", "tries": 2}).space(1)


def test_values_from_the_command_line_are_numbers_where_they_look_so() -> None:
    found = Search.read({}, ["a.lr=1e-4,3e-4", "a.epochs=3,5", "a.precision=bf16-mixed,32", "a.fused=true,false"])
    assert found.settings == {
        "a.lr": [1e-4, 3e-4], "a.epochs": [3, 5], "a.precision": ["bf16-mixed", 32], "a.fused": [True, False]
    }  # fmt: skip
    assert found.sampler == "grid"
    assert Search.read(GRID, [f"{LR}=5"]).settings == {LR: [5]}
    for text in ("lr", "=3", "lr="):
        with pytest.raises(InputError, match=f"set: not an option with values \\(got '{text}'\\)"):
            Search.read({}, [text])


def test_a_row_with_the_same_range_draws_the_same_and_more_tries_begin_with_the_former_ones() -> None:
    settings = {LR: {"low": "1e-5", "high": "1e-1", "log": True}, "rank": {"low": 1, "high": 64}, "kind": ["a", "b"]}
    few, many = (Search.read({"settings": settings, "tries": tries, "seed": 3}) for tries in (5, 9))
    drawn = many.propose(1, [])
    assert (few.sampler, many.sampler) == ("random", "random")
    assert few.propose(1, []) == drawn[:5]
    assert many.propose(1, [0.5] * 9) == []
    assert len(set(drawn)) == 9
    rates, ranks, kinds = zip(*([value for _, value in setting] for setting in drawn), strict=True)
    assert all(1e-5 <= rate <= 1e-1 for rate in rates)
    assert sum(rate < 1e-3 for rate in rates) in range(2, 8)  # uniform on the logarithm
    assert all(isinstance(rank, int) and 1 <= rank <= 64 for rank in ranks)
    assert set(kinds) == {"a", "b"}
    own = Search.read({"settings": settings, "tries": 9, "seed": 3, "rows": {2: {"kind": None}}})
    assert [setting[:2] for setting in own.propose(2, [])] == [setting[:2] for setting in drawn]
    assert Search.read({"settings": settings, "tries": 9, "seed": 4}).propose(1, []) != drawn


def test_few_values_give_few_tries() -> None:
    assert len(Search.read({"settings": {LR: [1, 2, 3]}, "tries": 50}).propose(1, [])) == 3


PLANTED = {
    # Untuned, row 2 is 30 points better; each with its own best rate, the two answer alike.
    "01_reference": {"model": {"lr": 0.01}, "correct": 200, "by_lr": {0.01: [700, 200], 0.1: [940, 290]}},
    "02_planted": {"model": {"lr": 0.01}, "correct": 290, "by_lr": {0.01: [950, 290], 0.1: [800, 250]}},
    "03_other": {"model": {"lr": 0.01}, "correct": 200, "by_lr": {0.01: [700, 200], 0.1: [960, 291]}},
}


def test_a_lead_that_vanishes_when_all_are_tuned_is_reported_so(tmp_path: Path) -> None:
    tuned = Tuned(tmp_path, PLANTED)
    tuned.run({"settings": {LR: [0.01, 0.1]}}, seeds=(123, 124))
    found = analyse(tuned.out)
    reference, planted, other = found.rows
    assert reference.untuned.test == pytest.approx(200.5 / 300)
    assert reference.test == pytest.approx(290.5 / 300)
    assert planted.untuned.comparison.significant
    assert planted.untuned.comparison.p_holm < 0.001
    assert not planted.comparison.significant
    assert not other.untuned.comparison.significant
    text = ablation_table(tuned.out)
    assert "Row 2 (planted): untuned significantly better than row 1 (+30.0 points), tuned not significantly" in text
    assert "Row 3 (other): untuned" not in text
    head, _, first, *_ = text.splitlines()
    assert {"setting", "tries", "untuned"} <= set(head.split())
    assert " lr 0.1 " in first
    assert " 66.83 " in first
    assert "setting: chosen on validation, by the highest val/accuracy, mean over seeds 123, 124" in text
    assert "Row 1 (reference): best at the edge of its range: lr 0.1 is the largest that was tried" in text
    assert "Row 2 (planted): best at the edge of its range: lr 0.01 is the smallest that was tried" in text
    records = list(csv.DictReader(io.StringIO(ablation_table(tuned.out, "csv"))))
    assert [record["setting"] for record in records] == ["model.lr=0.1", "model.lr=0.01", "model.lr=0.1"]
    assert [record["tries"] for record in records] == ["2", "2", "2"]
    assert float(records[0]["untuned_test"]) == pytest.approx(200.5 / 300)


def test_no_edge_is_warned_of_in_the_middle_and_other_chances_are_named(tmp_path: Path) -> None:
    rows = {
        "01_row": {"by_lr": {0.1: [900, 280], 1.0: [950, 285], 2.0: [900, 280]}},
        "02_row": {"by_lr": {0.1: [900, 280]}},
        "03_row": {},
    }
    tuned = Tuned(tmp_path, rows)
    tuned.run({"settings": {LR: [0.1, 1.0, 2.0]}, "rows": {2: {LR: [0.1]}}}, rows="1-2")
    run(AblationFolder.load(tuned.folder), FakeEngine(), tuned.out, rows="3", seeds=(123,))
    text = ablation_table(tuned.out)
    assert "edge" not in text
    assert "Not the same chance for all: row 2 had 1; row 1 had 3 tries." in text
    assert "Not tuned: row 3." in text
    status = ablation_status(tuned.out)
    assert status.count("fitted") == 2
    assert "seed 123   fitted  lr-0.1" in status
    assert [line.split() for line in status.splitlines() if line.endswith("untuned")] == [
        [number, "row", "seed", "123", "done", "untuned"] for number in ("1", "2")
    ]


def test_a_table_without_a_search_says_nothing_of_one(tuned: Tuned) -> None:
    run(AblationFolder.load(tuned.folder), FakeEngine(), tuned.out, seeds=(123,))
    text = ablation_table(tuned.out)
    assert "setting" not in text.partition("What was run")[0]
    assert "untuned" not in text
    assert "tries" not in ablation_table(tuned.out, "csv")


def test_tpe_asks_for_one_try_after_the_other_and_a_resumed_search_for_the_same_ones(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    settings = {LR: {"low": 1e-3, "high": 1.0, "log": True}, "kind": ["a", "b"], "rank": {"low": 1, "high": 8}}
    search = Search.read({"settings": settings, "sampler": "tpe", "tries": 14, "seed": 5})

    def asked(values: list[float | None]) -> list[Any]:
        return [search.propose(1, values[:count])[0] for count in range(len(values))]

    values = [0.1 * place % 0.7 for place in range(14)]
    assert search.propose(1, values) == []
    assert asked(values) == asked(values)
    failed = [*values[:3], None, *values[4:]]
    assert asked(failed)[:4] == asked(values)[:4]
    rates, kinds, ranks = zip(*([value for _, value in setting] for setting in asked(values)), strict=True)
    assert all(1e-3 <= rate <= 1 and rate == float(f"{rate:.3g}") for rate in rates)
    assert set(kinds) == {"a", "b"}
    assert all(isinstance(rank, int) for rank in ranks)

    tuned = Tuned(tmp_path, {"01_row": {}, "02_row": {}})
    tpe = {"settings": {"rank": {"low": 1, "high": 8}}, "sampler": "tpe", "tries": 5}
    tuned.run(tpe)
    choices = [row.choice for row in tuned.rows()]
    assert [len(choice.tries) for choice in choices] == [len(choices[0].tries)] * 2
    tuned.run(tpe)
    assert tuned.engine.fitted == []
    assert [row.choice for row in tuned.rows()] == choices


def test_tpe_without_optuna_says_what_to_install(tuned: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(EnvironmentFault, match=r"Optuna is not installed .*pip install 'ftkit\[search\]'"):
        tuned.run({**GRID, "sampler": "tpe", "tries": 3})
    assert tuned.engine.fitted == []


def test_a_verdict_takes_the_chosen_runs_of_a_row_and_counts_what_was_tried(tuned: Tuned) -> None:
    tuned.run(seeds=(123, 124))
    side = read_side(tuned.out / "02_high")
    assert side.tries == 3
    assert {seed: path.parent for seed, path in side.files.items()} == {
        seed: tuned.out / f"02_high/lr-1.0/seed-{seed}" for seed in (123, 124)
    }
    for place in ("02_high/lr-1.0/seed-124", "02_high/seed-123"):
        one = read_side(tuned.out / place)
        assert [path.parent for path in one.files.values()] == [tuned.out / place]
        assert one.tries == 3
    with pytest.raises(InputError, match="has no finished run"):
        read_side(tuned.out / "02_high/lr-0.1/seed-123")  # which was not tested
