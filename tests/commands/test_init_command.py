"""`ftkit init`: folders of configs that run as they are."""

from pathlib import Path
from typing import Any

import pytest

import ftkit
from ftkit.ablation.folder import AblationFolder
from ftkit.cli import main
from ftkit.config_files import read_config
from ftkit.errors import ExitCode
from ftkit.lightning_cli import FtkitCLI
from ftkit.report.ablation_report import read_results

SHIPPED = Path(ftkit.__file__).parent / "configs"
STARTS = sorted(path.name for path in (SHIPPED / "init").iterdir())
SMALL = "trainer: {limit_train_batches: 2, limit_val_batches: 1, max_epochs: 1}\n"


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {key: merged(below[key], value) for key, value in above.items() if isinstance(below.get(key), dict)}
    return {**below, **above, **both}


def test_every_start_is_written_with_the_command_that_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FtkitCLI, "instantiate_classes", lambda self: None)
    assert STARTS == ["ch06", "classifier", "moderation", "sft", "vlm"]
    for start in STARTS:
        folder = Path(f"my {start}")
        assert main(["init", str(folder), "--from", start]) == 0
        rows = AblationFolder.load(folder).rows
        written = f"wrote {folder}: base.yaml and {len(rows)} rows\nnext: ftkit ablation run 'my {start}'\n"
        assert capsys.readouterr().out == written
        assert (folder / "base.yaml").read_text().startswith("# ")
        assert all(row.question for row in rows)
        for row in rows:
            config = FtkitCLI(["--config", str(folder / "base.yaml"), "--config", str(row.path)], run=False).config
            named = {config.data.init_args.get(split) for split in ("train", "val", "test")} - {None}
            assert all(Path(file).parent == folder for file in named)
            assert all(Path(file).is_file() for file in named)
        assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_the_start_of_the_published_table_is_its_demo() -> None:
    configs = [read_config(SHIPPED / name) for name in ("ch06/base.yaml", "ch06/demo.yaml", "init/ch06/base.yaml")]
    assert merged(configs[0], configs[1]) == configs[2]


def test_all_configs_of_the_documentation_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ablation", "run", "configs/ch06"]) == main(["doctor", "configs/ch06/base.yaml"]) == ExitCode.INPUT
    assert capsys.readouterr().err.count("fix: `ftkit init configs --from configs` writes this folder\n") == 2
    assert main(["init", "configs", "--from", "configs"]) == 0
    overlay = "--overlay configs/ch06/demo.yaml"
    assert capsys.readouterr().out == f"wrote configs\nnext: ftkit ablation run configs/ch06 {overlay} --rows 1-3\n"
    repository = SHIPPED.resolve()
    files = {path.relative_to(repository) for path in repository.rglob("*") if path.is_file()}
    written = {path.relative_to("configs") for path in Path("configs").rglob("*") if path.is_file()}
    assert written == {path for path in files if path.parts[0] != "init"}


def test_a_folder_with_a_quote_in_its_name_can_be_read_back(tmp_path: Path) -> None:
    folder = tmp_path / 'the "first" one'
    folder.mkdir()  # an empty one is as good as none
    assert main(["init", str(folder)]) == 0
    assert read_config(folder / "base.yaml")["data"]["init_args"]["train"] == f"{folder}/messages.csv"


def test_what_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "mine").touch()
    file.touch()
    for taken in (full, file):
        assert main(["init", str(taken)]) == ExitCode.INPUT
        assert f"error: {taken}: folder: is not an empty folder; fix: name a new one" in capsys.readouterr().err
    assert [path.name for path in full.iterdir()] == ["mine"]
    assert main(["init", str(tmp_path / "new"), "--from", "chapter6"]) == ExitCode.INPUT
    assert "from: no such template (got 'chapter6'); fix: use one of ch06, classifier, " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert main(["init", str(file / "below")]) == ExitCode.ENVIRONMENT


@pytest.mark.parametrize("start", [pytest.param(name, marks=pytest.mark.slow) for name in STARTS])
def test_a_row_of_every_start_runs(start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of each: what a whole demo finds is not asked here."""
    if start in ("vlm", "moderation"):
        pytest.importorskip("PIL")
        pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    assert main(["init", "demo", "--from", start]) == 0
    assert main(["ablation", "run", "demo", "--rows", "1", "--overlay", "small.yaml"]) == 0
    assert len(list(tmp_path.glob("runs/demo/01_*/seed-123/predictions-test.tsv"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("start", ["moderation", "vlm"])
def test_every_row_over_drawn_images_learns_its_task(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    assert main(["init", "demo", "--from", start]) == 0
    assert main(["ablation", "run", "demo"]) == 0
    for row in read_results("runs/demo").analysis.rows:
        assert row.status == "done"
        assert row.interval is not None
        assert row.interval[0] > 2 / 3  # the most frequent answer is right less often
