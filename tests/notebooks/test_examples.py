"""The notebooks and scripts of examples/ run in a copy of the folder, ftkit's own warnings being errors."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if path.stem != "tiny_vlm")
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
STRICT = "import warnings\nwarnings.filterwarnings('error', module=r'ftkit(\\.|$)')"
PRINTED = {
    "classify_csv": "It is lovely {'label': 'good'",
    "compare_files": "they disagree on",
    "new_variant": "three_blocks",
    "own_metric": "mean cost of an answer: ",
    "read_results": "is wrong on",
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of examples/ beside the configs, as in a checkout."""
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    ignored = shutil.ignore_patterns("runs", ".ipynb_checkpoints", "__pycache__")
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=ignored)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path / "examples")
    return tmp_path / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs(
    script: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if script.stem == "read_results":
        import ftkit

        ftkit.Ablation("../configs/ch06", ["../configs/ch06/demo.yaml"], "1-2", "runs/demo").run([123])
    monkeypatch.setattr(sys, "argv", [script.name])
    runpy.run_path(script.name, run_name="__main__")
    assert PRINTED[script.stem] in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, workplace: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient, nbformat and ipykernel are not installed")
    client = pytest.importorskip("nbclient", reason="nbclient, nbformat and ipykernel are not installed")
    pytest.importorskip("ipykernel", reason="nbclient, nbformat and ipykernel are not installed")
    book = nbformat.read(workplace / notebook.name, as_version=4)
    book.cells.insert(0, nbformat.v4.new_code_cell(STRICT))
    client.NotebookClient(
        book, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(workplace)}}
    ).execute()
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any(output.output_type in ("execute_result", "display_data") for output in shown)


def test_each_script_is_short_and_checked() -> None:
    assert {path.stem for path in SCRIPTS} == set(PRINTED)
    for script in SCRIPTS:
        assert 15 <= len(script.read_text(encoding="utf-8").splitlines()) <= 45, script


def test_notebooks_have_no_outputs_and_name_no_folder_of_a_machine() -> None:
    assert len(NOTEBOOKS) == 7
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), notebook
        assert not re.search(r"/(home|tmp|work|Users)/", notebook.read_text(encoding="utf-8")), notebook
        assert cells[0]["source"][0].startswith("# "), notebook
