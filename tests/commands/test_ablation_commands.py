import io
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from fake_engine import FakeEngine, make_folder
from ftkit.ablation.folder import AblationFolder, Row, Run
from ftkit.ablation.progress import Event
from ftkit.ablation.sweep import read_sweep
from ftkit.ablation_runs import Ablation
from ftkit.commands.ablation import ablation_run, ablation_table
from ftkit.errors import EnvironmentFault, InputError, TrainingFailed
from ftkit.report.sweep_progress import SweepProgress

CH06 = Path(__file__).parents[2] / "configs" / "ch06"
ROWS = {"01_base": {}, "02_odd": {"do": "raise"}, "03_xl": {"do": "unavailable"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "study", ROWS)


def shown(terminal: bool = False) -> SweepProgress:
    return SweepProgress(Console(file=io.StringIO(), force_terminal=terminal, width=100))


def test_failed_rows_are_named_with_their_reasons(folder: Path, tmp_path: Path) -> None:
    message = r"1 of 3 runs failed; error.txt .* says where:\n  02_odd \(seed 123\): ValueError: the loss went away$"
    with pytest.raises(TrainingFailed, match=message) as caught:
        Ablation(folder, out=tmp_path / "out").run(engine=FakeEngine(), progress=shown())
    assert caught.value.exit_code == 4
    assert " 95.00 " in ablation_table(tmp_path / "out")


def test_a_skipped_row_is_no_failure_unless_it_is_all_there_is(folder: Path, tmp_path: Path) -> None:
    summary = Ablation(folder, rows="1,3", out=tmp_path / "out").run(engine=FakeEngine(), progress=shown())
    assert len(summary.skipped) == 1
    message = r"nothing could be run of 1 run:\n  03_xl .*gpt2-xl is not on this machine"
    with pytest.raises(EnvironmentFault, match=message) as caught:
        Ablation(folder, rows="3", out=tmp_path / "out").run(engine=FakeEngine(), progress=shown())
    assert caught.value.exit_code == 3


def test_overlays_seeds_and_the_default_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = tmp_path / "small.yaml"
    overlay.write_text("size: tiny\n")
    monkeypatch.chdir(tmp_path)
    engine = FakeEngine()
    Ablation(folder, [overlay], "1").run([123, 7], engine=engine, progress=shown())
    assert engine.ran == [("01_base", 123), ("01_base", 7)]
    assert "size: tiny" in (tmp_path / "runs/study/01_base/seed-7/config.yaml").read_text()


def test_without_seeds_the_seed_of_the_base_is_run_and_recorded(folder: Path, tmp_path: Path) -> None:
    base, engine, out = folder / "base.yaml", FakeEngine(), tmp_path / "out"
    base.write_text("seed_everything: 7\n" + base.read_text())
    Ablation(folder, rows="1", out=out).run(engine=engine, progress=shown())
    assert engine.ran == [("01_base", 7)]
    assert [(cell.seed, cell.identity["seed"]) for row in read_sweep(out).rows for cell in row.runs] == [(7, 7)]
    Ablation(folder, rows="1", out=out).run([7], engine=engine, progress=shown())
    assert engine.ran == [("01_base", 7)]  # the same run
    Ablation(folder, rows="1", out=out).run([8], engine=engine, progress=shown())
    assert engine.ran[1:] == [("01_base", 8)]  # the command line wins


@pytest.mark.parametrize("seeds", ["", "123,", "-1", "1.5", "4294967296", "²"])
def test_what_is_no_seed_is_refused(folder: Path, tmp_path: Path, seeds: str) -> None:
    with pytest.raises(InputError, match="seeds: not a seed"):
        ablation_run(folder, seeds=seeds, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_of_another_ablation_is_refused_and_left_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Ablation(folder, rows="1", out=out).run(engine=FakeEngine(), progress=shown())
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    other = make_folder(tmp_path / "other", {"01_base": {}})
    with pytest.raises(InputError, match=r"out: out: holds the runs of another ablation, study \(got 'other'\); fix: "):
        Ablation(other, out=out).run(engine=FakeEngine(), progress=shown())
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    for row in (folder / "rows").iterdir():
        row.unlink()
    (folder / "rows/04_new.yaml").write_text("# Another question?\nmodel: {pooling: first}\n")
    assert len(Ablation(folder, out=out).run([7], engine=FakeEngine(), progress=shown()).done) == 1  # the same one


def test_a_missing_overlay_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.yaml: there is no such file"):
        Ablation(folder, [tmp_path / "gone.yaml"])


def test_without_a_terminal_progress_is_plain_lines(folder: Path, tmp_path: Path) -> None:
    progress = shown()
    with pytest.raises(TrainingFailed):
        Ablation(folder, out=tmp_path / "out").run(engine=FakeEngine(), progress=progress)
    assert isinstance(progress.console.file, io.StringIO)
    lines = progress.console.file.getvalue().split("\n")
    assert lines[0] == "start    [0/3] 01_base (seed 123)"
    assert lines[1].startswith("done     [1/3] 01_base (seed 123): test accuracy 95.00% in 0.0 s")
    assert lines[3] == "failed   [2/3] 02_odd (seed 123): ValueError: the loss went away"
    assert lines[5] == "skipped  [3/3] 03_xl (seed 123): gpt2-xl is not on this machine"
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("seconds", "said"), [(10, "about 30 s left"), (100, "about 5 min left"), (4000, "about 3.3 h left")]
)
def test_the_time_left_is_that_of_the_runs_made_so_far(
    seconds: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, clock, row = shown(), [1000.0], Run(Row(1, "base", Path("base"), ""), 123)
    monkeypatch.setattr("ftkit.report.sweep_progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
    progress(Event("plan", total=6))
    progress(Event("reused", run=row, index=1, total=6))  # which took no time
    progress(Event("start", run=row, index=1, total=6))
    clock[0] += seconds
    progress(Event("skipped", "no data", row, index=2, total=6))
    progress(Event("done", run=row, index=3, total=6, seconds=5.0))
    assert isinstance(progress.console.file, io.StringIO)
    assert progress.console.file.getvalue().endswith(f" in 5.0 s, {said}\n")
    progress(Event("done", run=row, index=6, total=6, seconds=5.0))
    assert progress.console.file.getvalue().endswith(" in 5.0 s\n")  # nothing is left


def test_a_sweep_ends_with_its_table_also_when_a_row_failed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ftkit.lightning_engine.LightningEngine", lambda on_step: FakeEngine())
    out = tmp_path / "out"
    with pytest.raises(TrainingFailed):
        ablation_run(folder, out=out)
    said = f"{ablation_table(out)}\nresults: {out}\nnext: ftkit ablation report {out}\n"
    assert capsys.readouterr().out == said
    assert " 95.00 " in said


def test_on_a_terminal_there_is_a_bar_for_the_sweep_and_one_for_the_row(folder: Path, tmp_path: Path) -> None:
    progress = shown(terminal=True)

    class Stepping(FakeEngine):
        def run(self, *args) -> None:
            progress.step(40, 650)
            late = time.monotonic() + 60
            while "40/650" not in progress.console.file.getvalue() and time.monotonic() < late:
                time.sleep(0.01)  # the bars are drawn ten times a second
            super().run(*args)

    assert isinstance(progress.console.file, io.StringIO)
    Ablation(folder, rows="1", out=tmp_path / "out").run(engine=Stepping(), progress=progress)
    text = progress.console.file.getvalue()
    assert "40/650" in text
    assert "0/1" in text


def test_every_row_of_ch06_is_a_few_lines_with_a_question_and_a_published_figure() -> None:
    ablation = AblationFolder.load(CH06)
    assert [row.number for row in ablation.select("1-19")] == list(range(1, 20))
    assert set(ablation.published.rows) == set(range(1, 20))
    assert ablation.published.data_sha256 is not None
    for row in ablation.rows:
        assert row.question.endswith((".", "?"))
        assert 3 <= len(row.path.read_text().strip().split("\n")) - 1 <= 6
    impossible = {149 - wrong for wrong in range(150)}
    for number, figures in ablation.published.rows.items():
        possible = any(abs(100 * right / 149 - figures.val) < 0.006 for right in impossible)
        assert possible == (number != 8)
        assert any(abs(100 * right / 300 - figures.test) < 0.006 for right in range(301))


@pytest.mark.parametrize("overlay", ["demo.yaml", "gpu.yaml"])
def test_no_overlay_of_ch06_touches_what_a_row_is_about(overlay: str) -> None:
    laid = yaml.safe_load((CH06 / overlay).read_text())
    rows = [yaml.safe_load(row.path.read_text()) for row in AblationFolder.load(CH06).rows]
    for part in ("model", "data"):
        about = {key for row in rows for key in row.get(part, {}).get("init_args", {})}
        assert about.isdisjoint(laid.get(part, {}).get("init_args", {}))
