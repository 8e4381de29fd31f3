from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from fake_engine import FakeEngine, make_folder
from ftkit.ablation.executor import Engine
from ftkit.ablation.folder import AblationFolder
from ftkit.ablation.ledger import Ledger
from ftkit.ablation.progress import Event, Summary
from ftkit.ablation.runner import run
from ftkit.errors import EnvironmentFault, ExitCode, InputError, UnavailableError

ROWS = {f"{number:02}_row": {"correct": 270 + number} for number in range(1, 5)}
FILES = ("config.yaml", "result.json", "metrics.csv", "predictions-test.tsv")


class Sweep:
    """One ablation folder, one output folder, and what the last run said."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder, self.out = tmp_path / "study", tmp_path / "runs" / "study"
        make_folder(self.folder, ROWS)
        self.events: list[Event] = []

    def set_row(self, label: str, text: str) -> None:
        (self.folder / f"rows/{label}.yaml").write_text(text)

    def run(self, engine: Engine | None = None, **options) -> Summary:
        self.events = []
        return run(
            AblationFolder.load(self.folder),
            engine or FakeEngine(),
            self.out,
            on_event=self.events.append,
            **options,
        )

    def notices(self) -> str:
        return "\n".join(event.message for event in self.events if event.kind == "notice")

    def statuses(self) -> dict[str, str]:
        return {entry.cell.split("/")[0]: entry.status for entry in Ledger(self.out).entries.values()}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def snapshot(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of the cells, with its bytes and its time."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(directory.glob("*/seed-*/**/*"))
        if path.is_file()
    }


def labels(cells) -> list[str]:
    return [cell.row.label for cell in cells]


def test_each_cell_gets_its_own_folder_and_a_second_run_does_nothing(sweep: Sweep) -> None:
    first = sweep.run()
    assert labels(first.done) == list(ROWS)
    assert first.exit_code == ExitCode.DONE
    files = snapshot(sweep.out)
    assert set(files) == {f"{label}/seed-123/{name}" for label in ROWS for name in FILES}
    ledger = (sweep.out / "ledger.jsonl").read_bytes()

    engine = FakeEngine()
    second = sweep.run(engine)
    assert engine.ran == []
    assert labels(second.reused) == list(ROWS)
    assert second.exit_code == ExitCode.DONE
    assert snapshot(sweep.out) == files
    assert (sweep.out / "ledger.jsonl").read_bytes() == ledger


def test_rows_and_seeds_are_selected(sweep: Sweep) -> None:
    engine = FakeEngine()
    summary = sweep.run(engine, rows="2,4", seeds=(123, 124, 123))
    assert engine.ran == [("02_row", 123), ("02_row", 124), ("04_row", 123), ("04_row", 124)]
    assert [cell.id for cell in summary.done][:2] == ["02_row/seed-123", "02_row/seed-124"]
    assert sweep.run(engine, rows="2", seeds=(125,)).reused == []


def test_an_overlay_is_part_of_what_was_run_but_the_row_has_the_last_word(sweep: Sweep, tmp_path: Path) -> None:
    overlay = tmp_path / "demo.yaml"
    overlay.write_text("correct: 1\nsmall: true\n")
    engine = FakeEngine()
    sweep.run(engine, rows="2", overlays=[overlay])
    config = (sweep.out / "02_row/seed-123/config.yaml").read_text()
    assert "small: true" in config
    assert "correct: 272" in config
    sweep.run(engine, rows="2")
    assert engine.ran == [("02_row", 123)] * 2
    assert "config.small: True -> absent" in sweep.notices()


def test_a_failing_row_keeps_its_reason_and_traceback_and_the_others_go_on(sweep: Sweep) -> None:
    sweep.set_row("02_row", "do: raise\n")
    summary = sweep.run()
    assert labels(summary.done) == ["01_row", "03_row", "04_row"]
    assert labels(summary.failed) == ["02_row"]
    assert list(summary.failed.values()) == ["ValueError: the loss went away"]
    assert summary.exit_code == ExitCode.TRAINING
    error = (sweep.out / "02_row/seed-123/error.txt").read_text()
    assert error.startswith("Traceback")
    assert error.rstrip().endswith("ValueError: the loss went away")
    assert (sweep.out / "02_row/seed-123/metrics.csv").exists()  # what was left is kept

    finished = snapshot(sweep.out)
    sweep.set_row("02_row", "correct: 272\n")
    engine = FakeEngine()
    assert sweep.run(engine).exit_code == ExitCode.DONE
    assert engine.ran == [("02_row", 123)]
    again = snapshot(sweep.out)
    assert "02_row/seed-123/error.txt" not in again
    assert {name: file for name, file in again.items() if not name.startswith("02_row")} == {
        name: file for name, file in finished.items() if not name.startswith("02_row")
    }


def test_a_row_that_leaves_no_result_has_failed(sweep: Sweep) -> None:
    sweep.set_row("03_row", "do: nothing\n")
    summary = sweep.run()
    (reason,) = summary.failed.values()
    assert reason.startswith(
        f"{sweep.out / '03_row' / 'seed-123' / 'result.json'}: cannot be read"
    )  # where it lies now
    assert sweep.statuses()["03_row"] == "failed"


def test_weights_that_are_not_to_be_had_skip_the_row_and_are_tried_again(sweep: Sweep) -> None:
    sweep.set_row("01_row", "do: unavailable\n")
    sweep.set_row("04_row", "offline: true\n")
    summary = sweep.run()
    assert dict(zip(labels(summary.skipped), summary.skipped.values(), strict=True)) == {
        "01_row": "gpt2-xl is not on this machine",
        "04_row": "the data are not on this machine",
    }
    assert summary.exit_code == ExitCode.DONE
    assert sweep.statuses() == {"01_row": "skipped", "02_row": "done", "03_row": "done", "04_row": "skipped"}
    assert not (sweep.out / "01_row/seed-123").exists()

    assert sweep.run(rows="1,4").exit_code == ExitCode.ENVIRONMENT  # nothing could be run at all
    sweep.set_row("01_row", "correct: 271\n")
    assert labels(sweep.run(rows="1").done) == ["01_row"]


def test_a_finished_row_stays_finished_when_the_data_are_out_of_reach(sweep: Sweep) -> None:
    sweep.run(rows="1")
    sweep.set_row("01_row", "offline: true\n")
    assert labels(sweep.run(rows="1").skipped) == ["01_row"]
    assert sweep.statuses() == {"01_row": "done"}


@pytest.mark.parametrize(
    ("change", "engine", "message"),
    [
        ("correct: 271\nmodel: {pooling: mean}\n", FakeEngine(), "config.model.pooling: 'last' -> 'mean'"),
        (None, FakeEngine(code="v2"), "code: 'v1' -> 'v2'"),
        (None, FakeEngine(data="d2"), "data: 'd1' -> 'd2'"),
    ],
)
def test_a_changed_identity_is_run_again_and_the_field_is_named(
    sweep: Sweep, change: str | None, engine: FakeEngine, message: str
) -> None:
    sweep.run(rows="1-2")
    if change:
        sweep.set_row("01_row", change)
    engine.ran = []
    assert labels(sweep.run(engine, rows="1").done) == ["01_row"]
    assert sweep.notices() == f"01_row (seed 123) is run again because it changed: {message}"
    assert labels(sweep.run(engine, rows="1").reused) == ["01_row"]


def test_force_runs_again_what_is_done(sweep: Sweep) -> None:
    sweep.run()
    engine = FakeEngine()
    assert labels(sweep.run(engine, rows="3", force=True).done) == ["03_row"]
    assert engine.ran == [("03_row", 123)]


def test_a_result_that_was_changed_by_hand_is_not_reused(sweep: Sweep) -> None:
    sweep.run()
    (sweep.out / "02_row/seed-123/result.json").write_text('{"splits": {"test": {"n": 300, "correct": 300}}}')
    engine = FakeEngine()
    sweep.run(engine)
    assert engine.ran == [("02_row", 123)]
    assert "result.json is missing or was changed" in sweep.notices()


@pytest.mark.parametrize(("do", "raised"), [("interrupt", KeyboardInterrupt), ("exit", SystemExit)])
def test_an_interruption_passes_through_and_leaves_no_half_cell(
    sweep: Sweep, do: str, raised: type[BaseException]
) -> None:
    sweep.set_row("02_row", f"do: {do}\n")
    with pytest.raises(raised):
        sweep.run()
    assert sweep.statuses() == {"01_row": "done", "02_row": "started"}
    assert sorted(path.name for path in sweep.out.glob("*/*")) == ["seed-123"]
    sweep.set_row("02_row", "correct: 272\n")
    engine = FakeEngine()
    sweep.run(engine)
    assert [label for label, _ in engine.ran] == ["02_row", "03_row", "04_row"]


class Interrupted(FakeEngine):
    """Leaves a checkpoint and is interrupted, but where there is one, which it notes."""

    def __init__(self) -> None:
        super().__init__()
        self.went_on: list[str] = []

    def run(self, configs: Sequence[Path], seed: int, directory: Path) -> None:
        checkpoint = directory / "checkpoints/interrupted.ckpt"
        if not checkpoint.exists():
            checkpoint.parent.mkdir()
            checkpoint.write_text("")
            raise KeyboardInterrupt
        self.went_on.append(configs[-1].stem)
        super().run(configs, seed, directory)


def test_an_interrupted_run_goes_on_from_its_checkpoint_if_it_is_the_same(sweep: Sweep) -> None:
    engine = Interrupted()
    for _ in range(2):  # row 1 is interrupted and goes on, row 2 is interrupted
        with pytest.raises(KeyboardInterrupt):
            sweep.run(engine)
    assert engine.went_on == ["01_row"]
    assert sweep.statuses() == {"01_row": "done", "02_row": "started"}
    sweep.run(rows="3")
    sweep.set_row("02_row", "correct: 280\n")
    with pytest.raises(KeyboardInterrupt):  # it changed, and begins anew
        sweep.run(engine)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(engine, rows="2", force=True)
    sweep.run(engine, rows="2")
    assert engine.went_on == ["01_row", "02_row"]
    assert not list(sweep.out.glob("*/.seed-*"))


def test_what_an_interrupted_run_saved_is_kept_while_weights_or_data_are_out_of_reach(sweep: Sweep) -> None:
    engine, row = Interrupted(), (sweep.folder / "rows/01_row.yaml").read_text()
    with pytest.raises(KeyboardInterrupt):
        sweep.run(engine, rows="1")
    sweep.set_row("01_row", "offline: true\n")
    assert labels(sweep.run(rows="1").skipped) == ["01_row"]
    sweep.set_row("01_row", row)
    with patch.object(Interrupted, "run", side_effect=UnavailableError("gpt2-xl is not on this machine")):
        assert labels(sweep.run(engine, rows="1").skipped) == ["01_row"]
    with suppress(KeyboardInterrupt):
        sweep.run(engine, rows="1")
    assert engine.went_on == ["01_row"]


def test_what_an_interrupted_run_saved_is_removed_with_its_row(sweep: Sweep) -> None:
    with pytest.raises(KeyboardInterrupt):
        sweep.run(Interrupted())
    (sweep.folder / "rows/01_row.yaml").rename(sweep.folder / "rows/01_other.yaml")
    sweep.run(rows="2")
    assert not list(sweep.out.glob("*/.seed-*"))


def test_a_wrong_config_stops_the_sweep_before_anything_is_run(sweep: Sweep) -> None:
    sweep.set_row("04_row", "misspelt: 1\n")
    engine = FakeEngine()
    with pytest.raises(InputError, match="row 04_row: misspelt: unknown key"):
        sweep.run(engine)
    assert engine.ran == []
    assert not list(sweep.out.glob("*/seed-*"))
    assert sweep.run(engine, rows="1").exit_code == ExitCode.DONE


def test_an_output_folder_that_cannot_be_written_stops_the_sweep_before_anything_is_run(
    sweep: Sweep, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    sweep.out = tmp_path / "file" / "out"
    engine = FakeEngine()
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        sweep.run(engine)
    assert engine.ran == []


def test_the_events_tell_the_sweep(sweep: Sweep) -> None:
    sweep.set_row("02_row", "do: raise\n")
    sweep.set_row("04_row", "do: unavailable\n")
    sweep.run(rows="1")
    sweep.run()
    told = [(event.kind, event.run and event.run.row.number, event.index) for event in sweep.events]
    assert told == [
        ("plan", None, 0),
        ("reused", 1, 1),
        ("start", 2, 1),
        ("failed", 2, 2),
        ("start", 3, 2),
        ("done", 3, 3),
        ("start", 4, 3),
        ("skipped", 4, 4),
        ("end", None, 4),
    ]
    assert {event.total for event in sweep.events} == {4}
    assert sweep.events[-4].message == "test accuracy 91.00%"
